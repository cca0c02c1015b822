"""DOTA: objects of 15 to 18 classes in aerial photographs of any size, with turned boxes.

A text file for each photograph, a line for each object: four corners ``x1 y1 ... x4 y4``, the class,
and whether it is difficult; lines ``imagesource:`` and ``gsd:`` may stand before them. Detection here
is of upright boxes, those around the corners: so the second task of DOTA defines its labels (Xia et
al., arXiv 1711.10398, section 5).

Layouts: ``{train,val,test}/images/P0000.png`` with ``labelTxt*/P0000.txt`` (as published),
``annotations/version1.0/P0000.txt`` (torchgeo) or ``annfiles/P0000.txt`` (mmrotate) beside
``images``; the same without folders of parts; or a folder of images and one of text files.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geodino.data.labelled.boxes import (
    PICTURES,
    RGB,
    BoxCounts,
    BoxPicture,
    Other,
    PictureBoxes,
    checked,
    class_number,
)
from geodino.data.labelled.common import listed
from geodino.data.labelled.sets import PARTS, Boxes, PartName, SetFacts
from geodino.errors import SourceError
from geodino.io.raster import HandlePool, describe

CLASSES = (
    "plane", "ship", "storage-tank", "baseball-diamond", "tennis-court", "basketball-court",
    "ground-track-field", "harbor", "bridge", "large-vehicle", "small-vehicle", "helicopter",
    "roundabout", "soccer-ball-field", "swimming-pool",
)  # fmt: skip
"""Of version 1.0."""

LATER = ("container-crane", "airport", "helipad")
"""Classes that version 1.5 (the first) and 2.0 (all) add."""

_IMAGES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
_LABELS = ("labelTxt*/labelTxt", "labelTxt*", "labelTxt*/*", "annotations/version*", "annfiles")
_HEAD = re.compile(r"(acquisition dates|imagesource|gsd)\s*:", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class _Folders:
    images: Path
    labels: Path | None


@dataclass(frozen=True, slots=True)
class _Reader:
    classes: Sequence[str]
    other: Other
    counts: BoxCounts = field(default_factory=BoxCounts)

    def read(self, path: Path, *, size: tuple[int, int]) -> Boxes:
        rows, numbers, difficult = [], [], []
        for line in _lines(path):
            words = line.split()
            if len(words) not in (9, 10) or not all(map(_is_number, [*words[:8], *words[9:]])):
                raise SourceError(
                    f"{path}: {line!r} is no object of DOTA: expected eight numbers (four corners), "
                    "a class, and 0 or 1. Mend the line."
                )
            if self.other == "ignore" and words[8] not in self.classes:
                self.counts.other += 1
                continue
            across, down = [float(x) for x in words[0:8:2]], [float(y) for y in words[1:8:2]]
            rows.append([min(across), min(down), max(across), max(down)])
            numbers.append(class_number(words[8], self.classes, source=str(path)))
            difficult.append(len(words) == 10 and float(words[9]) != 0)
        return checked(rows, numbers, difficult, size=size, source=str(path), counts=self.counts)


def is_dota(root: Path) -> bool:
    """Whether a folder holds DOTA, in parts or as one."""
    return any(f.labels is not None for f in (*_parts(root).values(), _beside(root)) if f)


def has_dota_labels(folder: Path) -> bool:
    """Whether a folder holds text files whose first objects read as DOTA's."""
    first = next(iter(listed(folder, ".txt")), None)
    if first is None:
        return False
    lines = [line.split() for line in _lines(first)]
    return all(len(words) in (9, 10) and not _is_number(words[8]) for words in lines)


