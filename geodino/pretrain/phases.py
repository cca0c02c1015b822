"""The phases of a run: each with its own crops, schedules and weights."""

from pydantic import Field, model_validator

from geodino.config import Config
from geodino.data.views import ViewsConfig
from geodino.pretrain.objective import ObjectiveConfig
from geodino.pretrain.schedules import LrScaling, ScheduleConfig, lr_factor


class PhaseConfig(Config):
    """One phase of self-supervised training."""

    steps: int = Field(ge=0)
    """Optimiser steps of the phase; 0 leaves it out."""

    lr: ScheduleConfig
    """Learning rate before scaling with the batch."""

    lr_scaling: LrScaling = "sqrt_1024"
    """How ``lr`` follows the global batch: sqrt_1024 is 4 sqrt(batch / 1024), linear_256 is
    batch / 256."""

    weight_decay: ScheduleConfig = ScheduleConfig(peak=0.04)
    """Decoupled weight decay."""

    momentum: ScheduleConfig = ScheduleConfig(peak=0.994)
    """Share of the teacher that stays at each step."""

    teacher_temp: ScheduleConfig = ScheduleConfig(start=0.04, peak=0.07, warmup=0)
    """Temperature of the teacher's assignments."""

    freeze_last_layer: int = Field(default=0, ge=0)
    """Steps at the start during which the prototypes do not learn."""

    views: ViewsConfig = ViewsConfig()
    """Crops and their distortions."""

    objective: ObjectiveConfig = ObjectiveConfig()
    """Losses, temperatures and masks."""

    @model_validator(mode="after")
    def _schedules_stay_in_range(self) -> "PhaseConfig":
        for step in {0, self.momentum.warmup, max(self.steps - 1, 0)}:
            if not 0.0 <= self.momentum.value(step, self.steps) <= 1.0:
                raise ValueError("momentum must stay between 0 and 1")
            if self.teacher_temp.value(step, self.steps) <= 0:
                raise ValueError("teacher_temp must stay above 0")
        return self


class PhasesConfig(Config):
    """The phases in the order they run."""

    pretrain: PhaseConfig
    """DINO + iBOT + KoLeo from random weights or from a model."""


class Rates(Config):
    """The values of every schedule at one step."""

    lr: float
    """Learning rate, scaled with the batch."""
    last_layer_lr: float
    """The same for the prototypes; 0 while they are frozen."""
    weight_decay: float
    """Decoupled weight decay."""
    momentum: float
    """Share of the teacher that stays."""
    teacher_temp: float
    """Temperature of the teacher's assignments."""


def rates(phase: PhaseConfig, step: int, *, batch: int) -> Rates:
    """Return every schedule's value at ``step`` of ``phase`` for a global batch of ``batch``."""
    total = phase.steps
    lr = phase.lr.scaled(lr_factor(phase.lr_scaling, batch)).value(step, total)
    return Rates(
        lr=lr,
        last_layer_lr=0.0 if step < phase.freeze_last_layer else lr,
        weight_decay=phase.weight_decay.value(step, total),
        momentum=phase.momentum.value(step, total),
        teacher_temp=phase.teacher_temp.value(step, total),
    )
