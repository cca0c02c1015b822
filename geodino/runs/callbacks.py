"""What happens around the steps: metrics, checkpoints, progress, health, signals."""

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
import torch
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from geodino.errors import RunError
from geodino.files import append_lines, writing
from geodino.pretrain.health import DenseHealth
from geodino.pretrain.module import PretrainModule
from geodino.runs.device import peak_memory_gib
from geodino.runs.recipe import RunConfig
from geodino.runs.record import RunFolder, RunLog
from geodino.runs.snapshots import Snapshots

_PLAIN_LINE_EVERY_S = 15.0


class StopAsked(Exception):  # noqa: N818  (not an error: the run ends well, and can go on later)
    """A signal asked the run to save its state and stop."""


class Pace:
    """Images per second and the share of time spent waiting for data, over recent steps."""

    def __init__(self, *, batch: int, wait_s: Callable[[], float]) -> None:
        self._batch = batch
        self._wait_s = wait_s
        self.images_per_s, self.data_wait = 0.0, 0.0
        self.restart(0)

    def restart(self, step: int) -> None:
        """Start the next figures at ``step``, now: what was done meanwhile is not training."""
        self._step, self._time, self._waited = step, time.perf_counter(), self._wait_s()

    def update(self, step: int) -> None:
        """Take the figures since the last call; call when the device has caught up."""
        now, waited = time.perf_counter(), self._wait_s()
        elapsed = max(now - self._time, 1e-9)
        if step > self._step:
            self.images_per_s = (step - self._step) * self._batch / elapsed
            self.data_wait = (waited - self._waited) / elapsed
        self._step, self._time, self._waited = step, now, waited


class Recorder(L.Callback):
    """Writes metrics.jsonl, saves the resumable state, and looks at the device rarely.

    Args:
        folder: the run folder.
        config: how often, and how much is kept.
        phase: name of the phase, written into each row.
        pace: images per second and data wait, shared with the progress bar.
        identity: what a checkpoint must carry to be resumed here.
        health: measures dense-feature health.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: RunConfig,
        *,
        phase: str,
        pace: Pace,
        identity: Mapping[str, str],
        health: DenseHealth,
    ) -> None:
        self.folder = folder
        self.config = config
        self.phase = phase
        self.pace = pace
        self.identity = dict(identity)
        self.health = health
        self.snapshots = Snapshots(folder.probes, every=config.health.every)
        self.latest: dict[str, float | int] = {}
        self._writer = _event_writer(folder.root) if config.log.tensorboard else None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the health of what training starts from, and start the clock."""
        if trainer.global_step % self.config.health.every == 0:
            self._measure_health(trainer, pl_module, step=trainer.global_step)
        self.pace.restart(trainer.global_step)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Flush, measure and save when it is time."""
        module = _module(pl_module)
        done = trainer.global_step
        if done % self.config.log.flush == 0 or done % self.config.checkpoint.every == 0:
            self.flush(trainer, module)
        if done % self.config.health.every == 0:
            self._measure_health(trainer, module, step=done)
            self.pace.restart(done)
        if done % self.config.checkpoint.every == 0:
            self.save(trainer)
            self.pace.restart(done)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what is left: figures, and health and state where their turn has not come."""
        self.flush(trainer, _module(pl_module))
        if trainer.global_step % self.config.health.every:
            self._measure_health(trainer, pl_module, step=trainer.global_step)
        if trainer.global_step % self.config.checkpoint.every:
            self.save(trainer)

    def flush(self, trainer: L.Trainer, module: PretrainModule) -> None:
        """Bring the waiting scalars to the host, write them, and stop a run that learns nothing.

        Raises:
            RunError: too many steps in a row had no finite gradient.
        """
        rows = module.measurements.take(
            lambda table: trainer.strategy.reduce(table, reduce_op="mean")
        )
        self.pace.update(trainer.global_step)
        if not rows:
            return
        self.latest = rows[-1]
        now = time.time()
        figures = {
            "images_per_s": self.pace.images_per_s,
            "data_wait": self.pace.data_wait,
            "memory_gib": peak_memory_gib(module.device),
        }
        self._write(
            trainer,
            [
                {"step": row.pop("step"), "phase": self.phase, "time": now, **row, **figures}
                for row in map(dict, rows)
                if row["step"] % self.config.log.every == 0
            ],
        )
        if self.latest["skipped_in_a_row"] >= self.config.optim.max_skipped:
            raise RunError(
                f"The gradient was not finite for {int(self.latest['skipped_in_a_row'])} steps in "
                f"a row (step {int(self.latest['step'])}); the weights are those before. Resume "
                f"from {self.folder.checkpoints} with a lower phases.{self.phase}.lr.peak, a "
                "longer warm-up, or train.precision=float32."
            )

    def save(self, trainer: L.Trainer) -> None:
        """Save the resumable state under its step and as the last one, whole or not at all."""
        step = trainer.global_step
        path = self.folder.checkpoints / f"step-{step:08d}.ckpt"
        temporary = path.with_suffix(".tmp")
        last = self.folder.checkpoints / "last.ckpt"
        try:
            with writing(path):
                trainer.save_checkpoint(temporary, weights_only=False)
                if not trainer.is_global_zero:
                    return
                with temporary.open("rb") as handle:
                    os.fsync(handle.fileno())
                temporary.replace(path)
                link = last.with_suffix(".link")
                link.unlink(missing_ok=True)
                os.link(path, link)
                link.replace(last)
        finally:
            if trainer.is_global_zero:
                temporary.unlink(missing_ok=True)
        for old in sorted(self.folder.checkpoints.glob("step-*.ckpt"))[
            : -self.config.checkpoint.keep
        ]:
            old.unlink()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write into the checkpoint which run it belongs to."""
        checkpoint["geodino"] = {**self.identity, "phase": self.phase}
        checkpoint["geodino_health"] = self.health.reference

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take back the patches that the Gram distance is measured from."""
        self.health.reference = checkpoint["geodino_health"]

    def _measure_health(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *, step: int
    ) -> None:
        if not trainer.is_global_zero:
            return
        figures = {
            f"health/{k}": v for k, v in self.health(_module(pl_module).teacher.backbone).items()
        }
        self._write(trainer, [{"step": step, "phase": self.phase, "time": time.time(), **figures}])
        self.snapshots.save(step, self.health)

    def _write(self, trainer: L.Trainer, rows: list[dict[str, Any]]) -> None:
        if not trainer.is_global_zero:
            return
        append_lines(self.folder.metrics, rows)
        if self._writer is not None:
            for row in rows:
                for name, value in row.items():
                    if name not in ("step", "phase", "time"):
                        self._writer.add_scalar(name, value, int(row["step"]))
            self._writer.flush()


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
            self._stop_if_asked(trainer, _module(pl_module))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: leave at once
        self._asked = signal.Signals(number).name

    def _stop_if_asked(self, trainer: L.Trainer, module: PretrainModule) -> None:
        asked = self._asked is not None
        if trainer.world_size > 1:
            flag = torch.tensor(float(asked), device=module.device)
            asked = bool(trainer.strategy.reduce(flag, reduce_op="sum").item() > 0)
        if asked:
            self._recorder.flush(trainer, module)
            self._recorder.save(trainer)
            raise StopAsked(self._asked or "a signal to another rank")


