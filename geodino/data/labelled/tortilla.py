"""GEO-Bench-2: one tortilla file per data set, of samples with several images and dates."""

import datetime
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from jaxtyping import Bool
from rasterio.crs import CRS
from rasterio.errors import CRSError
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from geodino.data.labelled.common import class_map, digest, number_map, season
from geodino.data.labelled.sets import IGNORED, PARTS, Image, Label, PartName, SetFacts
from geodino.data.labelled.tortilla_file import Row, read_leaves, read_rows
from geodino.data.labelled.tortilla_pixels import (
    bands_of,
    datasets_in,
    dates_in,
    pixels_of,
    size_of,
)
from geodino.data.labelled.tortilla_table import EXTRA, V2, V2Set
from geodino.errors import SourceError, suggest
from geodino.geo.validity import differs
from geodino.geo.windows import Window

_NAMES: Mapping[str, PartName] = {
    "train": "train", "training": "train", "validation": "val", "val": "val", "valid": "val",
    "test": "test",
}  # fmt: skip
_LABEL = re.compile(
    r"(^|[_\W])(mask|masks|label|labels|agbm|target|annotation|gt)($|[_\W])", re.IGNORECASE
)
_SOURCE = "GEO-Bench-2 (arXiv 2511.15658), huggingface.co/aialliance; licences by data set"
_REGIONS = ("country", "region", "city", "domain", "aoi", "area_id")
"""Columns with the place of a sample, as its publishers call them."""


def find_tortillas(root: Path | str) -> dict[str, list[Path]]:
    """Return the tortilla files of GEO-Bench-2 data sets in ``root`` or one folder below, by name.

    A data set split over several files (``name.0000.part.tortilla``) has them in order.
    """
    root = Path(root)
    files = [root] if root.is_file() else [*root.glob("*.tortilla"), *root.glob("*/*.tortilla")]
    found: dict[str, list[Path]] = {}
    for path in sorted(files):
        name = _name_of(path)
        if name is not None:
            found.setdefault(name, []).append(path)
    return {name: found[name] for name in V2 if name in found}


def open_tortilla(
    files: Path | str | Sequence[Path], *, name: str | None = None, modality: str | None = None,
    date: str | None = None, classes: Sequence[str] | None = None,
) -> "TortillaSet":  # fmt: skip
    """Open a data set of GEO-Bench-2.

    Args:
        files: its file, or all of its files in order.
        name: which data set it is; None: as its first file is called.
        modality: which of a sample's images is read (``s2``, ``s1``, ``aerial``); None: the
            optical one.
        date: which of a series: text that the name of the image holds (``July``); None: the first.
        classes: names of the classes; None: as the table of data sets has them.

    Raises:
        SourceError: a file is no tortilla or cut off, the name is unknown, a modality or date is
            not there, or the data set is of boxes, which are not read from this format.
    """
    paths = [Path(files)] if isinstance(files, (str, Path)) else list(files)
    known = name or _name_of(paths[0]) or paths[0].name.split(".")[0]
    if known not in V2:
        raise SourceError(
            f"{paths[0]} is no data set of GEO-Bench-2 by its name.{suggest(known, V2)} There are: "
            f"{', '.join(V2)}."
        )
    if V2[known].kind == "detection":
        raise SourceError(
            f"{known} of GEO-Bench-2 holds boxes, which are not read from tortillas. Write it as "
            "COCO's JSON and measure it with geodino finetune detection."
        )
    return TortillaSet(known, paths, modality=modality, date=date, classes=classes)


