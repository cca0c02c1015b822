"""Streaming mean, variance, extremes and value counts, exact to merge in any grouping.

Statistics of an archive are built from parts: every window gives its own, and parts are merged.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_SHIFT = 13
"""Low bits of a 32-bit float that are dropped: bins keep sign, exponent and 10 bits."""

FLOAT_ERROR = 2.0**-10
"""Largest error of a percentile of floats, relative to its value: one bin."""


@dataclass(frozen=True, slots=True)
class Moments:
    """Count, mean, sum of squared differences, smallest and largest value of each band.

    Args:
        count: values per band, int64.
        mean: float64; 0 where there is no value.
        m2: sum of squared differences from the mean, float64.
        low: smallest value; +inf where there is none.
        high: largest value; -inf where there is none.
    """

    count: NDArray[np.int64]
    mean: NDArray[np.float64]
    m2: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]

    @classmethod
    def empty(cls, bands: int) -> "Moments":
        """Return the moments of nothing."""
        zero, infinite = np.zeros(bands), np.full(bands, np.inf)
        return cls(np.zeros(bands, dtype=np.int64), zero, zero, infinite, -infinite)

    @classmethod
    def of(cls, values: list[NDArray[Any]]) -> "Moments":
        """Return the moments of the values of each band, by two passes in float64."""
        bands = [v.astype(np.float64) for v in values]
        mean = np.array([v.mean() if v.size else 0.0 for v in bands])
        return cls(
            np.array([v.size for v in bands], dtype=np.int64),
            mean,
            np.array([np.square(v - m).sum() for v, m in zip(bands, mean, strict=True)]),
            np.array([v.min(initial=np.inf) for v in bands]),
            np.array([v.max(initial=-np.inf) for v in bands]),
        )

    def merge(self, other: "Moments") -> "Moments":
        """Return the moments of both parts together.

        Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing
        sample variances", equation 2.1.
        """
        count = self.count + other.count
        share = other.count / np.maximum(count, 1)
        delta = other.mean - self.mean
        return Moments(
            count,
            self.mean + delta * share,
            self.m2 + other.m2 + np.square(delta) * self.count * share,
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    @property
    def std(self) -> NDArray[np.float64]:
        """Standard deviation of the population (numpy's default)."""
        deviation: NDArray[np.float64] = np.sqrt(self.m2 / np.maximum(self.count, 1))
        return deviation


class ValueCounts:
    """How often each stored value occurs, band by band; percentiles come from it.

    Types of up to 16 bits are counted value by value, so percentiles, mean and variance are
    exact. Wider types are counted by the first 19 bits of the value as a 32-bit float (sign,
    exponent, 10 bits of the fraction): bins need no range known in advance. A percentile is then
    below the true one (in magnitude) by at most 2**-10 (0.1 %) of it, and exact where values have
    no more than 11 significant bits, as whole numbers up to 2,048.

    Args:
        dtype: stored type.
        bands: how many.
    """

    def __init__(self, dtype: str | np.dtype[Any], bands: int) -> None:
        self.dtype = np.dtype(dtype)
        self.is_exact = self.dtype.kind in "iu" and self.dtype.itemsize <= 2
        bits = self.dtype.itemsize * 8 if self.is_exact else 32 - _SHIFT
        self.counts = np.zeros((bands, 1 << bits), dtype=np.int64)

    def add(self, band: int, values: NDArray[Any]) -> None:
        """Count the values of one band: any shape, stored type, finite."""
        codes = self._codes(values).ravel()
        row = self.counts[band]
        if codes.size * 16 < row.size:
            np.add.at(row, codes, 1)
            return
        found = np.bincount(codes)
        row[: found.size] += found

    def merge(self, other: "ValueCounts") -> None:
        """Add what ``other`` counted; order does not matter, the counts are integers."""
        self.counts += other.counts

    @property
    def total(self) -> NDArray[np.int64]:
        """Values counted per band."""
        total: NDArray[np.int64] = self.counts.sum(axis=1)
        return total

    def moments(self) -> Moments:
        """Return exact moments of the counted values.

        Raises:
            ValueError: values of this type are counted in bins.
        """
        if not self.is_exact:
            raise ValueError(f"{self.dtype} is counted in bins, its moments are not known exactly")
        values = np.arange(self.counts.shape[1]) + self._least()
        # Sums of integers: below 2**63 for 1e14 values of 16 bits, hence exact.
        count = self.total
        mean = (self.counts @ values) / np.maximum(count, 1)
        m2 = np.array([n @ np.square(values - m) for n, m in zip(self.counts, mean, strict=True)])
        some = self.counts > 0
        first, last = some.argmax(axis=1), some.shape[1] - 1 - some[:, ::-1].argmax(axis=1)
        return Moments(
            count,
            mean,
            m2,
            np.where(count > 0, values[first], np.inf),
            np.where(count > 0, values[last], -np.inf),
        )

    def quantiles(self, *q: float) -> NDArray[np.float64]:
        """Return quantiles (each 0 to 1) of each band, [len(q), bands]; NaN for an empty band.

        Between two values they are interpolated as ``numpy.quantile`` does.
        """
        found = np.full((len(q), len(self.counts)), np.nan)
        for band, row in enumerate(self.counts):
            ends = np.cumsum(row)
            if ends[-1] == 0:
                continue
            place = np.array(q) * (ends[-1] - 1)
            low, high = (
                self._values(np.searchsorted(ends, rank, side="right"))
                for rank in (np.floor(place), np.ceil(place))
            )
            found[:, band] = low + (high - low) * (place - np.floor(place))
        return found

    def _least(self) -> int:
        return int(np.iinfo(self.dtype).min)

    def _codes(self, values: NDArray[Any]) -> NDArray[Any]:
        if self.is_exact:
            return values if self.dtype.kind == "u" else values.astype(np.int32) - self._least()
        bits = np.ascontiguousarray(values, dtype=np.float32).view(np.uint32)
        # Flip so that unsigned order is the order of the floats (negative ones run backwards).
        negative = bits >> np.uint32(31) == 1
        ordered = bits ^ np.where(negative, np.uint32(0xFFFFFFFF), np.uint32(0x80000000))
        return ordered >> np.uint32(_SHIFT)

    def _values(self, codes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the value of each code, or of its bin's end nearest 0."""
        if self.is_exact:
            return (codes + self._least()).astype(np.float64)
        negative = codes < 1 << (31 - _SHIFT)
        ordered = (codes << _SHIFT) | np.where(negative, (1 << _SHIFT) - 1, 0)
        bits = ordered.astype(np.uint32) ^ np.where(
            negative, np.uint32(0xFFFFFFFF), np.uint32(0x80000000)
        )
        return bits.view(np.float32).astype(np.float64)
