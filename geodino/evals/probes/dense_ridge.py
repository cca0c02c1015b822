"""Maps of numbers from patch tokens: ridge regression from sums, so that no image is kept."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float64

from geodino.evals.probes.maps import Part, enlarged, patch_means, split, token_statistics
from geodino.evals.probes.prediction import HELD_OUT, Prediction
from geodino.evals.probes.ridge import RIDGE_GRID
from geodino.metrics.regression import SUMS, error_sums, regression_scores

_WEIGHTS = Float64[np.ndarray, "s e"]


def dense_ridge(
    train: Part,
    test: Part,
    *,
    generator: np.random.Generator,
    val: Part | None = None,
    grid: Sequence[float] = RIDGE_GRID,
    held_out: float = HELD_OUT,
) -> Prediction:
    """Fit numbers of patches, answer numbers of pixels: enlarged, and scored at the labels' size.

    A patch's number is the mean of its known pixels, and counts by how many it has. The strength
    of the least squared error on the pixels of ``val`` (or of held-out images) is fitted again on
    all training images, the validation ones included.

    Args:
        train: training images.
        test: test images; only their sums of errors are returned.
        generator: draws the held-out images.
        val: images to choose the strength on.
        grid: strengths, see ``ridge.RIDGE_GRID``.
        held_out: share of the training images held out where ``val`` is None.

    Raises:
        ValueError: no training patch has a known pixel.
    """
    fit, choose = split(train, held_out, generator) if val is None else (train, val)
    strengths = sorted(grid, reverse=True)
    best, chosen = len(strengths) // 2, {}
    if len(choose):
        sums = _errors(_fitted([fit], strengths), choose).sum(axis=1)
        rmse = regression_scores(sums)["rmse"]
        if not np.isnan(rmse).all():
            best = int(np.nanargmin(rmse))
            chosen["held_out_rmse"] = float(rmse[best])
    everything = [train] if val is None else [train, val]
    errors = _errors(_fitted(everything, strengths[best : best + 1]), test)[0]
    return Prediction(errors=errors, chosen={"alpha": strengths[best], **chosen})


def _fitted(parts: Sequence[Part], strengths: Sequence[float]) -> _WEIGHTS:
    """Weights of raw features with the intercept last, one row a strength; one decomposition."""
    mean, factor = (value.numpy()[:, 0].astype(np.float64) for value in token_statistics(parts[0]))
    d = len(mean)
    squares, moments = np.zeros((d + 1, d + 1)), np.zeros(d + 1)
    for part in parts:
        for features, label in part.images():
            target, count = patch_means(label, (features.shape[1], features.shape[2]))
            z = (features.reshape(d, -1).T - mean) * factor
            rows = np.concatenate([z, np.ones((len(z), 1))], axis=1)
            weighed = rows * count[:, None]
            squares += weighed.T @ rows
            moments += weighed.T @ target
    total = squares[-1, -1]
    if not total:
        raise ValueError("no training patch has a known pixel")
    centre, level = squares[:-1, -1] / total, moments[-1] / total
    gram = squares[:-1, :-1] / total - np.outer(centre, centre)
    sizes, axes = np.linalg.eigh(gram)
    moment = axes.T @ (moments[:-1] / total - centre * level)
    share = np.maximum(sizes, 0.0) + np.asarray(strengths)[:, None]
    weights = (moment / share) @ axes.T
    raw = weights * factor
    intercept = level - weights @ centre - raw @ mean
    return np.concatenate([raw, intercept[:, None]], axis=1)


def _errors(weights: _WEIGHTS, part: Part) -> Float64[np.ndarray, "s n 6"]:
    out = np.zeros((len(weights), len(part), len(SUMS)))
    for i, (features, label) in enumerate(part.images()):
        small = np.tensordot(weights[:, :-1], features.astype(np.float64), 1)
        small += weights[:, -1, None, None]
        size = (label.shape[0], label.shape[1])
        for row, one in enumerate(torch.from_numpy(small)):
            said = enlarged(one[None, None], size)[0, 0].numpy()
            out[row, i] = error_sums(said, label.astype(np.float64))
    return out
