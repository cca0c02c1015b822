"""Which boxes of a network learn from which objects, and which are drawn to learn from."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from geodino.models.detection.ops import box_areas, box_iou, overlaps

_IN_DIFFICULT = 0.5
"""Boxes of which more lies in a difficult object are not learnt from as background."""

OBJECT, BACKGROUND, UNUSED = 1, 0, -1


@dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """The objects of an image."""

    boxes: Float[Tensor, "n 4"]
    classes: Int64[Tensor, " n"]
    difficult: Bool[Tensor, " n"]
    """Neither learnt from nor background."""

    def to(self, device: torch.device) -> "Objects":
        """Copy to a device without waiting."""
        return Objects(
            boxes=self.boxes.to(device, non_blocking=True),
            classes=self.classes.to(device, non_blocking=True),
            difficult=self.difficult.to(device, non_blocking=True),
        )


def matched(
    boxes: Float[Tensor, "n 4"],
    objects: Objects,
    usable: Bool[Tensor, " n"],
    *,
    high: float,
    low: float,
    each_object: bool,
) -> tuple[Int64[Tensor, " n"], Int64[Tensor, " n"]]:
    """Say what each box learns.

    Args:
        boxes: of a network.
        objects: of the image.
        usable: which boxes may be learnt from at all.
        high: boxes that overlap an object by this IoU are objects.
        low: boxes that overlap none by this IoU are background; between the two they are unused.
        each_object: the boxes that overlap an object most are objects as well, however little.

    Returns:
        ``OBJECT``, ``BACKGROUND`` or ``UNUSED`` of each box; and which of ``objects`` it is about,
        0 where it is none.
    """
    known = ~objects.difficult
    (numbers,) = torch.where(known)
    kind = torch.full((len(boxes),), BACKGROUND, dtype=torch.int64, device=boxes.device)
    about = torch.zeros_like(kind)
    if len(numbers) and len(boxes):
        iou = box_iou(objects.boxes[numbers], boxes)
        best, which = iou.max(dim=0)
        kind[best >= low] = UNUSED
        kind[best >= high] = OBJECT
        about = numbers[which]
        if each_object:
            most = iou.max(dim=1, keepdim=True).values
            nearest = ((iou == most) & (most > 0)).any(dim=0)
            kind[nearest] = OBJECT
    if bool(objects.difficult.any()) and len(boxes):
        common = overlaps(boxes, objects.boxes[objects.difficult]).max(dim=1).values
        inside = common > _IN_DIFFICULT * box_areas(boxes)
        kind[inside & (kind == BACKGROUND)] = UNUSED
    kind[~usable] = UNUSED
    return kind, about


def sampled(
    kind: Int64[Tensor, " n"], *, count: int, objects: float, generator: torch.Generator
) -> Int64[Tensor, " k"]:
    """Draw boxes to learn from: at most a share ``objects`` of objects, the rest background.

    Args:
        kind: of each box.
        count: how many, where there are so many.
        objects: the share.
        generator: on the CPU; the draw depends on its state alone.
    """
    is_object, is_background = (torch.where(kind == k)[0] for k in (OBJECT, BACKGROUND))
    most = min(len(is_object), int(count * objects))
    rest = min(len(is_background), count - most)
    chosen = [
        rows[torch.randperm(len(rows), generator=generator)[:n].to(rows.device)]
        for rows, n in ((is_object, most), (is_background, rest))
    ]
    return torch.cat(chosen)


def on_valid(boxes: Float[Tensor, "n 4"], valid: Bool[Tensor, "h w"]) -> Bool[Tensor, " n"]:
    """Return whether the centre of each box lies on a valid pixel of the image."""
    height, width = valid.shape
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    column, row = centre.floor().to(torch.int64).unbind(dim=-1)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    return inside & valid[row.clamp(0, height - 1), column.clamp(0, width - 1)]
