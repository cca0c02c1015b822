"""Statistics of what is stored, in one look at each row of blocks."""

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from geodino.metrics.moments import Moments

_ROWS, _COLUMNS = 128, 1024
"""Pixels worked on at a time: what lies between stays in the cache."""

_SOME = 8
"""One row (or value) of so many is looked at for a centre."""


def moments_of(values: Shaped[np.ndarray, "c h w"], *, nodata: float | None) -> Moments:
    """Return the moments of the valid, finite pixels of each band.

    Differences from the mean are taken in float32, piece by piece, and summed row by row: within
    1e-6 of what float64 gives, at a fraction of its time.
    """
    moments = Moments.empty(values.shape[0])
    for top in range(0, values.shape[1], _ROWS):
        for left in range(0, values.shape[2], _COLUMNS):
            piece = values[:, top : top + _ROWS, left : left + _COLUMNS]
            parts = [_of_band(band, nodata) for band in piece]
            count, mean, m2, low, high = (np.array(column) for column in zip(*parts, strict=True))
            moments = moments.merge(Moments(count.astype(np.int64), mean, m2, low, high))
    return moments


def _of_band(
    band: Shaped[np.ndarray, "h w"], nodata: float | None
) -> tuple[int, float, float, float, float]:
    nodata = None if nodata is None else float(band.dtype.type(nodata))
    low, high = float(band.min()), float(band.max())
    if not np.isfinite(low + high) or (nodata is not None and low <= nodata <= high):
        band = band[_has_value(band, nodata)]
        if band.size == 0:
            return 0, 0.0, 0.0, np.inf, -np.inf
        low, high = float(band.min()), float(band.max())
    numbers = band.astype(np.float32, copy=False)
    # The mean of an eighth is at most sqrt(7) deviations from that of all: a good centre, and
    # what it is off by is corrected.
    some = numbers[::_SOME]
    centre = np.float32(_total(some) / some.size)
    off = numbers - centre
    drift = _total(off) / band.size
    m2 = _squares(off) - band.size * drift**2
    return band.size, float(centre) + drift, max(m2, 0.0), low, high


def _has_value(band: Shaped[np.ndarray, "h w"], nodata: float | None) -> Bool[np.ndarray, "h w"]:
    found: NDArray[np.bool_] = np.isfinite(band)
    if nodata is not None:
        found &= band != band.dtype.type(nodata)
    return found


def _total(values: NDArray[np.float32]) -> float:
    """Return the sum; of a row in float32, which is added in many lanes, of rows in float64."""
    if values.ndim == 1:
        return float(values.sum())
    ones = np.ones(values.shape[1], dtype=np.float32)
    return float(np.vecdot(values, ones).sum(dtype=np.float64))


def _squares(values: NDArray[np.float32]) -> float:
    """Return the sum of squares, added as above."""
    if values.ndim == 1:
        return float(np.square(values).sum())
    return float(np.vecdot(values, values).sum(dtype=np.float64))
