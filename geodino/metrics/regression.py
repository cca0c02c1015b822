"""Scores of predicted numbers, as sums that add up over images."""

import numpy as np
from jaxtyping import Float

SUMS = ("n", "error", "abs", "error2", "true", "true2")
"""What :func:`error_sums` adds up, in order."""


def error_sums(
    predicted: Float[np.ndarray, "*a"], true: Float[np.ndarray, "*a"]
) -> Float[np.ndarray, "6"]:
    """Sum the errors of one image over its known pixels (a finite truth), see ``SUMS``.

    Raises:
        ValueError: a prediction that is not finite where the truth is known.
    """
    known = np.isfinite(true)
    p, t = predicted[known].astype(np.float64), true[known].astype(np.float64)
    if not np.isfinite(p).all():
        raise ValueError("a prediction is not finite")
    e = p - t
    return np.array([e.size, e.sum(), np.abs(e).sum(), (e * e).sum(), t.sum(), (t * t).sum()])


def number_sums(
    predicted: Float[np.ndarray, " n"], true: Float[np.ndarray, " n"]
) -> Float[np.ndarray, "n 6"]:
    """Return the sums of images with one number each."""
    pairs = zip(predicted, true, strict=True)
    rows = [error_sums(np.array([p]), np.array([t])) for p, t in pairs]
    return np.stack(rows) if rows else np.zeros((0, len(SUMS)))


def regression_scores(sums: Float[np.ndarray, "*r 6"]) -> dict[str, Float[np.ndarray, "*r"]]:
    """Return ``rmse``, ``mae``, ``bias`` (predicted minus true) and ``r2`` of sums.

    ``r2`` is 1 minus squared errors over squared differences of the truth from its own mean: 0
    for the mean of the test part itself. NaN without values, or where the truth is constant.
    """
    n, error, size, error2, true, true2 = np.moveaxis(sums, -1, 0)
    some = np.where(n > 0, n, np.nan)
    spread = true2 - true * true / some
    # What is left of a constant truth after the subtraction is rounding, not spread.
    spread = np.where(spread > 1e-12 * true2, spread, np.nan)
    return {
        "rmse": np.asarray(np.sqrt(error2 / some)),
        "mae": np.asarray(size / some),
        "bias": np.asarray(error / some),
        "r2": np.asarray(1.0 - error2 / spread),
    }
