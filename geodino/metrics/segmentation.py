"""Scores of maps of classes, from confusion matrices that add up over images."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Integer

IGNORED = 255
"""Pixels of this value in the truth are not scored."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationScores:
    """What maps are worth; leading axes are those of the confusion matrices."""

    miou: Float[np.ndarray, "*r"]
    """Mean of the IoUs of the classes that occur in the truth or in the prediction, the background
    left out if there is one. A class that occurs in neither has no IoU and does not count, as in
    the usual protocols; one that is only predicted counts as 0."""

    iou: Float[np.ndarray, "*r c"]
    """Intersection over union of each class; NaN for a class in neither."""

    pixel_accuracy: Float[np.ndarray, "*r"]
    """Share of pixels with the right class, background included."""

    fw_iou: Float[np.ndarray, "*r"]
    """IoUs weighted by how many true pixels the class has, background included."""

    present: Int[np.ndarray, "*r"]
    """How many classes the mean is taken over."""


def pixel_confusion(
    labels: Integer[np.ndarray, "*a"],
    predicted: Integer[np.ndarray, "*a"],
    *,
    classes: int,
    ignored: int = IGNORED,
) -> Int[np.ndarray, "c c"]:
    """Count pixels per (true class, predicted class), those whose truth is ``ignored`` left out.

    Raises:
        ValueError: a scored pixel with a class that is none of ``0 .. classes-1``.
    """
    scored = labels != ignored
    true, said = labels[scored].astype(np.int64), predicted[scored].astype(np.int64)
    for what, values in (("label", true), ("predicted class", said)):
        if values.size and not 0 <= values.min() <= values.max() < classes:
            raise ValueError(
                f"a {what} lies outside 0 to {classes - 1}: {values.min()} to {values.max()}"
            )
    counts = np.bincount(true * classes + said, minlength=classes * classes)
    return counts.reshape(classes, classes)


class Confusion:
    """Pixels per (true class, predicted class), added up image by image."""

    def __init__(self, classes: int, *, ignored: int = IGNORED) -> None:
        self.counts = np.zeros((classes, classes), dtype=np.int64)
        self.ignored = ignored

    def add(self, labels: Integer[np.ndarray, "*a"], predicted: Integer[np.ndarray, "*a"]) -> None:
        """Count the pixels of an image or a batch.

        Raises:
            ValueError: a class that does not exist.
        """
        self.counts += pixel_confusion(
            labels, predicted, classes=len(self.counts), ignored=self.ignored
        )

    def merge(self, other: "Confusion") -> None:
        """Add what ``other`` counted."""
        self.counts += other.counts

    def scores(self, *, background: int | None = None) -> SegmentationScores:
        """Return the scores of everything counted so far."""
        return segmentation_scores(self.counts, background=background)


def segmentation_scores(
    confusion: Int[np.ndarray, "*r c c"], *, background: int | None = None
) -> SegmentationScores:
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
    present = counted.sum(axis=-1)
    total = true.sum(axis=-1)
    some = np.where(total > 0, total, np.nan)
    known = np.where(counted, iou, 0.0).sum(axis=-1)
    return SegmentationScores(
        miou=np.asarray(known / np.where(present > 0, present, np.nan)),
        iou=iou,
        pixel_accuracy=np.asarray(hits.sum(axis=-1) / some),
        fw_iou=np.asarray((true * np.nan_to_num(iou)).sum(axis=-1) / some),
        present=np.asarray(present),
    )
