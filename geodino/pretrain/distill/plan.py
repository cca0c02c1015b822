"""The draws of one step of distillation: one set of crops and masks, and draws for each student."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.view_plan import ViewPlan
from geodino.data.views_config import GLOBALS
from geodino.models.draws import EncodeDraws, draw_encode
from geodino.models.sizes import ModelConfig
from geodino.pretrain.plan import MaskPlan, Planner, StepPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillPlan:
    """What is drawn for a step on one rank."""

    phase: int
    """Place of the step's phase among those of the run, from 0."""
    views: ViewPlan
    """The same for the teacher and all students; sizes are the teacher's."""
    masks: MaskPlan | None
    """Which patches enter the iBOT term, on the grid that the teacher and all students share."""
    encode: Mapping[str, EncodeDraws | None]
    """Drop path and RoPE factors of each student; None for a network that draws nothing."""

    def to(self, device: torch.device) -> "DistillPlan":
        """Copy to ``device`` without waiting."""
        return DistillPlan(
            phase=self.phase,
            views=self.views.to(device),
            masks=None if self.masks is None else self.masks.to(device),
            encode={
                name: None if draws is None else draws.to(device, non_blocking=True)
                for name, draws in self.encode.items()
            },
        )

    def of(self, student: str | None, *, scale: float = 1.0) -> StepPlan:
        """Return the plan of one student, or of the teacher.

        Args:
            student: its name; None for the teacher, which draws nothing.
            scale: sides of its crops as a multiple of the teacher's.
        """
        views = replace(self.views, sizes=self.views.sizes.scaled(scale))
        encode = None if student is None else self.encode[student]
        return StepPlan(phase=self.phase, views=views, masks=self.masks, encode=encode)


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillPlanner:
    """Draws the :class:`DistillPlan` of a rank's share of a global batch, in one phase."""

    shared: Planner
    """Draws crops and masks; its model is the teacher's."""
    students: Mapping[str, ModelConfig]
    masks: bool
    """Whether there is an iBOT term."""

    def __call__(self, step: int, first: int, valid: NDArray[np.bool_]) -> DistillPlan:
        """Draw for the ``valid.shape[0]`` samples that start at global sample number ``first``."""
        shared = self.shared
        plan = shared(step, first, valid)
        group = shared.group
        local = shared.steps.config.views.local_count
        return DistillPlan(
            phase=plan.phase,
            views=plan.views,
            masks=plan.masks if self.masks else None,
            encode={
                # A key of its own: a student learns the same whoever learns beside it.
                name: None
                if model.family == "timm"
                else draw_encode(
                    model,
                    depth=model.blocks if model.family == "vit" else 0,
                    seed=seeds.integer(shared.seed, "student", name),
                    step=step,
                    first_group=(first - shared.steps.span(step)[0]) // group,
                    groups=valid.shape[0] // group,
                    group=group,
                    crops_per_set=tuple(n for n in (GLOBALS, local) if n),
                )
                for name, model in self.students.items()
            },
        )
