"""Values of one raster on the grid of another, by where pixel centres fall.

Between any two grids: across CRSs, turned axes and offsets of half a pixel. Where source pixels
are finer than the target's, a target pixel takes a statistic of the source pixels whose centres
lie in it; elsewhere it takes the source pixel that holds its own centre. What becomes of a target
pixel depends on its own place alone, so a window of the result has the same bits however the
raster is cut.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Literal

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from pyproj import CRS, Transformer

from geodino.geo.grid import Grid
from geodino.geo.windows import Window

Statistic = Literal["max", "mean", "p95"]
"""How the finer pixels in one coarser pixel become one value; ``p95`` is their 95th percentile,
linear between ranks."""

OfClasses = Literal["nearest", "majority"]
"""The same for numbers of classes: the pixel that holds the coarser one's centre, or the class that
most of its pixels have (of several the one with the lowest number)."""

Read = Callable[[Window], tuple[NDArray[np.floating], NDArray[np.bool_]]]
"""Values and validity of a window of the source."""

_CLOSE = 5e-7
"""A centre this close to the edge of a pixel (parts of it) lies on the edge, and an edge belongs
to the pixel below or to the right: coordinates are written in decimals."""

_FINER = 1.02
"""Source pixels per target pixel from which the source counts as finer: two UTM zones disagree on
the same pixel by less."""

_LATTICE = 33
"""Places a side at which a window is looked up in the source to find what must be read."""

_MARGIN = 2
"""Source pixels read beyond those places: what lies between them bends."""

_MOST = 1 << 22
"""Source pixels read at once; a window that needs more is cut."""

_NOWHERE = -(1 << 40)


def aligned(
    read: Read, *, source: Grid, target: Grid, window: Window, statistic: Statistic | OfClasses
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Bring a raster to a window of another grid, reading only what is needed.

    Args:
        read: reads a window of the source.
        source: its grid.
        target: the wanted grid.
        window: the wanted part of it, rows and columns of ``target``.
        statistic: how finer pixels become one.

    Returns:
        Float32 values, 0 where not valid, and where they are valid: the pixel's centre lies on
        the source, and at least half of the source pixels in it (or the one nearest pixel) are
        valid.
    """
    needed = source_window(source, target, window)
    if needed is None:
        shape = (window.height, window.width)
        return np.zeros(shape, np.float32), np.zeros(shape, dtype=bool)
    if needed.area > _MOST and window.area > 1:
        axis, parts = _halves(window)
        both = [
            aligned(read, source=source, target=target, window=part, statistic=statistic)
            for part in parts
        ]
        values, valid = (np.concatenate(arrays, axis=axis) for arrays in zip(*both, strict=True))
        return values, valid
    values, valid = read(needed)
    return onto(
        values, valid, read=needed, source=source, target=target, window=window,
        statistic=statistic,
    )  # fmt: skip


def onto(
    values: Float[np.ndarray, "hs ws"],
    valid: Bool[np.ndarray, "hs ws"],
    *,
    read: Window,
    source: Grid,
    target: Grid,
    window: Window,
    statistic: Statistic | OfClasses,
) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """Bring the part ``read`` of a raster, which is in memory, to a window of another grid.

    Args:
        values: the part; what lies under invalid pixels does not matter.
        valid: where its values may be used.
        read: rows and columns of ``source`` that the part covers; at least those of
            :func:`source_window`.
        source: the whole raster's grid.
        target: the wanted grid.
        window: the wanted part of it.
        statistic: how finer pixels become one.

    Returns:
        As :func:`aligned`.
    """
    known = np.where(valid, values, 0).astype(np.float64)
    row, column = _pixel_of(target, source, window)
    inside = (row >= 0) & (row < source.height) & (column >= 0) & (column < source.width)
    out, kept = _nearest(known, valid, row - read.top, column - read.left, inside)
    if statistic != "nearest" and is_finer(source, target):
        row, column = _pixel_of(source, target, read)
        row, column = row - window.top, column - window.left
        here = (row >= 0) & (row < window.height) & (column >= 0) & (column < window.width)
        pixel = (row * window.width + column)[here]
        usable = valid[here]
        total = np.bincount(pixel, minlength=window.area).reshape(inside.shape)
        good = np.bincount(pixel[usable], minlength=window.area).reshape(inside.shape)
        joined = _joined(known[here][usable], pixel[usable], window.area, statistic)
        # Turned by almost its own size, a pixel can miss every centre: it keeps the nearest.
        out = np.where(total > 0, joined.reshape(inside.shape), out)
        kept = np.where(total > 0, (good > 0) & (2 * good >= total), kept) & inside
    return np.where(kept, out, 0).astype(np.float32), kept


