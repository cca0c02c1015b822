"""Scores of maps of classes: confusion by image, the mean IoU, and intervals over images."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Integer

from geodino import seeds
from geodino.data.labelled.sets import IGNORED
from geodino.metrics.bootstrap import Interval, interval, resampled_rows

RESAMPLES = 1000
LEVEL = 0.95
MIN_IMAGES = 2
"""Images from which an interval over images means anything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapScores:
    """What maps are worth; leading axes are those of the confusion matrices."""

    miou: Float[np.ndarray, "*r"]
    """Mean of the IoUs of the classes that occur in the truth or in the prediction, the background
    left out if there is one."""

    iou: Float[np.ndarray, "*r c"]
    """Intersection over union of each class; NaN for one in neither."""

    pixel_accuracy: Float[np.ndarray, "*r"]
    """Share of pixels with the right class."""


def pixel_confusion(
    labels: Integer[np.ndarray, "*a"], predicted: Integer[np.ndarray, "*a"], *, classes: int
) -> Int[np.ndarray, "c c"]:
    """Count pixels per (true class, predicted class), those whose truth is ignored left out."""
    scored = (labels != IGNORED) & (predicted != IGNORED)
    pairs = labels[scored].astype(np.int64) * classes + predicted[scored]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def map_scores(confusion: Int[np.ndarray, "*r c c"], *, background: int | None = None) -> MapScores:
    """Score confusion matrices, each alone (any leading axes).

    Args:
        confusion: pixels per (true class, predicted class).
        background: a class left out of the mean IoU. Its pixels still count against the classes
            they are mistaken for.
    """
    hits = np.diagonal(confusion, axis1=-2, axis2=-1).astype(np.float64)
    true, said = confusion.sum(axis=-1), confusion.sum(axis=-2)
    union = true + said - hits
    iou = np.where(union > 0, hits / np.maximum(union, 1), np.nan)
    counted = union > 0
    if background is not None:
        counted[..., background] = False
    present, total = counted.sum(axis=-1), true.sum(axis=-1)
    known = np.where(counted, iou, 0.0).sum(axis=-1)
    return MapScores(
        miou=np.asarray(known / np.where(present > 0, present, np.nan)),
        iou=iou,
        pixel_accuracy=np.asarray(hits.sum(axis=-1) / np.where(total > 0, total, np.nan)),
    )


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
        """Count the pixels of an image, or a part of it."""
        counts = pixel_confusion(labels, predicted, classes=self._classes)
        if counts.any():
            before = self.images.get(image)
            self.images[image] = counts if before is None else before + counts

    @property
    def stacked(self) -> Int[np.ndarray, "n c c"]:
        """Matrices of the images, in the order of their names."""
        shape = (0, self._classes, self._classes)
        return np.array([self.images[n] for n in sorted(self.images)], np.int64).reshape(
            (-1, *shape[1:])
        )

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
    """Return mean IoU and accuracy over all images, with intervals over images.

    Args:
        stacked: confusion matrices of images.
        background: see :func:`map_scores`.
        seed: of the resamples.
        minus: of another model on the same images: the difference is scored, the same images drawn
            for both.
    """
    count = len(stacked)
    sides = [stacked] if minus is None else [stacked, minus]

    def scored(draws: Int[np.ndarray, "r n"]) -> dict[str, Float[np.ndarray, " r"]]:
        found = [map_scores(np.tensordot(draws, side, 1), background=background) for side in sides]
        return {
            name: getattr(found[0], name) - (getattr(found[1], name) if minus is not None else 0.0)
            for name in ("miou", "pixel_accuracy")
        }

    value = scored(np.ones((1, count), dtype=np.int64))
    if count < MIN_IMAGES:
        nan = float("nan")
        return {n: Interval(value=float(v[0]), low=nan, high=nan) for n, v in value.items()}
    drawn = [
        scored(np.stack([np.bincount(row, minlength=count) for row in rows]))
        for rows in resampled_rows(count, RESAMPLES, seeds.rng(seed, "bootstrap"))
    ]
    return {
        name: interval(float(v[0]), [one[name] for one in drawn], LEVEL)
        for name, v in value.items()
    }


def by_class(
    confusion: Int[np.ndarray, "c c"], names: tuple[str, ...]
) -> Mapping[str, dict[str, Any]]:
    """Return IoU, precision, recall and true pixels of each class; NaN where undefined."""
    hits = np.diagonal(confusion).astype(np.float64)
    true, said = confusion.sum(axis=1), confusion.sum(axis=0)
    iou = map_scores(confusion).iou
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
