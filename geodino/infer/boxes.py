"""Boxes of a large image from chips that overlap: each object once, wherever seams lie.

Chips lie on a lattice counted from the image's first pixel. The core of a chip is what is nearer to
its centre than to any neighbour's; a box is taken from a chip where its centre lies in the core, or
little outside: two chips may see an object on a seam a pixel apart, and each leave it to the other.
What two chips say of one object is then said once. Both rules look at neighbouring chips alone, so
that the boxes of a place do not depend on how much of the image is looked at, or in which order.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from geodino.geo.windows import Window
from geodino.models.detection.ops import box_iou

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class ChipLattice:
    """Square chips that cover an image.

    Args:
        height: of the image, pixels.
        width: of the image.
        chip: side, pixels.
        overlap: pixels that neighbours share; at least the longest side of an object, for each
            object to be seen whole by a chip.
    """

    height: int
    width: int
    chip: int
    overlap: int

    def __post_init__(self) -> None:
        if not 0 <= self.overlap <= self.chip // 2:
            raise ValueError(f"an overlap of {self.overlap} does not fit chips of {self.chip} px")

    @property
    def step(self) -> int:
        """Pixels from a chip to the next one."""
        return self.chip - self.overlap

    @property
    def shape(self) -> tuple[int, int]:
        """Chips down and across."""
        down, across = (
            1 + max(0, -(-(side - self.chip) // self.step)) for side in (self.height, self.width)
        )
        return down, across

    def __iter__(self) -> Iterator[tuple[int, int]]:
        down, across = self.shape
        return ((row, column) for row in range(down) for column in range(across))

    def window(self, row: int, column: int) -> Window:
        """Return the pixels of a chip; those of the last ones end with the image."""
        top, left = row * self.step, column * self.step
        return Window(
            top, left, min(self.chip, self.height - top), min(self.chip, self.width - left)
        )

    def touching(self, area: Window) -> list[tuple[int, int]]:
        """Return the chips that must be looked at for the boxes whose centre lies in an area.

        They are those that can say such a box, and those that can say one over it: neighbours.
        """
        near = [(row, column) for row, column in self if _meets(self.window(row, column), area)]
        down, across = self.shape
        return sorted(
            {
                (r, c)
                for row, column in near
                for r in range(max(0, row - 1), min(down, row + 2))
                for c in range(max(0, column - 1), min(across, column + 2))
            }
        )

    def takes(self, row: int, column: int, boxes: Float[Tensor, "n 4"]) -> Bool[Tensor, " n"]:
        """Return which boxes, in pixels of the image, are taken from a chip by their centre."""
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        down, across = self.shape
        inside = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
        for at, number, count in ((centre[:, 1], row, down), (centre[:, 0], column, across)):
            start = number * self.step
            if number > 0:
                inside &= at >= start + self.overlap / 4
            if number < count - 1:
                inside &= at < start + self.chip - self.overlap / 4
        return inside


def _meets(one: Window, other: Window) -> bool:
    return (
        one.top < other.bottom
        and other.top < one.bottom
        and one.left < other.right
        and other.left < one.right
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ChipBoxes:
    """What was found in a chip, in pixels of the image."""

    chip: tuple[int, int]
    """Row and column in the lattice."""

    boxes: Float[Tensor, "n 4"]
    classes: Int64[Tensor, " n"]
    scores: Float[Tensor, " n"]


def joined(
    lattice: ChipLattice, found: Sequence[ChipBoxes], *, iou: float
) -> tuple[Float[Tensor, "k 4"], Int64[Tensor, " k"], Float[Tensor, " k"]]:
    """Return the boxes of an image, the surest first, each object once.

    A box goes where a surer one of its class from another chip overlaps it by more than ``iou``,
    whether that one stays or not: a rule that looked at whether it stays could reach across the
    whole image. Of equal scores the box of the earlier chip is the surer one.

    Args:
        lattice: of the chips.
        found: of each chip, in any order.
        iou: see above.

    Returns:
        Boxes, classes and scores.
    """
    ordered = sorted(found, key=lambda one: one.chip)
    parts = []
    for number, one in enumerate(ordered):
        keep = lattice.takes(*one.chip, one.boxes)
        chip = torch.full((int(keep.sum()),), number, device=one.boxes.device)
        parts.append((one.boxes[keep], one.classes[keep], one.scores[keep], chip))
    if not parts:
        return torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), torch.zeros(0)
    boxes, classes, scores, chips = (torch.cat(column) for column in zip(*parts, strict=True))
    order = torch.sort(scores, descending=True, stable=True).indices
    boxes, classes, scores, chips = boxes[order], classes[order], scores[order], chips[order]
    gone = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for start in range(0, len(boxes), _ROWS_AT_ONCE):
        stop = min(start + _ROWS_AT_ONCE, len(boxes))
        over = box_iou(boxes[:stop], boxes[start:stop]) > iou
        over &= classes[:stop, None] == classes[None, start:stop]
        over &= chips[:stop, None] != chips[None, start:stop]
        surer = torch.arange(stop, device=boxes.device)[:, None] < torch.arange(
            start, stop, device=boxes.device
        )
        gone[start:stop] = (over & surer).any(dim=0)
    return boxes[~gone], classes[~gone], scores[~gone]
