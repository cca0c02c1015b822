r"""Losses of the shape of a canopy: where heights change, by how much and in which direction.

Rules as in ``geodino.losses.height``. A stencil that touches an invalid pixel or leaves the image does
not count.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geodino.losses.height import LOG_EPSILON_M, log_height, only_valid, root


def patch_gradient_loss(
    predicted_m: Float[Tensor, "*b h w"],
    target_m: Float[Tensor, "*b h w"],
    valid: Bool[Tensor, "*b h w"],
    *,
    epsilon_m: float = LOG_EPSILON_M,
    scales: Sequence[int] = (1, 2, 4),
    windows: Sequence[int] = (3, 5),
    magnitude_weight: float = 0.3,
    range_weight: float = 0.6,
    direction_weight: float = 0.4,
    flat: float = 0.05,
) -> Float[Tensor, ""]:
    r"""Return how far the local shape of log heights is from the truth, over several scales.

    At each scale ``s`` both maps of log heights are averaged over valid pixels of ``s x s`` blocks,
    and three things are compared wherever the whole stencil is valid:

    * magnitude: :math:`\big||a| - |b|\big|` of the gradients ``a`` (predicted) and ``b`` (true);
    * local range, largest minus smallest value of a 3 x 3 and of a 5 x 5 window:
      :math:`|r_a - r_b|`, mean of the windows;
    * direction: :math:`(|a||b| - a \cdot b) / (|a||b| + \text{flat}^2)`, one minus the cosine on
      slopes, fading to 0 on flat ground, where a direction means nothing.

    The loss is the weighted sum of their means, averaged over the scales. A gradient has the four
    parts of Sobel's operator, both diagonals included, each scaled so that it is the slope per pixel
    in its direction.

    The ingredients, scales and weights are those of CHMv2's paper; the paper does not spell the
    three formulas out, so these are ours. It takes the mean out of the log heights first: every part
    here sees differences only, so that would change nothing and is left out.

    Args:
        predicted_m: heights.
        target_m: the truth.
        valid: which pixels count.
        epsilon_m: added inside the logarithms.
        scales: block sides, pixels; 4 means a quarter of the resolution. A block cut by the border
            is averaged over what it has.
        windows: odd sides of the windows of the local range.
        magnitude_weight: of the difference of gradient magnitudes.
        range_weight: of the difference of local ranges.
        direction_weight: of the difference of directions.
        flat: slope, log units per pixel, below which direction fades out.
    """
    with torch.autocast(predicted_m.device.type, enabled=False):
        clean = torch.stack(only_valid(predicted_m, target_m, valid))
        maps = log_height(clean, epsilon_m=epsilon_m).reshape(2, -1, *valid.shape[-2:])
        there = valid.reshape(maps.shape[1:])
        total = maps.new_zeros(())
        for scale in scales:
            small, usable = _shrunk(maps, there, scale)
            whole = _whole(usable, 3)
            steepness, turn = _compared(_sobel(small), flat)
            total = total + magnitude_weight * _mean(steepness, whole)
            total = total + direction_weight * _mean(turn, whole)
            for side in windows:
                a, b = _range(small, side)
                gap = _mean((a - b).abs(), _whole(usable, side))
                total = total + range_weight / len(windows) * gap
        return total / len(scales)


def gradient_loss(
    predicted_m: Float[Tensor, "*b h w"],
    target_m: Float[Tensor, "*b h w"],
    valid: Bool[Tensor, "*b h w"],
    *,
    log_epsilon_m: float | None = None,
    gap: int = 2,
    steps: Sequence[int] = (1, 2, 4, 6),
) -> Float[Tensor, ""]:
    r"""Return the plain gradient loss of depth models: differences of the error across a gap.

    With :math:`e` the error on every ``step``-th row and column, the sum over steps of
    :math:`\sum |e_{i+gap} - e_i| / n`, down and across, where ``n`` counts valid pixels.

    Args:
        predicted_m: heights.
        target_m: the truth.
        valid: which pixels count; a difference counts where both its pixels do.
        log_epsilon_m: compare log heights with this epsilon; None compares metres.
        gap: pixels between the two of a difference.
        steps: how coarse the grids are.
    """
    with torch.autocast(predicted_m.device.type, enabled=False):
        predicted, target = only_valid(predicted_m, target_m, valid)
        if log_epsilon_m is not None:
            predicted = log_height(predicted, epsilon_m=log_epsilon_m)
            target = log_height(target, epsilon_m=log_epsilon_m)
        parts = []
        for step in steps:
            e = (predicted - target)[..., ::step, ::step]
            v = valid[..., ::step, ::step]
            down = (e[..., gap:, :] - e[..., :-gap, :]).abs()
            across = (e[..., gap:] - e[..., :-gap]).abs()
            total = down.where(v[..., gap:, :] & v[..., :-gap, :], 0.0).sum()
            total = total + across.where(v[..., gap:] & v[..., :-gap], 0.0).sum()
            parts.append(total / v.sum().clamp_min(1))
        return torch.stack(parts).sum()


def _shrunk(
    maps: Float[Tensor, "k n h w"], valid: Bool[Tensor, "n h w"], scale: int
) -> tuple[Float[Tensor, "k n hs ws"], Bool[Tensor, "n hs ws"]]:
    """Mean of the valid pixels of each block; a block is valid if any of its pixels is."""
    edge = (0, -maps.shape[-1] % scale, 0, -maps.shape[-2] % scale)
    blocks = F.avg_pool2d(F.pad(maps.where(valid, 0.0), edge), scale)
    share = F.avg_pool2d(F.pad(valid.to(maps.dtype), edge), scale)
    usable = share > 0
    return blocks / share.where(usable, 1.0), usable


def _sobel(maps: Float[Tensor, "k n h w"]) -> Float[Tensor, "4 k n h w"]:
    """Slopes per pixel across, down and along both diagonals; rubbish on the outermost pixels.

    Written as sums, not as a convolution, which would run in TF32 on a GPU.
    """
    height, width = maps.shape[-2:]
    padded = F.pad(maps, (1, 1, 1, 1))

    def at(row: int, column: int) -> Float[Tensor, "k n h w"]:
        return padded[..., 1 + row : 1 + row + height, 1 + column : 1 + column + width]

    north, south, west, east = at(-1, 0), at(1, 0), at(0, -1), at(0, 1)
    nw, ne, sw, se = at(-1, -1), at(-1, 1), at(1, -1), at(1, 1)
    # A plane of slope 1 gives 8 along an axis, and 6 sqrt(2) along its diagonal.
    return torch.stack(
        [
            ((ne + 2 * east + se) - (nw + 2 * west + sw)) / 8,
            ((sw + 2 * south + se) - (nw + 2 * north + ne)) / 8,
            ((south + 2 * se + east) - (north + 2 * nw + west)) / (6 * 2**0.5),
            ((south + 2 * sw + west) - (north + 2 * ne + east)) / (6 * 2**0.5),
        ]
    )


def _compared(
    slopes: Float[Tensor, "4 2 n h w"], flat: float
) -> tuple[Float[Tensor, "n h w"], Float[Tensor, "n h w"]]:
    """Difference of the magnitudes of predicted and true gradients, and of their directions."""
    # Four directions see each slope twice.
    a, b = root(slopes.square().sum(0) / 2)
    inner = (slopes[:, 0] * slopes[:, 1]).sum(0) / 2
    return (a - b).abs(), (a * b - inner) / (a * b + flat * flat)


def _range(maps: Float[Tensor, "k n h w"], side: int) -> Float[Tensor, "k n h w"]:
    """Largest minus smallest value of the window around each pixel."""
    largest, smallest = (F.max_pool2d(m, side, stride=1, padding=side // 2) for m in (maps, -maps))
    return largest + smallest


def _whole(valid: Bool[Tensor, "n h w"], side: int) -> Bool[Tensor, "n h w"]:
    """Where the whole window around a pixel is valid and inside the image."""
    edge = side // 2
    missing = F.pad((~valid).float(), (edge, edge, edge, edge), value=1.0)
    return F.max_pool2d(missing, side, stride=1) == 0


def _mean(values: Float[Tensor, "n h w"], where: Bool[Tensor, "n h w"]) -> Float[Tensor, ""]:
    return values.where(where, 0.0).sum() / where.sum().clamp_min(1)
