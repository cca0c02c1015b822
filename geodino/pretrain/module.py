"""One step of self-supervised training, as Lightning runs it."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor, nn

from geodino.data.batch import Batch
from geodino.data.views import MultiCrop
from geodino.models.backbone import Backbone
from geodino.pretrain.course import Course, PhaseSteps
from geodino.pretrain.objective import Network, Objective
from geodino.pretrain.optim import (
    OptimConfig,
    build_optimizer,
    clip_per_module,
    set_rates,
    step_if_finite,
)
from geodino.pretrain.phases import Rates, rates
from geodino.pretrain.plan import StepPlan
from geodino.pretrain.sharding import Sharding
from geodino.pretrain.teacher import EmaUpdate, copy_weights

Row = dict[str, float | int | str]
"""One step's scalars by name, and the name of its phase."""


@dataclass(slots=True)
class Measurements:
    """Scalars of past steps that wait on the device until somebody asks: one copy for many steps."""

    known: list[Row] = field(default_factory=list)
    names: list[list[str]] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def add(self, known: Row, values: dict[str, Tensor]) -> None:
        """Keep this step's scalars, those on the host and those on the device, without waiting."""
        self.names.append(list(values))
        self.known.append(known)
        self.values.append(torch.stack([v.detach().float() for v in values.values()]))

    def take(self, mean_over_ranks: Callable[[Tensor], Tensor]) -> list[Row]:
        """Return and forget what was kept: one row a step. Waits for the device once.

        Args:
            mean_over_ranks: averages a tensor over the ranks; all of them take at the same step.
        """
        if not self.known:
            return []
        flat = mean_over_ranks(torch.cat(self.values)).cpu()
        parts = torch.split(flat, [len(names) for names in self.names])
        rows = [
            {**known, **dict(zip(names, part.tolist(), strict=True))}
            for known, names, part in zip(self.known, self.names, parts, strict=True)
        ]
        self.known, self.names, self.values = [], [], []
        return rows


