"""Everything random in one step, drawn on the host ahead of time from keys.

The device computes with these numbers and never draws: a step is the same on any number of
ranks, after a resume, and however many threads read the data.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Int64
from numpy.typing import NDArray
from torch import Tensor

from geodino import seeds
from geodino.data.masking import draw_masks
from geodino.data.views import ViewPlan, draw_views
from geodino.data.views_config import GLOBALS
from geodino.models.draws import EncodeDraws, draw_encode
from geodino.models.sizes import ModelConfig
from geodino.pretrain.course import PhaseSteps


@dataclass(frozen=True, kw_only=True, slots=True)
class MaskPlan:
    """Which patches of the global crops the student does not see; sizes are the same every step."""

    masks: Bool[Tensor, "images patches"]
    """True where the student sees the mask token; crop-major, as the global crops."""

    index: Int64[Tensor, " masked"]
    """Positions of the masked patches in the flattened (images, patches) grid."""

    counts: Int64[Tensor, " images"]
    """Masked patches of each image; 0 for the images that are not masked."""

    def to(self, device: torch.device) -> "MaskPlan":
        """Copy to ``device`` without waiting."""
        return MaskPlan(
            masks=self.masks.to(device, non_blocking=True),
            index=self.index.to(device, non_blocking=True),
            counts=self.counts.to(device, non_blocking=True),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class StepPlan:
    """The draws of one step on one rank."""

    phase: int
    """Place of the step's phase among those of the run, from 0."""
    views: ViewPlan
    masks: MaskPlan | None
    encode: EncodeDraws | None
    """None for a network that draws nothing."""

    def to(self, device: torch.device) -> "StepPlan":
        """Copy to ``device`` without waiting."""
        return StepPlan(
            phase=self.phase,
            views=self.views.to(device),
            masks=None if self.masks is None else self.masks.to(device),
            encode=None if self.encode is None else self.encode.to(device, non_blocking=True),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Planner:
    """Draws the :class:`StepPlan` of a rank's share of a global batch, in one phase.

    Masks and drop-path subsets belong to groups of ``group`` consecutive samples of the global
    batch, so that a rank that holds whole groups draws what a single process draws.
    """

    seed: int
    steps: PhaseSteps
    """Which crop sizes and samples each step has."""
    group: int
    model: ModelConfig
    rgb: bool
    """Whether the bands hold red, green and blue, so that colour can be changed."""
    bands: int
    """Bands of the crops."""
    dates: int = 1
    """Dates of a sample, whose chips lie below each other."""

    def __call__(self, step: int, first: int, valid: NDArray[np.bool_]) -> StepPlan:
        """Draw for the ``valid.shape[0]`` samples that start at global sample number ``first``."""
        samples = valid.shape[0]
        first_group = (first - self.steps.span(step)[0]) // self.group
        groups = samples // self.group
        sizes = self.steps.choice(step).sizes
        phase = self.steps.config
        return StepPlan(
            phase=self.steps.number,
            views=draw_views(
                phase.views,
                seed=self.seed,
                first=first,
                valid=valid,
                rgb=self.rgb,
                bands=self.bands,
                dates=self.dates,
                sizes=sizes,
            ),
            masks=self._draw_masks(step, first_group, groups) if phase.objective.ibot > 0 else None,
            encode=draw_encode(
                self.model,
                depth=self.model.blocks if self.model.family == "vit" else 0,
                seed=self.seed,
                step=step,
                first_group=first_group,
                groups=groups,
                group=self.group,
                crops_per_set=tuple(n for n in (GLOBALS, phase.views.local_count) if n),
            ),
        )

    def _draw_masks(self, step: int, first_group: int, groups: int) -> MaskPlan:
        patches = self.steps.choice(step).sizes.globals // self.model.stride
        drawn = [
            draw_masks(
                self.steps.config.objective.masks,
                rng=seeds.rng(self.seed, "mask", step, first_group + g),
                images=2 * self.group,
                grid=(patches, patches),
            ).reshape(2, self.group, -1)
            for g in range(groups)
        ]
        return mask_plan(np.concatenate(drawn, axis=1).reshape(2 * groups * self.group, -1))


def mask_plan(masks: NDArray[np.bool_]) -> MaskPlan:
    """Turn masks (images, patches) into the positions and counts that iBOT needs."""
    return MaskPlan(
        masks=torch.from_numpy(masks),
        index=torch.from_numpy(np.flatnonzero(masks)),
        counts=torch.from_numpy(masks.sum(axis=1)),
    )
