"""What is taken from maps of canopy height before anything is summed: classes, blocks, edges, masks.

All take maps ``[... h w]`` in metres and ``valid`` (True = use). What lies under an invalid pixel
changes no bit of a result.
"""

from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float

Map = Float[np.ndarray, "*b h w"]
Mask = Bool[np.ndarray, "*b h w"]

CLASS_EDGES_M = (0.0, 2.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 40.0)
"""Lower edges of height classes; the last class has no upper edge."""

HRCH_BLOCK_PX = 50
"""Side of a block in the code of HighResCanopyHeight: 30 m at its 0.6 m pixels."""

HRCH_TRIM_PX = 3
"""Rows and columns that code drops at the top and left, so that 256 px hold 5 x 5 blocks."""

BLOCK_VALID_SHARE = 0.5
"""Least share of valid pixels in a block that counts. Published code knows no invalid pixels."""


def class_names(lower_edges_m: tuple[float, ...]) -> tuple[str, ...]:
    """Return ``0-2m``, ``2-5m``, ..., ``40m+``: the last class has no upper edge."""
    lows = [f"{edge:g}" for edge in lower_edges_m]
    return (*(f"{a}-{b}m" for a, b in pairwise(lows)), f"{lows[-1]}m+")


def finite_values(
    values: Float[np.ndarray, "*s"], valid: Bool[np.ndarray, "*s"], *, name: str
) -> Float[np.ndarray, " n"]:
    """Return the values of valid pixels as float64.

    Raises:
        ValueError: one of them is not finite.
    """
    chosen = np.asarray(values[valid], dtype=np.float64)
    if lost := int((~np.isfinite(chosen)).sum()):
        raise ValueError(f"{lost} of {chosen.size} valid pixels have no {name}")
    return chosen


def block_means(
    predicted_m: Map,
    true_m: Map,
    valid: Mask,
    *,
    block_px: int = HRCH_BLOCK_PX,
    trim_px: int = HRCH_TRIM_PX,
    valid_share: float = BLOCK_VALID_SHARE,
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """Return predicted and true means over the valid pixels of whole blocks.

    Args:
        predicted_m: heights.
        true_m: the truth.
        valid: which pixels count.
        block_px: side of a block; rows and columns left over at the bottom and right are dropped.
        trim_px: rows and columns dropped first, at the top and left.
        valid_share: blocks with a smaller share of valid pixels are left out.
    """
    inside = valid[..., trim_px:, trim_px:]
    count = _block_sums(inside.astype(np.float64), block_px)
    counts = count >= max(valid_share * block_px * block_px, 1)
    means = [
        _block_sums(_filled(m[..., trim_px:, trim_px:], inside), block_px)[counts] / count[counts]
        for m in (predicted_m, true_m)
    ]
    return means[0], means[1]


def block_r2(
    predicted_m: Map,
    true_m: Map,
    valid: Mask,
    *,
    block_px: int = HRCH_BLOCK_PX,
    trim_px: int = HRCH_TRIM_PX,
    valid_share: float = BLOCK_VALID_SHARE,
) -> float:
    """Return R2 of the means of blocks, all blocks of all maps together; NaN if truth is constant.

    By default as HighResCanopyHeight's code has it: blocks of 50 px after the first 3 rows and
    columns were dropped, whatever the pixel size. For blocks of a size on the ground give
    ``block_px=block_side_px(30.0, gsd_m=...)`` and ``trim_px=0``.
    """
    predicted, true = block_means(
        predicted_m, true_m, valid, block_px=block_px, trim_px=trim_px, valid_share=valid_share
    )
    spread = float(np.square(true - true.mean()).sum()) if true.size else 0.0
    return 1.0 - float(np.square(predicted - true).sum()) / spread if spread > 0 else float("nan")


def block_side_px(block_m: float, *, gsd_m: float) -> int:
    """Return the side of a block of ``block_m`` metres in whole pixels, at least 1."""
    return max(round(block_m / gsd_m), 1)


def sobel_magnitude(height_m: Map) -> Float[np.ndarray, "*b hi wi"]:
    """Return the slope in metres per pixel by Sobel's operator, without the outermost pixels.

    Kernels ``[1 2 1] x [-1 0 1] / 8`` and its transpose, so that a plane of slope 1 gives 1.
    """
    rows = height_m[..., :-2, :] + 2.0 * height_m[..., 1:-1, :] + height_m[..., 2:, :]
    columns = height_m[..., :-2] + 2.0 * height_m[..., 1:-1] + height_m[..., 2:]
    across = rows[..., 2:] - rows[..., :-2]
    down = columns[..., 2:, :] - columns[..., :-2, :]
    return np.asarray(np.hypot(across, down) / 8.0)


def edge_errors(predicted_m: Map, true_m: Map, valid: Mask) -> Float[np.ndarray, " n"]:
    """Return ``|sobel(predicted) - sobel(true)|``, metres per pixel, where all 9 pixels are valid.

    Their mean is the edge error. CHMv2 (arXiv 2603.06382) prints one of the same kind without the
    scale of its operator: compare with its figures in order only.
    """
    gap = np.abs(
        sobel_magnitude(_filled(predicted_m, valid)) - sobel_magnitude(_filled(true_m, valid))
    )
    rows = valid[..., :-2, :] & valid[..., 1:-1, :] & valid[..., 2:, :]
    whole = rows[..., :-2] & rows[..., 1:-1] & rows[..., 2:]
    return np.asarray(gap[whole])


def open_canopy_valid(true_m: Map, vegetation: Mask, valid: Mask, *, below_m: float = 60.0) -> Mask:
    """Return where Open-Canopy scores: valid, vegetation, and a truth below 60 m.

    ``vegetation`` is the benchmark's mask (laser returns of class 5 from 1.5 m up, and forest
    polygons): about half of its area. Its files hold decimetres; divide by 10 before.
    """
    return np.asarray(valid & vegetation & (true_m < below_m))


def _filled(values: Map, valid: Mask) -> Map:
    return np.where(valid, values, 0.0).astype(np.float64)


def _block_sums(values: Map, side: int) -> Float[np.ndarray, "*b r c"]:
    rows, columns = values.shape[-2] // side, values.shape[-1] // side
    whole = values[..., : rows * side, : columns * side]
    return np.asarray(
        whole.reshape(*values.shape[:-2], rows, side, columns, side).sum(axis=(-3, -1))
    )