class PhasedModule(L.LightningModule, ABC):
    """What runs and their callbacks know of a module that trains through the phases of a course.

    Optimisation is manual. A batch says which phase it belongs to.
    """

    course: Course
    steps: PhaseSteps
    """The phase training is in."""
    measurements: Measurements

    def __init__(self, course: Course) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.course = course
        self.steps = course.phase(0)
        self.measurements = Measurements()

    @abstractmethod
    def watched(self) -> dict[str, Backbone]:
        """Return the backbones whose dense features are watched; ``""`` names the only one."""

    def renew_gram_teacher(self) -> None:
        """Let the Gram teacher, where there is one, be the teacher of this moment."""

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Copy pixels, validity and plan without waiting."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep where the phases end."""
        checkpoint["geodino_course"] = {"ends": list(self.course.ends), "phase": self.steps.number}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on in the phase that was interrupted."""
        self.course.ends[:] = checkpoint["geodino_course"]["ends"]
        self.steps = self.course.phase(checkpoint["geodino_course"]["phase"])


class PretrainModule(PhasedModule):
    """Student, teachers, objectives and optimiser of a run, through all of its phases.

    Optimisation is manual: the gradient is clipped per module, a step whose gradient is not
    finite is skipped on the device, and the teacher moves only when the student did. Nothing in
    a step waits for the device. A batch says which phase it belongs to; the first batch of a phase
    begins it.

    Args:
        student: the network that learns.
        teacher: a network of the same shape; takes the student's weights when training starts.
        gram_teacher: a backbone of the same shape, whose patch similarities a Gram phase keeps;
            None where no phase does, or where the teacher itself serves. Takes the teacher's
            weights unless ``gram_weights_given``.
        course: the phases.
        views: per phase, turns a batch of chips into crops.
        objectives: per phase, the losses.
        optim: AdamW and clipping.
        gram_weights_given: the Gram teacher comes with weights of its own.
        sharding: the networks are on the meta device; this spreads them over the processes and
            gives the student its weights. None: they are whole, on the CPU, with their weights.
    """

    skipped: Tensor
    skipped_in_a_row: Tensor

    def __init__(
        self,
        student: Network,
        teacher: Network,
        gram_teacher: Backbone | None = None,
        *,
        course: Course,
        views: Sequence[MultiCrop],
        objectives: Sequence[Objective],
        optim: OptimConfig,
        gram_weights_given: bool = False,
        sharding: Sharding | None = None,
    ) -> None:
        super().__init__(course)
        self.student = student
        self.teacher = teacher.requires_grad_(requires_grad=False).eval()
        self.gram_teacher = gram_teacher
        self._gram_weights_given = gram_weights_given
        if gram_teacher is not None:
            gram_teacher.requires_grad_(requires_grad=False).eval()
        self._sharding = sharding
        if sharding is None:
            self.begin()
        self.views = nn.ModuleList(views)
        self.objectives = list(objectives)
        self.optim = optim
        self.register_buffer("skipped_in_a_row", torch.zeros(()))
        self.register_buffer("skipped", torch.zeros(()))
        self._ema = EmaUpdate(self.student, self.teacher)

    def watched(self) -> dict[str, Backbone]:
        """The teacher's backbone."""
        return {"": self.teacher.backbone}

    def begin(self) -> None:
        """Let the teachers begin as the student is, but for a Gram teacher with its own weights."""
        copy_weights(self.student, self.teacher)
        if not self._gram_weights_given:
            self.renew_gram_teacher()

    def train(self, mode: bool = True) -> "PretrainModule":
        """Set the student's mode; the teachers always stay in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        if self.gram_teacher is not None:
            self.gram_teacher.eval()
        return self

    def configure_model(self) -> None:
        """Spread the networks over the processes, once, where that was asked."""
        if self._sharding is None or self.device_mesh is None:
            return
        mesh = self.device_mesh["data_parallel"]
        self._sharding(self.student, self.teacher, self.gram_teacher, mesh)
        self._sharding = None
        self.begin()
        self._ema = EmaUpdate(self.student, self.teacher)  # the parameters are others now

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return fused AdamW over the student's parameter groups."""
        backbone, *heads = self.student.parts()
        depth = self.student.backbone.depth or None
        return build_optimizer(self.optim, [(backbone, depth), *((head, None) for head in heads)])

    def losses(self, batch: Batch, now: Rates) -> dict[str, Tensor]:
        """Return the losses of a batch: crops, teachers, student."""
        plan: StepPlan = batch.plan
        views_of, objective = self.views[plan.phase], self.objectives[plan.phase]
        with torch.no_grad():
            views = views_of(batch.pixels, batch.valid, plan.views)
        targets = objective.targets(
            self.teacher,
            views,
            plan,
            teacher_temp=now.teacher_temp,
            gram_teacher=self._gram_source(),
        )
        losses: dict[str, Tensor] = objective(
            self.student,
            views,
            plan,
            targets,
            local_weight=now.local_weight,
            gram_weight=now.gram_weight,
        )
        return losses

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Do step ``batch.step``: views, teachers, student, losses, optimiser, teacher update."""
        optimizer = self.optimizers()
        inner = optimizer.optimizer  # type: ignore[union-attr]
        if batch.plan.phase != self.steps.number:
            self.enter(batch.plan.phase, inner)
        steps, phase = self.steps, self.steps.config
        local = batch.step - steps.start
        if phase.gram is not None and phase.gram.refreshes_at(local):
            self.renew_gram_teacher()
        now = rates(phase, local, batch=steps.choice(batch.step).batch)
        set_rates(inner, lr=now.lr, weight_decay=now.weight_decay, last_layer_lr=now.last_layer_lr)
        losses = self.losses(batch, now)
        inner.zero_grad(set_to_none=True)
        self.manual_backward(losses["total"])
        norms = clip_per_module(self.student.parts(), max_norm=self.optim.clip)
        skipped = step_if_finite(optimizer, inner, norms)
        self._ema(now.momentum, skipped)
        self.skipped += skipped
        self.skipped_in_a_row.mul_(skipped).add_(skipped)
        self.measurements.add(
            {**told_of(batch, steps), **now.model_dump()},
            {
                **{f"loss/{name}": value for name, value in losses.items()},
                "grad_norm/backbone": norms[0],
                "grad_norm/heads": norms[1:].max(),
                "skipped": self.skipped,
                "skipped_in_a_row": self.skipped_in_a_row,
            },
        )

    def enter(self, number: int, inner: torch.optim.Optimizer) -> None:
        """Begin a phase: choose the weights it starts from, and its Gram teacher."""
        self.steps = self.course.phase(number)
        phase = self.steps.config
        if phase.begin == "teacher":
            copy_weights(self.teacher, self.student)
            inner.state.clear()
        if phase.gram is not None and phase.gram.teacher == "start":
            self.renew_gram_teacher()

    def renew_gram_teacher(self) -> None:
        """Let the Gram teacher be the teacher of this moment."""
        if self.gram_teacher is not None:
            copy_weights(self.teacher.backbone, self.gram_teacher)

    def _gram_source(self) -> Backbone | None:
        gram = self.steps.config.gram
        return self.teacher.backbone if gram and gram.teacher == "ema" else self.gram_teacher


def as_phased(module: L.LightningModule) -> PhasedModule:
    """Return a module that is ours, for callbacks that Lightning hands any module."""
    if not isinstance(module, PhasedModule):
        raise TypeError(f"these callbacks serve PhasedModule, not {type(module).__name__}")
    return module


def told_of(batch: Batch, steps: PhaseSteps) -> Row:
    """Return what a step's row says of the step itself; ``samples``: how many the run has seen."""
    return {"step": batch.step, "phase": steps.name, "samples": sum(steps.span(batch.step))}


class Feed(Protocol):
    """The batches of one phase."""

    def batches(self, step: int, stop: int | None = None) -> Iterator[Batch]:
        """Yield batches from ``step`` on, up to before ``stop``."""

    def close(self) -> None:
        """Let go of threads and files."""


class PhaseStream:
    """What Lightning iterates: batches from the step training stands at, phase after phase."""

    def __init__(
        self, course: Course, feed_of: Callable[[PhaseSteps], Feed], step: Callable[[], int]
    ) -> None:
        self._course, self._feed_of, self._step = course, feed_of, step

    def __iter__(self) -> Iterator[Batch]:
        course, step = self._course, self._step()
        while step < course.steps:
            number = course.number_at(step)
            feed = self._feed_of(course.phase(number))
            try:
                batches = feed.batches(step, course.ends[number])
                # The end is read again at every step: health may have brought it nearer.
                while step < course.ends[number]:
                    yield next(batches)
                    step += 1
            finally:
                feed.close()


class PretrainData(L.LightningDataModule):
    """Hands Lightning the batches, from the step the run stands at on."""

    def __init__(self, course: Course, feed_of: Callable[[PhaseSteps], Feed]) -> None:
        super().__init__()
        self._course, self._feed_of = course, feed_of

    def train_dataloader(self) -> Any:
        """Return batches from the current global step on; a resumed run starts in the middle."""
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("the data module is not attached to a trainer")
        return PhaseStream(self._course, self._feed_of, lambda: trainer.global_step)
