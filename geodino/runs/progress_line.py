"""The bar on a terminal, or a plain line now and then, that says how far a run is."""

import sys
import time
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import lightning as L
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from geodino.runs.callbacks import Pace
from geodino.runs.record import RunLog

_PLAIN_LINE_EVERY_S = 15.0


@runtime_checkable
class Figures(Protocol):
    """What knows the figures of recent steps."""

    latest: dict[str, Any]
    pace: Pace


class ProgressLine(L.Callback):
    """A bar on a terminal; elsewhere a plain line now and then.

    Args:
        recorder: knows the figures.
        log: takes the lines.
        steps: how many steps the run has; health may bring the end nearer.
        phase: names what the module is doing.
        quiet: show no bar.
    """

    def __init__(
        self,
        recorder: Figures,
        log: RunLog,
        *,
        steps: Callable[[], int],
        phase: Callable[[L.LightningModule], str],
        quiet: bool,
    ) -> None:
        self._recorder, self._log, self._steps, self._quiet = recorder, log, steps, quiet
        self._phase = phase
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
            self._phase(pl_module),
            total=self._steps(),
            completed=trainer.global_step,
            figures="",
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
            self._bar.update(
                self._task,
                description=self._phase(pl_module),
                total=self._steps(),
                completed=trainer.global_step,
                figures=self._figures(),
            )
        elif time.perf_counter() - self._said > _PLAIN_LINE_EVERY_S:
            self._said = time.perf_counter()
            self._log.say(self._line(trainer.global_step, self._phase(pl_module)))

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

    def _line(self, step: int, phase: str) -> str:
        first, since = self._began
        per_step = (time.perf_counter() - since) / max(step - first, 1)
        minutes, seconds = divmod(int(per_step * (self._steps() - step)), 60)
        place = f"{phase} {step}/{self._steps()}"
        left = f"left {minutes} min {seconds:02d} s"
        return "  ".join(part for part in (place, self._figures(), left) if part)
