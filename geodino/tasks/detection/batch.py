"""What one step learns from."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Num
from torch import Tensor

from geodino.models.detection.matching import Objects


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxBatch:
    """Crops with the objects in them."""

    step: int
    """The step they belong to, from 0."""

    pixels: Num[Tensor, "b c h w"]
    """Stored values."""

    valid: Bool[Tensor, "b h w"]
    """Which pixels may be used."""

    ground: Bool[Tensor, "b h w"]
    """Which pixels lie on ground that may be learnt from."""

    objects: tuple[Objects, ...]
    """Of each crop."""

    def to(self, device: torch.device) -> "BoxBatch":
        """Copy to a device without waiting."""
        return replace(
            self,
            pixels=self.pixels.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            ground=self.ground.to(device, non_blocking=True),
            objects=tuple(one.to(device) for one in self.objects),
        )
