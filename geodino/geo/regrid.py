"""Bringing bands of several resolutions to one grid, weighed by validity.

Only between grids of one CRS whose axes are parallel: nothing is reprojected. The weights of an
output pixel depend on its own place alone, and sums run in a fixed order, so a window of the
result has the same bits however the raster is cut.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped, UInt8
from numpy.typing import NDArray

from geodino.geo.align import OfClasses
from geodino.geo.grid import Grid
from geodino.geo.windows import Window

Resampling = Literal["nearest", "bilinear", "average"]
"""``average`` is the mean over the area of the target's pixel, for bands finer than the grid."""

_CLOSE = 1e-6
"""Positions are rounded to this part of a pixel: coordinates are written in decimals."""

_ENOUGH = 0.5
"""A resampled pixel is valid if at least this share of its weight lies on valid pixels."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Places along one axis: output pixel ``i`` spans ``start + i * step`` to one step further."""

    start: float
    """Where output pixel 0 begins, in source pixels."""

    step: float
    """Source pixels per output pixel."""

    length: int
    """Source pixels there are."""

    def reach(self, first: int, stop: int, how: Resampling) -> tuple[int, int]:
        """Return the source pixels that output pixels ``first`` to ``stop - 1`` draw on."""
        index, _ = self.taps(np.array([first, stop - 1]), how)
        return int(index.min()), int(index.max()) + 1

    def inside(self, places: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Where the centre of an output pixel lies on the source."""
        centre = self.start + (places + 0.5) * self.step
        return (centre > -_CLOSE) & (centre < self.length + _CLOSE)

    def holders(self, pixels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the output pixels that hold the centres of source pixels, beyond the ends too."""
        place = (pixels + 0.5 - self.start) / self.step
        return np.asarray(np.floor(place + _CLOSE), dtype=np.int64)

    def taps(
        self, places: NDArray[np.int64], how: Resampling
    ) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return source pixels and weights ``[taps, places]`` of output pixels."""
        centre = np.round((self.start + (places + 0.5) * self.step) / _CLOSE) * _CLOSE
        if how == "nearest":
            index = np.floor(centre + _CLOSE / 2).astype(np.int64)[None]
            weight = np.ones(index.shape)
        elif how == "bilinear":
            left = np.floor(centre - 0.5 + _CLOSE / 2)
            part = np.clip(centre - 0.5 - left, 0, 1)
            index = np.stack([left, left + 1]).astype(np.int64)
            weight = np.stack([1 - part, part])
        else:
            low, high = centre - self.step / 2, centre + self.step / 2
            first = np.floor(low + _CLOSE).astype(np.int64)
            index = first + np.arange(int(np.ceil(self.step)) + 1)[:, None]
            # What lies beyond the edge has no weight: a mean is of pixels that exist.
            stop, start = np.minimum(index + 1, self.length), np.maximum(index, 0)
            shared = np.minimum(high, stop) - np.maximum(low, start)
            weight = np.where(shared > _CLOSE, shared, 0) / self.step
        # In bilinear, edge pixels stand in for what lies beyond the edge.
        return np.clip(index, 0, self.length - 1), weight


def axes(source: Grid, target: Grid) -> tuple[Axis, Axis] | None:
    """Return how the rows and the columns of ``target`` lie on ``source``.

    None where the two have different CRSs or their axes are not parallel.
    """
    to_source = ~source.transform * target.transform
    turned = max(abs(to_source.b), abs(to_source.d)) * max(target.width, target.height)
    if source.crs != target.crs or turned > 0.01 or to_source.a <= 0 or to_source.e <= 0:
        return None
    rows = Axis(float(to_source.f), float(to_source.e), source.height)
    return rows, Axis(float(to_source.c), float(to_source.a), source.width)


def source_window(rows: Axis, columns: Axis, window: Window, how: Resampling) -> Window:
    """Return the part of the source that a window of the target draws on."""
    top, bottom = rows.reach(window.top, window.bottom, how)
    left, right = columns.reach(window.left, window.right, how)
    return Window(top, left, bottom - top, right - left)


def resample(
    pixels: Shaped[np.ndarray, "c h w"],
    valid: Bool[np.ndarray, "cc h w"],
    *,
    read: Window,
    rows: Axis,
    columns: Axis,
    window: Window,
    how: Resampling,
) -> tuple[Shaped[np.ndarray, "c hh ww"], Bool[np.ndarray, "cc hh ww"]]:
    """Resample pixels to a window of the target grid; integers are rounded to the nearest.

    Args:
        pixels: the part ``read`` of the source, as stored.
        valid: where its pixels may be used, of each band or of all of them alike (1 h w); what
            lies under others does not matter.
        read: from :func:`source_window`.
        rows: from :func:`axes`.
        columns: from :func:`axes`.
        window: the wanted part of the target.
        how: the method.

    Returns:
        Pixels in the dtype of the source, 0 where not valid, and where they are valid: at least
        half of the weight on valid pixels, and the centre on the source.
    """
    down = np.arange(window.top, window.bottom)
    across = np.arange(window.left, window.right)
    index_y, weight_y = rows.taps(down, how)
    index_x, weight_x = columns.taps(across, how)
    index_y, index_x = index_y - read.top, index_x - read.left
    inside = rows.inside(down)[:, None] & columns.inside(across)
    if how == "nearest":
        picked = pixels[:, index_y[0]][:, :, index_x[0]]
        kept = valid[:, index_y[0]][:, :, index_x[0]] & inside
        return np.where(kept, picked, picked.dtype.type(0)), kept
    if valid.all():
        weight = np.broadcast_to(_whole(weight_y, weight_x), (len(valid), *inside.shape))
    else:
        weight = _along(_along(valid, index_y, weight_y, 1), index_x, weight_x, 2)
        pixels = np.where(valid, pixels, pixels.dtype.type(0))
    kept = (weight >= _ENOUGH - _CLOSE) & inside
    total = _along(_along(pixels, index_y, weight_y, 1), index_x, weight_x, 2)
    mean = np.where(kept, total / np.where(kept, weight, 1.0), 0.0)
    return (np.rint(mean) if pixels.dtype.kind in "iu" else mean).astype(pixels.dtype), kept


def resample_classes(
    classes: UInt8[np.ndarray, "h w"],
    *,
    read: Window,
    rows: Axis,
    columns: Axis,
    window: Window,
    how: OfClasses,
    ignored: int,
) -> UInt8[np.ndarray, "hh ww"]:
    """Bring numbers of classes to a window of the target grid.

    A target pixel takes the class that most of the pixels in it have, by their centres and without
    those that are ignored (of several classes the one with the lowest number); where it holds no
    centre, or for ``nearest``, the pixel that holds its own.

    Args:
        classes: the part ``read`` of the source.
        read: from :func:`source_window`, for ``average``.
        rows: from :func:`axes`.
        columns: from :func:`axes`.
        window: the wanted part of the target.
        how: the method.
        ignored: number of pixels that have no class.

    Returns:
        Numbers of classes; ``ignored`` where no pixel has one, and where the centre is not on the
        source.
    """
    down = np.arange(window.top, window.bottom)
    across = np.arange(window.left, window.right)
    y, x = rows.taps(down, "nearest")[0][0] - read.top, columns.taps(across, "nearest")[0][0]
    inside = rows.inside(down)[:, None] & columns.inside(across)
    none = np.uint8(ignored)
    near: UInt8[np.ndarray, "hh ww"] = np.where(inside, classes[y][:, x - read.left], none)
    if how == "nearest":
        return near
    y = rows.holders(np.arange(read.top, read.bottom)) - window.top
    x = columns.holders(np.arange(read.left, read.right)) - window.left
    part = tuple(
        slice(*np.searchsorted(at, [0, n])) for at, n in ((y, len(down)), (x, len(across)))
    )
    y, x = y[part[0]], x[part[1]]
    found = _most(classes[part], y[:, None] * window.width + x, inside.shape, none)
    holds = np.isin(np.arange(len(down)), y)[:, None] & np.isin(np.arange(len(across)), x)
    return np.where(inside & holds, found, near)


def _most(
    classes: UInt8[np.ndarray, "h w"],
    pixel: Int64[np.ndarray, "h w"],
    shape: tuple[int, int],
    none: np.uint8,
) -> UInt8[np.ndarray, "hh ww"]:
    """Return the class that most of the pixels in each pixel of a target have; ``none`` without any."""
    known = classes != none
    if not known.all():
        classes, pixel = classes[known], pixel[known]
    if not classes.size:
        return np.full(shape, none)
    present = np.flatnonzero(np.bincount(classes.reshape(-1)))
    area, place = shape[0] * shape[1], np.zeros(int(present[-1]) + 1, dtype=np.int64)
    place[present] = np.arange(len(present)) * area
    votes = np.bincount((place[classes] + pixel).reshape(-1), minlength=len(present) * area)
    votes = votes.reshape(len(present), *shape)
    best, most = np.full(shape, none), np.zeros(shape, dtype=np.int64)
    for number, voted in zip(present, votes, strict=True):
        np.copyto(best, np.uint8(number), where=voted > most)
        np.maximum(most, voted, out=most)
    return best


def _along(
    values: NDArray[Any], index: NDArray[np.int64], weight: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    """Sum the taps along an axis of ``[c h w]`` one after the other, in float64."""
    shape = (1, -1, 1) if axis == 1 else (1, 1, -1)
    total = np.take(values, index[0], axis=axis) * weight[0].reshape(shape)
    for places, share in zip(index[1:], weight[1:], strict=True):
        total += np.take(values, places, axis=axis) * share.reshape(shape)
    return np.asarray(total)


def _whole(
    weight_y: NDArray[np.float64], weight_x: NDArray[np.float64]
) -> Float64[np.ndarray, "1 hh ww"]:
    """Return what ``_along`` makes of ones along both axes, to the last bit."""
    down = weight_y[0].copy()
    for share in weight_y[1:]:
        down += share
    total = down[:, None] * weight_x[0]
    for share in weight_x[1:]:
        total += down[:, None] * share
    return np.asarray(total[None])
