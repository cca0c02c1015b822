"""Classes of whole images in a table: a row for each image of a folder."""

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from geodino.data.labelled.common import digest
from geodino.data.labelled.image_folder import IMAGE_SUFFIXES
from geodino.data.labelled.parts import PART_OF_FOLDER
from geodino.data.labelled.sets import PARTS, PartName
from geodino.data.labelled.yaml_config import LabelledConfig
from geodino.data.labelled.yaml_set import HASHED, PLACE, Item, YamlSet, hashed_part, place_of
from geodino.errors import SourceError, suggest
from geodino.files import sha256

TABLES = (".csv", ".parquet")
"""Endings of tables."""

_IMAGE = ("image", "path")
_KNOWN = (*_IMAGE, "label", "split", "geometry", *PLACE)
_SHOWN = 12
"""Classes that a sentence names, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    where: str
    """The table and the row, for sentences."""

    cells: Mapping[str, Any]

    def text(self, column: str) -> str:
        """Return a cell as text; empty where there is nothing."""
        found = self.cells.get(column)
        return "" if found is None or found != found else str(found).strip()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of the image: several with ``;`` between, or a list."""
        found = self.cells["label"]
        listed = isinstance(found, list | tuple | np.ndarray)
        texts = [str(one) for one in found] if listed else self.text("label").split(";")
        return tuple(dict.fromkeys(text.strip() for text in texts if text.strip()))


