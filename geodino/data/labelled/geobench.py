"""GEO-Bench v1: one HDF5 file per sample, read without its own package and without trust."""

import datetime
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from affine import Affine
from jaxtyping import Bool, UInt8
from rasterio.errors import CRSError
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from geodino.data.labelled.common import class_map, cut, digest, season, usable
from geodino.data.labelled.geobench_files import (
    class_names,
    dates_of,
    metadata,
    opened,
    read_partition,
    statistics_of,
    task_record,
    to_size,
)
from geodino.data.labelled.geobench_table import ALIASES, V1, V1Set, band_order, split_date, v1_band
from geodino.data.labelled.restricted_pickle import Record
from geodino.data.labelled.sets import Image, Label, PartName, SetFacts
from geodino.errors import BandError, SourceError, suggest
from geodino.geo.windows import Window

_SOURCE = (
    "GEO-Bench v1 (arXiv 2306.03831), huggingface.co/datasets/recursix/geo-bench-1.0, CC-BY-SA-4.0"
)

_LABEL = "label"


def v1_name(folder: Path) -> str | None:
    """Return the data set that a folder is by its name; None where it is none of GEO-Bench v1."""
    name = ALIASES.get(folder.name, folder.name)
    return name if name in V1 else None


def find_geobench(root: Path | str) -> dict[str, Path]:
    """Return the folders of GEO-Bench v1 data sets in, or at, ``root``, by name."""
    root = Path(root)
    places = [root, *root.glob("m-*"), *root.glob("*_v1.0/m-*")]
    found: dict[str, Path] = {}
    for place in places:
        name = v1_name(place)
        if name is not None and place.is_dir() and any(place.glob("*_partition.json")):
            found.setdefault(name, place)
    return {name: found[name] for name in V1 if name in found}


def open_geobench(
    folder: Path | str, *, partition: str = "default", bands: Sequence[str] | None = None
) -> "GeobenchSet":
    """Open a data set of GEO-Bench v1.

    Args:
        folder: the folder of one data set, ``m-eurosat`` and so on.
        partition: ``default``, ``0.01x_train`` ...: which ``*_partition.json``.
        bands: names as in the files or common names, in the wanted order; None: all bands of the
            image in the order of their numbers.

    Raises:
        SourceError: the folder is none, the partition is missing, a file is damaged.
        BandError: a band that the data set does not have.
    """
    place = Path(folder)
    name = v1_name(place)
    if name is None:
        raise SourceError(
            f"{place} is no data set of GEO-Bench v1 by its name.{suggest(place.name, V1)} There "
            f"are: {', '.join(V1)}."
        )
    parts = read_partition(place, partition)
    return GeobenchSet(place, name, parts, partition=partition, bands=bands)


