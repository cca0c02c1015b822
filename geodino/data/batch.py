"""What the loader hands to training: stored pixels, where they are valid, and the step's draws."""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from geodino.geo.windows import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """One rank's share of the samples of one step."""

    step: int
    """The step of the run these samples belong to, from 0."""

    first: int
    """Global sample number of row 0; row ``i`` is global sample ``first + i``."""

    pixels: Shaped[Tensor, "b c h w"]
    """Stored values in the dtype of the files (float64 as float32); 0 wherever not ``valid``. Of
    several dates the chips lie below each other."""

    valid: Bool[Tensor, "b h w"]
    """True where a pixel may be used."""

    source: tuple[tuple[int, Window], ...] = ()
    """Where each row was cut: the tile's number in the index, and the window in the tile."""

    plan: Any = None
    """Whatever the loader's ``plan_of`` drew for these samples; has ``to(device)``, or None."""

    def to(self, device: torch.device) -> "Batch":
        """Copy to ``device``; from pinned memory the host does not wait."""
        return Batch(
            step=self.step,
            first=self.first,
            pixels=self.pixels.to(device, non_blocking=True),
            valid=self.valid.to(device, non_blocking=True),
            source=self.source,
            plan=None if self.plan is None else self.plan.to(device),
        )
