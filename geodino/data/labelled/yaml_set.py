"""One's own labelled data: a folder of images with a ``dataset.yaml`` that says what they are."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from math import isfinite
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool

from geodino.data.labelled.common import (
    check_dtype,
    class_map,
    cut,
    digest,
    number_map,
    outline_of,
    read_file,
)
from geodino.data.labelled.parts import PART_OF_FOLDER
from geodino.data.labelled.sets import (
    PARTS,
    BandStatistics,
    Image,
    Label,
    PartName,
    SetFacts,
)
from geodino.data.labelled.yaml_config import FILE, METRICS, LabelledConfig, read_config
from geodino.errors import SourceError, suggest
from geodino.geo.bands import Band, common_name
from geodino.geo.validity import ReadRule, differs
from geodino.geo.windows import Window
from geodino.io.raster import describe

if TYPE_CHECKING:
    import pandas as pd

HASHED = "Split 70/10/20 by a hash of the keys; neighbours may lie in different parts."
"""What is said of :func:`hashed_part`."""

PLACE = ("west", "south", "east", "north")
"""Columns that say where an image lies, degrees."""

_SHARES = ((0.7, "train"), (0.8, "val"), (1.0, "test"))


@dataclass(frozen=True, kw_only=True, slots=True)
class Item:
    """An image and what is said of it."""

    path: Path
    label: str
    """A class by name or number, several with ``;`` between; a number; or the path of a map."""

    part: PartName
    traits: Mapping[str, str]
    """What scores may be grouped by."""

    outline: tuple[float, float, float, float] | None
    """West, south, east, north in degrees; None where the file itself may say it."""


def open_yaml(folder: Path | str) -> "YamlSet":
    """Open a folder by its ``dataset.yaml``, or that file itself.

    Raises:
        SourceError: the file, the table or an image is missing, a key is wrong, a label is none of
            the classes, no image is for training or none for testing.
    """
    path = Path(folder)
    path = path / FILE if path.is_dir() else path
    return YamlSet(path, read_config(path))


class YamlSet:
    """A folder described by its owner (see :class:`geodino.data.labelled.sets.LabelledSet`).

    Args:
        file: what describes it.
        config: how.
        root: where its files lie; None is beside ``file``.
        items: images by key; None are those that ``config`` names.
    """

    def __init__(
        self,
        file: Path,
        config: LabelledConfig,
        *,
        root: Path | None = None,
        items: Mapping[str, Item] | None = None,
    ) -> None:
        self.root = root or file.parent
        self._file, self._config = file, config
        if items is None:
            rows = _table_rows(file, config) if config.table else _pattern_rows(self.root, config)
            items = _once(rows, file)
        self._items = items
        keys = {p: tuple(k for k, i in self._items.items() if i.part == p) for p in PARTS}
        self.parts: Mapping[PartName, tuple[str, ...]] = {p: k for p, k in keys.items() if k}
        for part in ("train", "test"):
            if part not in self.parts:
                raise SourceError(
                    f"{file} finds {len(self._items)} images, none of them for {part}. Mend the "
                    f"{'table' if config.table else 'pattern'}."
                )
        self._rule = ReadRule(nodata="tag" if config.nodata is None else config.nodata)
        bands = config.bands or self._described()
        given = config.statistics
        if given is not None and {len(row) for row in given.rows} != {len(bands)}:
            raise SourceError(
                f"{file}: statistics need a number for each of the {len(bands)} bands in low, high, mean "
                "and std."
            )
        self.facts = SetFacts(
            name=config.name or self.root.resolve().name,
            kind=config.kind,
            classes=config.classes,
            bands=bands,
            dtype=describe(self._first).dtype,
            metric=config.metric or METRICS[config.kind][0],
            gsd_m=config.gsd_m,
            unit=config.unit,
            statistics=None
            if given is None
            else BandStatistics(low=given.low, high=given.high, mean=given.mean, std=given.std),
            background=config.background,
            notes=tuple(self._notes()),
            source=config.source or str(file),
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of images, labels and description (see ``common.digest``), and of the parts."""
        files = {self._file, *(item.path for item in self._items.values())}
        files |= {self.root / item.label for item in self._items.values() if self._is_map(item)}
        if self._config.table:
            files.add(self.root / self._config.table)
        return digest(files, self.parts, root=self.root)

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image; its pixels are not read."""
        grid = describe(self._items[key].path).grid
        return grid.height, grid.width

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image, or a window of it."""
        path = self._items[key].path
        pixels, valid = read_file(path, window, self._rule)
        if len(pixels) != len(self.facts.bands):
            raise SourceError(
                f"{path} has {len(pixels)} bands, but {self._file} has {len(self.facts.bands)}. "
                "Declare the bands, or leave the image out."
            )
        check_dtype(path, pixels, self.facts.dtype)
        return pixels, valid

    def label(self, key: str, window: Window | None = None) -> Label:
        """Read a label: from the table or the file's name, or a window of its map."""
        item = self._items[key]
        if self._config.kind == "multilabel":
            return self._present(item)
        if self._config.kind == "classification":
            return self._class(item.label, item)
        if not self._is_map(item):
            number = float(item.label)
            if not isfinite(number):
                raise SourceError(
                    f"{item.path} has the label {item.label!r}: an image needs a number. Leave it out."
                )
            return number
        path = self.root / item.label
        values, valid = read_file(path, None, ReadRule())
        if values.shape[1:] != self.size(key):
            raise SourceError(
                f"{path} has {values.shape[1]} x {values.shape[2]} pixels, but its image {item.path} "
                f"has {' x '.join(map(str, self.size(key)))}. Put both on one grid."
            )
        if len(values) > 1:
            raise SourceError(
                f"{path} has {len(values)} bands, and a map of labels has one: write the numbers of the "
                "classes, not their colours."
            )
        values, valid = cut(values, window), cut(valid, window)
        if self._config.kind == "regression":
            known = valid[0] & differs(values[0], self._config.label_nodata)
            return number_map(values[0], valid=known)
        # A tag of 0 hides a class as easily as missing pixels: only declared values are ignored.
        return class_map(
            values[0], classes=len(self.facts.classes), source=str(path), ignore=self._config.ignore
        )

    def traits(self, key: str) -> Mapping[str, str]:
        """Return the other columns of the table, or groups of the pattern."""
        return self._items[key].traits

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north in degrees: of the table, else of the file."""
        item = self._items[key]
        return item.outline or outline_of(item.path)

    @property
    def _first(self) -> Path:
        return self._items[self.parts["train"][0]].path

    def _described(self) -> tuple[Band, ...]:
        info = describe(self._first)
        names = [info.descriptions[i] or info.colors[i] for i in range(info.count)]
        if len(set(names)) < info.count:
            names = [f"band_{i + 1}" for i in range(info.count)]
        return tuple(Band(name=name, common_name=common_name(name)) for name in names)

    def _is_map(self, item: Item) -> bool:
        if self._config.kind == "segmentation":
            return True
        return self._config.kind == "regression" and not _is_number(item.label)

    def _class(self, text: str, item: Item) -> int:
        classes = self._config.classes
        if text in classes:
            return classes.index(text)
        if text.isdigit() and int(text) < len(classes):
            return int(text)
        raise SourceError(
            f"{item.path} has the label {text!r}, which is none of the classes of {self._file}."
            f"{suggest(text, classes)} They are: {', '.join(classes)}."
        )

    def _present(self, item: Item) -> Bool[np.ndarray, " k"]:
        present: Bool[np.ndarray, " k"] = np.zeros(len(self._config.classes), dtype=bool)
        for text in filter(None, (part.strip() for part in item.label.split(";"))):
            present[self._class(text, item)] = True
        return present

    def _notes(self) -> Iterator[str]:
        if self._config.images and "split" not in re.compile(self._config.images).groupindex:
            yield HASHED


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _table_rows(file: Path, config: LabelledConfig) -> Iterator[tuple[str, Item]]:
    path = file.parent / str(config.table)
    if not path.is_file():
        raise SourceError(f"{path}, which {file} names as its table, does not exist.")
    frame = _frame(path)
    for column in ("path", "label", "split"):
        if column not in frame.columns:
            raise SourceError(
                f"{path} has no column {column!r}; it has {', '.join(map(str, frame.columns))}. A row "
                "names path, label and split of an image, with commas between."
            )
    others = [c for c in frame.columns if c not in ("path", "label", "split", *PLACE)]
    for row in frame.to_dict("records"):
        label = row["label"]
        several = isinstance(label, (list, tuple, np.ndarray))
        try:
            outline = place_of(row)
        except ValueError as error:
            raise SourceError(
                f"{path}: {row['path']} has a place that cannot be ({error}): mend {', '.join(PLACE)}, or "
                "leave them empty."
            ) from error
        yield (
            PurePath(str(row["path"]).strip()).as_posix(),
            Item(
                path=_existing(file.parent / str(row["path"]).strip(), path),
                label=";".join(map(str, label)) if several else str(label).strip(),
                part=_part(str(row["split"]), path),
                traits={str(c): str(row[c]) for c in others},
                outline=outline,
            ),
        )


def _frame(path: Path) -> "pd.DataFrame":
    import pandas as pd
    import pyarrow as pa

    try:
        if path.suffix.lower() == ".parquet":
            return pd.read_parquet(path)
        return pd.read_csv(path, dtype=str, keep_default_na=False)
    # pandas' own errors and those of decoding are ValueErrors.
    except (OSError, ValueError, pa.ArrowException) as error:
        said = " ".join(str(error).split())
        raise SourceError(
            f"{path} cannot be read as a table of labels ({said}). Mend it."
        ) from error


def _pattern_rows(root: Path, config: LabelledConfig) -> Iterator[tuple[str, Item]]:
    pattern = re.compile(str(config.images))
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        name = path.relative_to(root).as_posix()
        found = pattern.fullmatch(name)
        if found is None:
            continue
        groups = {k: v or "" for k, v in found.groupdict().items()}
        label = groups.get("label", "")
        if config.labels is not None:
            label = _filled(config.labels, groups, config)
            _existing(root / label, path)
        part = _part(groups["split"], path) if "split" in groups else hashed_part(groups["key"])
        rest = {k: v for k, v in groups.items() if k not in ("key", "split", "label")}
        yield name, Item(path=path, label=label, part=part, traits=rest, outline=None)


def _once(rows: Iterable[tuple[str, Item]], file: Path) -> dict[str, Item]:
    """Images by key, each of which may come once: another row would move it to another part."""
    items: dict[str, Item] = {}
    for key, item in rows:
        if key in items:
            raise SourceError(f"{file} names the image {key} more than once. Leave one row of it.")
        items[key] = item
    return items


def _filled(labels: str, groups: Mapping[str, str], config: LabelledConfig) -> str:
    try:
        return labels.format(**groups)
    except (KeyError, IndexError, ValueError, AttributeError):
        raise SourceError(
            f"labels: {labels!r} cannot be filled in: name groups of images ({config.images}) in braces, "
            f"such as {{key}}; there are {', '.join(groups)}."
        ) from None


def _existing(path: Path, named_by: Path) -> Path:
    if not path.is_file():
        raise SourceError(f"{path} does not exist, though {named_by} asks for it. Add it.")
    return path


def _part(word: str, where: Path) -> PartName:
    if word.strip().lower() not in PART_OF_FOLDER:
        raise SourceError(
            f"{where}: {word!r} is no split.{suggest(word, PART_OF_FOLDER)} There are train, val and test."
        )
    return PART_OF_FOLDER[word.strip().lower()]


def hashed_part(key: str) -> PartName:
    """Return a part by a hash: of 100 keys about 70 are for training, 10 for validation, 20 for tests."""
    number = int.from_bytes(blake2b(key.encode(), digest_size=8).digest(), "big") / 2**64
    return PART_OF_FOLDER[next(name for share, name in _SHARES if number < share)]


def place_of(row: Mapping[Any, Any]) -> tuple[float, float, float, float] | None:
    """Return the columns west, south, east, north of a row; None where one is empty or missing.

    Raises:
        ValueError: one is no number of degrees, or south lies north of north.
    """
    if any(row.get(name) in (None, "") for name in PLACE):
        return None
    west, south, east, north = (float(row[name]) for name in PLACE)
    if not -90 <= south <= north <= 90 or not (isfinite(west) and isfinite(east)):
        raise ValueError(f"south {south:g} to north {north:g}, west {west:g} to east {east:g}")
    return west, south, east, north
