"""Heights a canopy model must beat to have learnt anything: the mean, and a guess from the colour.

Both are fitted on training pixels only, from sums that merge over tiles.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from geodino.metrics.height_maps import finite_values

LOWEST, HIGHEST, BINS = -1.0, 2.0, 96
"""Range of greenness (excess green spans it, NDVI ends at 1), in bins of 1/32."""


def excess_green(
    red: Float[np.ndarray, "*s"], green: Float[np.ndarray, "*s"], blue: Float[np.ndarray, "*s"]
) -> Float[np.ndarray, "*s"]:
    """Return ``2g - r - b`` of the shares of each band in the sum, -1 to 2; 0 for black.

    Woebbecke et al. 1995. Bands in any one unit that is 0 for black and never negative.
    """
    total = red + green + blue
    lit = total > 0
    return np.asarray(np.where(lit, (2.0 * green - red - blue) / np.where(lit, total, 1.0), 0.0))


def ndvi(red: Float[np.ndarray, "*s"], nir: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
    """Return ``(nir - red) / (nir + red)``, -1 to 1; 0 where both are 0."""
    total = nir + red
    lit = total > 0
    return np.asarray(np.where(lit, (nir - red) / np.where(lit, total, 1.0), 0.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class MeanHeight:
    """The mean height of the training pixels, everywhere."""

    mean_m: float
    """Metres."""

    def predict(self, shape: tuple[int, ...]) -> Float[np.ndarray, "..."]:
        """Return a map of that shape."""
        return np.full(shape, self.mean_m)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeightByGreenness:
    """The mean height of training pixels of the same greenness: binned least squares."""

    height_m: Float[np.ndarray, " n"]
    """Metres, one per bin; the overall mean where a bin had no training pixel."""

    def predict(self, greenness: Float[np.ndarray, "*s"]) -> Float[np.ndarray, "*s"]:
        """Return heights of the bins that ``greenness`` falls into; NaN stays NaN."""
        known = np.isfinite(greenness)
        heights = self.height_m[_bins(np.where(known, greenness, 0.0))]
        return np.asarray(np.where(known, heights, np.nan))


@dataclass(frozen=True, slots=True)
class GreennessSums:
    """Pixels and heights per bin of greenness; parts merge into the whole."""

    count: Float[np.ndarray, " n"]
    height_m: Float[np.ndarray, " n"]

    @classmethod
    def of(
        cls,
        true_m: Float[np.ndarray, "*s"],
        greenness: Float[np.ndarray, "*s"],
        valid: Bool[np.ndarray, "*s"],
    ) -> "GreennessSums":
        """Sum up the valid pixels.

        Raises:
            ValueError: a valid pixel without a finite height or greenness.
        """
        heights = finite_values(true_m, valid, name="height")
        greens = finite_values(greenness, valid, name="greenness")
        place = _bins(greens)
        # The types are asked for: without any pixel bincount returns integers.
        count = np.bincount(place, minlength=BINS).astype(np.float64)
        total = np.bincount(place, weights=heights, minlength=BINS).astype(np.float64)
        return cls(count, total)

    def merge(self, other: "GreennessSums") -> "GreennessSums":
        """Return the sums of both parts together."""
        return GreennessSums(self.count + other.count, self.height_m + other.height_m)

    def mean_height(self) -> MeanHeight:
        """Return the first floor.

        Raises:
            ValueError: there is no training pixel.
        """
        if not self.count.sum():
            raise ValueError("no valid training pixel to take a mean height from")
        return MeanHeight(mean_m=float(self.height_m.sum() / self.count.sum()))

    def height_by_greenness(self) -> HeightByGreenness:
        """Return the second floor.

        Raises:
            ValueError: there is no training pixel.
        """
        overall = self.mean_height().mean_m
        some = self.count > 0
        means = np.where(some, self.height_m / np.where(some, self.count, 1.0), overall)
        return HeightByGreenness(height_m=means)


def _bins(greenness: Float[np.ndarray, "*s"]) -> np.ndarray:
    share = (greenness - LOWEST) / (HIGHEST - LOWEST)
    return np.asarray(np.clip(np.floor(share * BINS), 0, BINS - 1).astype(np.int64))
