"""Dense-feature health on fixed probe crops: does the map of patches stay worth looking at?"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from geodino.metrics.health import (
    cls_patch_cosine,
    effective_rank,
    gram_distance,
    outlier_share,
    patch_patch_cosine,
)
from geodino.models.backbone import Backbone


@dataclass(slots=True)
class DenseHealth:
    """Measures the teacher on the same crops again and again."""

    crops: Float[Tensor, "n c s s"]
    """Normalised crops from the middle of the probe chips; 0 where not ``valid``."""

    valid: Bool[Tensor, "n s s"]
    """Where the crops may be used."""

    reference: Float[Tensor, "n p d"] | None = None
    """Patch tokens of the first measurement, from which the Gram distance is taken."""

    maps: Float[Tensor, "n d h w"] | None = None
    """Patch tokens of the latest measurement, as images of features."""

    @classmethod
    def from_chips(
        cls,
        pixels: Shaped[Tensor, "n c h w"],
        valid: Bool[Tensor, "n h w"],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        size: int,
    ) -> "DenseHealth":
        """Normalise chips and cut the middle of each (a smaller chip is scaled up)."""
        shift, scale = (torch.tensor(values)[:, None, None] for values in (mean, std))
        crops = torch.where(valid[:, None], (pixels.float() - shift) / scale, 0.0)
        edge = crops.shape[-1]
        if edge < size:
            crops = F.interpolate(crops, size=(size, size), mode="bilinear")
            valid = F.interpolate(valid[:, None].float(), size=(size, size))[:, 0] > 0
        else:
            start = (edge - size) // 2
            middle = slice(start, start + size)
            crops, valid = crops[..., middle, middle], valid[..., middle, middle]
        return cls(crops.contiguous(), valid.contiguous())

    @torch.no_grad()
    def __call__(self, backbone: Backbone) -> dict[str, float]:
        """Return the figures by name; waits for the device."""
        self.crops = self.crops.to(backbone.mean.device)
        (tokens,) = backbone([self.crops])
        cls, patches = tokens.cls.float(), tokens.patches.float()
        if self.reference is None:
            self.reference = patches
        self.maps = tokens.map.float()
        figures = {
            "cls_patch_cosine": cls_patch_cosine(cls, patches),
            "patch_patch_cosine": patch_patch_cosine(patches),
            "cls_rank": effective_rank(cls),
            "patch_rank": effective_rank(patches.flatten(0, 1)),
            "outlier_share": outlier_share(patches.flatten(0, 1)),
            "gram_distance": gram_distance(patches, self.reference),
        }
        return {name: float(value) for name, value in figures.items()}
