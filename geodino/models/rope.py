"""Rotary position tables: float32, on the device, one per block and crop set.

DINOv3 (arXiv 2508.10104), section 3.2: each head's channels turn by angles ``2 pi c / period`` for
the two coordinates ``c`` of a patch centre in [-1, 1]; training shifts, jitters and rescales the
coordinates, anew in every block.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

Normalise = Literal["separate", "max", "min"]


def rope_periods(
    head_dim: int,
    *,
    base: float | None = 100.0,
    min_period: float | None = None,
    max_period: float | None = None,
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, " d4"]:
    """Return the ``head_dim / 4`` periods of the turns.

    With ``base`` they are ``base ** (2k / (head_dim / 2))``; with ``min_period`` and ``max_period``
    instead, a geometric series from one to the other, both included.

    Raises:
        ValueError: neither or both ways are given, or the head dimension is no multiple of 4.
    """
    if head_dim % 4:
        raise ValueError(f"rotary positions need a head dimension divisible by 4, not {head_dim}")
    count = head_dim // 4
    if base is not None and min_period is None and max_period is None:
        # A Python number to a tensor of exponents, in this order, is what timm computes too.
        return base ** (2.0 * torch.arange(count, dtype=dtype, device="cpu") / (head_dim // 2))
    if base is None and min_period is not None and max_period is not None:
        steps = torch.linspace(0, 1, count, dtype=dtype, device="cpu")
        return min_period * ((max_period / min_period) ** steps)
    raise ValueError("give either `base`, or `min_period` and `max_period`")


def patch_centres(
    grid: tuple[int, int],
    *,
    normalise: Normalise = "separate",
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Float[Tensor, "n 2"]:
    """Return the (row, column) of each patch centre, row-major, scaled to [-1, 1].

    Args:
        grid: patches down and across.
        normalise: ``separate`` divides each axis by its own length (every tile fills [-1, 1] on
            both axes); ``max`` and ``min`` divide both by the longer or the shorter side.
        device: where the result is made.
        dtype: of the result.
    """
    height, width = grid
    down, across = {
        "separate": (height, width),
        "max": (max(grid), max(grid)),
        "min": (min(grid), min(grid)),
    }[normalise]
    rows = (torch.arange(height, device=device, dtype=dtype) + 0.5) / down
    columns = (torch.arange(width, device=device, dtype=dtype) + 0.5) / across
    centres = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
    return 2.0 * centres.flatten(0, 1) - 1.0


def rope_tables(
    centres: Float[Tensor, "n 2"],
    periods: Float[Tensor, " d4"],
    factors: Float[Tensor, "blocks 5"] | None = None,
    *,
    prefix: int = 0,
) -> Float[Tensor, "blocks 2 p d2"]:
    """Return cosines and sines of every patch for every block, in one batched computation.

    Only half of each table is kept (``d2 = head_dim / 2``, the rows' angles then the columns'): the
    rotation uses the same angle for a channel and its partner half a head further.

    Args:
        centres: see ``patch_centres``.
        periods: see ``rope_periods``.
        factors: per block (shift rows, shift columns, jitter rows, jitter columns, rescale),
            applied in this order; None is one unaugmented table.
        prefix: tokens before the patches (CLS and registers); they get angle 0 and stay as they
            are.
    """
    coordinates = centres[None]
    if factors is not None:
        shift, jitter, rescale = factors[:, None, 0:2], factors[:, None, 2:4], factors[:, None, 4:]
        coordinates = (coordinates + shift) * jitter * rescale
    angles = (2 * math.pi * coordinates[..., None] / periods).flatten(2)
    angles = F.pad(angles, (0, 0, prefix, 0))
    return torch.stack((angles.cos(), angles.sin()), dim=1)


def rotate(
    x: Float[Tensor, "b p ... h d"], table: Float[Tensor, "2 p d2"]
) -> Float[Tensor, "b p ... h d"]:
    """Turn the first half of the channels against the second half, in float32, and cast back.

    ``(a, b)`` becomes ``(a cos - b sin, b cos + a sin)``: rotate-half, not interleaved pairs.
    """
    cosine, sine = table.view(2, 1, table.shape[1], *[1] * (x.ndim - 3), table.shape[2])
    first, second = x.chunk(2, dim=-1)
    turned = torch.cat((first * cosine - second * sine, second * cosine + first * sine), dim=-1)
    return turned.type_as(x)
