"""Overviews: four pixels become one, row of blocks by row of blocks, level by level."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from geodino.io.cog.layout import Layer, Resampling

_CHUNK = 64
"""Rows worked on at a time: intermediate arrays stay in the cache."""

_WIDER = {"uint8": "uint16", "int8": "int16", "uint16": "uint32", "int16": "int32"}
"""Types that hold the sum of four values."""


def halve(
    values: Shaped[np.ndarray, "c h w"], *, nodata: float | None, resampling: Resampling
) -> Shaped[np.ndarray, "c h2 w2"]:
    """Return values of every 2 x 2 pixels; an odd last row or column stands for two.

    Pixels of nodata (and NaN) do not count; where all four are, the result is nodata.
    ``average`` is the mean, of integers rounded to the nearest, halves to even; a mean that
    happens to be the nodata value moves to its neighbour. ``mode`` is the most frequent value,
    of equally frequent ones the first in reading order.
    """
    count, height, width = values.shape
    out = np.empty((count, -(-height // 2), -(-width // 2)), dtype=values.dtype)
    for band, small in zip(values, out, strict=True):
        for top in range(0, height, _CHUNK):
            rows = band[top : top + _CHUNK]
            if rows.shape[0] % 2 or width % 2:
                # Repeating the edge changes neither a mean nor the most frequent value.
                rows = np.pad(rows, ((0, rows.shape[0] % 2), (0, width % 2)), mode="edge")
            target = small[top // 2 : (top + _CHUNK) // 2]
            target[:] = _mode(rows, nodata) if resampling == "mode" else _mean(rows, nodata)
    return out


class Pyramid:
    """Overviews of rows that come from the top; only half-filled rows of blocks are held.

    Args:
        layer: nodata and resampling.
        block: rows of a row of blocks; even.
        size: rows and columns of what comes.
        levels: how many overviews to make.
    """

    def __init__(self, layer: Layer, *, block: int, size: tuple[int, int], levels: int) -> None:
        self._layer = layer
        self._block = block
        self._heights = [-(-size[0] >> level) for level in range(levels + 1)]
        self._seen = [0] * (levels + 1)
        self._waiting: list[list[NDArray[Any]]] = [[] for _ in range(levels + 1)]

    def push(
        self, values: Shaped[np.ndarray, "c h w"]
    ) -> Iterator[tuple[int, int, Shaped[np.ndarray, "c h2 w2"]]]:
        """Take one row of blocks; yield (level, row of blocks, values) of overviews it completes.

        Every row but the last has ``block`` pixels; levels count from 1.
        """
        return self._push(values, 1)

    def _push(
        self, values: NDArray[Any], level: int
    ) -> Iterator[tuple[int, int, Shaped[np.ndarray, "c h2 w2"]]]:
        if level == len(self._heights):
            return
        small = halve(values, nodata=self._layer.nodata, resampling=self._layer.resampling)
        waiting = self._waiting[level]
        waiting.append(small)
        row = self._seen[level] // self._block
        self._seen[level] += small.shape[1]
        is_full = self._seen[level] % self._block == 0
        if is_full or self._seen[level] == self._heights[level]:
            whole = waiting[0] if len(waiting) == 1 else np.concatenate(waiting, axis=1)
            waiting.clear()
            yield level, row, whole
            yield from self._push(whole, level + 1)

    @property
    def held(self) -> int:
        """Bytes of the rows that wait for others."""
        return sum(part.nbytes for waiting in self._waiting for part in waiting)


def _valid(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_] | None:
    """Return which pixels have data; None where all have."""
    if values.dtype.kind == "f":
        valid = ~np.isnan(values)
        if nodata is not None and not np.isnan(nodata):
            valid &= values != values.dtype.type(nodata)
    elif nodata is not None:
        valid = values != values.dtype.type(nodata)
    else:
        return None
    return None if valid.all() else valid


def _mean(values: Shaped[np.ndarray, "h w"], nodata: float | None) -> NDArray[Any]:
    if values.dtype.kind == "f" and (nodata is None or np.isnan(nodata)):
        sums = _sum4(values, values.dtype)
        # A sum is NaN where a pixel is: this looks at a quarter of the numbers.
        if np.isnan(sums).any():
            return _mean_of_some(values, ~np.isnan(values), nodata)
    else:
        valid = _valid(values, nodata)
        if valid is not None:
            return _mean_of_some(values, valid, nodata)
        sums = _sum4(values, _sum_type(values.dtype))
    if values.dtype.kind == "f":
        return _off_nodata(sums * values.dtype.type(0.25), nodata)
    # The nearest integer of sums / 4, halves to even, without leaving the integers.
    means = (sums + (1 + ((sums >> 2) & 1))) >> 2
    return _off_nodata(means.astype(values.dtype), nodata)


def _mean_of_some(
    values: Shaped[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], nodata: float | None
) -> NDArray[Any]:
    dtype = values.dtype
    nothing = dtype.type(np.nan if nodata is None else nodata)
    if not valid.any():
        return np.full((values.shape[0] // 2, values.shape[1] // 2), nothing, dtype=dtype)
    counts = _sum4(valid, np.dtype(np.uint8))
    sums = _sum4(np.where(valid, values, dtype.type(0)), _sum_type(dtype))
    # Sums of four 16-bit integers are exact in float32, and so are their halves.
    means = np.divide(sums, np.maximum(counts, 1), dtype=np.float32)
    if dtype.kind != "f":
        means = np.rint(means).astype(dtype)
    return np.where(counts > 0, _off_nodata(means, nodata), nothing)


def _off_nodata(means: NDArray[Any], nodata: float | None) -> NDArray[Any]:
    """Move means of valid pixels that are the nodata value by accident to its neighbour."""
    dtype = means.dtype
    if nodata is None or np.isnan(nodata):
        return means
    taken = dtype.type(nodata)
    if dtype.kind == "f":
        beside = np.nextafter(taken, dtype.type(0) if taken else dtype.type(1))
    else:
        limits = np.iinfo(dtype)
        if nodata in (limits.min, limits.max):
            return means  # no mean of other values lies there
        beside = dtype.type(taken + 1)
    return np.where(means == taken, beside, means)


def _sum4(values: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return sums of 2 x 2 values, rows first: most of the work runs over neighbours."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are the caller's
        rows = np.add(values[0::2], values[1::2], dtype=dtype)
        sums: NDArray[Any] = rows[:, 0::2] + rows[:, 1::2]
    return sums


def _sum_type(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(_WIDER.get(dtype.name, dtype.name))


def _mode(values: Shaped[np.ndarray, "h w"], nodata: float | None) -> NDArray[Any]:
    a, b = values[0::2, 0::2], values[0::2, 1::2]
    c, d = values[1::2, 0::2], values[1::2, 1::2]
    out = a.copy()
    mixed = (a != b) | (a != c) | (a != d)
    if not mixed.any():
        return out
    # Most pixels of a map of classes lie among their like; the rules are for the others.
    a, b, c, d = (quarter[mixed] for quarter in (a, b, c, d))
    valid = [_is_valid(quarter, nodata) for quarter in (a, b, c)]
    first = np.select(valid, [a, b, c], d)
    out[mixed] = np.select(
        [
            valid[0] & ((a == b) | (a == c) | (a == d)),
            valid[1] & ((b == c) | (b == d)),
            valid[2] & (c == d),
        ],
        [a, b, c],
        first,
    )
    return out


def _is_valid(values: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    valid = _valid(values, nodata)
    return np.ones(values.shape, dtype=np.bool_) if valid is None else valid
