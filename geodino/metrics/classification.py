"""Scores of a single-label classifier, and how far they could be off by chance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from geodino.metrics.bootstrap import Interval, interval, resampled_rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """What a list of predictions is worth."""

    accuracy: Interval
    """Share of images with the right class."""

    balanced_accuracy: Interval
    """Mean of the recalls of the classes that occur: every class counts the same."""

    recall: Float[np.ndarray, " c"]
    """Share of each class's images that were found; NaN for a class without images."""

    precision: Float[np.ndarray, " c"]
    """Share of the images called a class that are of it; NaN for a class never predicted."""

    confusion: Int[np.ndarray, "c c"]
    """Number of images per (true class, predicted class)."""


def confusion_matrix(
    labels: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], *, classes: int
) -> Int[np.ndarray, "c c"]:
    """Count images per (true class, predicted class); classes are ``0 .. classes-1``."""
    flat = np.bincount(labels * classes + predicted, minlength=classes * classes)
    return flat.reshape(classes, classes)


def balanced_accuracy(
    hits: Int[np.ndarray, "*r c"], totals: Int[np.ndarray, "*r c"]
) -> Float[np.ndarray, "*r"]:
    """Mean recall over the classes that occur (``totals > 0``), along the last axis."""
    recall = np.where(totals > 0, hits / np.maximum(totals, 1), 0.0)
    return np.asarray(recall.sum(axis=-1) / (totals > 0).sum(axis=-1))


def score(
    labels: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    *,
    classes: int,
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Scores:
    """Score predictions, with percentile bootstrap intervals over images.

    The images are drawn again with replacement ``resamples`` times (Efron 1979, "Bootstrap
    methods: another look at the jackknife"); the interval says how much the score owes to which
    images happen to be in the test set, not to the seed of the training.

    Args:
        labels: true classes, ``0 .. classes-1``.
        predicted: predicted classes.
        classes: how many classes there are.
        generator: draws the resamples.
        resamples: how many times to draw.
        level: coverage of the interval.

    Raises:
        ValueError: there is nothing to score.
    """
    if not len(labels):
        raise ValueError("no image to score")
    confusion = confusion_matrix(labels, predicted, classes=classes)
    totals, hits = confusion.sum(axis=1), np.diagonal(confusion)
    accuracies, balanced = [], []
    for rows in resampled_rows(len(labels), resamples, generator):
        drawn_hits, drawn_totals = _per_class(labels, labels == predicted, rows, classes)
        accuracies.append(drawn_hits.sum(axis=1) / len(labels))
        balanced.append(balanced_accuracy(drawn_hits, drawn_totals))
    called = confusion.sum(axis=0)
    return Scores(
        accuracy=interval(float(hits.sum() / len(labels)), accuracies, level),
        balanced_accuracy=interval(float(balanced_accuracy(hits, totals)), balanced, level),
        recall=np.where(totals > 0, hits / np.maximum(totals, 1), np.nan),
        precision=np.where(called > 0, hits / np.maximum(called, 1), np.nan),
        confusion=confusion,
    )


def accuracy_difference(
    labels: Int[np.ndarray, " n"],
    first: Int[np.ndarray, " n"],
    second: Int[np.ndarray, " n"],
    *,
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Accuracy of ``first`` minus that of ``second`` on the same images, resampled together.

    Pairing takes out what both owe to the same easy or hard images, so the interval is narrower
    than two separate ones and answers whether one is better than the other.
    """
    gain = (first == labels).astype(np.int64) - (second == labels).astype(np.int64)
    drawn = [gain[rows].mean(axis=1) for rows in resampled_rows(len(labels), resamples, generator)]
    return interval(float(gain.mean()), drawn, level)


def _per_class(
    labels: Int[np.ndarray, " n"],
    correct: Bool[np.ndarray, " n"],
    rows: Int[np.ndarray, "r n"],
    classes: int,
) -> tuple[Int[np.ndarray, "r c"], Int[np.ndarray, "r c"]]:
    """Hits and images per class in each resample."""
    cell = labels[rows] + classes * np.arange(len(rows))[:, None]
    size = len(rows) * classes
    totals = np.bincount(cell.ravel(), minlength=size).reshape(len(rows), classes)
    hits = np.bincount(cell[correct[rows]], minlength=size).reshape(len(rows), classes)
    return hits, totals
