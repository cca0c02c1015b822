"""One step of learning a task, as Lightning runs it, and the batches it is handed."""

import math
from collections.abc import Callable, Generator, Iterator
from typing import Any

import lightning as L
import torch
from torch import Tensor

from geodino.models.canopy import CanopyModel
from geodino.models.param_groups import param_groups
from geodino.tasks.canopy.batch import CanopyBatch
from geodino.tasks.canopy.config import CanopyOptimConfig
from geodino.tasks.canopy.crops import CropFeed
from geodino.tasks.canopy.objective import CanopyObjective

_MODEL, _BACKBONE = "model.", "model.backbone."


class CanopyModule(L.LightningModule):
    """A canopy model, its objective and its optimiser.

    A frozen backbone is no part of a checkpoint: it is what the run began with. The best weights
    so far are, and what early stopping remembers.

    Args:
        model: with its weights; its backbone is frozen or not.
        objective: the losses.
        optim: AdamW and its rate.
        steps: of the run.
    """

    skipped_in_a_row: Tensor

    def __init__(
        self,
        model: CanopyModel,
        objective: CanopyObjective,
        *,
        optim: CanopyOptimConfig,
        steps: int,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.model = model
        self.objective = objective
        self.optim = optim
        self.steps = steps
        self.best: dict[str, Tensor] = {}
        self.best_step, self.best_mae_m = 0, math.inf
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

    def training_step(self, batch: CanopyBatch, batch_idx: int) -> None:
        """Learn from a batch; a step whose gradient is not finite changes nothing."""
        losses = self.objective(self.model(batch.pixels.float(), batch.valid), batch)
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

    def judge(self, mae_m: float, step: int) -> bool:
        """Note a look at the validation ground after ``step`` steps; whether it was the best."""
        if not mae_m < self.best_mae_m:
            self.looks_since += 1
            return False
        self.best_mae_m, self.best_step, self.looks_since = mae_m, step, 0
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
        self, batch: CanopyBatch, device: torch.device, dataloader_idx: int
    ) -> CanopyBatch:
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
            "mae_m": self.best_mae_m,
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
        self.best_step, self.best_mae_m = state["step"], state["mae_m"]
        self.looks_since, self.stopped = state["looks_since"], state["stopped"]


def rate_at(optim: CanopyOptimConfig, step: int, steps: int) -> float:
    """Return the head's learning rate at ``step`` (from 0) of ``steps``."""
    warmup = round(optim.warmup * steps)
    if step < warmup:
        return optim.lr * (step + 1) / (warmup + 1)
    done = (step - warmup) / max(steps - warmup, 1)
    return optim.lr * 0.5 * (1.0 + math.cos(math.pi * done))


class CanopyData(L.LightningDataModule):
    """Hands Lightning the batches, from the step the run stands at on.

    Args:
        feed: draws them.
        steps: of the run.
    """

    def __init__(self, feed: CropFeed, *, steps: int) -> None:
        super().__init__()
        self._feed, self._steps = feed, steps
        self._begun: list[Generator[CanopyBatch, None, None]] = []

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
        feed: CropFeed,
        step: Callable[[], int],
        steps: int,
        begun: list[Generator[CanopyBatch, None, None]],
    ) -> None:
        self._feed, self._step, self._steps, self._begun = feed, step, steps, begun

    def __iter__(self) -> Iterator[CanopyBatch]:
        batches = self._feed.batches(self._step(), self._steps)
        self._begun.append(batches)
        return batches
