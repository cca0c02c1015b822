"""Boxes a network starts from, and how it says where the object really is."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

_MOST = math.log(1000 / 16)
"""Boxes grow at most so many times at once: exp() of an early guess would overflow."""


def anchors(
    height: int, width: int, *, stride: int, side: float, ratios: tuple[float, ...]
) -> Float[Tensor, "a 4"]:
    """Return boxes around the centre of each cell of a map, row by row, ratio by ratio.

    Args:
        height: rows of the map.
        width: columns of the map.
        stride: pixels of the image per cell.
        side: of the square box, pixels; the others have its area.
        ratios: height over width of each.
    """
    shape = torch.tensor(ratios, dtype=torch.float32).sqrt()
    half = torch.stack([side / shape / 2, side * shape / 2], dim=-1)
    rows, columns = torch.meshgrid(
        (torch.arange(height) + 0.5) * stride, (torch.arange(width) + 0.5) * stride, indexing="ij"
    )
    centre = torch.stack([columns, rows], dim=-1)[:, :, None]
    return torch.cat([centre - half, centre + half], dim=-1).reshape(-1, 4)


def encode(
    boxes: Float[Tensor, "n 4"], around: Float[Tensor, "n 4"], *, weights: tuple[float, float]
) -> Float[Tensor, "n 4"]:
    """Say where boxes are as seen from others (Girshick et al. 2014, equations 6 to 9).

    Args:
        boxes: where objects are.
        around: boxes they are seen from; they have an area.
        weights: factors on the shift of the centre, in sides of ``around``, and on the logarithm of
            the growth of each side.
    """
    centre, side = _middle(boxes)
    own_centre, own_side = _middle(around)
    shift = (centre - own_centre) / own_side
    growth = torch.log(side.clamp_min(1e-6) / own_side)
    return torch.cat([shift * weights[0], growth * weights[1]], dim=-1)


def decode(
    codes: Float[Tensor, "*n 4"], around: Float[Tensor, "*n 4"], *, weights: tuple[float, float]
) -> Float[Tensor, "*n 4"]:
    """Return the boxes that codes say: the inverse of ``encode``."""
    centre, side = _middle(around)
    shift, growth = codes[..., :2] / weights[0], codes[..., 2:] / weights[1]
    centre = centre + shift * side
    half = side * torch.exp(growth.clamp_max(_MOST)) / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def clipped(boxes: Float[Tensor, "*n 4"], size: tuple[int, int]) -> Float[Tensor, "*n 4"]:
    """Return what of boxes lies in an image of some height and width."""
    height, width = size
    limit = boxes.new_tensor([width, height, width, height])
    return torch.minimum(boxes.clamp_min(0), limit)


def _middle(boxes: Float[Tensor, "*n 4"]) -> tuple[Tensor, Tensor]:
    return (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
