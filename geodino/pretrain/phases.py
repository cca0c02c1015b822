"""The phases of a run: each with its own crops, schedules and weights."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field, model_validator

from geodino.config import Config
from geodino.data.views import ViewsConfig
from geodino.pretrain.gram import GramConfig
from geodino.pretrain.objective_config import ObjectiveConfig
from geodino.pretrain.schedules import LrScaling, ScheduleConfig, lr_factor


class SizesConfig(Config):
    """Crop sizes of some of the steps of a phase."""

    global_size: int = Field(ge=8)
    """Side of the two global crops, pixels."""

    local_size: int = Field(ge=8)
    """Side of the local crops, pixels."""

    gram_size: int | None = Field(default=None, ge=8)
    """Side of the Gram teacher's crops, pixels; left out, ``gram.scale`` times ``global_size``."""

    share: float = Field(default=1.0, gt=0)
    """How often these sizes are drawn, relative to the others."""

    batch: Literal["auto"] | int = "auto"
    """Samples of a global batch of these sizes. ``auto``: as many patches as a batch of the first
    phase has, in whole groups, so that memory stays the same."""


class PhaseConfig(Config):
    """One phase of self-supervised training."""

    steps: int = Field(ge=0)
    """Optimiser steps of the phase; 0 leaves it out."""

    begin: Literal["student", "teacher"] = "student"
    """What the phase starts from: the ``student`` as it is, with the optimiser's moments, or the
    ``teacher``'s weights and a fresh optimiser, as DINOv3 starts its high-resolution phase."""

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

    local_weight: ScheduleConfig = ScheduleConfig(peak=1.0)
    """Further weight of the part of DINO that looks at local crops."""

    freeze_last_layer: int = Field(default=0, ge=0)
    """Steps at the start during which the prototypes do not learn."""

    views: ViewsConfig = ViewsConfig()
    """Crops and their distortions."""

    sizes: tuple[SizesConfig, ...] = ()
    """Crop sizes that take turns at random, one choice a step on all devices; left out, those of
    ``views``."""

    chip: Literal["auto"] | int = "auto"
    """Side of the source window that a sample is cut from, pixels. ``auto``: ``data.chip``; where
    that is ``auto`` too, twice the largest global crop, or less where most tiles are smaller."""

    objective: ObjectiveConfig = ObjectiveConfig()
    """Losses, temperatures and masks."""

    gram: GramConfig | None = None
    """Gram anchoring; left out, there is none."""

    @model_validator(mode="after")
    def _schedules_stay_in_range(self) -> "PhaseConfig":
        for step in {0, self.momentum.warmup, max(self.steps - 1, 0)}:
            if not 0.0 <= self.momentum.value(step, self.steps) <= 1.0:
                raise ValueError("momentum must stay between 0 and 1")
            if self.teacher_temp.value(step, self.steps) <= 0:
                raise ValueError("teacher_temp must stay above 0")
        return self

    @property
    def choices(self) -> tuple[SizesConfig, ...]:
        """The sizes that take turns; one where there is no mixture."""
        views = self.views
        one = SizesConfig(global_size=views.global_size, local_size=views.local_size)
        return self.sizes or (one,)

    @property
    def largest_global(self) -> int:
        """Side of the largest global crop of the phase, pixels."""
        return max(sizes.global_size for sizes in self.choices)


class GramPhaseConfig(PhaseConfig):
    """The phase that repairs dense features after long training."""

    start: Literal["end", "auto"] = "end"
    """When it begins: at the ``end`` of the phase before, or, ``auto``, as soon as the health of
    dense features has turned down there (``health.watch``), and at its end at the latest."""

    gram: GramConfig = GramConfig()
    """Gram anchoring."""


class HighresPhaseConfig(PhaseConfig):
    """The phase that adapts the model to larger crops."""

    begin: Literal["student", "teacher"] = "teacher"
    """What the phase starts from: the ``student`` as it is, with the optimiser's moments, or the
    ``teacher``'s weights and a fresh optimiser."""


_OWN = frozenset({"steps", "lr", "start", "begin", "sizes", "chip"})
"""What a phase never takes over from the phase before."""


class Phases(Config):
    """Phases in the order they run, each a field.

    What a later phase leaves out is as in the one before it, except ``steps``, ``lr``, ``begin``,
    ``start``, ``sizes`` and ``chip``.
    """

    @model_validator(mode="before")
    @classmethod
    def _later_phases_inherit(cls, values: Any) -> Any:
        """Fill what a later phase leaves out from the phase before."""
        if not isinstance(values, Mapping):
            return values
        first, *later = cls.model_fields
        out, before = dict(values), values.get(first)
        for name in later:
            own = out.get(name)
            if isinstance(own, Mapping) and isinstance(before, Mapping):
                out[name] = before = _inherited(before, own)
        return out

    @model_validator(mode="after")
    def _something_runs(self) -> "Phases":
        if not any(phase.steps for _, phase in self.all()):
            raise ValueError("no phase has a step to do")
        return self

    def all(self) -> Iterator[tuple[str, PhaseConfig]]:
        """Yield name and settings of every phase that is there, in order."""
        for name in type(self).model_fields:
            phase: PhaseConfig | None = getattr(self, name)
            if phase is not None:
                yield name, phase

    @property
    def first(self) -> PhaseConfig:
        """The phase the run begins with."""
        return self.active()[0][1]

    @property
    def steps(self) -> int:
        """Steps of all phases, where none ends early."""
        return sum(phase.steps for _, phase in self.all())

    def active(self) -> list[tuple[str, PhaseConfig]]:
        """Return the phases that have steps to do, in order."""
        return [(name, phase) for name, phase in self.all() if phase.steps]


class PhasesConfig(Phases):
    """The phases of pretraining in the order they run."""

    pretrain: PhaseConfig
    """DINO + iBOT + KoLeo from random weights or from a model."""

    gram: GramPhaseConfig | None = None
    """The same with Gram anchoring, which brings dense features back."""

    highres: HighresPhaseConfig | None = None
    """Adaptation to higher resolution, with crops of several sizes."""


def _inherited(before: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What ``own`` leaves out of a phase, from the phase before; a schedule is taken as a whole."""
    taken = {k: v for k, v in before.items() if k in PhaseConfig.model_fields and k not in _OWN}
    return {
        **taken,
        **own,
        **{
            key: {**taken[key], **own[key]}
            for key in ("views", "objective", "gram")
            if isinstance(taken.get(key), Mapping) and isinstance(own.get(key), Mapping)
        },
    }


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
    local_weight: float
    """Further weight of local crops."""
    gram_weight: float
    """Weight of Gram anchoring; 0 without."""


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
        local_weight=phase.local_weight.value(step, total),
        gram_weight=0.0 if phase.gram is None else phase.gram.weight.value(step, total),
    )