class LabelTable(YamlSet):
    """Images of a folder with the classes that a table names.

    Args:
        images: the folder.
        table: the file.
        config: kind and classes.
        items: images by key.
        notes: decisions, as sentences.
    """

    def __init__(
        self,
        images: Path,
        table: Path,
        config: LabelledConfig,
        *,
        items: Mapping[str, Item],
        notes: Sequence[str],
    ) -> None:
        self._said = tuple(notes)
        super().__init__(table, config, root=images, items=items)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of images (see ``common.digest``), of their parts, and of the table."""
        files = [item.path for item in self._items.values()]
        return f"{digest(files, self.parts, root=self.root)}-{sha256(self._file)}"

    def _notes(self) -> Iterator[str]:
        yield from self._said


def is_table(labels: str) -> bool:
    """Whether labels are a table, by their ending."""
    return labels.lower().endswith(TABLES)


def open_label_table(images: str, table: str, *, classes: Sequence[str] = ()) -> LabelTable:
    """Open the images of a folder that a table names the classes of.

    The table has the columns ``image`` (or ``path``: below the folder), ``label`` (a class, several
    with ``;`` between, or a list) and, if wanted, ``split``; others are what scores may be grouped
    by. Images with several classes in any row make a set of several labels.

    Args:
        images: the folder.
        table: a CSV or Parquet file; a GeoParquet's geometry is not read.
        classes: names in the order of their numbers; none are those of the table, sorted.

    Raises:
        SourceError: the table cannot be read or lacks a column; or one of its rows names no image,
            no class, no part, or an image twice: the sentence names the file and the row.
    """
    root, file = Path(images), Path(table)
    if not root.is_dir():
        raise SourceError(
            f"{images} is no folder. With --labels {table} give the folder that its column image "
            "counts from."
        )
    rows = list(_csv_rows(file) if file.suffix.lower() == ".csv" else _parquet_rows(file))
    if not rows:
        raise SourceError(f"{file} has no rows: one for each image is needed.")
    column = next(name for name in _IMAGE if name in rows[0].cells)
    names = tuple(classes) or _named(rows)
    if len(names) < 2:
        raise SourceError(
            f"{file} names one class ({names[0]}): there is nothing to tell it from. Add images of others."
        )
    items: dict[str, Item] = {}
    for row in rows:
        key, item = _item(row, column, root, names)
        if key in items:
            raise SourceError(
                f"{row.where} names the image {key} again. An image has one row, several classes with "
                "; between them in it: join the rows."
            )
        items[key] = item
    kind = "multilabel" if any(len(row.classes) > 1 for row in rows) else "classification"
    config = LabelledConfig.parse(
        {"kind": kind, "classes": names, "table": file.name, "name": root.resolve().name,
         "source": str(file)},
        source=str(file),
    )  # fmt: skip
    return LabelTable(root, file, config, items=items, notes=[*_notes(rows, root, items)])


def _csv_rows(file: Path) -> Iterator[_Row]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as handle:
            reader = csv.DictReader(handle)
            _check_columns(file, reader.fieldnames or ())
            for cells in reader:
                where = f"{file}, line {reader.line_num},"
                if None in cells:
                    raise SourceError(
                        f"{where} has more cells than there are columns: put what holds a comma in "
                        "quotation marks."
                    )
                yield _Row(where=where, cells=cells)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{file} cannot be read as a CSV of labels ({error}).") from error


def _parquet_rows(file: Path) -> Iterator[_Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        columns = pq.read_schema(file).names
        _check_columns(file, columns)
        read = [name for name in columns if name != "geometry"]
        found = pq.read_table(file, columns=read).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise SourceError(f"{file} cannot be read as a table of labels ({error}).") from error
    for number, cells in enumerate(found, start=1):
        yield _Row(where=f"{file}, row {number},", cells=cells)


def _check_columns(file: Path, columns: Sequence[str]) -> None:
    given = [name for name in _IMAGE if name in columns]
    if len(given) == 1 and "label" in columns:
        return
    lacks = "label" if given else "image"
    has = ", ".join(columns) or "none"
    if len(columns) == 1 and any(mark in columns[0] for mark in ";\t"):
        raise SourceError(
            f"{file} has one column, {columns[0]!r}: cells are separated by commas, and ; stands between "
            "several classes of an image. Write it so."
        )
    if len(given) > 1:
        raise SourceError(f"{file} has both columns image and path: leave one of them out.")
    raise SourceError(
        f"{file} has no column {lacks!r}.{suggest(lacks, columns)} It has {has}; a row names image and "
        "label, and split if wanted."
    )


def _named(rows: Sequence[_Row]) -> tuple[str, ...]:
    """The classes of a table: numbers by their value, words by the alphabet."""
    found = {name for row in rows for name in row.classes}
    if not found:
        raise SourceError(f"{rows[0].where} has no label, and no other row has one.")
    return tuple(sorted(found, key=int if all(map(str.isdecimal, found)) else str))


def _item(row: _Row, column: str, root: Path, names: Sequence[str]) -> tuple[str, Item]:
    key = _key(row, column, root)
    if not row.classes:
        raise SourceError(
            f"{row.where} has no label for {key}. Name its class, or leave the row out; images that "
            "have none of several classes are declared in a dataset.yaml (kind: multilabel)."
        )
    for name in row.classes:
        if name not in names:
            raise SourceError(
                f"{row.where} calls {key} {name!r}, which is none of the classes of images.classes."
                f"{suggest(name, names)} They are: {', '.join(names[:_SHOWN])}"
                f"{', ...' if len(names) > _SHOWN else '.'}"
            )
    try:
        outline = place_of({name: row.text(name) for name in PLACE})
    except ValueError as error:
        raise SourceError(
            f"{row.where} has a place that is no number of degrees ({error}): mend "
            f"{', '.join(PLACE)}, or leave them empty."
        ) from error
    return key, Item(
        path=root / key,
        label=";".join(row.classes),
        part=_part(row, key),
        traits={name: row.text(name) for name in row.cells if name not in _KNOWN},
        outline=outline,
    )


def _key(row: _Row, column: str, root: Path) -> str:
    """The image of a row, below the folder."""
    said = row.text(column)
    if not said:
        raise SourceError(f"{row.where} names no image: fill in {column}, or leave the row out.")
    key = PurePath(os.path.relpath(root / said, root)).as_posix()
    if key.startswith("../"):
        raise SourceError(
            f"{row.where} names {said}, which lies outside {root}: name images below --images."
        )
    if not (root / key).is_file():
        raise SourceError(
            f"{row.where} names {said}, and {root / key} does not exist. Add it, leave the row out, or "
            "give the folder that the table counts from (--images)."
        )
    return key


def _part(row: _Row, key: str) -> PartName:
    if "split" not in row.cells:
        return hashed_part(key)
    word = row.text("split")
    if word.lower() not in PART_OF_FOLDER:
        raise SourceError(
            f"{row.where} puts {key} into {word!r}, which is no split."
            f"{suggest(word, PART_OF_FOLDER)} There are {', '.join(PARTS)}."
        )
    return PART_OF_FOLDER[word.lower()]


def _notes(rows: Sequence[_Row], root: Path, items: Mapping[str, Item]) -> Iterator[str]:
    if "split" not in rows[0].cells:
        yield HASHED
    paths = (path for path in root.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    others = sum(path.relative_to(root).as_posix() not in items for path in paths)
    if others:
        yield f"{others} images of the folder are in no row of the table: they are not used"
