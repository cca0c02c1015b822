"""Writing maps of many bands as zarr version 3, as xarray and rioxarray expect them.

One array ``embedding (band, y, x)`` a grid, or arrays ``(y, x)`` of one grid; beside them the
pixel-centre coordinates ``y`` and ``x``, the numbers of the bands, and the CF grid mapping
``spatial_ref``.
"""

import base64
import os
import shutil
import struct
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zarr
from jaxtyping import Shaped
from pyproj import CRS
from zarr.codecs import BloscCodec

from geodino import files
from geodino.errors import RunError
from geodino.geo.grid import Grid

NAME = "embedding"

_CHUNK_BYTES = 4 << 20
_SHARD_BYTES = 64 << 20


class ZarrWriter:
    """A store that is written under another name and put in its place when it is whole.

    Args:
        path: the target; a store that lies there is replaced at the end.
        attributes: of the store.
    """

    def __init__(self, path: Path, *, attributes: Mapping[str, Any]) -> None:
        self._path = path
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with files.writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            self._root = zarr.open_group(self._temporary, mode="w", zarr_format=3)
            self._root.attrs.update(dict(attributes))

    def add(
        self,
        group: str,
        grid: Grid,
        *,
        bands: int,
        dtype: str,
        nodata: float,
        scales: Sequence[float] | None = None,
        attributes: Mapping[str, Any],
        sharded: bool = True,
        across: int | None = None,
    ) -> "ZarrMap":
        """Add a map that lies on one grid; nothing of it is stored until it is written.

        Args:
            group: path of the group it lies in; empty for the root.
            grid: CRS, transform and size.
            bands: how many; their coordinate counts from 0.
            dtype: ``float32``, ``float16`` or ``int8``.
            nodata: value of pixels without data, and of those never written.
            scales: per band, ``value = stored * scale_factor``, kept as a coordinate (CF's
                attribute of that name holds one number only); None where values are stored.
            attributes: of the array.
            sharded: whether chunks are joined to larger files; good where the map is written in
                full rows, bad where it is written in small pieces.
            across: columns that are written together: no file spans more; None is all.
        """
        where = self._root if not group else self._root.require_group(group)
        shape = (bands, grid.height, grid.width)
        chunk = _chunk_side(shape, np.dtype(dtype))
        columns = _chunks_per_shard(shape, chunk, np.dtype(dtype), across) if sharded else 1
        with files.writing(self._path):
            _coordinates(where, grid, bands, scales)
            array = where.create_array(
                NAME,
                shape=shape,
                chunks=(bands, chunk, chunk),
                shards=(bands, chunk, chunk * columns) if columns > 1 else None,
                dtype=dtype,
                fill_value=nodata,
                compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                dimension_names=("band", "y", "x"),
                attributes={
                    **attributes,
                    "_FillValue": _fill_attribute(nodata, np.dtype(dtype)),
                    "grid_mapping": "spatial_ref",
                    # xarray makes these coordinates, so that each of its arrays keeps its CRS.
                    "coordinates": "spatial_ref" + (" scale_factor" if scales is not None else ""),
                },
            )
        return ZarrMap(array, rows=chunk, path=self._path)

    def add_variable(
        self,
        name: str,
        grid: Grid,
        *,
        dtype: str,
        nodata: float,
        attributes: Mapping[str, Any],
        across: int | None = None,
    ) -> "ZarrMap":
        """Add an array ``(y, x)`` to the root; all of them lie on one grid.

        Args:
            name: of the array.
            grid: CRS, transform and size.
            dtype: ``float32`` or ``uint16``.
            nodata: value of pixels without data, and of those never written.
            attributes: of the array; ``units``, and ``scale_factor`` where it has one.
            across: see ``add``.
        """
        shape = (1, grid.height, grid.width)
        chunk = _chunk_side(shape, np.dtype(dtype))
        columns = _chunks_per_shard(shape, chunk, np.dtype(dtype), across)
        with files.writing(self._path):
            if "x" not in self._root:
                _coordinates(self._root, grid, None, None)
            array = self._root.create_array(
                name,
                shape=shape[1:],
                chunks=(chunk, chunk),
                shards=(chunk, chunk * columns) if columns > 1 else None,
                dtype=dtype,
                fill_value=nodata,
                compressors=BloscCodec(cname="zstd", clevel=3, shuffle="shuffle"),
                dimension_names=("y", "x"),
                attributes={
                    **attributes,
                    "_FillValue": _fill_attribute(nodata, np.dtype(dtype)),
                    "grid_mapping": "spatial_ref",
                    "coordinates": "spatial_ref",
                },
            )
        return ZarrMap(array, rows=chunk, path=self._path)

    def finish(self) -> None:
        """Consolidate the metadata and put the store in its place."""
        with files.writing(self._path), warnings.catch_warnings():
            # Not yet in the specification of version 3, but what xarray looks for first.
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not")
            zarr.consolidate_metadata(self._root.store)
            old = self._path.with_name(f".{self._path.name}.{os.getpid()}.old")
            if self._path.exists():
                self._path.rename(old)
            self._temporary.rename(self._path)
            shutil.rmtree(old, ignore_errors=True)

    def __enter__(self) -> "ZarrWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self._temporary, ignore_errors=True)


