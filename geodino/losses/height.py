r"""Losses of canopy heights, pixel by pixel, over valid pixels only.

``valid`` is True where a label may be used. What lies under False, in the label or in the prediction
(NaN, -3.4e38, 1e30), changes no bit of a loss or of its gradient. Without any valid pixel a loss is
0 and so is every gradient. All run in float32 or better, wait for no device, and treat all pixels of
a batch alike. 0 m is a height like any other: bare ground.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

LOG_EPSILON_M = 1.0
"""Metres added inside logarithms of heights. Above it a logarithm counts relative errors, below it
nearly metres. Laser heights of bare ground are off by decimetres; with the 1 mm that is usual for
depths, 0 m against 0.1 m would cost as much as 1 m against 100 m, and a forest would be learnt from
the noise of its clearings."""


def silog_loss(
    predicted_m: Float[Tensor, "*s"],
    target_m: Float[Tensor, "*s"],
    valid: Bool[Tensor, "*s"],
    *,
    epsilon_m: float = LOG_EPSILON_M,
    variance_focus: float = 0.85,
    variance_weight: float = 1.0,
) -> Float[Tensor, ""]:
    r"""Return the scale-invariant error of log heights (Eigen et al. 2014, with a square root).

    .. math:: \sqrt{w \operatorname{var}(g) + (1 - f)\,\bar g^2},
              \quad g = \log(\hat h + \epsilon) - \log(h + \epsilon)

    Args:
        predicted_m: heights; negative ones are met by ``log_height`` without NaN.
        target_m: the truth, 0 m included.
        valid: which pixels count.
        epsilon_m: added inside the logarithms, see ``LOG_EPSILON_M``. Depth models use 0.001.
        variance_focus: ``f``; at 1 a wrong common factor costs nothing (where epsilon is small), at
            0 it costs in full.
        variance_weight: ``w``; 0 learns the common factor alone, as depth models do in their first
            hundred steps.
    """
    with torch.autocast(predicted_m.device.type, enabled=False):
        predicted, target = only_valid(predicted_m, target_m, valid)
        gap = log_height(predicted, epsilon_m=epsilon_m) - log_height(target, epsilon_m=epsilon_m)
        count = valid.sum()
        mean = gap.sum() / count.clamp_min(1)
        squares = (gap - mean).square().where(valid, 0.0)
        variance = squares.sum() / (count - 1).clamp_min(1)
        return root(variance_weight * variance + (1.0 - variance_focus) * mean.square())


def l1_loss(
    predicted_m: Float[Tensor, "*s"], target_m: Float[Tensor, "*s"], valid: Bool[Tensor, "*s"]
) -> Float[Tensor, ""]:
    """Return the mean absolute error, in metres."""
    predicted, target = only_valid(predicted_m, target_m, valid)
    return (predicted - target).abs().sum() / valid.sum().clamp_min(1)


def huber_loss(
    predicted_m: Float[Tensor, "*s"],
    target_m: Float[Tensor, "*s"],
    valid: Bool[Tensor, "*s"],
    *,
    beta_m: float = 1.0,
) -> Float[Tensor, ""]:
    """Return Huber's loss divided by ``beta_m``, so that it is in metres whatever ``beta_m`` is.

    ``e^2 / (2 beta)`` below ``beta_m``, ``|e| - beta / 2`` above: torch's smooth L1.
    """
    predicted, target = only_valid(predicted_m, target_m, valid)
    errors = F.smooth_l1_loss(predicted, target, beta=beta_m, reduction="sum")
    return errors / valid.sum().clamp_min(1)


def charbonnier_loss(
    predicted_m: Float[Tensor, "*s"],
    target_m: Float[Tensor, "*s"],
    valid: Bool[Tensor, "*s"],
    *,
    scale_m: float = 1.0,
) -> Float[Tensor, ""]:
    r"""Return the mean of :math:`\sqrt{e^2 + c^2} - c`, in metres: L1 with a round bottom.

    Charbonnier et al. 1994. Most texts leave the constant ``- c`` away; with it, no error costs 0.

    Args:
        predicted_m: heights.
        target_m: the truth.
        valid: which pixels count.
        scale_m: ``c``, where the loss turns from quadratic to linear.
    """
    predicted, target = only_valid(predicted_m, target_m, valid)
    square = (predicted - target).square()
    # The same as sqrt(e^2 + c^2) - c, without losing the digits of a small e.
    errors = square / ((square + scale_m * scale_m).sqrt() + scale_m)
    return errors.sum() / valid.sum().clamp_min(1)


def log_height(height_m: Float[Tensor, "*s"], *, epsilon_m: float) -> Float[Tensor, "*s"]:
    """Return ``log(h + epsilon)``, carried on below 0 m as the straight line of the same slope.

    A head without a floor may predict -0.1 m at first, and laser heights may be as low: both get a
    finite value there, and a gradient that leads back up.
    """
    above = height_m.clamp_min(0.0)
    return (above + epsilon_m).log() + (height_m - above) / epsilon_m


def only_valid(
    predicted_m: Float[Tensor, "*s"], target_m: Float[Tensor, "*s"], valid: Bool[Tensor, "*s"]
) -> tuple[Float[Tensor, "*s"], Float[Tensor, "*s"]]:
    """Return both in float32 or better with 0 wherever ``valid`` is False.

    By ``where``, never by a product: 0 times NaN is NaN.
    """
    dtype = torch.promote_types(predicted_m.dtype, torch.promote_types(target_m.dtype, torch.float))
    predicted, target = predicted_m.to(dtype), target_m.to(dtype)
    return predicted.where(valid, 0.0), target.where(valid, 0.0)


def root(squares: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
    """Return square roots whose gradient is 0, not infinite, where there is nothing."""
    some = squares > 0
    return squares.where(some, 1.0).sqrt().where(some, 0.0)
