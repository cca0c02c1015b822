"""Losses for a class per pixel: cross-entropy, focal and Dice; pixels that do not count change no bit.

Logits are ``[b k h w]``; targets hold the number of the class, and where ``valid`` is False
anything. All sums are float32.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def pixel_cross_entropy(
    logits: Float[Tensor, "b k h w"],
    target: Int64[Tensor, "b h w"],
    valid: Bool[Tensor, "b h w"],
    *,
    weights: Sequence[float] | None = None,
) -> Float[Tensor, ""]:
    r"""Return the mean cross-entropy over valid pixels; 0 (with a gradient of 0) without any.

    .. math:: -\frac{\sum_i w_{y_i} \log p_i(y_i)}{\sum_i w_{y_i}}

    Args:
        logits: raw outputs.
        target: number of the class.
        valid: which pixels count.
        weights: of each class; None counts them alike.
    """
    log_p, weight = _of_target(logits, target, valid, weights)
    return -(weight * log_p).sum() / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)


def focal_loss(
    logits: Float[Tensor, "b k h w"],
    target: Int64[Tensor, "b h w"],
    valid: Bool[Tensor, "b h w"],
    *,
    gamma: float = 2.0,
    weights: Sequence[float] | None = None,
) -> Float[Tensor, ""]:
    r"""Return the focal loss (Lin et al. 2017, arXiv 1708.02002, Eq. 5) for several classes.

    .. math:: -\frac{\sum_i w_{y_i} (1 - p_i(y_i))^\gamma \log p_i(y_i)}{\sum_i w_{y_i}}

    With ``gamma`` 0 it is the cross-entropy.
    """
    log_p, weight = _of_target(logits, target, valid, weights)
    # -expm1 is 1 - p without the loss of digits where p is near 1; its power has no gradient at 0.
    missing = (-torch.expm1(log_p)).clamp_min(torch.finfo(torch.float32).eps)
    total = -(weight * missing**gamma * log_p).sum()
    return total / weight.sum().clamp_min(torch.finfo(torch.float32).tiny)


def dice_loss(
    logits: Float[Tensor, "b k h w"],
    target: Int64[Tensor, "b h w"],
    valid: Bool[Tensor, "b h w"],
    *,
    smooth: float = 1.0,
) -> Float[Tensor, ""]:
    r"""Return 1 minus the mean Dice coefficient of the classes that the batch holds.

    .. math:: 1 - \frac{1}{|C|} \sum_{c \in C}
              \frac{2 \sum_i p_i(c)\, [y_i = c] + s}{\sum_i p_i(c) + \sum_i [y_i = c] + s}

    Sums run over the valid pixels of the whole batch. Without any the loss is 0.

    Args:
        logits: raw outputs.
        target: number of the class.
        valid: which pixels count.
        smooth: ``s``, pixels.
    """
    classes = logits.shape[1]
    p = logits.float().where(valid[:, None], 0.0).softmax(dim=1).where(valid[:, None], 0.0)
    truth = F.one_hot(target.where(valid, 0), classes).movedim(-1, 1).to(p.dtype)
    truth = truth.where(valid[:, None], 0.0)
    both = (p * truth).sum(dim=(0, 2, 3))
    count = truth.sum(dim=(0, 2, 3))
    dice = (2.0 * both + smooth) / (p.sum(dim=(0, 2, 3)) + count + smooth)
    there = (count > 0).to(p.dtype)
    return (there * (1.0 - dice)).sum() / there.sum().clamp_min(1.0)


def _of_target(
    logits: Float[Tensor, "b k h w"],
    target: Int64[Tensor, "b h w"],
    valid: Bool[Tensor, "b h w"],
    weights: Sequence[float] | None,
) -> tuple[Float[Tensor, "b h w"], Float[Tensor, "b h w"]]:
    """Log-probability of the target, and the weight of each pixel; both 0 where it does not count."""
    # where() before the softmax: 0 * nan is nan, and what lies under invalid pixels may be nan.
    known = target.where(valid, 0)
    log_p = logits.float().where(valid[:, None], 0.0).log_softmax(dim=1)
    log_p = log_p.gather(1, known[:, None])[:, 0].where(valid, 0.0)
    weight = valid.to(log_p.dtype)
    if weights is not None:
        table = torch.as_tensor(weights, dtype=log_p.dtype, device=log_p.device)
        weight = weight * table[known]
    return log_p, weight
