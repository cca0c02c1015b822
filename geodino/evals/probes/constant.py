"""What needs no image: the answers every probe must beat."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from geodino.evals.probes.prediction import Prediction, many_classes, one_class
from geodino.metrics.regression import error_sums
from geodino.metrics.segmentation import pixel_confusion


def majority(train_y: Int[np.ndarray, " m"], *, tests: int, classes: int) -> Prediction:
    """Always answer the most frequent training class; its probability is its share."""
    share = np.bincount(train_y, minlength=classes) / len(train_y)
    return one_class(np.tile(share, (tests, 1)), chosen={})


def prevalence(train_y: Bool[np.ndarray, "m k"], *, tests: int) -> Prediction:
    """Answer each class with its share of the training rows, so those of half of them or more."""
    return many_classes(np.tile(train_y.mean(axis=0), (tests, 1)), chosen={})


def mean_value(train_y: Float[np.ndarray, " m"], *, tests: int) -> Prediction:
    """Always answer the mean of the training rows' numbers."""
    return Prediction(values=np.full(tests, train_y.mean(dtype=np.float64)), chosen={})


def most_frequent_class_map(
    train_maps: Iterable[Integer[np.ndarray, "h w"]],
    test_maps: Iterable[Integer[np.ndarray, "h w"]],
    *,
    classes: int,
) -> Prediction:
    """Always answer the class that most training pixels are of, everywhere.

    Raises:
        ValueError: the training maps hold no labelled pixel.
    """
    counts = np.zeros(classes, dtype=np.int64)
    for label in train_maps:
        counts += np.bincount(label.ravel(), minlength=256)[:classes]
    if not counts.any():
        raise ValueError("the training maps hold no labelled pixel")
    answer = int(counts.argmax())
    confusion = [
        pixel_confusion(label, np.full_like(label, answer), classes=classes) for label in test_maps
    ]
    return Prediction(confusion=np.stack(confusion), chosen={"class": float(answer)})


def mean_map(
    train_maps: Iterable[Float[np.ndarray, "h w"]], test_maps: Iterable[Float[np.ndarray, "h w"]]
) -> Prediction:
    """Always answer the mean of the known training pixels, everywhere.

    Raises:
        ValueError: the training maps hold no known pixel.
    """
    total, count = 0.0, 0
    for label in train_maps:
        known = np.isfinite(label)
        total += float(label[known].sum(dtype=np.float64))
        count += int(known.sum())
    if not count:
        raise ValueError("the training maps hold no known pixel")
    answer = total / count
    errors = [error_sums(np.full(label.shape, answer), label) for label in test_maps]
    return Prediction(errors=np.stack(errors), chosen={"value": answer})
