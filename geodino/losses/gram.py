r"""Gram anchoring: the similarities between a student's patches follow those of a frozen teacher.

.. math:: \frac{1}{|P|} \sum_{(i,j) \in P} \left(x_i^\top x_j - y_i^\top y_j\right)^2

for student patches ``x`` and Gram-teacher patches ``y`` of the same places (Siméoni et al. 2025,
"DINOv3", section 4.2). Only similarities are compared, so the features themselves stay free to move.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

Per = Literal["image", "batch"]
"""Whether patches are compared within each image, or with those of all images of a rank."""

Clip = Literal["none", "both", "where_teacher_negative", "teacher"]
"""What happens to negative similarities before they are compared. ``both``: student's and teacher's
become 0. ``where_teacher_negative``: the teacher's become 0, and the student's where the teacher's
was negative too: opposite patches may be as opposite as they like. ``teacher``: only the teacher's
become 0, which is what the release computes under its name for the option before."""


def gram_loss(
    student: Float[Tensor, "n p d"],
    teacher: Float[Tensor, "n p d"],
    *,
    per: Per = "image",
    normalise: bool = True,
    clip: Clip = "none",
    keep: Bool[Tensor, "n p"] | None = None,
) -> Float[Tensor, ""]:
    """Return the mean squared difference of the two similarity matrices, in float32 or better.

    Args:
        student: patch tokens after the last norm.
        teacher: those of the Gram teacher on the same grid (``to_grid``); no gradient.
        per: which pairs are compared.
        normalise: compare cosines instead of inner products.
        clip: what happens to negative similarities.
        keep: True where a patch takes part; None takes all. At least one must.
    """
    with torch.autocast(student.device.type, enabled=False):
        x, y = (_rows(tokens, normalise=normalise, keep=keep) for tokens in (student, teacher))
        counts = x.new_full((len(x),), x.shape[1]) if keep is None else keep.sum(1).to(x.dtype)
        if per == "batch":
            x, y, counts = x.flatten(0, 1)[None], y.flatten(0, 1)[None], counts.sum(0, keepdim=True)
        patches, dim = x.shape[1:]
        # Both ways give the same sum; the smaller matrices are p x p or d x d.
        if clip == "none" and 2 * patches > 3 * dim:
            total = _difference_by_channels(x, y)
        else:
            total = _difference_by_patches(x, y, clip)
        return total / counts.square().sum()


def to_grid(
    features: Float[Tensor, "n d h w"], grid: tuple[int, int], *, antialias: bool = False
) -> Float[Tensor, "n p d"]:
    """Resize a map of features to ``grid`` (rows, columns), bicubic, and lay it out as patches.

    DINOv3 feeds its Gram teacher crops of twice the size and resizes what comes out.

    Args:
        features: patch tokens as an image of features, of any aspect.
        grid: patches down and across.
        antialias: widen the kernel when shrinking; off in the method.
    """
    if features.shape[-2:] != grid:
        wide = features.to(torch.promote_types(features.dtype, torch.float32))
        features = F.interpolate(
            wide, size=grid, mode="bicubic", align_corners=False, antialias=antialias
        )
    return features.flatten(2).transpose(1, 2)


def _rows(
    tokens: Tensor, *, normalise: bool, keep: Bool[Tensor, "n p"] | None
) -> Float[Tensor, "n p d"]:
    wide = tokens.to(torch.promote_types(tokens.dtype, torch.float32))
    if normalise:
        wide = F.normalize(wide, dim=-1)
    # A row of zeros has similarity 0 with every other, on both sides.
    return wide if keep is None else wide.masked_fill(~keep[..., None], 0.0)


def _difference_by_patches(
    x: Float[Tensor, "n p d"], y: Float[Tensor, "n p d"], clip: Clip
) -> Float[Tensor, ""]:
    of_student, of_teacher = x @ x.mT, y @ y.mT
    if clip == "both":
        of_student = of_student.clamp_min(0.0)
    elif clip == "where_teacher_negative":
        # Before the teacher is clipped: afterwards nothing in it is negative.
        of_student = of_student.masked_fill((of_teacher < 0) & (of_student < 0), 0.0)
    if clip != "none":
        of_teacher = of_teacher.clamp_min(0.0)
    return (of_student - of_teacher).square().sum()


def _difference_by_channels(
    x: Float[Tensor, "n p d"], y: Float[Tensor, "n p d"]
) -> Float[Tensor, ""]:
    """The same sum from matrices of channels, which many patches do not enlarge.

    With ``a = x - y`` and ``b = x + y`` the difference of the matrices is ``(a b' + b a') / 2`` and
    its squared norm ``(<a'a, b'b> + <a'b, b'a>) / 2``: nothing large is subtracted from anything
    large, as it would be in ``|x'x|^2 + |y'y|^2 - 2 |x'y|^2``.
    """
    a, b = x - y, x + y
    mixed = a.mT @ b
    return 0.5 * (((a.mT @ a) * (b.mT @ b)).sum() + (mixed * mixed.mT).sum())
