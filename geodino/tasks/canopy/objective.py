"""What a head for canopy heights is asked, step by step."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geodino.losses.height import charbonnier_loss, silog_loss
from geodino.losses.height_edges import patch_gradient_loss
from geodino.models.canopy import CanopyModel
from geodino.tasks.canopy.batch import CanopyBatch, FootprintBatch
from geodino.tasks.canopy.config import CurriculumConfig


@dataclass(frozen=True, slots=True)
class Weights:
    """What each loss counts at a step."""

    silog: float
    charbonnier: float
    gradient: float


def weights_at(config: CurriculumConfig, step: int, steps: int) -> Weights:
    """Return the weights of the losses at ``step`` (from 0) of ``steps``."""
    done = step / max(steps - 1, 1)
    metres = _risen(done, 0.0, config.silog_until)
    return Weights(
        silog=1.0 - metres,
        charbonnier=metres,
        gradient=config.gradient_weight * _risen(done, config.gradient_from, config.gradient_until),
    )


def _risen(at: float, start: float, end: float) -> float:
    """From 0 at ``start`` to 1 at ``end``."""
    return float(at >= end) if end <= start else min(max((at - start) / (end - start), 0.0), 1.0)


@dataclass(frozen=True, slots=True)
class CanopyObjective:
    """The losses of a step: CHMv2's curriculum, and pinball losses where quantiles are predicted.

    Args:
        config: which losses, and when.
        steps: of the run.
        quantiles: those the model predicts beside the height.
        percentile: of the pixels in a footprint that its label is; None for rasters.
    """

    config: CurriculumConfig
    steps: int
    quantiles: tuple[float, ...] = ()
    percentile: float | None = None

    def of(self, model: CanopyModel, batch: CanopyBatch) -> dict[str, Float[Tensor, ""]]:
        """Return the losses of a model on a batch."""
        return self(model(batch.pixels.float(), batch.valid), batch)

    def __call__(
        self, maps_m: Float[Tensor, "b g h w"], batch: CanopyBatch
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the losses by name; ``total`` is what is minimised.

        Args:
            maps_m: the height and after it each quantile.
            batch: what they were predicted from, and the labels.
        """
        if batch.footprints is not None and self.percentile is not None:
            compared = footprint_percentiles(maps_m, batch.footprints, self.percentile)
            target = batch.footprints.height_m.float()
            known = torch.ones_like(target, dtype=torch.bool)
            is_map = False
        else:
            compared, target = maps_m, batch.height_m
            known, is_map = batch.known & batch.valid, True
        weights = weights_at(self.config, batch.step, self.steps)
        heights = compared[:, 0]
        parts: dict[str, Tensor] = {}
        total = heights.new_zeros((), dtype=torch.float32)
        if weights.silog > 0:
            parts["silog"] = silog_loss(heights, target, known)
            total = total + weights.silog * parts["silog"]
        scale = self.config.charbonnier_scale_m
        parts["charbonnier"] = charbonnier_loss(heights, target, known, scale_m=scale)
        if weights.charbonnier > 0:
            total = total + weights.charbonnier * parts["charbonnier"]
        if weights.gradient > 0 and is_map:
            parts["gradient"] = patch_gradient_loss(heights, target, known)
            total = total + weights.gradient * parts["gradient"]
        if self.quantiles:
            parts["pinball"] = pinball_loss(compared[:, 1:], target, known, self.quantiles)
            total = total + parts["pinball"]
        return {"total": total, **parts}


def pinball_loss(
    quantiles_m: Float[Tensor, "b q *s"],
    target_m: Float[Tensor, "b *s"],
    valid: Bool[Tensor, "b *s"],
    quantiles: tuple[float, ...],
) -> Float[Tensor, ""]:
    """Return the mean over valid pixels and quantiles of ``max(q e, (q - 1) e)``, in metres.

    ``e`` is truth minus prediction (Koenker and Bassett 1978).
    """
    target = target_m.where(valid, 0.0)
    total = target.new_zeros(())
    for number, q in enumerate(quantiles):
        error = target - quantiles_m[:, number].float().where(valid, 0.0)
        total = total + torch.maximum(q * error, (q - 1.0) * error).sum()
    return total / (len(quantiles) * valid.sum().clamp_min(1))


def footprint_percentiles(
    maps_m: Float[Tensor, "b g h w"], footprints: FootprintBatch, percentile: float
) -> Float[Tensor, "f g"]:
    """Return a percentile of the predicted pixels in each footprint, linear between ranks."""
    flat = maps_m.transpose(0, 1).flatten(1).float()
    inside = flat[:, footprints.index]
    place = torch.arange(inside.shape[-1], device=inside.device)
    beyond = place >= footprints.count[:, None]
    ordered = inside.masked_fill(beyond, torch.inf).sort(dim=-1).values
    rank = (footprints.count - 1).to(inside.dtype) * (percentile / 100)
    low = rank.floor().long()
    high = torch.minimum(low + 1, footprints.count - 1)
    share = rank - low
    below, above = (
        ordered.gather(-1, at.expand(len(ordered), -1)[..., None])[..., 0] for at in (low, high)
    )
    return torch.lerp(below, above, share).T
