"""GEO-Bench-2: one tortilla file per data set, of samples with several images and dates."""

import datetime
import io
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from affine import Affine
from jaxtyping import Bool, Shaped
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from geodino.data.labelled.common import (
    class_map,
    cut,
    digest,
    number_map,
    read_file,
    season,
    usable,
)
from geodino.data.labelled.sets import PARTS, Image, Label, PartName, SetFacts
from geodino.data.labelled.tortilla_file import Row, content_of, gdal_name, read_leaves, read_rows
from geodino.data.labelled.tortilla_table import EXTRA, V2, V2Set
from geodino.errors import SourceError, suggest
from geodino.geo.bands import Band, common_name
from geodino.geo.validity import ReadRule, differs
from geodino.geo.windows import Window
from geodino.io.raster import describe

_NAMES: Mapping[str, PartName] = {
    "train": "train", "training": "train", "validation": "val", "val": "val", "valid": "val",
    "test": "test",
}  # fmt: skip
_LABEL = re.compile(
    r"(^|[_\W])(mask|masks|label|labels|agbm|target|annotation|gt)($|[_\W])", re.IGNORECASE
)
_SOURCE = "GEO-Bench-2 (arXiv 2511.15658), huggingface.co/aialliance; licences by data set"
_RULE = ReadRule(alpha="band")
"""A fourth band is often tagged alpha by default; none of these images has a mask of that kind."""


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
        about = V2[name]
        self._rows: dict[str, tuple[Path, Row]] = {}
        parts: dict[PartName, list[str]] = {part: [] for part in PARTS}
        extra = 0
        for path in files:
            for row in read_rows(path):
                if row.columns.get(EXTRA):
                    extra += 1
                    continue
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
        bands, dtype = _bands_of(path, images[0], self._modality, about)
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
        path, row = self._image_row(key)
        if _is_hdf5(row):
            height, width = _dataset(path, row).shape[-2:]
            return int(height), int(width)
        info = describe(gdal_name(path, row))
        return info.grid.height, info.grid.width

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read the chosen image, or a window of it."""
        path, row = self._image_row(key)
        pixels, valid = _pixels(path, row, window)
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
        leaves = [leaf for leaf in self._leaves(key) if _is_label(leaf)]
        if not leaves:
            have = ", ".join(leaf.id for leaf in self._leaves(key))
            raise SourceError(
                f"{path} ({key}) has no map of labels; it has {have}. Download it again."
            )
        values, valid = _pixels(path, leaves[0], window)
        if self.facts.kind == "regression":
            return number_map(values[0], valid=valid[0])
        return class_map(
            values[0],
            classes=len(self.facts.classes),
            source=f"{path} ({key}, {leaves[0].id})",
            valid=valid[0],
        )

    def traits(self, key: str) -> Mapping[str, str]:
        """Return country, date and season, as far as the table has them."""
        _, row = self._rows[key]
        made: dict[str, str] = {"sensor": self._modality}
        if row.columns.get("country"):
            made["region"] = str(row.columns["country"])
        start = row.columns.get("stac:time_start")
        if isinstance(start, (int, float)) and np.isfinite(start):
            day = datetime.datetime.fromtimestamp(start, datetime.UTC).date()
            place = self.outline(key)
            made["date"] = day.isoformat()
            made["season"] = season(day.month, place[1] if place else None)
        return made

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north in degrees, as the table has them."""
        columns = self._rows[key][1].columns
        crs, shape = columns.get("stac:crs"), columns.get("stac:raster_shape")
        numbers = columns.get("stac:geotransform")
        if not crs or not shape or numbers is None or len(numbers) != 6:
            return None
        bounds = array_bounds(int(shape[0]), int(shape[1]), Affine.from_gdal(*numbers))
        west, south, east, north = transform_bounds(crs, "EPSG:4326", *bounds)
        return west, south, east, north

    def _read_leaves(self, key: str) -> list[Row]:
        path, row = self._rows[key]
        leaves = read_leaves(path, row)
        return [made for leaf in leaves for made in _datasets_in(path, leaf)]

    def _choose(self, key: str, about: V2Set, wanted: str | None) -> tuple[str, list[Row]]:
        """The modality to read, and its images in a sample."""
        groups: dict[str, list[Row]] = {}
        for leaf in self._leaves(key):
            if not _is_label(leaf):
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
            if not _is_label(leaf) and _modality_of(leaf) == self._modality
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

    def _from_columns(self, row: Row, path: Path) -> int | Bool[np.ndarray, " k"]:
        found = row.columns.get("labels", row.columns.get("label"))
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
        others = {_modality_of(r) for r in self._leaves(first) if not _is_label(r)}
        others.discard(self._modality)
        notes = []
        if others:
            also = ", ".join(sorted(others))
            notes.append(f"Images {self._modality!r} are read; samples also have {also}.")
        if len(images) > 1:
            which = f"the one called {self._date!r}" if self._date else "the first"
            notes.append(f"Of {len(images)} dates of a sample {which} is read.")
        if extra:
            notes.append(f"{extra} samples marked {EXTRA} belong to no part.")
        if not about.verified:
            notes.append("Classes are numbered as in the paper; no published file was compared.")
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
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    return int(value) if whole and 0 <= value < len(classes) else None


def _is_hdf5(row: Row) -> bool:
    return row.format.upper().startswith(("HDF5", "H5"))


def _datasets_in(path: Path, leaf: Row) -> list[Row]:
    """An HDF5 file is as many images as it has datasets; other files are one."""
    if not _is_hdf5(leaf):
        return [leaf]
    with _hdf5(path, leaf) as file:
        names = [name for name in file if getattr(file[name], "ndim", 0) >= 2]
    columns = {**leaf.columns, "modality": None}
    return [
        Row(id=n, format=leaf.format, offset=leaf.offset, length=leaf.length, columns=columns)
        for n in names
    ]


def _hdf5(path: Path, row: Row) -> h5py.File:
    try:
        return h5py.File(io.BytesIO(content_of(path, row)), "r")
    except OSError as error:
        raise SourceError(
            f"{path} ({row.id}) is damaged HDF5 ({str(error)[:80]}). Download it again."
        ) from error


def _dataset(path: Path, row: Row) -> Shaped[np.ndarray, "c h w"]:
    with _hdf5(path, row) as file:
        values = np.asarray(file[row.id][()])
    return values.reshape(-1, *values.shape[-2:])


def _pixels(
    path: Path, row: Row, window: Window | None
) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "c h w"]]:
    if _is_hdf5(row):
        return usable(cut(_dataset(path, row), window))
    return read_file(gdal_name(path, row), window, _RULE)


def _bands_of(path: Path, row: Row, modality: str, about: V2Set) -> tuple[tuple[Band, ...], str]:
    """What the image holds: by its own descriptions, the table, or numbers."""
    if _is_hdf5(row):
        values = _dataset(path, row)
        count, dtype, described = len(values), str(values.dtype), []
    else:
        info = describe(gdal_name(path, row))
        count, dtype = info.count, info.dtype
        described = [text for text in info.descriptions if text]
    if len(set(described)) == count:
        return tuple(Band(name=t, common_name=common_name(t)) for t in described), dtype
    known = about.modalities.get(modality)
    if known is not None and len(known.bands) == count:
        return known.bands, dtype
    return tuple(Band(name=f"band_{i + 1}") for i in range(count)), dtype


def _nodata_of(about: V2Set, modality: str) -> float | None:
    known = about.modalities.get(modality)
    return None if known is None else known.nodata
