"""One step of distillation, as Lightning runs it: the teacher once, then the students in turns."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from geodino.data.batch import Batch
from geodino.data.views import MultiCrop, Views
from geodino.models.backbone import Backbone
from geodino.pretrain.course import Course
from geodino.pretrain.distill.features import FeatureObjective, Headless, Imitator
from geodino.pretrain.distill.plan import DistillPlan
from geodino.pretrain.module import PhasedModule, told_of
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
from geodino.pretrain.teacher import EmaUpdate

Student = Network | Imitator
"""A network that learns: a backbone, and what is laid on top of it."""

Lesson = Objective | FeatureObjective
"""What students are asked in a phase: targets of the teacher, and a student's losses on them."""


class DistillModule(PhasedModule):
    """A frozen teacher and the students that learn from it, each with an optimiser of its own.

    The teacher runs once a step, whatever the number of students. They learn in turns, each
    forward, backward and step before the next, so that one student's activations and gradients
    are held at a time. The teacher is no part of the state: a checkpoint holds what learns.

    On several devices each holds all students and a share of the batch, and gradients are
    averaged here: one backward pass a student is nothing that a wrapper around the whole module
    could follow.

    Args:
        teacher: its networks; frozen.
        students: the networks that learn, by name.
        averages: networks of the same shapes; take the students' weights and follow them.
        scales: sides of each student's crops as a multiple of the teacher's.
        course: the phases.
        views: per phase, turns a batch of chips into crops.
        lessons: per phase, targets and losses.
        optim: AdamW and clipping, for each student.
    """

    skipped: Tensor
    skipped_in_a_row: Tensor

    def __init__(
        self,
        teacher: Network | Headless,
        students: Mapping[str, Student],
        averages: Mapping[str, Student],
        *,
        scales: Mapping[str, float],
        course: Course,
        views: Sequence[MultiCrop],
        lessons: Sequence[Lesson],
        optim: OptimConfig,
    ) -> None:
        super().__init__(course)
        # In a tuple, so that it is not registered: its weights belong to no checkpoint.
        self._held = (teacher.requires_grad_(requires_grad=False).eval(),)
        self._learners = dict(students)
        self._averages = dict(averages)
        self.students = nn.ModuleDict(students)
        self.averages = nn.ModuleDict(averages).requires_grad_(requires_grad=False).eval()
        self.averages.load_state_dict(self.students.state_dict())
        self.views = nn.ModuleList(views)
        self._lessons = list(lessons)
        self.optim = optim
        self._followers = {
            name: Follower(student, averages[name]) for name, student in students.items()
        }
        self._by_scale: dict[float, list[str]] = {}
        for name in students:
            self._by_scale.setdefault(scales[name], []).append(name)
        self.register_buffer("skipped", torch.zeros(len(students)))
        self.register_buffer("skipped_in_a_row", torch.zeros(len(students)))

    @property
    def teacher(self) -> Network | Headless:
        """The frozen teacher."""
        return self._held[0]

    def watched(self) -> dict[str, Backbone]:
        """The backbones of the moving averages, by the students' names."""
        return {name: network.backbone for name, network in self._averages.items()}

    def train(self, mode: bool = True) -> "DistillModule":
        """Set the students' mode; teacher and averages always stay in evaluation mode."""
        super().train(mode)
        self.averages.eval()
        self.teacher.eval()
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "DistillModule":
        """Move the teacher along, which is not registered."""
        super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        self.teacher._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        return self

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Return fused AdamW for each student, in their order."""
        optimizers: list[torch.optim.Optimizer] = []
        for student in self._learners.values():
            backbone, *rest = student.parts()
            depth = student.backbone.depth or None
            parts = [(backbone, depth), *((part, None) for part in rest)]
            optimizers.append(build_optimizer(self.optim, parts))
        return optimizers

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Do step ``batch.step``: crops, teacher, then losses, optimiser and average of each."""
        plan: DistillPlan = batch.plan
        if plan.phase != self.steps.number:
            self.steps = self.course.phase(plan.phase)
        steps = self.steps
        local = batch.step - steps.start
        now = rates(steps.config, local, batch=steps.choice(batch.step).batch)
        figures: dict[str, Tensor] = {}
        for name, losses, norms in self._turns(batch, plan, now):
            figures |= {f"loss/{name}/{key}": value for key, value in losses.items()}
            figures[f"grad_norm/{name}/backbone"] = norms[0]
            figures[f"grad_norm/{name}/heads"] = norms[1:].max()
        totals = [figures[f"loss/{name}/total"].detach() for name in self.students]
        figures["loss/total"] = torch.stack(totals).mean()
        for number, name in enumerate(self.students):
            figures[f"skipped/{name}"] = self.skipped[number]
        figures["skipped"] = self.skipped.sum()
        figures["skipped_in_a_row"] = self.skipped_in_a_row.max()
        known = {**told_of(batch, steps), **now.model_dump(exclude={"gram_weight"})}
        self.measurements.add(known, figures)

    def _turns(
        self, batch: Batch, plan: DistillPlan, now: Rates
    ) -> Iterable[tuple[str, dict[str, Tensor], Tensor]]:
        """Let the students learn one after the other; yield name, losses, gradient norms."""
        views_of, lesson = self.views[plan.phase], self._lessons[plan.phase]
        shown = plan.of(None)
        with torch.no_grad():
            same = views_of(
                batch.pixels, batch.valid, shown.views, with_locals=1.0 in self._by_scale
            )
        teacher: Any = self.teacher
        targets = lesson.targets(teacher, same, shown, teacher_temp=now.teacher_temp)
        for scale, names in self._by_scale.items():
            views = same
            if scale != 1.0:
                with torch.no_grad():
                    views = views_of(batch.pixels, batch.valid, plan.of(None, scale=scale).views)
            for name in names:
                losses = self._follow(name, lesson, views, plan.of(name, scale=scale), targets, now)
                yield name, *losses

    def _follow(
        self,
        name: str,
        lesson: Lesson,
        views: Views,
        plan: StepPlan,
        targets: Any,
        now: Rates,
    ) -> tuple[dict[str, Tensor], Tensor]:
        """One student's step; return its losses and the gradient norms of its parts."""
        student, follower = self._learners[name], self._followers[name]
        number = list(self.students).index(name)
        optimizer = self._optimizer(number)
        inner = getattr(optimizer, "optimizer", optimizer)
        set_rates(inner, lr=now.lr, weight_decay=now.weight_decay, last_layer_lr=now.last_layer_lr)
        follower.remember()
        losses: dict[str, Tensor] = lesson(
            student, views, plan, targets, local_weight=now.local_weight
        )
        self.manual_backward(losses["total"])
        average_over_ranks([p.grad for p in student.parameters() if p.grad is not None])
        norms = clip_per_module(student.parts(), max_norm=self.optim.clip)
        # Lightning counts steps of its own wrappers: the last student's is the step of the run.
        last = number == len(self.students) - 1
        skipped = step_if_finite(optimizer if last else inner, inner, norms)
        inner.zero_grad(set_to_none=True)
        follower(now.momentum, skipped)
        self.skipped[number] += skipped
        self.skipped_in_a_row[number].mul_(skipped).add_(skipped)
        return {key: value.detach() for key, value in losses.items()}, norms

    def _optimizer(self, number: int) -> Any:
        found = self.optimizers()
        return found[number] if isinstance(found, list) else found


