"""SIGTERM, SIGUSR1 and Ctrl-C end a run well."""

import signal
from types import FrameType
from typing import Any

import lightning as L
import torch

from geodino.pretrain.module import PhasedModule, as_phased
from geodino.runs.callbacks import Recorder
from geodino.runs.record import RunLog


class StopAsked(Exception):  # noqa: N818  (not an error: the run ends well, and can go on later)
    """A signal asked the run to save its state and stop."""


class Signals(L.Callback):
    """SIGTERM, SIGUSR1 and Ctrl-C: finish the step, save the state, stop."""

    def __init__(self, recorder: Recorder, log: RunLog) -> None:
        self._recorder, self._log = recorder, log
        self._asked: str | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen; Lightning's own handlers would kill the run in the middle of a step."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save and stop, on all ranks at the same step."""
        if trainer.world_size == 1 or trainer.global_step % self._recorder.config.log.flush == 0:
            self._stop_if_asked(trainer, as_phased(pl_module))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: leave at once
        self._asked = signal.Signals(number).name

    def _stop_if_asked(self, trainer: L.Trainer, module: PhasedModule) -> None:
        asked = self._asked is not None
        if trainer.world_size > 1:
            flag = torch.tensor(float(asked), device=module.device)
            asked = bool(trainer.strategy.reduce(flag, reduce_op="sum").item() > 0)
        if asked:
            self._recorder.flush(trainer, module)
            self._recorder.save(trainer)
            raise StopAsked(self._asked or "a signal to another rank")
