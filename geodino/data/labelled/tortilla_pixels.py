"""The pixels of a row of a tortilla: a GeoTIFF that GDAL opens in place, or HDF5."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
from jaxtyping import Bool, Shaped

from geodino.data.labelled.common import HDF5_DAMAGE, cut, read_file, usable
from geodino.data.labelled.tortilla_file import Row, content_of, gdal_name
from geodino.data.labelled.tortilla_table import V2Set
from geodino.errors import SourceError
from geodino.geo.bands import Band, common_name
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.raster import describe

_RULE = ReadRule(alpha="band")
"""A fourth band is often tagged alpha by default; none of these images has a mask of that kind."""

_DATASET = "hdf5:dataset"
"""Column added to a row: the dataset of the HDF5 file that it is."""


def datasets_in(path: Path, leaf: Row) -> list[Row]:
    """Return a row for each image of a file: an HDF5 file has as many as datasets, others one.

    A single dataset keeps the name of the file, as it is called ``data`` in all of them.

    Raises:
        SourceError: the HDF5 file is damaged or holds no image.
    """
    if not _is_hdf5(leaf):
        return [leaf]
    with _hdf5(path, leaf) as file:
        names = [name for name in file if getattr(file[name], "ndim", 0) >= 2]
    if not names:
        raise SourceError(f"{path} ({leaf.id}) is HDF5 without an image. Download it again.")
    if len(names) == 1:
        return [replace(leaf, columns={**leaf.columns, _DATASET: names[0]})]
    return [
        replace(leaf, id=name, columns={**leaf.columns, "modality": None, _DATASET: name})
        for name in names
    ]


def size_of(path: Path, row: Row) -> tuple[int, int]:
    """Return height and width; pixels of a GeoTIFF are not read."""
    if _is_hdf5(row):
        with _hdf5(path, row) as file:
            height, width = file[row.columns[_DATASET]].shape[-2:]
        return int(height), int(width)
    info = describe(gdal_name(path, row))
    return info.grid.height, info.grid.width


def dates_in(path: Path, row: Row) -> int:
    """Return how many dates a row holds: HDF5 may have them as its first axis."""
    if not _is_hdf5(row):
        return 1
    with _hdf5(path, row) as file:
        shape = file[row.columns[_DATASET]].shape
    return int(shape[0]) if len(shape) == 4 else 1


def pixels_of(
    path: Path, row: Row, window: Window | None
) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "c h w"]]:
    """Read a row or a window of it, and where it may be used; of several dates the last.

    The benchmark's own reader takes the last dates of a series.
    """
    if _is_hdf5(row):
        return usable(cut(_dataset(path, row), window))
    return read_file(gdal_name(path, row), window, _RULE)


def bands_of(path: Path, row: Row, modality: str, about: V2Set) -> tuple[tuple[Band, ...], str]:
    """Return what an image holds and its dtype: by its own descriptions, the table, or numbers.

    Bands beyond those of the table are numbered.
    """
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
    named = known.bands if known is not None and len(known.bands) <= count else ()
    return (*named, *(Band(name=f"band_{i + 1}") for i in range(len(named), count))), dtype


def _is_hdf5(row: Row) -> bool:
    return row.format.upper().startswith(("HDF5", "H5"))


@contextmanager
def _hdf5(path: Path, row: Row) -> Iterator[h5py.File]:
    """Open the HDF5 of a row; whatever h5py says of damage while it is read becomes one sentence."""
    try:
        with h5py.File(io.BytesIO(content_of(path, row)), "r") as file:
            yield file
    except HDF5_DAMAGE as error:
        raise SourceError(
            f"{path} ({row.id}) is damaged HDF5 ({str(error)[:80]}). Download it again."
        ) from error


def _dataset(path: Path, row: Row) -> Shaped[np.ndarray, "c h w"]:
    with _hdf5(path, row) as file:
        found = file[row.columns[_DATASET]]
        values = np.asarray(found[-1] if found.ndim == 4 else found[()])
    return values.reshape(-1, *values.shape[-2:])