def open_dota(
    images: Path | str,
    labels: Path | str,
    *,
    pool: HandlePool,
    classes: Sequence[str] | None = None,
    other: Other = "refuse",
) -> PictureBoxes:
    """Open photographs with DOTA's labels; keys are ``train/P0000.png``.

    Without folders of parts all photographs are for training. A test part without labels keeps its
    photographs.

    Args:
        images: the folder of the set, or one of images.
        labels: the same, or a folder of text files.
        pool: where open files are kept.
        classes: names of the classes in order; None takes those of version 1.0, and of the later
            ones those that occur.
        other: what becomes of objects of other classes.

    Raises:
        SourceError: images or labels are missing or damaged.
    """
    root, given = Path(images), Path(labels)
    folders: dict[PartName, _Folders]
    if root.resolve() == given.resolve():
        whole = _beside(root)
        folders = _parts(root) or ({"train": whole} if whole else {})
    else:
        folders = {"train": _Folders(root, given)}
    rows = {part: tuple(_pairs(part, found)) for part, found in folders.items()}
    if not any(rows.values()):
        raise SourceError(
            f"{root} holds no photograph of DOTA: expected train/images/*.png with "
            "train/labelTxt/*.txt, or images and labelTxt side by side. Unpack its archives there."
        )
    if not rows.get("train"):
        raise SourceError(
            f"{root} holds photographs of {' and '.join(p for p in rows if rows[p])} and none to learn "
            "from: unpack train/images and train/labelTxt there."
        )
    read = [label for part in rows.values() for _, label in part if label is not None]
    names = tuple(classes) if classes is not None else _names(read)
    reader = _Reader(names, other)
    pictures: dict[str, BoxPicture] = {}
    for part, pairs in rows.items():
        for image, label in pairs:
            grid = describe(image).grid
            size = grid.height, grid.width
            boxes = None if label is None else reader.read(label, size=size)
            pictures[f"{part}/{image.name}"] = BoxPicture(path=image, size=size, boxes=boxes)
    bare = frozenset(part for part, pairs in rows.items() if any(b is None for _, b in pairs))
    notes = [*reader.counts.words(), "turned boxes became the upright boxes around them"]
    notes += [f"the {part} part has no labels here" for part in sorted(bare)]
    facts = SetFacts(
        name="DOTA", kind="detection", classes=names, bands=RGB, dtype="uint8", metric="map50",
        notes=tuple(notes),
        source="DOTA (arXiv 1711.10398), photographs for academic use only",
    )  # fmt: skip
    return PictureBoxes(
        facts=facts,
        parts={part: tuple(f"{part}/{i.name}" for i, _ in pairs) for part, pairs in rows.items()},
        pictures=pictures, label_files=tuple(read), rule=PICTURES, pool=pool, unlabelled=bare,
    )  # fmt: skip


def _parts(root: Path) -> dict[PartName, _Folders]:
    found = {part: _beside(root / part) for part in PARTS}
    return {part: folders for part, folders in found.items() if folders is not None}


def _beside(folder: Path) -> _Folders | None:
    """Return images and labels of a folder; of several versions the first."""
    images = folder / "images"
    if not images.is_dir():
        return None
    labels = [p for name in _LABELS for p in sorted(folder.glob(name)) if listed(p, ".txt")]
    return _Folders(images, labels[0] if labels else None)


def _pairs(part: PartName, folders: _Folders) -> Iterator[tuple[Path, Path | None]]:
    for image in listed(folders.images, *_IMAGES):
        label = folders.labels / f"{image.stem}.txt" if folders.labels is not None else None
        if label is None or not label.is_file():
            if part != "test" or folders.labels is not None:
                where = folders.labels or folders.images.parent / "labelTxt"
                raise SourceError(
                    f"{image} has no text file of its name in {where}: unpack the labels there; a "
                    "photograph without objects has an empty one."
                )
            label = None
        yield image, label


def _names(labels: Sequence[Path]) -> tuple[str, ...]:
    found = {
        words[8] for path in labels for words in map(str.split, _lines(path)) if len(words) > 8
    }
    return (*CLASSES, *(name for name in LATER if name in found))


def _lines(path: Path) -> list[str]:
    """Return the lines that stand for objects."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path} cannot be read as text ({error}): restore it.") from error
    lines = (line.strip() for line in text.splitlines())
    return [line for line in lines if line and not _HEAD.match(line)]


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True
