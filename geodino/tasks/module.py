"""One step of learning a task, as Lightning runs it, and the batches it is handed."""

import math
from collections.abc import Callable, Generator, Iterator
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import lightning as L
import torch
from torch import Tensor

from geodino import seeds
from geodino.models.headed import HeadedModel
from geodino.models.param_groups import param_groups
from geodino.tasks.optim import HeadOptimConfig, rate_at

_MODEL, _BACKBONE = "model.", "model.backbone."


@runtime_checkable
class TaskBatch(Protocol):
    """What one step learns from."""

    @property
    def step(self) -> int:
        """The step it belongs to, from 0."""

    @property
    def pixels(self) -> Tensor:
        """Stored values, an image a row."""

    def to(self, device: torch.device) -> Any:
        """Copy to a device without waiting."""


B_co = TypeVar("B_co", bound=TaskBatch, covariant=True)

Objective = Callable[[Any, Any], dict[str, Tensor]]
"""Gives the named losses of a model on a batch, ``total`` among them: the one that is minimised."""

Better = Literal["lower", "higher"]
"""Which of two scores is the better one."""


class TaskModule(L.LightningModule):
    """A model with a head, its objective and its optimiser.

    A frozen backbone is no part of a checkpoint: it is what the run began with. The best weights
    so far are, and what early stopping remembers.

    Args:
        model: with its weights; its backbone is frozen or not.
        objective: the losses.
        optim: AdamW and its rate.
        steps: of the run.
        seed: of the run; what a head draws in a step follows from it.
        better: which score of validation is the better one.
    """

    skipped_in_a_row: Tensor

    def __init__(
        self,
        model: HeadedModel,
        objective: Objective,
        *,
        optim: HeadOptimConfig,
        steps: int,
        seed: int,
        better: Better,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.objective = objective
        self.optim = optim
        self.steps = steps
        self.seed = seed
        self.better = better
        self.best: dict[str, Tensor] = {}
        self.best_step = 0
        self.best_score = math.inf if better == "lower" else -math.inf
        self.looks_since = 0
        self.stopped = ""
        self._rows: list[tuple[dict[str, float | int], list[str], Tensor]] = []
        self.register_buffer("skipped_in_a_row", torch.zeros(()))

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return fused AdamW over the head, and over the backbone where it learns."""
        optim, backbone = self.optim, self.model.backbone
        depth = backbone.depth or None
        groups = param_groups([(self.model.head, None)], layer_decay=1.0, patch_embed_lr=1.0)
        if not self.model.is_frozen:
            below = param_groups(
                [(backbone, depth)], layer_decay=optim.layer_decay, patch_embed_lr=1.0
            )
            for group in below:
                group["lr_multiplier"] *= optim.backbone_lr
            groups += below
        return torch.optim.AdamW(groups, lr=0.0, betas=optim.betas, fused=True)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Learn from a batch; a step whose gradient is not finite changes nothing."""
        # What a head draws (dropout) belongs to the step: a resumed run draws the same.
        used = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(used):
            torch.manual_seed(seeds.integer(self.seed, "step", batch.step) >> 1)
            losses = self.objective(self.model, batch)
        optimizer = self.optimizers()
        inner: Any = optimizer.optimizer  # type: ignore[union-attr]
        inner.zero_grad(set_to_none=True)
        self.manual_backward(losses["total"])
        norms = torch.stack([self._clipped(part) for part in self._parts()])
        lr = rate_at(self.optim, batch.step, self.steps)
        for group in inner.param_groups:
            group["lr"] = lr * group["lr_multiplier"]
            group["weight_decay"] = self.optim.weight_decay * group["wd_multiplier"]
        skipped = (~torch.isfinite(norms).all()).to(torch.float32)
        inner.found_inf = skipped  # fused AdamW leaves weights and moments alone where it is 1
        optimizer.step()  # type: ignore[union-attr]
        self.skipped_in_a_row = (self.skipped_in_a_row + 1.0) * skipped
        values = {f"loss/{name}": value for name, value in losses.items()}
        values |= {"gradient_norm": norms.max(), "skipped_in_a_row": self.skipped_in_a_row}
        stacked = torch.stack([value.detach().float() for value in values.values()])
        self._rows.append(({"step": batch.step, "lr": lr}, list(values), stacked))

    def _parts(self) -> list[torch.nn.Module]:
        frozen = self.model.is_frozen
        return [self.model.head] if frozen else [self.model.head, self.model.backbone]

    def _clipped(self, part: torch.nn.Module) -> Tensor:
        """Scale the gradients of a part to the largest norm; return the norm before."""
        with_grad = [p for p in part.parameters() if p.grad is not None]
        return torch.nn.utils.clip_grad_norm_(with_grad, self.optim.clip)

    def take_rows(self) -> list[dict[str, float | int]]:
        """Return and forget the figures of the steps since the last call. Waits for the device."""
        rows = [
            {**known, **dict(zip(names, values.tolist(), strict=True))}
            for known, names, values in self._rows
        ]
        self._rows = []
        return rows

    def judge(self, score: float, step: int) -> bool:
        """Note a look at the validation ground after ``step`` steps; whether it was the best."""
        is_best = score < self.best_score if self.better == "lower" else score > self.best_score
        if not is_best:
            self.looks_since += 1
            return False
        self.best_score, self.best_step, self.looks_since = score, step, 0
        self.best = {k: v.detach().cpu().clone() for k, v in self._learnt().items()}
        return True

    def take_best(self) -> None:
        """Let the model have its best weights; nothing changes where none were noted."""
        if self.best:
            state = self.model.state_dict()
            self.model.load_state_dict({**state, **self.best})

    def _learnt(self) -> dict[str, Tensor]:
        """The weights of the model that learn."""
        return {
            name: value
            for name, value in self.model.state_dict().items()
            if not self.model.is_frozen or not name.startswith("backbone.")
        }

    def transfer_batch_to_device(
        self, batch: Any, device: torch.device, dataloader_idx: int
    ) -> Any:
        """Copy a batch without waiting."""
        return batch.to(device)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leave a frozen backbone out; keep the best weights and what early stopping knows."""
        state = checkpoint["state_dict"]
        if self.model.is_frozen:
            state = {k: v for k, v in state.items() if not k.startswith(_BACKBONE)}
        checkpoint["state_dict"] = state
        checkpoint["geodino_best"] = {
            "weights": self.best,
            "step": self.best_step,
            "score": self.best_score,
            "looks_since": self.looks_since,
            "stopped": self.stopped,
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take the frozen backbone from the model, and the rest from the checkpoint."""
        if self.model.is_frozen:
            own = {f"{_MODEL}{k}": v for k, v in self.model.state_dict().items()}
            kept = {k: v for k, v in own.items() if k.startswith(_BACKBONE)}
            checkpoint["state_dict"] = {**kept, **checkpoint["state_dict"]}
        self.take_state(checkpoint["geodino_best"])

    def take_state(self, state: dict[str, Any]) -> None:
        """Take back what a checkpoint remembers of the best weights and of early stopping."""
        self.best = state["weights"]
        self.best_step, self.best_score = state["step"], state["score"]
        self.looks_since, self.stopped = state["looks_since"], state["stopped"]


@runtime_checkable
class Feed(Protocol[B_co]):
    """Draws batches; what is in one depends on the run's seed and the step alone."""

    waited_s: float
    """Time spent waiting for images so far."""

    def batches(self, step: int, stop: int) -> Generator[B_co, None, None]:
        """Yield the batches of steps ``step`` to ``stop - 1``."""


class TaskData(L.LightningDataModule):
    """Hands Lightning the batches, from the step the run stands at on.

    Args:
        feed: draws them.
        steps: of the run.
    """

    def __init__(self, feed: Feed[Any], *, steps: int) -> None:
        super().__init__()
        self._feed, self._steps = feed, steps
        self._begun: list[Generator[Any, None, None]] = []

    def train_dataloader(self) -> Any:
        """Return batches from the current global step on; a resumed run starts in the middle."""
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("the data module is not attached to a trainer")
        return _Batches(self._feed, lambda: trainer.global_step, self._steps, self._begun)

    def close(self) -> None:
        """Wait for the threads that read ahead: nothing may close what they read from before."""
        while self._begun:
            self._begun.pop().close()


class _Batches:
    """An iterable without a length, as Lightning likes it."""

    def __init__(
        self,
        feed: Feed[Any],
        step: Callable[[], int],
        steps: int,
        begun: list[Generator[Any, None, None]],
    ) -> None:
        self._feed, self._step, self._steps, self._begun = feed, step, steps, begun

    def __iter__(self) -> Iterator[Any]:
        batches = self._feed.batches(self._step(), self._steps)
        self._begun.append(batches)
        return batches
