"""Scores of maps of classes: confusion by image, the mean IoU, and intervals over images."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer

from geodino import seeds
from geodino.data.labelled.sets import IGNORED
from geodino.metrics.bootstrap import Interval
from geodino.metrics.intervals import difference_of_sums, of_sums
from geodino.metrics.segmentation import pixel_confusion, segmentation_scores

MIN_IMAGES = 2
"""Images from which an interval over images means anything."""

_SCORES = ("miou", "pixel_accuracy")


class ImageConfusions:
    """Confusion matrices by image.

    Args:
        classes: how many.
    """

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self.images: dict[str, Int[np.ndarray, "c c"]] = {}

    def add(
        self, image: str, labels: Integer[np.ndarray, "*a"], predicted: Integer[np.ndarray, "*a"]
    ) -> None:
        """Count the pixels of an image, or a part of it, that have both a class and a prediction."""
        asked = np.where(predicted == IGNORED, IGNORED, labels)
        counts = pixel_confusion(asked, predicted, classes=self._classes)
        if counts.any():
            before = self.images.get(image)
            self.images[image] = counts if before is None else before + counts

    @property
    def stacked(self) -> Int[np.ndarray, "n c c"]:
        """Matrices of the images, in the order of their names."""
        found = np.array([self.images[name] for name in sorted(self.images)], dtype=np.int64)
        return found.reshape(-1, self._classes, self._classes)

    @property
    def whole(self) -> Int[np.ndarray, "c c"]:
        """All images together."""
        return np.asarray(self.stacked.sum(axis=0))


def intervals(
    stacked: Int[np.ndarray, "n c c"],
    *,
    background: int | None,
    seed: int,
    minus: Int[np.ndarray, "n c c"] | None = None,
) -> dict[str, Interval]:
    """Return mean IoU and share of right pixels over all images, with intervals over images.

    Args:
        stacked: confusion matrices of images.
        background: a class left out of the mean IoU.
        seed: of the resamples.
        minus: of another model on the same images: the difference is scored, the same images drawn
            for both.
    """
    found = {}
    for name in _SCORES:

        def score(sums: Int[np.ndarray, "r c c"], name: str = name) -> Float[np.ndarray, " r"]:
            return np.asarray(getattr(segmentation_scores(sums, background=background), name))

        generator = seeds.rng(seed, "bootstrap", name)
        if len(stacked) < MIN_IMAGES:
            value = score(stacked)[0] - (0.0 if minus is None else score(minus)[0])
            nan = float("nan")
            found[name] = Interval(value=float(value), low=nan, high=nan)
        elif minus is None:
            found[name] = of_sums(stacked, score, generator=generator)
        else:
            found[name] = difference_of_sums(stacked, minus, score, generator=generator)
    return found


def by_class(
    confusion: Int[np.ndarray, "c c"], names: tuple[str, ...]
) -> Mapping[str, dict[str, Any]]:
    """Return IoU, precision, recall and true pixels of each class; NaN where undefined."""
    hits = np.diagonal(confusion).astype(np.float64)
    true, said = confusion.sum(axis=1), confusion.sum(axis=0)
    iou = segmentation_scores(confusion).iou
    nan = float("nan")
    return {
        name: {
            "iou": float(iou[i]),
            "precision": float(hits[i] / said[i]) if said[i] else nan,
            "recall": float(hits[i] / true[i]) if true[i] else nan,
            "pixels": int(true[i]),
        }
        for i, name in enumerate(names)
    }
