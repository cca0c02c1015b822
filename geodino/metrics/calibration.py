"""Whether a classifier is right as often as it says."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

BINS = 15
"""Bins of confidence, as in most papers (Guo et al. 2017) and in torchgeo-bench's linear rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationErrors:
    """Differences of confidence and accuracy over equal bins of confidence; NaN without images.

    Named as in torchgeo-bench's results.
    """

    ece: float
    """Mean difference, bins weighted by their images: expected calibration error."""

    rms_ce: float
    """Root of the mean squared difference, weighted likewise."""

    mce: float
    """Largest difference."""


def calibration_errors(
    confidence: Float[np.ndarray, " n"], correct: Bool[np.ndarray, " n"], *, bins: int = BINS
) -> CalibrationErrors:
    """Compare confidence and accuracy in ``bins`` bins of equal width over 0 to 1.

    Args:
        confidence: probability of the predicted class; an edge of two bins belongs to the upper.
        correct: whether it is the true one.
        bins: how many. A k-NN of k votes says at most k different things: k + 1 bins fit it.
    """
    if not len(confidence):
        return CalibrationErrors(ece=float("nan"), rms_ce=float("nan"), mce=float("nan"))
    edges = np.linspace(0.0, 1.0, bins + 1)
    place = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    said = np.bincount(place, confidence, minlength=bins)
    held = np.bincount(place, correct.astype(np.float64), minlength=bins)
    gap = np.abs(said - held) / np.maximum(count, 1)
    share = count / len(confidence)
    return CalibrationErrors(
        ece=float((share * gap).sum()),
        rms_ce=float(np.sqrt((share * gap * gap).sum())),
        mce=float(gap.max()),
    )