def is_finer(source: Grid, target: Grid) -> bool:
    """Whether pixels of ``source`` are finer than those of ``target``, at the target's centre."""
    x, y = target.width / 2, target.height / 2
    corners = np.array([[x, y], [x + 1, y], [x, y + 1]])
    column, row = positions(target, source, corners[:, 0], corners[:, 1])
    across, down = (
        (column[1] - column[0], row[1] - row[0]),
        (column[2] - column[0], row[2] - row[0]),
    )
    area = abs(across[0] * down[1] - across[1] * down[0])
    return bool(area > _FINER)  # NaN, where the two have no place in common, is not


def source_window(source: Grid, target: Grid, window: Window) -> Window | None:
    """Return the part of the source that a window of the target draws on; None if there is none."""
    x = np.linspace(window.left, window.right, _LATTICE)[None, :]
    y = np.linspace(window.top, window.bottom, _LATTICE)[:, None]
    column, row = positions(target, source, *np.broadcast_arrays(x, y))
    on_earth = np.isfinite(column) & np.isfinite(row)
    if not on_earth.any():
        return None
    top, bottom = _reach(row[on_earth], source.height)
    left, right = _reach(column[on_earth], source.width)
    if top >= bottom or left >= right:
        return None
    return Window(top, left, bottom - top, right - left)


def covering(source: Grid, target: Grid) -> Grid | None:
    """Return the pixels of a grid, drawn on beyond its edges, that another covers.

    None where the two have no place in common.

    Args:
        source: what is to be covered.
        target: the grid; its size does not matter.
    """
    t = np.linspace(0.0, 1.0, _LATTICE)
    ends = np.zeros_like(t)
    x = np.concatenate([t, ends + 1, t, ends]) * source.width
    y = np.concatenate([ends, t, ends + 1, t]) * source.height
    column, row = positions(source, target, x, y)
    on_earth = np.isfinite(column) & np.isfinite(row)
    if not on_earth.any():
        return None
    edges = column[on_earth], row[on_earth]
    left, top = (int(np.floor(edge.min() + _CLOSE)) for edge in edges)
    right, bottom = (int(np.ceil(edge.max() - _CLOSE)) for edge in edges)
    shifted = target.transform @ Affine.translation(left, top)
    return Grid(target.crs, shifted, width=right - left, height=bottom - top)


