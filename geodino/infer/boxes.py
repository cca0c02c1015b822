"""Boxes of a large image from chips that overlap: each object once, wherever seams lie.

Chips lie as those of a map do. A box is taken from the chips that count for the place of its centre:
two where one would fade into the next, for they may see an object there a pixel apart, and each leave
it to the other. What two chips say of one object is then said once. Both rules look at chips that
overlap alone, so that the boxes of a place do not depend on how much of the image is looked at, or in
which order.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from jaxtyping import Bool, Float, Int64

from geodino.geo.windows import Window
from geodino.infer.cover import Cover
from geodino.models.detection.faster_rcnn import Found

Chip = tuple[int, int]
"""Row and column of a chip."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Boxes:
    """Objects, in pixels of an image."""

    xyxy: Float[np.ndarray, "n 4"]
    """Left, top, right, bottom."""

    classes: Int64[np.ndarray, " n"]
    scores: Float[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.xyxy)

    @property
    def centres(self) -> Float[np.ndarray, "n 2"]:
        """Column and row of each."""
        centres: Float[np.ndarray, "n 2"] = (self.xyxy[:, :2] + self.xyxy[:, 2:]) / 2
        return centres

    def at(self, rows: Bool[np.ndarray, " n"] | Int64[np.ndarray, " k"]) -> "Boxes":
        """Return some of them, by a mask or by number."""
        return Boxes(xyxy=self.xyxy[rows], classes=self.classes[rows], scores=self.scores[rows])

    def as_rows(self) -> list[list[float]]:
        """Return numbers for a journal: left, top, right, bottom, class and score of each."""
        rows: list[list[float]] = np.column_stack([self.xyxy, self.classes, self.scores]).tolist()
        return rows

    @classmethod
    def from_rows(cls, rows: Sequence[Sequence[float]]) -> "Boxes":
        """Return what ``as_rows`` was of, bit for bit."""
        values = np.array(rows, dtype=np.float64).reshape(-1, 6)
        return cls(xyxy=values[:, :4], classes=values[:, 4].astype(np.int64), scores=values[:, 5])


def taken(cover: Cover, chip: Chip, found: Found) -> Boxes:
    """Return what is taken of the boxes of a chip, in pixels of the image.

    Args:
        cover: how chips cover the image.
        chip: which one.
        found: in pixels of the chip.
    """
    row, column = chip
    corner = np.array([cover.columns.start(column), cover.rows.start(row)], dtype=np.float64)
    boxes = Boxes(
        xyxy=found.boxes.double().cpu().numpy() + np.tile(corner, 2),
        classes=found.classes.cpu().numpy(),
        scores=found.scores.double().cpu().numpy(),
    )
    (left, right), (top, bottom) = cover.columns.span(column), cover.rows.span(row)
    x, y = boxes.centres.T
    return boxes.at((x >= left) & (x < right) & (y >= top) & (y < bottom))


def chips_for(cover: Cover, is_wanted: Callable[[Window], bool]) -> list[Chip]:
    """Return the chips that must be looked at for the boxes whose centre lies in an area.

    They are those that such a box may be taken from, and those that may say one over it.

    Args:
        cover: how chips cover the image.
        is_wanted: whether the area meets a rectangle of the image.
    """
    found: set[Chip] = set()
    for row in range(cover.rows.count):
        top, bottom = cover.rows.span(row)
        for column in range(cover.columns.count):
            left, right = cover.columns.span(column)
            if is_wanted(Window(top, left, bottom - top, right - left)):
                near = cover.columns.overlapping(column)
                found |= {(r, c) for r in cover.rows.overlapping(row) for c in near}
    return sorted(found)


def joined(found: Mapping[Chip, Boxes], *, iou: float) -> Boxes:
    """Return the boxes of an image, the surest first, each object once.

    A box goes where a surer one of its class from another chip overlaps it by more than ``iou``,
    whether that one stays or not: a rule that looked at whether it stays could reach across the
    whole image. Of equal scores the box of the earlier chip is the surer one.

    Args:
        found: what is taken of each chip, in any order.
        iou: see above.
    """
    chips = sorted(found)
    several = [found[chip] for chip in chips]
    boxes = Boxes(
        xyxy=np.concatenate([np.zeros((0, 4)), *(one.xyxy for one in several)]),
        classes=np.concatenate([np.zeros(0, dtype=np.int64), *(one.classes for one in several)]),
        scores=np.concatenate([np.zeros(0), *(one.scores for one in several)]),
    )
    order = np.argsort(-boxes.scores, kind="stable")
    boxes, chip = boxes.at(order), np.repeat(np.arange(len(chips)), list(map(len, several)))[order]
    shapes = shapely.box(*boxes.xyxy.T)
    less, surer = shapely.STRtree(shapes).query(shapes)
    one, other = boxes.at(surer), boxes.at(less)
    same = (surer < less) & (chip[surer] != chip[less]) & (one.classes == other.classes)
    gone = np.zeros(len(boxes), dtype=bool)
    gone[less[same & (_iou(one.xyxy, other.xyxy) > iou)]] = True
    return boxes.at(~gone)


def _iou(one: Float[np.ndarray, "n 4"], other: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Return intersection over union of pairs of boxes; 0 for those without area."""
    low, high = np.maximum(one[:, :2], other[:, :2]), np.minimum(one[:, 2:], other[:, 2:])
    common = (high - low).clip(0).prod(axis=1)
    first, second = ((box[:, 2:] - box[:, :2]).prod(axis=1) for box in (one, other))
    union = first + second - common
    return np.asarray(np.divide(common, union, out=np.zeros_like(union), where=union > 0))
