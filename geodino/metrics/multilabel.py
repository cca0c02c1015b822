"""Scores where an image has any number of classes."""

import numpy as np
from jaxtyping import Bool, Float, Int


def label_counts(
    labels: Bool[np.ndarray, "n k"], predicted: Bool[np.ndarray, "n k"]
) -> Int[np.ndarray, "n k 3"]:
    """Return per image and class whether it was found, said wrongly, missed: sums of these add up.

    ``micro_f1_of`` and ``macro_f1_of`` score sums over images (hence resamples of images).
    """
    found = labels & predicted
    return np.stack([found, predicted & ~labels, labels & ~predicted], axis=-1).astype(np.int64)


def micro_f1_of(counts: Int[np.ndarray, "*r k 3"]) -> Float[np.ndarray, "*r"]:
    """F1 of all decisions together: 2 found / (2 found + wrong + missed); NaN without any."""
    return _f1(counts.sum(axis=-2))


def macro_f1_of(counts: Int[np.ndarray, "*r k 3"]) -> Float[np.ndarray, "*r"]:
    """Mean of the classes' F1; a class in neither truth nor prediction has none, is left out."""
    return _mean_known(_f1(counts))


def micro_f1(labels: Bool[np.ndarray, "n k"], predicted: Bool[np.ndarray, "n k"]) -> float:
    """Return the F1 of all (image, class) decisions together."""
    return float(micro_f1_of(label_counts(labels, predicted).sum(axis=0)))


def macro_f1(labels: Bool[np.ndarray, "n k"], predicted: Bool[np.ndarray, "n k"]) -> float:
    """Return the mean F1 of the classes that occur in the truth or in the prediction."""
    return float(macro_f1_of(label_counts(labels, predicted).sum(axis=0)))


def average_precision(labels: Bool[np.ndarray, " n"], scores: Float[np.ndarray, " n"]) -> float:
    """Return the sum over thresholds of (gain in recall) * precision; NaN without a positive.

    Equal scores are one threshold, so the order of the rows does not matter. Not interpolated:
    the definition of scikit-learn and torchmetrics, not that of PASCAL VOC.
    """
    positives = int(labels.sum())
    if not positives:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True))
    found = np.cumsum(labels[order])[ends]
    gain = np.diff(found, prepend=0) / positives
    return float((gain * found / (ends + 1)).sum())


def micro_map(labels: Bool[np.ndarray, "n k"], scores: Float[np.ndarray, "n k"]) -> float:
    """Return the average precision of all (image, class) decisions ranked together."""
    return average_precision(labels.ravel(), scores.ravel())


def class_average_precisions(
    labels: Bool[np.ndarray, "n k"], scores: Float[np.ndarray, "n k"]
) -> Float[np.ndarray, " k"]:
    """Return the average precision of each class; NaN for one that no image has."""
    pairs = zip(labels.T, scores.T, strict=True)
    return np.array([average_precision(label, score) for label, score in pairs])


def macro_map(labels: Bool[np.ndarray, "n k"], scores: Float[np.ndarray, "n k"]) -> float:
    """Return the mean average precision over the classes that some image has."""
    return float(_mean_known(class_average_precisions(labels, scores)))


def _f1(counts: Int[np.ndarray, "*r 3"]) -> Float[np.ndarray, "*r"]:
    found, wrong, missed = np.moveaxis(counts, -1, 0)
    size = 2 * found + wrong + missed
    return np.where(size > 0, 2 * found / np.maximum(size, 1), np.nan)


def _mean_known(values: Float[np.ndarray, "*r k"]) -> Float[np.ndarray, "*r"]:
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    return np.asarray(
        np.where(known, values, 0.0).sum(axis=-1) / np.where(count > 0, count, np.nan)
    )
