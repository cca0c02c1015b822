"""What one step learns from."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Int64, Num
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassBatch:
    """Crops with the class of each pixel."""

    step: int
    """The step they belong to, from 0."""

    pixels: Num[Tensor, "b c h w"]
    """Stored values."""

    valid: Bool[Tensor, "b h w"]
    """Which pixels may be used."""

    classes: Int64[Tensor, "b h w"]
    """Number of the class; undefined where not ``known``."""

    known: Bool[Tensor, "b h w"]
    """Where a class may be learnt from."""

    def to(self, device: torch.device) -> "ClassBatch":
        """Copy to a device without waiting."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("pixels", "valid", "classes", "known")
        }
        return replace(self, **moved)
