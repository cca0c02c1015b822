"""SIGTERM, SIGUSR1 and Ctrl-C end a run well."""

import signal
from types import FrameType
from typing import Any, Protocol, runtime_checkable

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor

from geodino.runs.record import RunLog


class StopAsked(Exception):  # noqa: N818  (not an error: the run ends well, and can go on later)
    """A signal asked the run to save its state and stop."""


@runtime_checkable
class Keeper(Protocol):
    """What writes a run down."""

    def keep(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write figures and the resumable state of this moment, and wait until they are on disk."""


class Signals(L.Callback):
    """SIGTERM, SIGUSR1 and Ctrl-C: finish the step, save the state, stop."""

    def __init__(self, recorder: Keeper, log: RunLog) -> None:
        self._recorder, self._log = recorder, log
        self._asked: str | None = None
        self._group: Any = None
        self._asking: tuple[Any, Tensor] | None = None
        self._before: dict[int, Any] = {}

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Listen; Lightning's own handlers would kill the run in the middle of a step."""
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        if trainer.world_size > 1:
            # On the CPU and beside the training, so that no process waits for its device.
            self._group = dist.new_group(backend="gloo")

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save and stop, on all ranks at the same step."""
        if self._any_asked():
            self._recorder.keep(trainer, pl_module)
            raise StopAsked(self._asked or "a signal to another rank")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hear the last answer, so that nothing is on its way when the processes part."""
        if self._asking is not None:
            self._asking[0].wait()
            self._asking = None

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: leave at once
        self._asked = signal.Signals(number).name

    def _any_asked(self) -> bool:
        """Whether a process was asked before the last step, on which all of them agree."""
        asked = self._asked is not None
        if self._group is None:
            return asked
        answer = False
        if self._asking is not None:
            work, flag = self._asking
            work.wait()
            answer = bool(flag[0])
        flag = torch.tensor([int(asked)])
        self._asking = (dist.all_reduce(flag, group=self._group, async_op=True), flag)
        return answer