class GeobenchSet:
    """A data set of GEO-Bench v1 (see :class:`geodino.data.labelled.sets.LabelledSet`)."""

    def __init__(
        self,
        folder: Path,
        name: str,
        parts: Mapping[PartName, tuple[str, ...]],
        *,
        partition: str,
        bands: Sequence[str] | None,
    ) -> None:
        self.folder = folder
        self.parts = parts
        about = V1[name]
        first = self._path(parts["train"][0])
        with opened(first) as file:
            held = dates_of(file)
            pixels = {key: file[names[0]] for key, names in held.items()}
            flat = {key: data.dtype for key, data in pixels.items() if data.ndim == 2}
            many = max((len(names) for names in held.values()), default=0)
        known = [key for key in sorted(flat, key=band_order) if v1_band(key, about) is not None]
        chosen = _chosen(known, about, bands, first)
        left = [key for key in held if key not in known and key != _LABEL]
        self._names = tuple(chosen)
        self._dtype = np.result_type(*(flat[key] for key in chosen))
        classes = class_names(task_record(folder), about.classes)
        self.facts = SetFacts(
            name=name,
            kind=about.kind,
            classes=classes,
            bands=tuple(made for key in chosen if (made := v1_band(key, about)) is not None),
            dtype=str(self._dtype),
            metric=about.metric,
            gsd_m=about.gsd_m,
            statistics=statistics_of(folder, chosen),
            background=about.background,
            partition=partition,
            notes=(
                *about.notes,
                *_notes(name, about, parts, partition, left, many, classes=len(classes)),
            ),
            source=_SOURCE,
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the samples (see ``common.digest``) and of which key is in which part."""
        files = [self._path(key) for keys in self.parts.values() for key in keys]
        return digest(files, self.parts, root=self.folder)

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image; its pixels are not read."""
        path = self._path(key)
        with opened(path) as file:
            shape = [self._dataset(file, name, path).shape for name in self._names]
        return max(s[0] for s in shape), max(s[1] for s in shape)

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image; coarser bands are repeated to the size of the finest."""
        path = self._path(key)
        with opened(path) as file:
            layers = [self._dataset(file, name, path)[()] for name in self._names]
        size = max(a.shape[0] for a in layers), max(a.shape[1] for a in layers)
        full = [
            to_size(layer, size, f"The band {name!r} of {path}")
            for name, layer in zip(self._names, layers, strict=True)
        ]
        return usable(cut(np.stack(full).astype(self._dtype, copy=False), window))

    def label(self, key: str, window: Window | None = None) -> Label:
        """Read a label: the class, the classes, or a window of the map of classes."""
        path = self._path(key)
        with opened(path) as file:
            if self.facts.kind == "segmentation":
                return self._map(file, path, window)
            found = metadata(file, path).get(_LABEL)
        if self.facts.kind == "multilabel":
            return self._several(found, path)
        return self._one(found, path)

    def traits(self, key: str) -> Mapping[str, str]:
        """Return the date and its season, where the file has a date."""
        path = self._path(key)
        with opened(path) as file:
            date = self._of_bands(metadata(file, path), "date")
            date = date or split_date(self._dataset(file, self._names[0], path).name)[1]
        text = date.isoformat()[:10] if isinstance(date, datetime.date) else str(date or "")
        if len(text) != 10 or text[4] != "-":
            return {}
        place = self.outline(key)
        return {"date": text, "season": season(int(text[5:7]), place[1] if place else None)}

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north in degrees, where the file has a place."""
        path = self._path(key)
        with opened(path) as file:
            values = metadata(file, path)
            height, width = self._dataset(file, self._names[0], path).shape
        transform, crs = self._of_bands(values, "transform"), self._of_bands(values, "crs")
        place = _affine(transform)
        text = crs.state if isinstance(crs, Record) else crs
        if place is None or not isinstance(text, str):
            return None
        try:
            west, south, east, north = transform_bounds(
                text, "EPSG:4326", *array_bounds(height, width, place)
            )
        except CRSError as error:
            raise SourceError(f"{path} names a place that has no meaning ({error}).") from error
        return west, south, east, north

    def _path(self, key: str) -> Path:
        return self.folder / f"{key}.hdf5"

    def _dataset(self, file: Any, name: str, path: Path) -> Any:
        names = dates_of(file).get(name)
        if not names:
            raise SourceError(
                f"{path} lacks the band {name!r}, which other samples of {self.folder.name} have. "
                "Leave the band out, or download the file again."
            )
        return file[names[0]]

    def _of_bands(self, values: Mapping[str, Any], what: str) -> Any:
        """What the metadata of the first band that has it says."""
        for key, row in values.items():
            if isinstance(row, Mapping) and split_date(key)[0] in self._names and row.get(what):
                return row[what]
        return None

    def _map(self, file: Any, path: Path, window: Window | None) -> UInt8[np.ndarray, "h w"]:
        names = dates_of(file).get(_LABEL)
        if not names:
            raise SourceError(
                f"{path} has no dataset {_LABEL!r}, which holds the class of each pixel. Download the "
                "file again."
            )
        values = np.squeeze(file[names[0]][()])
        return class_map(cut(values, window), classes=len(self.facts.classes), source=str(path))

    def _one(self, found: Any, path: Path) -> int:
        count = len(self.facts.classes)
        if isinstance(found, np.ndarray) and found.size == 1:
            found = found.item()
        if not isinstance(found, int) or not 0 <= found < count:
            raise SourceError(
                f"{path} has the label {found!r}, but {self.facts.name} has the classes 0 to "
                f"{count - 1}. Download the data set again."
            )
        return int(found)

    def _several(self, found: Any, path: Path) -> Bool[np.ndarray, " k"]:
        count = len(self.facts.classes)
        row = np.asarray(found if isinstance(found, (list, tuple, np.ndarray)) else [])
        if row.shape != (count,) or not np.isin(row, (0, 1)).all():
            raise SourceError(
                f"{path} has a label of {row.size} numbers, but {self.facts.name} needs a 0 or 1 for "
                f"each of {count} classes. Download the data set again."
            )
        present: Bool[np.ndarray, " k"] = row.astype(bool)
        return present


def _chosen(known: list[str], about: V1Set, bands: Sequence[str] | None, path: Path) -> list[str]:
    if not known:
        raise SourceError(
            f"{path} has no band that GEO-Bench v1 names. Is it a sample of another data set?"
        )
    if bands is None:
        return known
    by_name = {name: name for name in known}
    for name in known:
        made = v1_band(name, about)
        if made is not None and made.common_name is not None:
            by_name.setdefault(made.common_name, name)
    for wanted in bands:
        if wanted not in by_name:
            raise BandError(
                f"{path} has no band {wanted!r}.{suggest(wanted, by_name)} It has: "
                f"{', '.join(known)}. Name some of these."
            )
    return [by_name[wanted] for wanted in bands]


def _notes(
    name: str,
    about: V1Set,
    parts: Mapping[PartName, tuple[str, ...]],
    partition: str,
    left: Sequence[str],
    dates: int,
    *,
    classes: int,
) -> list[str]:
    notes = []
    for key in left:
        zero = " (it is all zero)" if name == "m-SA-crop-type" and "cloud" in key.lower() else ""
        notes.append(f"{key!r} is not read as a band of the image{zero}.")
    if dates > 1:
        notes.append(f"Of the {dates} dates of a sample the first is read.")
    if partition != "default":
        notes.append(f"Partition {partition!r}, not the default one.")
    found = tuple(len(parts.get(part, ())) for part in ("train", "val", "test"))
    if partition == "default" and found != about.sizes:
        notes.append(
            f"The partition has {found[0]}/{found[1]}/{found[2]} images for training, validation and "
            f"testing; {about.sizes[0]}/{about.sizes[1]}/{about.sizes[2]} are published."
        )
    if classes != about.classes:
        notes.append(f"The files name {classes} classes; {about.classes} are published.")
    return notes


def _affine(value: Any) -> Affine | None:
    """The transform in a record of affine's, by its arguments or its attributes."""
    if isinstance(value, Record):
        numbers = [value.get(letter) for letter in "abcdef"]
        numbers = list(value.args[:6]) if None in numbers else numbers
    elif isinstance(value, (list, tuple)):
        numbers = list(value[:6])
    else:
        return None
    if len(numbers) < 6 or not all(isinstance(n, (int, float)) for n in numbers):
        return None
    return Affine(*numbers)
