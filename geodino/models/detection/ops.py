"""Operations on boxes that work wherever torch does.

torchvision has compiled ones, which do not load beside every torch; its own fallback for
``roi_align`` needs a compiler. Boxes are left, top, right, bottom in pixels from the corner of the
first pixel.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

_ROWS_AT_ONCE = 1024


def compiled_ops() -> bool:
    """Whether torchvision's compiled operators load here."""
    from torchvision.extension import _has_ops

    return bool(_has_ops())


def box_areas(boxes: Float[Tensor, "n 4"]) -> Float[Tensor, " n"]:
    """Return the area of each box, square pixels."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def overlaps(one: Float[Tensor, "n 4"], other: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Return the area that each pair has in common, square pixels."""
    low = torch.maximum(one[:, None, :2], other[None, :, :2])
    high = torch.minimum(one[:, None, 2:], other[None, :, 2:])
    return (high - low).clamp_min(0).prod(dim=-1)


def box_iou(one: Float[Tensor, "n 4"], other: Float[Tensor, "m 4"]) -> Float[Tensor, "n m"]:
    """Return the intersection over union of each pair; 0 for boxes without area."""
    common = overlaps(one, other)
    union = box_areas(one)[:, None] + box_areas(other)[None] - common
    return torch.where(union > 0, common / torch.where(union > 0, union, 1.0), 0.0)


def nms(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    groups: Int64[Tensor, " n"],
    *,
    iou: float,
) -> Int64[Tensor, " k"]:
    """Return which boxes stay, the surest first (non-maximum suppression).

    A box goes where a surer one of its group that stays overlaps it by more than ``iou``; of equal
    scores the first is the surer one. Groups (classes, levels of a pyramid) do not see each other.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    if boxes.is_cuda and compiled_ops():
        return _compiled(boxes, scores, groups, iou=iou)
    boxes, groups = boxes[order], groups[order]
    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for start in range(0, len(boxes), _ROWS_AT_ONCE):
        block = slice(start, min(start + _ROWS_AT_ONCE, len(boxes)))
        before = kept[:start]
        gone = _beats(
            boxes[:start][before], groups[:start][before], boxes[block], groups[block], iou
        )
        kept[block] = _stay(boxes[block], groups[block], ~gone.any(dim=0), iou)
    return order[kept]


def _beats(
    boxes: Float[Tensor, "n 4"],
    groups: Int64[Tensor, " n"],
    others: Float[Tensor, "m 4"],
    other_groups: Int64[Tensor, " m"],
    iou: float,
) -> Bool[Tensor, "n m"]:
    return (box_iou(boxes, others) > iou) & (groups[:, None] == other_groups[None])


def _stay(
    boxes: Float[Tensor, "n 4"],
    groups: Int64[Tensor, " n"],
    may: Bool[Tensor, " n"],
    iou: float,
) -> Bool[Tensor, " n"]:
    """Which of sorted boxes stay.

    Whether a box stays follows from those before it alone, so guesses that no longer change are
    right: after one round the first box is, after two all that only it can beat, and so on.
    """
    beats = _beats(boxes, groups, boxes, groups, iou).triu(diagonal=1)
    stay = may
    while True:
        again = may & ~(beats & stay[:, None]).any(dim=0)
        if torch.equal(again, stay):
            return stay
        stay = again


def _compiled(
    boxes: Float[Tensor, "n 4"],
    scores: Float[Tensor, " n"],
    groups: Int64[Tensor, " n"],
    *,
    iou: float,
) -> Int64[Tensor, " k"]:
    """The same by torchvision, group by group: shifting groups apart would round the boxes."""
    from torchvision.ops import nms as of_torchvision

    kept = torch.zeros(len(boxes), dtype=torch.bool, device=boxes.device)
    for group in set(groups.tolist()):
        (rows,) = torch.where(groups == group)
        kept[rows[of_torchvision(boxes[rows], scores[rows], iou)]] = True
    (rows,) = torch.where(kept)
    return rows[torch.sort(scores[rows], descending=True, stable=True).indices]


def roi_align(
    features: Float[Tensor, "b c h w"],
    boxes: list[Tensor],
    *,
    size: int,
    stride: int,
    samples: int = 2,
) -> Float[Tensor, "n c s s"]:
    """Return the features in each box as a square (RoIAlign, pixel centres at half pixels).

    Each of ``size`` x ``size`` cells is the mean of ``samples`` x ``samples`` bilinear readings at
    evenly spaced places. Readings beyond the outer centres take the border's value, those a pixel
    and more beyond it 0, as torchvision's ``aligned=True``.

    Args:
        features: of a batch of images.
        boxes: of each image, in pixels of the image ``[n 4]``.
        size: cells along each side.
        stride: pixels of the image per pixel of the features.
        samples: readings per cell along each side.
    """
    height, width = features.shape[-2:]
    made = []
    steps = (torch.arange(size * samples, device=features.device) + 0.5) / (size * samples)
    for i, own in enumerate(boxes):
        if not len(own):  # grid_sample knows no empty grid
            made.append(features.new_zeros(0, features.shape[1], size, size))
            continue
        scaled = own.to(features.dtype) / stride
        x = scaled[:, :1] + steps.to(features.dtype) * (scaled[:, 2:3] - scaled[:, :1])
        y = scaled[:, 1:2] + steps.to(features.dtype) * (scaled[:, 3:] - scaled[:, 1:2])
        across, down = x / width * 2 - 1, y / height * 2 - 1
        rows, columns = len(own), size * samples
        grid = torch.stack(
            [
                across[:, None, :].expand(rows, columns, columns),
                down[:, :, None].expand(rows, columns, columns),
            ],
            dim=-1,
        )
        # The boxes of an image stand below each other in one long grid.
        read = F.grid_sample(
            features[i : i + 1],
            grid.reshape(1, rows * columns, columns, 2),
            padding_mode="border",
            align_corners=False,
        )
        near = _near(x, width)[:, None, :] & _near(y, height)[:, :, None]
        read = read[0].reshape(-1, rows, columns, columns).transpose(0, 1)
        made.append(F.avg_pool2d(read * near[:, None], samples))
    return torch.cat(made)


def _near(places: Float[Tensor, "n s"], side: int) -> Bool[Tensor, "n s"]:
    """Whether places, from the edge of the first pixel, lie within a pixel of the outer centres."""
    return (places >= -0.5) & (places <= side + 0.5)


def flipped(
    boxes: Float[Tensor, "n 4"], *, height: float, width: float, across: bool, down: bool
) -> Float[Tensor, "n 4"]:
    """Return boxes as they lie in an image that was mirrored left to right, or top to bottom."""
    left, top, right, bottom = boxes.unbind(dim=-1)
    if across:
        left, right = width - right, width - left
    if down:
        top, bottom = height - bottom, height - top
    return torch.stack([left, top, right, bottom], dim=-1)
