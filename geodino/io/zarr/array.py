"""An array of a zarr store seen as a stack of images: which axis is which, and its chunks."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from geodino.errors import SourceError
from geodino.geo.windows import Window
from geodino.io.zarr.codecs import ChunkCodec, Shards, codecs_of
from geodino.io.zarr.open import ZarrArray, attributes

_NAMES = {
    "time": ("time", "t", "date", "datetime"),
    "band": ("band", "bands", "channel", "channels", "wavelength", "variable"),
    "y": ("y", "lat", "latitude", "northing", "projection_y_coordinate"),
    "x": ("x", "lon", "longitude", "easting", "projection_x_coordinate"),
}
"""Names of dimensions, in lower case."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Axes:
    """Positions of the axes of an array; None where it has no such axis."""

    time: int | None
    band: int | None
    y: int
    x: int


def dimensions(array: ZarrArray) -> tuple[str | None, ...]:
    """Return the names of the dimensions, from format 3 or xarray's attribute; None = unnamed."""
    named = getattr(array.metadata, "dimension_names", None)
    if not named:
        named = attributes(array).get("_ARRAY_DIMENSIONS")
    if not isinstance(named, (list, tuple)) or len(named) != array.ndim:
        return (None,) * array.ndim
    return tuple(named)


def axes_of(dims: Sequence[str | None], around: Mapping[str, Any]) -> Axes | None:
    """Tell the axes apart by the names of the dimensions; None if that cannot be done.

    Args:
        dims: from :func:`dimensions`.
        around: attributes of the array and its group; GeoZarr's ``spatial:dimensions`` names rows and
            columns, whatever they are called.
    """
    spatial = around.get("spatial:dimensions") or ()
    known = dict(zip(spatial, ("y", "x"), strict=True)) if len(spatial) == 2 else {}
    kinds: list[str] = []
    for dim in dims:
        kind = known.get(dim) or next(
            (k for k, n in _NAMES.items() if (dim or "").lower() in n), ""
        )
        if not kind or kind in kinds:
            return None
        kinds.append(kind)
    if "y" not in kinds or "x" not in kinds:
        return None
    position = {kind: i for i, kind in enumerate(kinds)}
    return Axes(
        time=position.get("time"), band=position.get("band"), y=position["y"], x=position["x"]
    )


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of a chunk that falls into a window.

    Args:
        chunk: coordinates of the chunk in the grid of all chunks (inner ones of shards).
        bands: pairs of (band of the window, index along the band axis of the chunk).
        target: rows and columns of the window.
        source: rows and columns of the chunk.
        time: index along the time axis of the chunk.
    """

    chunk: tuple[int, ...]
    bands: tuple[tuple[int, int], ...]
    target: tuple[slice, slice]
    source: tuple[slice, slice]
    time: int


@dataclass(frozen=True, slots=True)
class StoredArray:
    """What reading asks of an array's metadata, asked once.

    Args:
        name: what messages call it: ``STORE#ARRAY``.
        path: below the root of the store.
        array: zarr's own object; only its metadata is used.
        axes: which is which.
        codec: decodes a chunk.
        shards: how chunks lie in shards, if they do.
    """

    name: str
    path: str
    array: ZarrArray
    axes: Axes
    codec: ChunkCodec
    shards: Shards | None

    @classmethod
    def of(cls, array: ZarrArray, *, name: str, axes: Axes) -> "StoredArray":
        """Look at the metadata of an array.

        Raises:
            SourceError: it is compressed by something that is not known here.
        """
        codec, shards = codecs_of(array, name)
        return cls(name, array.path, array, axes, codec, shards)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the pixels, in the machine's byte order."""
        return self.array.dtype.newbyteorder("=")

    @property
    def fill(self) -> Any:
        """What zarr reads where no chunk was written."""
        return 0 if self.array.fill_value is None else self.array.fill_value

    @property
    def height(self) -> int:
        """Rows."""
        return int(self.array.shape[self.axes.y])

    @property
    def width(self) -> int:
        """Columns."""
        return int(self.array.shape[self.axes.x])

    @property
    def bands(self) -> int:
        """Bands: 1 where there is no such axis."""
        return 1 if self.axes.band is None else int(self.array.shape[self.axes.band])

    @property
    def times(self) -> int | None:
        """Dates; None where there is no such axis."""
        return None if self.axes.time is None else int(self.array.shape[self.axes.time])

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns that decode together, cut to the size of the array."""
        chunk = self.codec.shape
        return (
            min(chunk[self.axes.y], max(1, self.height)),
            min(chunk[self.axes.x], max(1, self.width)),
        )

    def pieces(
        self, window: Window, bands: Sequence[tuple[int, int]], *, time: int | None
    ) -> Iterator[Piece]:
        """Yield every chunk that a window touches, once, row by row.

        Args:
            window: which pixels.
            bands: pairs of (band of the window, band of the array, counted from 0).
            time: index of the date; None where there is no such axis.
        """
        chunk, axes = self.codec.shape, self.axes
        deep = 1 if axes.band is None else chunk[axes.band]
        by_chunk: dict[int, list[tuple[int, int]]] = {}
        for target, band in bands:
            by_chunk.setdefault(band // deep, []).append((target, band % deep))
        date, moment = (0, 0) if axes.time is None else divmod(time or 0, chunk[axes.time])
        rows = _overlaps(window.top, window.bottom, chunk[axes.y])
        columns = list(_overlaps(window.left, window.right, chunk[axes.x]))
        for i, to_rows, from_rows in rows:
            for (j, to_columns, from_columns), (k, inside) in product(columns, by_chunk.items()):
                place = {axes.time: date, axes.band: k, axes.y: i, axes.x: j}
                yield Piece(
                    chunk=tuple(place[axis] for axis in range(len(chunk))),
                    bands=tuple(inside),
                    target=(to_rows, to_columns),
                    source=(from_rows, from_columns),
                    time=moment,
                )

    def split(self, chunk: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
        """Return the key of the stored object that holds a chunk, and its place in that shard."""
        if self.shards is None:
            return self._key(chunk), ()
        both = [divmod(c, n) for c, n in zip(chunk, self.shards.counts, strict=True)]
        return self._key(tuple(outer for outer, _ in both)), tuple(inner for _, inner in both)

    def images(self, data: bytes, piece: Piece) -> Any:
        """Decode a chunk and return its images, [band row column], of one date."""
        values = self.codec.decode(data)
        axes = self.axes
        first = [axis for axis in (axes.time, axes.band) if axis is not None]
        values = values.transpose([*first, axes.y, axes.x])
        if axes.time is not None:
            values = values[piece.time]
        return values if axes.band is not None else values[None]

    def _key(self, coordinates: tuple[int, ...]) -> str:
        key = self.array.metadata.encode_chunk_key(coordinates)
        return f"{self.path}/{key}" if self.path else key


def stored_array(array: ZarrArray, *, name: str, around: Mapping[str, Any]) -> StoredArray:
    """Return an array as a stack of images.

    Args:
        array: an array of a store.
        name: what messages call it.
        around: attributes of the array and its group.

    Raises:
        SourceError: it is none, in words that say what was found.
    """
    refusal = _no_intensities(array)
    dims = dimensions(array)
    axes = axes_of(dims, around)
    if axes is None and refusal is None:
        found = ", ".join(str(d) for d in dims) if any(dims) else "without names"
        refusal = (
            f"its dimensions ({found}) cannot be told apart: expected y and x, with or without "
            "band and time. Name them in dimension_names (format 3) or _ARRAY_DIMENSIONS"
        )
    if axes is None or refusal is not None:
        raise SourceError(f"{name} cannot be read as images: {refusal}.")
    return StoredArray.of(array, name=name, axes=axes)


def _no_intensities(array: ZarrArray) -> str | None:
    """Return why the values of an array are no pixels, judged by their type; None if they may be."""
    if array.dtype.kind not in "uif":
        kind = {"c": "complex values", "b": "booleans", "M": "dates"}.get(
            array.dtype.kind, f"{array.dtype}"
        )
        return f"it stores {kind}, not intensities"
    if str(attributes(array).get("_Unsigned", "")).lower() in ("true", "false"):
        return "its attribute _Unsigned gives its values another type. Write it with its own type"
    if min(array.shape, default=0) == 0:
        return f"it is empty (shape {' x '.join(map(str, array.shape)) or 'none'})"
    return None


def _overlaps(start: int, stop: int, step: int) -> Iterator[tuple[int, slice, slice]]:
    """Yield (chunk number, slice of the window, slice of the chunk) along one axis."""
    for number in range(start // step, -(-stop // step)):
        low, high = max(start, number * step), min(stop, (number + 1) * step)
        yield (
            number,
            slice(low - start, high - start),
            slice(low - number * step, high - number * step),
        )
