"""What one step learns from."""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class FootprintBatch:
    """The footprints in the crops of a batch."""

    index: Int64[Tensor, "f p"]
    """Their pixels, counted through all crops of the batch; filled up with the first one."""

    count: Int64[Tensor, "f"]
    """How many pixels each has."""

    height_m: Float[Tensor, "f"]
    """Their heights."""

    def to(self, device: torch.device) -> "FootprintBatch":
        """Copy to a device."""
        moved = {f.name: getattr(self, f.name).to(device, non_blocking=True) for f in fields(self)}
        return replace(self, **moved)


@dataclass(frozen=True, kw_only=True, slots=True)
class CanopyBatch:
    """Crops with their labels."""

    step: int
    """The step they belong to, from 0."""

    pixels: Num[Tensor, "b c h w"]
    """Stored values."""

    valid: Bool[Tensor, "b h w"]
    """Which pixels may be used."""

    height_m: Float[Tensor, "b h w"]
    """Labels that are rasters; undefined where not ``known``."""

    known: Bool[Tensor, "b h w"]
    """Where they may be learnt from; nowhere for footprints."""

    footprints: FootprintBatch | None = None
    """Labels that are footprints."""

    def to(self, device: torch.device) -> "CanopyBatch":
        """Copy to a device without waiting."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=True)
            for name in ("pixels", "valid", "height_m", "known")
        }
        return replace(
            self,
            **moved,
            footprints=None if self.footprints is None else self.footprints.to(device),
        )
