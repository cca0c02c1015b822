"""How far a score could be off by chance: percentile intervals over whatever was drawn.

What is drawn again must be what was drawn at first: images for a classifier of images, sites for
maps. Pixels of one site are near copies of each other; an interval over pixels would be far too
narrow (Efron 1979, "Bootstrap methods: another look at the jackknife").
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

_RESAMPLES_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A score with its percentile bootstrap interval."""

    value: float
    """The score on the sample as it is."""

    low: float
    """Lower end of the interval."""

    high: float
    """Upper end of the interval."""


def resampled_rows(
    n: int, resamples: int, generator: np.random.Generator
) -> Iterator[Int[np.ndarray, "r n"]]:
    """Yield the rows of each resample, a few resamples at a time so that memory stays small."""
    for start in range(0, resamples, _RESAMPLES_AT_ONCE):
        count = min(_RESAMPLES_AT_ONCE, resamples - start)
        yield generator.integers(0, n, size=(count, n))


def interval(value: float, drawn: list[Float[np.ndarray, " _"]], level: float) -> Interval:
    """Return the central interval of the resampled scores.

    Resamples in which the score is undefined (NaN) are left out; NaN where it is in all of them.
    """
    tail = (1.0 - level) / 2
    scores = np.concatenate(drawn)
    scores = scores[~np.isnan(scores)]
    low, high = np.quantile(scores, [tail, 1.0 - tail]) if scores.size else (np.nan, np.nan)
    return Interval(value=value, low=float(low), high=float(high))
