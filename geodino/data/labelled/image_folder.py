"""An image folder as a labelled set: one folder per class, a fixed split."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

from geodino.data.config import DataConfig
from geodino.data.evidence import decide
from geodino.data.labelled.common import check_dtype, digest, outline_of, read_file
from geodino.data.labelled.sets import Image, PartName, SetFacts
from geodino.data.naming import channels_of
from geodino.errors import SourceError
from geodino.files import sha256
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.raster import describe

IMAGE_SUFFIXES = frozenset({".tif", ".tiff", ".jpg", ".jpeg", ".png", ".jp2", ".webp", ".bmp"})
"""File names that are read as images, in any case."""

_VALIDATION_NAMES = ("val", "valid", "validation")


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """Images and their classes, in a fixed order."""

    paths: tuple[Path, ...]
    """Image files, sorted by class and then by name."""

    labels: tuple[int, ...]
    """Index into ``FolderSuite.classes``, one per image."""

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, kw_only=True)
class FolderSuite:
    """A labelled image folder, split once and for all: a ``LabelledSet`` of relative names."""

    root: Path
    """The folder as it was given."""

    classes: tuple[str, ...]
    """Names of the class folders, sorted."""

    train: Split
    """What the probes are fitted on."""

    val: Split | None
    """What hyper-parameters are chosen on, where the folder has such a part."""

    test: Split
    """What the scores are computed on; nothing is ever chosen on it."""

    split: str
    """One sentence that says where the split comes from."""

    ignored: int
    """Files that are no images by their suffix (readme files, sidecars)."""

    @cached_property
    def parts(self) -> Mapping[PartName, tuple[str, ...]]:
        """Keys of each part."""
        given: tuple[tuple[PartName, Split | None], ...] = (
            ("train", self.train), ("val", self.val), ("test", self.test),
        )  # fmt: skip
        return {name: tuple(self._key(path) for path in part.paths) for name, part in given if part}

    @cached_property
    def facts(self) -> SetFacts:
        """Classes, and bands and type of the first image."""
        info = describe(self.train.paths[0])
        notes = [f"Split {self.split}."]
        if self.ignored:
            notes.append(f"{self.ignored} files are no images by their endings.")
        return SetFacts(
            name=self.root.resolve().name,
            kind="classification",
            classes=self.classes,
            bands=tuple(c.band for c in channels_of(info, self.rule, DataConfig())),
            dtype=info.dtype,
            metric="accuracy",
            notes=(*notes, *self.rule.reasons),
            source=str(self.root),
        )

    @cached_property
    def rule(self) -> ReadRule:
        """What of the files' tags is believed, decided once from the pixels of all images.

        Raises:
            SourceError: an image that cannot be read, or was cut off in transfer.
        """
        parts = [part.paths for part in (self.train, self.val, self.test) if part]
        infos = [describe(path) for paths in parts for path in paths]
        rule, bad = decide(infos, DataConfig(), threads=2)
        if bad:
            path, reason = bad[0]
            raise SourceError(f"{path} cannot be read: {reason}. Copy it again, or remove it.")
        return rule

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the images (see ``common.digest``) and of which image is in which part."""
        files = [self.root / key for keys in self.parts.values() for key in keys]
        return digest(files, self.parts, root=self.root)

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image; its pixels are not read."""
        grid = describe(self.root / key).grid
        return grid.height, grid.width

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image, or a window of it."""
        path = self.root / key
        pixels, valid = read_file(path, window, self.rule)
        check_dtype(path, pixels, self.facts.dtype)
        return pixels, valid

    def label(self, key: str, window: Window | None = None) -> int:
        """Return the number of an image's class."""
        return self._labels[key]

    def traits(self, key: str) -> Mapping[str, str]:
        """A folder of classes tells nothing else of its images."""
        return {}

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north in degrees, where the file has a place."""
        return outline_of(self.root / key)

    @cached_property
    def _labels(self) -> Mapping[str, int]:
        return {
            self._key(path): label
            for part in (self.train, self.val, self.test)
            if part
            for path, label in zip(part.paths, part.labels, strict=True)
        }

    def _key(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()


def find_suite(folder: Path | str, *, test_share: float = 0.3) -> FolderSuite:
    """Find the classes and the split of an image folder.

    ``folder/train/<class>/*`` with ``folder/test/<class>/*`` (and, or instead of it,
    ``folder/val/<class>/*``) is taken as it is; without a test part the validation part is the
    test part. ``folder/<class>/*`` is split per class: images are ordered by a hash of their name
    relative to ``folder``, and the first ``test_share`` of each class are for testing. The split
    depends on nothing else: not on the machine, the seed or the order of the directory.

    Args:
        folder: the image folder.
        test_share: share of each class that is tested on where the folder has no split.

    Raises:
        SourceError: no such folder, no or only one class, a class without images, a class in the
            test part that the train part lacks.
    """
    root = Path(folder)
    if not root.is_dir():
        raise SourceError(
            f"{root} is not a folder. A suite is a folder with one sub-folder of images per class."
        )
    if not 0.0 < test_share < 1.0:
        raise SourceError(f"test_share must lie between 0 and 1 (found {test_share}).")
    parts = _parts(root)
    if parts is None:
        return _split_by_hash(root, test_share)
    return _split_as_given(root, parts)


def duplicates_across(train: Split, test: Split) -> list[tuple[Path, Path]]:
    """Return (train image, test image) pairs of files with the same content.

    A test image that is also trained on measures memory, not features.
    """
    by_size: dict[int, list[Path]] = {}
    for path in train.paths:
        by_size.setdefault(path.stat().st_size, []).append(path)
    pairs = []
    digests: dict[Path, str] = {}
    for path in test.paths:
        for twin in by_size.get(path.stat().st_size, ()):
            for file in (path, twin):
                if file not in digests:
                    digests[file] = sha256(file)
            if digests[path] == digests[twin]:
                pairs.append((twin, path))
                break
    return pairs


def _parts(root: Path) -> dict[str, Path] | None:
    """The folders of a given split, or None where the class folders lie in the root itself."""
    train = root / "train"
    # A class may be called "train"; then images, not class folders, lie in it.
    if not train.is_dir() or not _subfolders(train):
        return None
    val = next((root / name for name in _VALIDATION_NAMES if (root / name).is_dir()), None)
    test = root / "test"
    if not test.is_dir() and val is None:
        raise SourceError(
            f"{root} has train/ with class folders but neither test/ nor val/ beside it. Add one, "
            f"or give {train} itself to have it split."
        )
    parts = {"train": train}
    if test.is_dir():
        parts["test"] = test
        if val is not None:
            parts["val"] = val
    elif val is not None:
        parts["test"] = val
    return parts


def _split_as_given(root: Path, parts: dict[str, Path]) -> FolderSuite:
    found = {name: _images_per_class(folder) for name, folder in parts.items()}
    classes = _class_names(parts["train"], found["train"][0])
    for name, (images, _) in found.items():
        extra = sorted(set(images) - set(classes))
        if extra:
            raise SourceError(
                f"{parts[name]} has the class {extra[0]!r}, which {parts['train']} lacks: it "
                f"cannot be learnt. Add images of it to the train part or remove that folder."
            )
    splits = {name: _split(images, classes) for name, (images, _) in found.items()}
    names = ", ".join(f"{folder.name}/" for folder in parts.values())
    return FolderSuite(
        root=root,
        classes=classes,
        train=splits["train"],
        val=splits.get("val"),
        test=splits["test"],
        split=f"as given by the folders {names} (tested on {parts['test'].name}/)",
        ignored=sum(ignored for _, ignored in found.values()),
    )


def _split_by_hash(root: Path, test_share: float) -> FolderSuite:
    images, ignored = _images_per_class(root)
    classes = _class_names(root, images)
    train: dict[str, list[Path]] = {}
    test: dict[str, list[Path]] = {}
    for name in classes:
        paths = sorted(images[name], key=lambda path: _hash(path.relative_to(root)))
        if len(paths) < 2:
            raise SourceError(
                f"{root / name} has one image; a class needs at least 2, one to fit on and one to "
                f"test on. Add images or remove the folder."
            )
        count = min(max(round(test_share * len(paths)), 1), len(paths) - 1)
        test[name], train[name] = sorted(paths[:count]), sorted(paths[count:])
    return FolderSuite(
        root=root,
        classes=classes,
        train=_split(train, classes),
        val=None,
        test=_split(test, classes),
        split=f"{test_share:.0%} of each class for testing, by a hash of the file names",
        ignored=ignored,
    )


def _images_per_class(folder: Path) -> tuple[dict[str, list[Path]], int]:
    """Images below each class folder (at any depth), and how many other files lie there.

    Raises:
        SourceError: an image outside the class folders, or a class folder without one.
    """
    loose = [p for p in sorted(folder.iterdir()) if p.is_file() and not p.name.startswith(".")]
    if stray := [p for p in loose if p.suffix.lower() in IMAGE_SUFFIXES]:
        raise SourceError(
            f"{stray[0]} lies in no class folder{'' if len(stray) == 1 else f', like {len(stray) - 1} more'}"
            ": every image belongs to the class of its folder. Move it into one, or out of the set."
        )
    images: dict[str, list[Path]] = {}
    ignored = 0
    for sub in _subfolders(folder):
        files = [p for p in sorted(sub.rglob("*")) if p.is_file() and not p.name.startswith(".")]
        images[sub.name] = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
        ignored += len(files) - len(images[sub.name])
        if not images[sub.name]:
            raise SourceError(
                f"{sub} holds no image (looked for {', '.join(sorted(IMAGE_SUFFIXES))}). Every "
                f"folder is a class: add images to it or remove it."
            )
    return images, ignored


def _class_names(folder: Path, images: dict[str, list[Path]]) -> tuple[str, ...]:
    if not images:
        raise SourceError(
            f"{folder} has no class folders. A suite is a folder with one sub-folder of images "
            f"per class."
        )
    if len(images) == 1:
        raise SourceError(
            f"{folder} has one class only ({next(iter(images))!r}); there is nothing to tell it "
            f"from. A suite is a folder with one sub-folder of images per class."
        )
    return tuple(sorted(images))


def _split(images: dict[str, list[Path]], classes: Sequence[str]) -> Split:
    pairs = [(path, i) for i, name in enumerate(classes) for path in images.get(name, ())]
    return Split(paths=tuple(p for p, _ in pairs), labels=tuple(i for _, i in pairs))


def _subfolders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _hash(relative: Path) -> bytes:
    return blake2b(relative.as_posix().encode(), digest_size=16).digest()