class ProgressLine(L.Callback):
    """A bar on a terminal; elsewhere a plain line now and then."""

    def __init__(self, recorder: Recorder, log: RunLog, *, steps: int, quiet: bool) -> None:
        self._recorder, self._log, self._steps, self._quiet = recorder, log, steps, quiet
        self._bar: Progress | None = None
        self._task: Any = None
        self._said = 0.0
        self._began = (0, 0.0)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the bar at the step the run stands at."""
        self._began = (trainer.global_step, time.perf_counter())
        self._said = time.perf_counter()
        if self._quiet or not trainer.is_global_zero or not sys.stderr.isatty():
            return
        from rich.console import Console

        self._bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(
            self._recorder.phase, total=self._steps, completed=trainer.global_step, figures=""
        )
        self._bar.start()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Move the bar; the figures are those of the last flush."""
        if not trainer.is_global_zero:
            return
        if self._bar is not None:
            self._bar.update(self._task, completed=trainer.global_step, figures=self._figures())
        elif time.perf_counter() - self._said > _PLAIN_LINE_EVERY_S:
            self._said = time.perf_counter()
            self._log.say(self._line(trainer.global_step))

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Stop the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _figures(self) -> str:
        latest, pace = self._recorder.latest, self._recorder.pace
        if not latest:  # nothing was read from the device yet
            return ""
        return (
            f"loss {latest['loss/total']:.3f}  {pace.images_per_s:.1f} images/s  "
            f"waiting for data {100 * pace.data_wait:.1f} %"
        )

    def _line(self, step: int) -> str:
        first, since = self._began
        per_step = (time.perf_counter() - since) / max(step - first, 1)
        minutes, seconds = divmod(int(per_step * (self._steps - step)), 60)
        place = f"{self._recorder.phase} {step}/{self._steps}"
        left = f"left {minutes} min {seconds:02d} s"
        return "  ".join(part for part in (place, self._figures(), left) if part)


def _module(module: L.LightningModule) -> PretrainModule:
    if not isinstance(module, PretrainModule):
        raise TypeError(f"these callbacks serve PretrainModule, not {type(module).__name__}")
    return module


def _event_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RunError(
            "log.tensorboard needs TensorBoard: `pip install geodino[loggers]`, "
            "or set log.tensorboard=false."
        ) from None
    return SummaryWriter(str(folder / "tensorboard"))
