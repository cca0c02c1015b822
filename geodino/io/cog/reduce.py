"""Overviews: four pixels become one, row of blocks by row of blocks, level by level."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from geodino.io.cog.layout import Layer, Resampling

_ROWS, _COLUMNS = 256, 1024
"""Pixels worked on at a time: intermediate arrays stay in the cache, and where data end in the
middle of a map most pieces have all of their pixels or none."""


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
    reduced = _mode if resampling == "mode" else _mean
    for band, small in zip(values, out, strict=True):
        for top in range(0, height, _ROWS):
            for left in range(0, width, _COLUMNS):
                piece = band[top : top + _ROWS, left : left + _COLUMNS]
                odd = piece.shape[0] % 2, piece.shape[1] % 2
                if any(odd):
                    # Repeating the edge changes neither a mean nor the most frequent value.
                    piece = np.pad(piece, ((0, odd[0]), (0, odd[1])), mode="edge")
                y, x = top // 2, left // 2
                small[y : y + _ROWS // 2, x : x + _COLUMNS // 2] = reduced(piece, nodata)
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


def _nothing(dtype: np.dtype[Any], nodata: float | None) -> Any:
    """Return what four pixels without data become; NaN has none even where no value is nodata."""
    return dtype.type(np.nan if nodata is None else nodata)


def _mean(values: Shaped[np.ndarray, "h w"], nodata: float | None) -> NDArray[Any]:
    dtype = values.dtype
    # Sums of four 16-bit integers are exact in float32, and so are their halves.
    sums = _sum4(values.astype(np.float32, copy=False))
    if dtype.kind == "f" and (nodata is None or np.isnan(nodata)):
        # A sum is NaN where a pixel is: this looks at a quarter of the numbers.
        valid = ~np.isnan(values) if np.isnan(sums).any() else None
    else:
        valid = _valid(values, nodata)
    if valid is None:
        means = _stored(sums * np.float32(0.25), dtype)
        return _off_nodata(means, nodata)
    nothing = _nothing(dtype, nodata)
    if not valid.any():
        return np.full(sums.shape, nothing, dtype=dtype)
    counts = _sum4(valid.view(np.uint8))
    sums = _sum4(_zeroed(values, valid).astype(np.float32, copy=False))
    means = _stored(sums / np.maximum(counts, 1).astype(np.float32), dtype)
    return np.where(counts > 0, _off_nodata(means, nodata), nothing)


def _stored(means: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    return means if dtype.kind == "f" else np.rint(means, out=means).astype(dtype)


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


def _sum4(values: NDArray[Any]) -> NDArray[Any]:
    """Return sums of 2 x 2 values, rows first: most of the work runs over neighbours."""
    with np.errstate(invalid="ignore", over="ignore"):  # infinities are the caller's
        rows = values[0::2] + values[1::2]
        sums: NDArray[Any] = rows[:, 0::2] + rows[:, 1::2]
    return sums


def _zeroed(values: NDArray[Any], valid: Bool[np.ndarray, "h w"]) -> NDArray[Any]:
    bits = values.view(f"u{values.dtype.itemsize}")
    zeroed: NDArray[Any] = _choose(bits, bits.dtype.type(0), valid)
    return zeroed.view(values.dtype)


def _mode(values: Shaped[np.ndarray, "h w"], nodata: float | None) -> NDArray[Any]:
    # Bits are compared and chosen between, whatever they mean: with masks of ones and zeros that
    # is several times faster than numpy's where().
    bits = values.view(f"u{values.dtype.itemsize}")
    (a, b), (c, d) = _apart(bits[0::2]), _apart(bits[1::2])
    twice_a, twice_b, twice_c = (a == b) | (a == c) | (a == d), (b == c) | (b == d), c == d
    valid = _valid(values, nodata)
    out = a
    if valid is not None:
        valid_a, valid_b = valid[0::2, 0::2], valid[0::2, 1::2]
        valid_c, valid_d = valid[1::2, 0::2], valid[1::2, 1::2]
        out = np.full_like(a, _nothing(values.dtype, nodata).view(bits.dtype))
        for quarter, has_data in ((d, valid_d), (c, valid_c), (b, valid_b), (a, valid_a)):
            out = _choose(quarter, out, has_data)  # of the four the first that has data
        twice_a, twice_b, twice_c = twice_a & valid_a, twice_b & valid_b, twice_c & valid_c
    # What stands twice wins over what stands once; of two pairs the first.
    for quarter, twice in ((c, twice_c), (b, twice_b), (a, twice_a)):
        out = _choose(quarter, out, twice)
    return out.view(values.dtype)


def _apart(bits: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return every first and every second of unsigned values; faster than steps of two."""
    if bits.strides[1] != bits.itemsize:
        bits = bits.copy()  # pixels of one of several bands that lie together
    pairs = bits.view(f"<u{2 * bits.itemsize}")
    return pairs.astype(bits.dtype), (pairs >> (8 * bits.itemsize)).astype(bits.dtype)


def _choose(this: NDArray[Any], other: Any, where: Bool[np.ndarray, "h w"]) -> NDArray[Any]:
    """Return the unsigned ``this`` where the mask is true, the unsigned ``other`` elsewhere."""
    mask = np.negative(where.view(np.uint8).astype(this.dtype))  # 0 or all bits set
    chosen: NDArray[Any] = other ^ ((this ^ other) & mask)
    return chosen
