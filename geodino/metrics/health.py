"""Health of dense features: numbers that fall long before a downstream score does.

All are computed on the tokens of a few fixed probe crops. While a ViT trains long, its patch
tokens drift towards the class token and lose their differences (Siméoni et al. 2025, "DINOv3",
section 4 and figure 5); a few patches may become registers of outlying norm (Darcet et al. 2024,
"Vision transformers need registers").
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Health:
    """The state of a backbone's features on one set of crops."""

    cls_patch_cosine: float
    """Mean cosine of patch tokens with their image's class token; rises when locality is lost."""

    patch_patch_cosine: float
    """Mean cosine of two different patches of an image; near 1 when all patches look the same."""

    patch_rank: float
    """Effective rank of all patch tokens: how many directions they use."""

    cls_rank: float
    """Effective rank of the class tokens; at most the number of crops."""

    outlier_share: float
    """Share of patches whose norm is above ``outlier_factor`` times the median norm."""

    norm_median: float
    """Median norm of the patch tokens."""


def health(
    cls: Float[Tensor, "b d"], patches: Float[Tensor, "b n d"], *, outlier_factor: float = 3.0
) -> Health:
    """Measure the features of a set of crops, in float32 or better.

    Args:
        cls: class tokens after the last norm.
        patches: patch tokens after the last norm.
        outlier_factor: norms above this multiple of the median are outliers.
    """
    tokens = patches.flatten(0, 1)
    return Health(
        cls_patch_cosine=float(cls_patch_cosine(cls, patches)),
        patch_patch_cosine=float(patch_patch_cosine(patches)),
        patch_rank=float(effective_rank(tokens)),
        cls_rank=float(effective_rank(cls)),
        outlier_share=float(outlier_share(tokens, factor=outlier_factor)),
        norm_median=float(tokens.float().norm(dim=-1).median()),
    )


def cls_patch_cosine(
    cls: Float[Tensor, "b d"], patches: Float[Tensor, "b n d"]
) -> Float[Tensor, ""]:
    """Mean cosine between each patch token and the class token of its image."""
    return torch.einsum("bd,bnd->bn", _unit(cls), _unit(patches)).mean()


def patch_patch_cosine(patches: Float[Tensor, "b n d"]) -> Float[Tensor, ""]:
    """Mean cosine over pairs of different patches of the same image; NaN for one patch.

    The cosines of all pairs sum to the squared length of the sum of unit vectors; the ``n`` pairs
    of a patch with itself count 1 each and are taken off.
    """
    unit = _unit(patches)
    n = unit.shape[1]
    of_all = unit.sum(dim=1).square().sum(dim=-1)
    of_itself = unit.square().sum(dim=(1, 2))
    return ((of_all - of_itself) / (n * (n - 1)) if n > 1 else of_all * torch.nan).mean()


def effective_rank(tokens: Float[Tensor, "n d"], *, centre: bool = False) -> Float[Tensor, ""]:
    r"""Effective rank: ``exp`` of the entropy of the normalised singular values.

    .. math:: \operatorname{erank}(A) = \exp\Bigl(-\sum_k p_k \log p_k\Bigr), \quad
       p_k = \sigma_k / \|\sigma\|_1

    (Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".) 1 when
    all rows are parallel, ``min(n, d)`` when all singular values are equal; 0 for a zero matrix.

    Args:
        tokens: one token per row.
        centre: take the mean row off first. The paper does not.
    """
    matrix = _at_least_float32(tokens)
    if centre:
        matrix = matrix - matrix.mean(dim=0)
    sigma = torch.linalg.svdvals(matrix)
    total = sigma.sum()
    share = sigma / total.clamp_min(torch.finfo(sigma.dtype).tiny)
    rank: Tensor = torch.special.entr(share).sum().exp()
    return rank.where(total > 0, total)


def outlier_share(tokens: Float[Tensor, "n d"], *, factor: float = 3.0) -> Float[Tensor, ""]:
    """Share of tokens whose norm is above ``factor`` times the median norm."""
    norms: Tensor = _at_least_float32(tokens).norm(dim=-1)
    # The lower of the two middle norms for an even count, as torch defines the median.
    return (norms > factor * norms.median()).to(norms.dtype).mean()


def gram_distance(
    first: Float[Tensor, "b n d1"], second: Float[Tensor, "b n d2"]
) -> Float[Tensor, ""]:
    r"""Mean squared difference of the cosine matrices of two sets of patch tokens.

    .. math:: \frac{1}{B N^2} \sum_b \| X_b X_b^\top - Y_b Y_b^\top \|_F^2

    with unit rows, as in the Gram loss of DINOv3 (section 4.2), averaged instead of summed. Only
    similarities between patches of the same image enter, so the two may come from different
    models of different widths on the same crops. 0 if they agree, at most 4.
    """
    x, y = _unit(first), _unit(second)
    difference = x @ x.transpose(1, 2) - y @ y.transpose(1, 2)
    return difference.square().mean()


def _unit(tokens: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    return F.normalize(_at_least_float32(tokens), dim=-1)


def _at_least_float32(tokens: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
    return tokens if tokens.dtype == torch.float64 else tokens.float()
