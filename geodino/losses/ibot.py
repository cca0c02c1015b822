"""The iBOT loss: features of masked patches against the teacher's assignments of the same patches."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodino.losses.cross_entropy import prototype_cross_entropy
from geodino.losses.sinkhorn import Targets


def ibot_weights(masked: Int[Tensor, " i"], *, tokens: int) -> Float[Tensor, " n"]:
    """Return one weight per masked token: 1 / (masked tokens of its image) / number of images.

    Images without a masked token count in the number of images, as in the reference; with half of
    the images masked the loss is about half the mean over tokens.

    Args:
        masked: masked tokens of every image, in the order of the images.
        tokens: their sum, known on the host (`token_budget`), so that the device is not asked.
    """
    each = 1.0 / (masked.clamp_min(1) * max(len(masked), 1))
    return each.repeat_interleave(masked, output_size=tokens)


def ibot_loss(
    features: Float[Tensor, "n d"],
    prototypes: Float[Tensor, "k d"],
    targets: Targets,
    *,
    masked: Int[Tensor, " i"],
    student_temp: float = 0.1,
) -> Float[Tensor, ""]:
    """Return the iBOT loss of one rank.

    Args:
        features: bottleneck outputs of the student at masked tokens, image after image.
        prototypes: weight of the iBOT head's last layer.
        targets: assignments of the teacher at the same tokens, in the same order.
        masked: masked tokens of every image, unmasked images included; they sum to ``n``.
        student_temp: the paper's tau_s.
    """
    return prototype_cross_entropy(
        features,
        prototypes,
        targets,
        target_rows=None,
        row_weights=ibot_weights(masked, tokens=len(features)),
        student_temp=student_temp,
    )


def ibot_cross_entropy(
    student_logits: Float[Tensor, "n k"],
    teacher_probs: Float[Tensor, "n k"],
    weights: Float[Tensor, " n"],
    *,
    student_temp: float,
) -> Float[Tensor, ""]:
    r"""Weighted cross-entropy of masked tokens; the plain definition.

    .. math:: \sum_n w_n \sum_k -p_{nk} \log \mathrm{softmax}_k(s_n / \tau_s)

    (Zhou et al. 2022, "iBOT", equation 2, with the weights of `ibot_weights`.) Holds all logits;
    `ibot_loss` is what training uses.
    """
    log_q = torch.log_softmax(student_logits / student_temp, dim=-1)
    return -(weights * (teacher_probs * log_q).sum(-1)).sum()