class TortillaSet:
    """A data set of GEO-Bench-2 (see :class:`geodino.data.labelled.sets.LabelledSet`)."""

    def __init__(
        self, name: str, files: Sequence[Path], *, modality: str | None, date: str | None,
        classes: Sequence[str] | None,
    ) -> None:  # fmt: skip
        self.files = tuple(files)
        self._date = date
        about = self._about = V2[name]
        self._rows: dict[str, tuple[Path, Row]] = {}
        parts: dict[PartName, list[str]] = {part: [] for part in PARTS}
        extra = 0
        for path in files:
            for row in read_rows(path):
                if row.columns.get(EXTRA):
                    extra += 1
                    continue
                if row.id in self._rows:
                    raise SourceError(
                        f"{path} and {self._rows[row.id][0]} both hold the sample {row.id!r}. Name "
                        "each file of the data set once."
                    )
                parts[_part(row, about.split, path)].append(row.id)
                self._rows[row.id] = path, row
        if not self._rows:
            raise SourceError(f"{files[0]} holds no sample. Download it again.")
        self.parts: Mapping[PartName, tuple[str, ...]] = {
            part: tuple(keys) for part, keys in parts.items() if keys
        }
        self._leaves = lru_cache(maxsize=4096)(self._read_leaves)
        first = next(iter(self._rows))
        self._modality, images = self._choose(first, about, modality)
        path, _ = self._rows[first]
        bands, dtype = bands_of(path, images[0], self._modality, about)
        self._nodata = _nodata_of(about, self._modality)
        names = tuple(classes) if classes is not None else about.classes
        self.facts = SetFacts(
            name=name,
            kind=about.kind,
            classes=names,
            bands=bands,
            dtype=dtype,
            metric=about.metric,
            gsd_m=about.gsd_m,
            unit=about.unit,
            notes=tuple(self._notes(about, first, images, extra)),
            source=_SOURCE,
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the files (see ``common.digest``) and of which key is in which part."""
        return digest(self.files, self.parts, root=self.files[0].parent)

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image; its pixels are not read."""
        return size_of(*self._image_row(key))

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read the chosen image, or a window of it."""
        path, row = self._image_row(key)
        pixels, valid = pixels_of(path, row, window)
        if len(pixels) != len(self.facts.bands):
            raise SourceError(
                f"{path} ({key}, {row.id}) has {len(pixels)} bands, but other samples have "
                f"{len(self.facts.bands)}. Download it again."
            )
        return pixels, valid & differs(pixels, self._nodata)

    def label(self, key: str, window: Window | None = None) -> Label:
        """Read the label: of the table's row, or a window of the map beside the image."""
        path, row = self._rows[key]
        if self.facts.kind in ("classification", "multilabel"):
            return self._from_columns(row, path)
        leaf = self._label_row(key)
        values, valid = pixels_of(path, leaf, window)
        if self.facts.kind == "regression":
            return number_map(values[0], valid=valid[0])
        about, stored = self._about, values[0]
        if about.first:
            # 255 stays what it is: it never counts.
            stored = np.where(stored == IGNORED, IGNORED, stored.astype(np.int64) - about.first)
        if about.rest:
            stored = np.where(stored == IGNORED, IGNORED, stored.clip(max=len(about.classes) - 1))
        return class_map(
            stored,
            classes=len(self.facts.classes),
            source=f"{path} ({key}, {leaf.id})",
            ignore=about.ignored,
            valid=valid[0],
        )

    def traits(self, key: str) -> Mapping[str, str]:
        """Return country, date and season, as far as the table has them."""
        _, row = self._rows[key]
        made: dict[str, str] = {"sensor": str(row.columns.get("sensor") or self._modality)}
        region = next((row.columns[name] for name in _REGIONS if row.columns.get(name)), None)
        if region is not None:
            made["region"] = str(region)
        start = row.columns.get("stac:time_start")
        if isinstance(start, (int, float)) and np.isfinite(start):
            day = datetime.datetime.fromtimestamp(start, datetime.UTC).date()
            place = self.outline(key)
            made["date"] = day.isoformat()
            made["season"] = season(day.month, place[1] if place else None)
        return made

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north in degrees, as the table has them.

        None where it has none, or a CRS that does not exist (``EPSG:None`` of the publisher's).
        """
        columns = self._rows[key][1].columns
        crs, shape = columns.get("stac:crs"), columns.get("stac:raster_shape")
        numbers = columns.get("stac:geotransform")
        if not crs or not shape or numbers is None or len(numbers) != 6:
            return None
        bounds = array_bounds(int(shape[0]), int(shape[1]), Affine.from_gdal(*numbers))
        try:
            known = CRS.from_user_input(crs)
        except (CRSError, ValueError):
            return None
        west, south, east, north = transform_bounds(known, "EPSG:4326", *bounds)
        return west, south, east, north

    def _read_leaves(self, key: str) -> list[Row]:
        path, row = self._rows[key]
        leaves = read_leaves(path, row)
        return [made for leaf in leaves for made in datasets_in(path, leaf)]

    def _choose(self, key: str, about: V2Set, wanted: str | None) -> tuple[str, list[Row]]:
        """The modality to read, and its images in a sample."""
        groups: dict[str, list[Row]] = {}
        for leaf in self._leaves(key):
            if not self._is_label(leaf):
                groups.setdefault(_modality_of(leaf), []).append(leaf)
        if wanted is None:
            wanted = next((n for n in about.image if n in groups), None) or next(iter(groups), None)
        if wanted is None or wanted.lower() not in groups:
            raise SourceError(
                f"{self.files[0]} has no images {wanted!r} in its samples."
                f"{suggest(wanted or '', groups)} They have: {', '.join(groups) or 'none'}."
            )
        return wanted.lower(), groups[wanted.lower()]

    def _image_row(self, key: str) -> tuple[Path, Row]:
        path, _ = self._rows[key]
        images = [
            leaf
            for leaf in self._leaves(key)
            if not self._is_label(leaf) and _modality_of(leaf) == self._modality
        ]
        if self._date is not None:
            images = [leaf for leaf in images if self._date.lower() in leaf.id.lower()]
        if not images:
            of = f" of {self._date}" if self._date else ""
            have = ", ".join(leaf.id for leaf in self._leaves(key))
            raise SourceError(
                f"{path} ({key}) has no image {self._modality!r}{of}; it has {have}. Choose another "
                "modality or date."
            )
        return path, images[0]

    def _is_label(self, leaf: Row) -> bool:
        return leaf.id in self._about.labels or _is_label(leaf)

    def _label_row(self, key: str) -> Row:
        """The map of labels of a sample: the one its publisher's reader takes."""
        leaves = self._leaves(key)
        named = [leaf for name in self._about.labels for leaf in leaves if leaf.id == name]
        found = named or [leaf for leaf in leaves if _is_label(leaf)]
        if not found:
            have = ", ".join(leaf.id for leaf in leaves)
            raise SourceError(
                f"{self._rows[key][0]} ({key}) has no map of labels; it has {have}. Download it "
                "again."
            )
        return found[0]

    def _from_columns(self, row: Row, path: Path) -> int | Bool[np.ndarray, " k"]:
        names = (self._about.column, "labels", "label")
        column = next((name for name in names if row.columns.get(name) is not None), None)
        if column is None:
            raise SourceError(
                f"{path} ({row.id}) has no column {self._about.column!r}, which holds its classes. "
                "Download it again."
            )
        found = row.columns[column]
        classes = self.facts.classes
        several = found if isinstance(found, (list, tuple, np.ndarray)) else [found]
        present: Bool[np.ndarray, " k"] = np.zeros(len(classes), dtype=bool)
        for value in several:
            number = _class_number(value, classes)
            if number is None:
                raise SourceError(
                    f"{path} ({row.id}) has the label {value!r}, which is none of the "
                    f"{len(classes)} classes of {self.facts.name}. Name the classes as the files do."
                )
            if self.facts.kind == "classification":
                return number
            present[number] = True
        return present

    def _notes(self, about: V2Set, first: str, images: list[Row], extra: int) -> list[str]:
        others = {_modality_of(r) for r in self._leaves(first) if not self._is_label(r)}
        others.discard(self._modality)
        notes = []
        if others:
            also = ", ".join(sorted(others))
            notes.append(f"Images {self._modality!r} are read; samples also have {also}.")
        if len(images) > 1:
            which = f"the one called {self._date!r}" if self._date else "the first"
            notes.append(f"Of {len(images)} dates of a sample {which} is read.")
        elif (dates := dates_in(self._rows[first][0], images[0])) > 1:
            notes.append(f"Of the dates of a sample ({dates} in {first}) the last is read.")
        if extra:
            notes.append(f"{extra} samples marked {EXTRA} belong to no part.")
        if not about.verified:
            notes.append(
                "Bands and classes are read as the publisher's own reader does; no published file "
                "was compared."
            )
        return notes


def _name_of(path: Path) -> str | None:
    stem = path.name.split(".")[0].lower().removeprefix("geobench_")
    return next((n for n in (stem, path.parent.name.lower()) if n in V2), None)


def _part(row: Row, column: str, path: Path) -> PartName:
    word = str(row.columns.get(column, "")).lower()
    if word not in _NAMES:
        raise SourceError(
            f"{path} ({row.id}) has {word!r} in {column}, which is none of {', '.join(_NAMES)}. "
            "Download it again."
        )
    return _NAMES[word]


def _is_label(leaf: Row) -> bool:
    return bool(_LABEL.search(leaf.id) or _LABEL.search(str(leaf.columns.get("modality") or "")))


def _modality_of(leaf: Row) -> str:
    """The table's column, or the name without what numbers the dates."""
    named = leaf.columns.get("modality")
    return str(named or re.sub(r"[_-](\d{1,2}|\d{6,8}|\d{4}-\d\d(-\d\d)?)$", "", leaf.id)).lower()


def _class_number(value: Any, classes: Sequence[str]) -> int | None:
    if isinstance(value, str) and value in classes:
        return classes.index(value)
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return int(value) if number and value in range(len(classes)) else None


def _nodata_of(about: V2Set, modality: str) -> float | None:
    known = about.modalities.get(modality)
    return None if known is None else known.nodata
