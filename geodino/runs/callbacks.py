"""What happens around the steps: metrics, checkpoints, health."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import lightning as L

from geodino.errors import RunError
from geodino.files import append_lines
from geodino.pretrain.health import DenseHealth
from geodino.pretrain.module import PhasedModule, as_phased
from geodino.pretrain.phases import GramPhaseConfig
from geodino.pretrain.watch import Watch
from geodino.runs.device import peak_memory_gib
from geodino.runs.recipe import TrainingConfig
from geodino.runs.record import RunFolder
from geodino.runs.saving import Saver
from geodino.runs.snapshots import Snapshots


class Pace:
    """Images per second and the share of time spent waiting for data, over recent steps."""

    def __init__(self, *, wait_s: Callable[[], float]) -> None:
        self._wait_s = wait_s
        self.images_per_s, self.data_wait = 0.0, 0.0
        self.restart()

    def restart(self) -> None:
        """Start the next figures now: what was done meanwhile is not training."""
        self._images, self._time, self._waited = 0, time.perf_counter(), self._wait_s()

    def count(self, images: int) -> None:
        """Count the samples of a step."""
        self._images += images

    def update(self) -> None:
        """Take the figures since the last call; call when the device has caught up."""
        now, waited = time.perf_counter(), self._wait_s()
        elapsed = max(now - self._time, 1e-9)
        if self._images:
            self.images_per_s = self._images / elapsed
            self.data_wait = (waited - self._waited) / elapsed
        self._images, self._time, self._waited = 0, now, waited


class Recorder(L.Callback):
    """Writes metrics.jsonl, saves the resumable state, and looks at the device rarely.

    Args:
        folder: the run folder.
        config: how often, and how much is kept.
        pace: images per second and data wait, shared with the progress bar.
        identity: what a checkpoint must carry to be resumed here.
        health: measures dense-feature health, for each backbone that is watched.
        watch: judges it: when it was best, and when it turned down.
        on_phase_end: told the module and the name of each phase that another one follows.
        on_turn: told the step at which health has turned down and a Gram phase begins, and why.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: TrainingConfig,
        *,
        pace: Pace,
        identity: Mapping[str, str],
        health: Mapping[str, DenseHealth],
        watch: Watch,
        on_phase_end: Callable[[PhasedModule, str], None],
        on_turn: Callable[[int, str], None],
    ) -> None:
        self.folder = folder
        self.config = config
        self.pace = pace
        self.identity = dict(identity)
        self.health = dict(health)
        self.watch = watch
        self._on_phase_end, self._on_turn = on_phase_end, on_turn
        self.snapshots = Snapshots(folder.probes, every=config.health.every)
        self._saver = Saver(folder.checkpoints, keep=config.checkpoint.keep)
        self.latest: dict[str, Any] = {}
        self._writer = _event_writer(folder.root) if config.log.tensorboard else None

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measure the health of what training starts from, and start the clock."""
        if trainer.global_step % self.config.health.every == 0:
            self._measure_health(trainer, pl_module, step=trainer.global_step)
        self.pace.restart()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Flush, measure and save when it is time."""
        module = as_phased(pl_module)
        done = trainer.global_step
        self.pace.count(len(batch.pixels) * trainer.world_size)
        if done % self.config.log.flush == 0 or done % self.config.checkpoint.every == 0:
            self.flush(trainer, module)
        if done % self.config.health.every == 0:
            self._measure_health(trainer, module, step=done)
            self.pace.restart()
        if done % self.config.checkpoint.every == 0:
            self.save(trainer)
            self.pace.restart()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what is left: figures, and health and state where their turn has not come."""
        self.flush(trainer, as_phased(pl_module))
        if trainer.global_step % self.config.health.every:
            self._measure_health(trainer, pl_module, step=trainer.global_step)
        if trainer.global_step % self.config.checkpoint.every:
            self.save(trainer)
        self.finish_saving(trainer)

    def flush(self, trainer: L.Trainer, module: PhasedModule) -> None:
        """Bring the waiting scalars to the host, write them, and stop a run that learns nothing.

        Raises:
            RunError: too many steps in a row had no finite gradient.
        """
        rows = module.measurements.take(
            lambda table: trainer.strategy.reduce(table, reduce_op="mean")
        )
        self.pace.update()
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
                {
                    "step": row.pop("step"),
                    "phase": row.pop("phase"),
                    "time": now,
                    **row,
                    **figures,
                }
                for row in map(dict, rows)
                if int(row["step"]) % self.config.log.every == 0
            ],
        )
        if int(self.latest["skipped_in_a_row"]) >= self.config.optim.max_skipped:
            raise RunError(
                f"The gradient was not finite for {int(self.latest['skipped_in_a_row'])} steps in "
                f"a row (step {int(self.latest['step'])}); the weights are those before. Resume "
                f"from {self.folder.checkpoints} with a lower phases.{self.latest['phase']}.lr.peak, a "
                "longer warm-up, or train.precision=float32."
            )

    def keep(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write figures and the resumable state of this moment, and wait until they are on disk."""
        self.flush(trainer, as_phased(pl_module))
        self.save(trainer)
        self.finish_saving(trainer)

    def save(self, trainer: L.Trainer) -> None:
        """Save the resumable state under its step and as the last one, whole or not at all."""
        self._saver.save(trainer)

    def finish_saving(self, trainer: L.Trainer) -> None:
        """Wait until what is being saved in the background is on disk."""
        self._saver.wait(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write into the checkpoint which run it belongs to."""
        checkpoint["geodino"] = dict(self.identity)
        checkpoint["geodino_health"] = {
            "reference": {name: health.reference for name, health in self.health.items()},
            "watch": self.watch.state(),
        }

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take back the patches that the Gram distance is measured from, and the best health."""
        for name, reference in checkpoint["geodino_health"]["reference"].items():
            self.health[name].reference = reference
        self.watch.load_state(checkpoint["geodino_health"]["watch"])

    def on_train_batch_start(
        self, trainer: L.Trainer, pl_module: L.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Close the phase before, where this batch is the first of another one."""
        module = as_phased(pl_module)
        if batch.plan.phase == module.steps.number:
            return
        self._on_phase_end(module, module.steps.name)
        gram = module.course.phases[batch.plan.phase][1].gram
        before = module.steps.config.gram
        if before is None and gram and gram.teacher == "best" and self.watch.best is None:
            # Nothing was measured since training got going: this teacher is the best there is.
            module.renew_gram_teacher()

    def _measure_health(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *, step: int
    ) -> None:
        module = as_phased(pl_module)
        # Every rank measures (a sharded model needs them all) and believes the first one.
        watched = module.watched()
        figures = trainer.strategy.broadcast(
            {name: health(watched[name]) for name, health in self.health.items()}
        )
        first = next(iter(self.health))
        if trainer.is_global_zero:
            named = {
                "/".join(filter(None, ("health", name, figure))): value
                for name, of_one in figures.items()
                for figure, value in of_one.items()
            }
            row = {"step": step, "phase": module.steps.name, "time": time.time(), **named}
            self._write(trainer, [row])
            self.snapshots.save(step, self.health[first])
        self._judge(trainer, module, figures[first], step=step)

    def _judge(
        self, trainer: L.Trainer, module: PhasedModule, figures: dict[str, float], *, step: int
    ) -> None:
        """Keep the healthiest teacher for a Gram phase to come, and begin it once health turns."""
        number = module.steps.number
        following = module.course.phases[number + 1 :]
        best_wanted = any(p.gram is not None and p.gram.teacher == "best" for _, p in following)
        if module.steps.config.gram is not None or not following:
            return
        if self.watch.update(step, figures) and best_wanted:
            module.renew_gram_teacher()
        starts = following[0][1]
        waits = isinstance(starts, GramPhaseConfig) and starts.start == "auto"
        # The batch after this step may be on its way already; it is done before the phase ends.
        end = step + 2
        if waits and self.watch.turned and end < module.course.ends[number]:
            module.course.end_at(number, end)
            trainer.fit_loop.epoch_loop.max_steps = module.course.steps
            self._on_turn(step, self.watch.reason(figures[self.watch.figure]))

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


def _event_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise RunError(
            "log.tensorboard needs TensorBoard: `pip install geodino[loggers]`, "
            "or set log.tensorboard=false."
        ) from None
    return SummaryWriter(str(folder / "tensorboard"))
