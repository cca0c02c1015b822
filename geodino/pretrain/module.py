"""One step of self-supervised training, as Lightning runs it."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import lightning as L
import torch
from torch import Tensor

from geodino.data.batch import Batch
from geodino.data.views import MultiCrop
from geodino.pretrain.objective import Network, Objective
from geodino.pretrain.optim import (
    OptimConfig,
    build_optimizer,
    clip_per_module,
    set_rates,
    step_if_finite,
)
from geodino.pretrain.phases import PhaseConfig, rates
from geodino.pretrain.plan import StepPlan
from geodino.pretrain.teacher import EmaUpdate


@dataclass(slots=True)
class Measurements:
    """Scalars of past steps that wait on the device until somebody asks: one copy for many steps."""

    known: list[dict[str, float | int]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def add(self, known: dict[str, float | int], values: dict[str, Tensor]) -> None:
        """Keep this step's scalars, those on the host and those on the device, without waiting."""
        self.names = list(values)
        self.known.append(known)
        self.values.append(torch.stack([v.detach().float() for v in values.values()]))

    def take(self, mean_over_ranks: Callable[[Tensor], Tensor]) -> list[dict[str, float | int]]:
        """Return and forget what was kept: one row a step. Waits for the device once.

        Args:
            mean_over_ranks: averages a tensor over the ranks; all of them take at the same step.
        """
        if not self.known:
            return []
        table = mean_over_ranks(torch.stack(self.values)).cpu().tolist()
        rows = [
            {**known, **dict(zip(self.names, row, strict=True))}
            for known, row in zip(self.known, table, strict=True)
        ]
        self.known, self.values = [], []
        return rows


class PretrainModule(L.LightningModule):
    """Student, teacher, objective and optimiser of one phase.

    Optimisation is manual: the gradient is clipped per module, a step whose gradient is not
    finite is skipped on the device, and the teacher moves only when the student did. Nothing in
    a step waits for the device.

    Args:
        student: the network that learns.
        teacher: a network of the same shape; takes the student's weights when training starts.
        views: turns a batch of chips into crops.
        objective: the losses.
        phase: schedules and weights.
        optim: AdamW and clipping.
        batch: samples of the global batch.
    """

    skipped: Tensor
    skipped_in_a_row: Tensor

    def __init__(
        self,
        student: Network,
        teacher: Network,
        *,
        views: MultiCrop,
        objective: Objective,
        phase: PhaseConfig,
        optim: OptimConfig,
        batch: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.student = student
        self.teacher = teacher.requires_grad_(requires_grad=False).eval()
        self.teacher.load_state_dict(student.state_dict())
        self.views = views
        self.objective = objective
        self.phase = phase
        self.optim = optim
        self.batch = batch
        self.measurements = Measurements()
        self.register_buffer("skipped_in_a_row", torch.zeros(()))
        self.register_buffer("skipped", torch.zeros(()))
        self._ema = EmaUpdate(self.student, self.teacher)

    def train(self, mode: bool = True) -> "PretrainModule":
        """Set the student's mode; the teacher always stays in evaluation mode."""
        super().train(mode)
        self.teacher.eval()
        return self

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return fused AdamW over the student's parameter groups."""
        backbone, *heads = self.student.parts()
        depth = self.student.backbone.depth or None
        return build_optimizer(self.optim, [(backbone, depth), *((head, None) for head in heads)])

    def transfer_batch_to_device(
        self, batch: Batch, device: torch.device, dataloader_idx: int
    ) -> Batch:
        """Copy pixels, validity and plan without waiting."""
        return batch.to(device)

    def losses(self, batch: Batch, *, teacher_temp: float) -> dict[str, Tensor]:
        """Return the losses of a batch: crops, teacher, student."""
        plan: StepPlan = batch.plan
        with torch.no_grad():
            views = self.views(batch.pixels, batch.valid, plan.views)
        targets = self.objective.targets(self.teacher, views, plan, teacher_temp=teacher_temp)
        losses: dict[str, Tensor] = self.objective(self.student, views, plan, targets)
        return losses

    def training_step(self, batch: Batch, batch_idx: int) -> None:
        """Do step ``batch.step``: views, teacher, student, losses, optimiser, teacher update."""
        optimizer = self.optimizers()
        inner = optimizer.optimizer  # type: ignore[union-attr]
        now = rates(self.phase, batch.step, batch=self.batch)
        set_rates(inner, lr=now.lr, weight_decay=now.weight_decay, last_layer_lr=now.last_layer_lr)
        losses = self.losses(batch, teacher_temp=now.teacher_temp)
        inner.zero_grad(set_to_none=True)
        self.manual_backward(losses["total"])
        norms = clip_per_module(self.student.parts(), max_norm=self.optim.clip)
        skipped = step_if_finite(optimizer, inner, norms)
        self._ema(now.momentum, skipped)
        self.skipped += skipped
        self.skipped_in_a_row.mul_(skipped).add_(skipped)
        self.measurements.add(
            {"step": batch.step, **now.model_dump()},
            {
                **{f"loss/{name}": value for name, value in losses.items()},
                "grad_norm/backbone": norms[0],
                "grad_norm/heads": norms[1:].max(),
                "skipped": self.skipped,
                "skipped_in_a_row": self.skipped_in_a_row,
            },
        )


class StepStream:
    """What Lightning iterates: batches from the step training stands at, made when it asks."""

    def __init__(
        self, batches_from: Callable[[int], Iterable[Batch]], step: Callable[[], int]
    ) -> None:
        self._batches_from = batches_from
        self._step = step

    def __iter__(self) -> Iterator[Batch]:
        return iter(self._batches_from(self._step()))


class PretrainData(L.LightningDataModule):
    """Hands Lightning the loader, started at the step the run stands at."""

    def __init__(self, batches_from: Callable[[int], Iterable[Batch]]) -> None:
        super().__init__()
        self._batches_from = batches_from

    def train_dataloader(self) -> Any:
        """Return batches from the current global step on; a resumed run starts in the middle."""
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("the data module is not attached to a trainer")
        return StepStream(self._batches_from, lambda: trainer.global_step)