class Follower:
    """Lets a moving average follow its student, statistics of batch norms included.

    Args:
        student: the network that learns.
        average: a network of the same shape.
    """

    def __init__(self, student: nn.Module, average: nn.Module) -> None:
        self._move = EmaUpdate(student, average)
        self._own, self._followed = _statistics(student), _statistics(average)
        self._before: list[Tensor] = []

    @torch.no_grad()
    def remember(self) -> None:
        """Keep the statistics that the forward pass is about to change."""
        self._before = [values.clone() for values in self._own]

    @torch.no_grad()
    def __call__(self, momentum: float, skipped: Float[Tensor, ""]) -> None:
        """Move by ``1 - momentum`` towards the student; not at all after a skipped step."""
        self._move(momentum, skipped)
        average_over_ranks(self._own)
        pairs = zip(self._own, self._before, self._followed, strict=True)
        for own, before, followed in pairs:
            own.copy_(torch.where(skipped > 0, before, own))
            followed.lerp_(own, (1.0 - momentum) * (1.0 - skipped))


def _statistics(network: nn.Module) -> list[Tensor]:
    """The running means and variances of a network's batch norms; ours have none."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
    norms = [module for module in network.modules() if isinstance(module, kinds)]
    found = [(norm.running_mean, norm.running_var) for norm in norms]
    return [values for pair in found for values in pair if values is not None]


@torch.no_grad()
def average_over_ranks(tensors: list[Tensor]) -> None:
    """Replace each tensor by its mean over all processes, in one exchange."""
    if not tensors or not dist.is_initialized() or dist.get_world_size() == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))
