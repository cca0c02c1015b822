"""From an image to one vector: resized to whole patches, encoded, its tokens pooled."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geodino.models.backbone import Tokens

FeatureName = Literal["cls", "mean", "concat"]
"""Class token, mean of the patch tokens, or both side by side."""


def whole_patches(length: int, patch_size: int) -> int:
    """Return the next length, in pixels, that is whole patches."""
    return -(-length // patch_size) * patch_size


def fit_to_patches(
    image: Float[Tensor, "b c h w"],
    valid: Bool[Tensor, "b h w"],
    *,
    patch_size: int,
    image_size: int | None = None,
) -> tuple[Float[Tensor, "b c h2 w2"], Bool[Tensor, "b h2 w2"]]:
    """Resize to whole patches: up to the next multiples, or to the square ``image_size``.

    A resized pixel is the mean of the valid pixels under its bilinear (antialiased) kernel, and
    valid where they hold at least half of the kernel's weight. Images that fit are returned as
    they are.
    """
    height, width = image.shape[2:]
    if image_size is None:
        target = (whole_patches(height, patch_size), whole_patches(width, patch_size))
    else:
        target = (image_size, image_size)
    return resized(image, valid, target)


def resized(
    image: Float[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"], size: tuple[int, int]
) -> tuple[Float[Tensor, "b c h2 w2"], Bool[Tensor, "b h2 w2"]]:
    """Resize to a height and a width, as :func:`fit_to_patches` does."""
    if size == (image.shape[2], image.shape[3]):
        return image, valid
    holed = ~valid.flatten(1).all(dim=1)
    if not holed.any():
        return _resize(image, size), valid.new_ones(len(valid), *size)
    made = _resize(image.masked_fill(~valid[:, None], 0.0), size)
    share = _resize(valid[holed, None].to(image.dtype), size)
    made[holed] /= share.clamp_min(1e-6)
    inside = valid.new_ones(len(valid), *size)
    inside[holed] = share[:, 0] >= 0.5
    return made, inside


def pool_patches(
    patches: Float[Tensor, "b n d"], valid: Bool[Tensor, "b h w"], *, grid: tuple[int, int]
) -> Float[Tensor, "b d"]:
    """Mean of the patch tokens, each weighted by the share of valid pixels under it."""
    share = F.adaptive_avg_pool2d(valid[:, None].to(patches.dtype), grid).flatten(1)
    total = torch.einsum("bn,bnd->bd", share, patches)
    return total / share.sum(dim=1, keepdim=True).clamp_min(1e-6)


def pooled(
    tokens: Tokens, valid: Bool[Tensor, "b h w"], features: FeatureName
) -> Float[Tensor, "b e"]:
    """Return the vector that stands for each image: the features called so."""
    if features == "cls":
        return tokens.cls
    mean = pool_patches(tokens.patches, valid, grid=tokens.grid)
    return mean if features == "mean" else torch.cat([tokens.cls, mean], dim=1)


def _resize(image: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    return F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)