def positions(
    of: Grid, on: Grid, column: NDArray[np.floating], row: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where places of one grid lie on another: column and row, 0 at its first corner.

    Within one CRS by arithmetic alone. What a projection does not reach is infinite or NaN.

    Args:
        of: the grid that the places are given in.
        on: the grid they are wanted in.
        column: pixels from the left edge of ``of``; a centre lies at a half.
        row: pixels from its top edge.

    Raises:
        ValueError: one of the grids has no CRS.
    """
    if of.crs == on.crs:
        a, b, c, d, e, f = (~on.transform * of.transform)[:6]
        return a * column + b * row + c, d * column + e * row + f
    if of.crs is None or on.crs is None:
        raise ValueError("a grid without a CRS has no place on another")
    a, b, c, d, e, f = of.transform[:6]
    x, y = transformer(of.crs, on.crs).transform(
        a * column + b * row + c, d * column + e * row + f, errcheck=False
    )
    inverse = ~on.transform
    if is_geographic(on.crs) and not on.transform.is_identity:
        centre = (on.transform * (on.width / 2, on.height / 2))[0]
        with np.errstate(invalid="ignore"):
            x = x - 360 * np.round((x - centre) / 360)
    with np.errstate(invalid="ignore"):  # infinite where the projection does not reach
        x, y = x - on.transform.c, y - on.transform.f
        return inverse.a * x + inverse.b * y, inverse.d * x + inverse.e * y


@lru_cache(maxsize=512)
def transformer(source: str, target: str) -> Transformer:
    """Return the way from one CRS to another, x before y; building one takes milliseconds."""
    return Transformer.from_crs(
        CRS.from_user_input(source), CRS.from_user_input(target), always_xy=True
    )


@lru_cache(maxsize=512)
def is_geographic(crs: str) -> bool:
    """Whether a CRS counts in degrees."""
    return bool(CRS.from_user_input(crs).is_geographic)


def _pixel_of(of: Grid, on: Grid, window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the row and column of ``on`` in which each pixel centre of a window of ``of`` lies."""
    x = np.arange(window.left, window.right)[None, :] + 0.5
    y = np.arange(window.top, window.bottom)[:, None] + 0.5
    column, row = positions(of, on, *np.broadcast_arrays(x, y))
    return _floor(row), _floor(column)


def _floor(places: NDArray[np.float64]) -> NDArray[np.int64]:
    with np.errstate(invalid="ignore"):
        near = np.abs(places) < -_NOWHERE
    return np.where(near, np.floor(np.where(near, places, 0) + _CLOSE), _NOWHERE).astype(np.int64)


def _reach(places: NDArray[np.float64], length: int) -> tuple[int, int]:
    low, high = float(places.min()), float(places.max())
    first = np.floor(np.clip(low, 0, length + _MARGIN)) - _MARGIN
    stop = np.ceil(np.clip(high, -_MARGIN, length)) + _MARGIN
    if high < -_MARGIN or low > length + _MARGIN:
        return 0, 0
    return max(int(first), 0), min(int(stop), length)


def _nearest(
    known: NDArray[np.float64],
    valid: NDArray[np.bool_],
    row: NDArray[np.int64],
    column: NDArray[np.int64],
    inside: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    height, width = known.shape
    reached = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    if (inside & ~reached).any():
        raise ValueError("the part that was read does not cover the window")
    row, column = np.clip(row, 0, height - 1), np.clip(column, 0, width - 1)
    return known[row, column], valid[row, column] & inside


def _joined(
    values: NDArray[np.float64],
    pixel: NDArray[np.int64],
    count: int,
    statistic: Statistic | OfClasses,
) -> NDArray[np.float64]:
    """Take the statistic of the values of each pixel; sums run in the order of the source."""
    if statistic == "majority":
        return _most_frequent(values, pixel, count)
    if statistic == "max":
        top = np.full(count, -np.inf)
        np.maximum.at(top, pixel, values)
        return np.where(np.isfinite(top), top, 0.0)
    number = np.bincount(pixel, minlength=count)
    if statistic == "mean":
        return np.bincount(pixel, weights=values, minlength=count) / np.maximum(number, 1)
    ranked = values[np.lexsort((values, pixel))]
    if not ranked.size:
        return np.zeros(count)
    first = np.cumsum(number) - number
    rank = 0.95 * np.maximum(number - 1, 0)
    below = np.floor(rank).astype(np.int64)
    above = np.minimum(below + 1, np.maximum(number - 1, 0))
    last = ranked.size - 1
    low, high = ranked[np.minimum(first + below, last)], ranked[np.minimum(first + above, last)]
    return np.asarray(low + (rank - below) * (high - low))


def _most_frequent(
    values: NDArray[np.float64], pixel: NDArray[np.int64], count: int
) -> NDArray[np.float64]:
    found = np.zeros(count)
    if values.size:
        classes, number = np.unique(values, return_inverse=True)
        votes = np.bincount(pixel * len(classes) + number, minlength=count * len(classes))
        found = classes[votes.reshape(count, len(classes)).argmax(axis=1)]
    return found


def _halves(window: Window) -> tuple[int, tuple[Window, Window]]:
    top, left, height, width = window.top, window.left, window.height, window.width
    if height >= width:
        half = height // 2
        return 0, (Window(top, left, half, width), Window(top + half, left, height - half, width))
    half = width // 2
    return 1, (Window(top, left, height, half), Window(top, left + half, height, width - half))
