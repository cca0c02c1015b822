"""Whether a classifier is right as often as it says."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import minimize_scalar

BINS = 15
"""Bins of confidence, as in most papers (Guo et al. 2017) and in torchgeo-bench's linear rows."""

_COLDEST, _HOTTEST = 1e-2, 1e2
_LEAST = 1e-12
"""Probability below which a class counts as ruled out."""


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


def fitted_temperature(
    probabilities: Float[np.ndarray, "n k"], truth: Int[np.ndarray, " n"]
) -> float:
    """Return the temperature under which held-out images are most probable (Guo et al. 2017).

    Args:
        probabilities: what a classifier says of images it was not fitted on.
        truth: their classes.

    Returns:
        A number from 0.01 to 100: above 1 the classifier is too sure of itself.

    Raises:
        ValueError: no images.
    """
    if not len(truth):
        raise ValueError("a temperature needs images it is fitted on")
    logs = np.log(np.maximum(probabilities, _LEAST))
    true = logs[np.arange(len(truth)), truth]

    def loss(log_temperature: float) -> float:
        # Minus the mean log probability of the true class: one minimum, for it is convex in 1 / T.
        cold = np.exp(-log_temperature)
        top = logs.max(axis=1)
        spread = np.log(np.exp(cold * (logs - top[:, None])).sum(axis=1)) + cold * top
        return float((spread - cold * true).mean())

    bounds = (float(np.log(_COLDEST)), float(np.log(_HOTTEST)))
    return float(np.exp(minimize_scalar(loss, bounds=bounds, method="bounded").x))


def tempered(
    probabilities: Float[np.ndarray, "n k"], temperature: float
) -> Float[np.ndarray, "n k"]:
    """Return probabilities made softer (temperature above 1) or sharper; their order stays."""
    logs = np.log(np.maximum(probabilities, _LEAST)) / temperature
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))