def attributes_of(path: Path) -> dict[str, Any]:
    """Return the attributes of a store's root; none where there is no such store."""
    try:
        return dict(zarr.open_group(path, mode="r", use_consolidated=False).attrs)
    except (FileNotFoundError, ValueError):
        return {}


class ZarrMap:
    """One array that is being written; rows wait until they fill a row of chunks.

    Args:
        array: the array.
        rows: rows of a chunk.
        path: the store, for messages.
    """

    def __init__(self, array: Any, *, rows: int, path: Path) -> None:
        self._array = array
        self._rows = rows
        self._path = path
        self._waiting: list[np.ndarray] = []
        self._place = (0, 0)

    def write(self, top: int, left: int, values: Shaped[np.ndarray, "c h w"]) -> None:
        """Write rows, top to bottom; rows that do not continue the last ones start a new part.

        Raises:
            RunError: the disk is full or cannot be written.
        """
        if (top, left) != (self._bottom, self._place[1]):
            self.flush()
            self._place = (top, left)
        self._waiting.append(values)
        whole = self._bottom // self._rows * self._rows
        if whole > self._place[0]:
            self._store(whole)

    def finish(self, *, attributes: Mapping[str, Any]) -> None:
        """Write what still waits, and describe the array."""
        self.flush()
        self._array.attrs.update(dict(attributes))

    def flush(self) -> None:
        """Write what still waits."""
        if self._waiting:
            self._store(self._bottom)

    @property
    def _bottom(self) -> int:
        waiting: int = sum(values.shape[1] for values in self._waiting)
        return self._place[0] + waiting

    def _store(self, bottom: int) -> None:
        top, left = self._place
        rows = np.concatenate(self._waiting, axis=1)
        now, later = rows[:, : bottom - top], rows[:, bottom - top :]
        with files.writing(self._path):
            columns = slice(left, left + rows.shape[2])
            if self._array.ndim == 2:
                self._array[top:bottom, columns] = now[0]
            else:
                self._array[:, top:bottom, columns] = now
        self._waiting = [later] if later.shape[1] else []
        self._place = (bottom, left)


def _chunk_side(shape: tuple[int, int, int], dtype: np.dtype[Any]) -> int:
    """Return the side of a chunk that holds all bands in at most 4 MiB: 8 to 256, a power of 2."""
    side = 256
    while side > 8 and (
        shape[0] * side * side * dtype.itemsize > _CHUNK_BYTES or side >= 2 * max(shape[1:])
    ):
        side //= 2
    return side


def _chunks_per_shard(
    shape: tuple[int, int, int], chunk: int, dtype: np.dtype[Any], across: int | None
) -> int:
    """Return how many chunks side by side make a file of at most 64 MiB; 1 is one file each."""
    most = _SHARD_BYTES // (shape[0] * chunk * chunk * dtype.itemsize)
    if across is not None:
        most = min(most, across // chunk)
    return max(1, min(most, -(-shape[2] // chunk)))


def _coordinates(group: Any, grid: Grid, bands: int | None, scales: Sequence[float] | None) -> None:
    refuse_rotated(grid)
    t = grid.transform
    crs = None if grid.crs is None else CRS.from_user_input(grid.crs)
    x = t.c + t.a * (np.arange(grid.width) + 0.5)
    y = t.f + t.e * (np.arange(grid.height) + 0.5)
    axes = _axis_attributes(crs)
    for name, values in (("x", x), ("y", y)):
        group.create_array(
            name, data=values, dimension_names=(name,), attributes=axes[name], fill_value=np.nan
        )
    if bands is not None:
        group.create_array("band", data=np.arange(bands), dimension_names=("band",))
    if scales is not None:
        group.create_array(
            "scale_factor",
            data=np.asarray(scales, dtype=np.float32),
            dimension_names=("band",),
            attributes={"long_name": "feature = embedding * scale_factor"},
        )
    mapping = {} if crs is None else crs.to_cf()
    mapping["GeoTransform"] = " ".join(repr(v) for v in (t.c, t.a, t.b, t.f, t.d, t.e))
    group.create_array("spatial_ref", data=np.asarray(0), attributes=mapping, dimension_names=())


def refuse_rotated(grid: Grid) -> None:
    """Refuse a grid whose rows do not lie along x.

    Raises:
        RunError: naming the ways out.
    """
    if grid.transform.b or grid.transform.d:
        raise RunError(
            "A rotated grid has no x and y coordinates, which zarr stores describe it by. Write a "
            "GeoTIFF (--out FILE.tif), or warp the raster to a north-up grid first."
        )


def _axis_attributes(crs: CRS | None) -> dict[str, dict[str, str]]:
    axes: dict[str, dict[str, str]] = {"x": {"axis": "X"}, "y": {"axis": "Y"}}
    for found in [] if crs is None else crs.cs_to_cf():
        name = found.get("axis", "").lower()
        if name in axes:
            axes[name] = dict(found)
    return axes


def _fill_attribute(value: float, dtype: np.dtype[Any]) -> int | str:
    """Return ``_FillValue`` as xarray writes it into zarr 3: floats as base64 of 64 bits."""
    if dtype.kind in "iu":
        return int(value)
    return base64.standard_b64encode(struct.pack("<d", value)).decode()
