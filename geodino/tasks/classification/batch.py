"""What one step learns from."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Num, Shaped
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageBatch:
    """Whole images with their classes."""

    step: int
    """The step they belong to, from 0."""

    pixels: Num[Tensor, "b c h w"]
    """Stored values."""

    valid: Bool[Tensor, "b h w"]
    """Which pixels may be used."""

    labels: Shaped[Tensor, "b *k"]
    """Number of the class of each ``[b]``, or which classes it has ``[b k]``."""

    def to(self, device: torch.device) -> "ImageBatch":
        """Copy to a device without waiting."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("pixels", "valid", "labels")
        }
        return replace(self, **moved)
