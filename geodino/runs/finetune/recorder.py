"""What happens around the steps of fine-tuning: metrics, validation, early stopping, checkpoints."""

import time
from collections.abc import Callable, Mapping
from typing import Any

import lightning as L

from geodino.errors import RunError
from geodino.files import append_lines
from geodino.runs.callbacks import Pace
from geodino.runs.device import peak_memory_gib
from geodino.runs.finetune.config import FinetuneConfig
from geodino.runs.finetune.scene import Judgement
from geodino.runs.record import RunFolder, RunLog
from geodino.runs.saving import Saver
from geodino.tasks.module import TaskModule

PHASE = "finetune"
"""What rows of metrics.jsonl call it."""


class FinetuneRecorder(L.Callback):
    """Writes metrics.jsonl, looks at the validation ground, stops early, saves.

    Args:
        folder: the run folder.
        config: how often, and how much is kept.
        log: what was found, for people.
        identity: what a checkpoint must carry to be resumed here.
        judgement: which score decides.
        validate: scores by name, of the model as it is.
        wait_s: time spent waiting for images so far.
    """

    def __init__(
        self,
        folder: RunFolder,
        config: FinetuneConfig,
        *,
        log: RunLog,
        identity: Mapping[str, str],
        judgement: Judgement,
        validate: Callable[[], dict[str, float]],
        wait_s: Callable[[], float],
    ) -> None:
        self.folder, self.config = folder, config
        self.pace = Pace(wait_s=wait_s)
        self.latest: dict[str, Any] = {}
        self._log = log
        self._identity = dict(identity)
        self._judgement = judgement
        self._validate = validate
        self._saver = Saver(folder.checkpoints, keep=config.checkpoint.keep)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.pace.restart()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Flush, validate and save when it is time."""
        module, done = _ours(pl_module), trainer.global_step
        self.pace.count(len(batch.pixels))
        log, every = self.config.log, self.config.validation.every
        is_last = done >= self.config.train.steps
        if done % every == 0 or is_last:
            self.flush(module)
            self._look(trainer, module)
            self.pace.restart()
        elif done % log.flush == 0:
            self.flush(module)
        if done % self.config.checkpoint.every == 0 or is_last or module.stopped:
            self.keep(trainer, module)
            self.pace.restart()

    def keep(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write figures and the resumable state of this moment."""
        self.flush(_ours(pl_module))
        self._saver.save(trainer)

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Write into the checkpoint which run it belongs to."""
        checkpoint["geodino"] = dict(self._identity)

    def flush(self, module: TaskModule) -> None:
        """Write the waiting scalars, and stop a run that learns nothing.

        Raises:
            RunError: too many steps in a row had no finite gradient.
        """
        rows = module.take_rows()
        self.pace.update()
        if not rows:
            return
        self.latest = dict(rows[-1])
        figures = {
            "images_per_s": self.pace.images_per_s,
            "data_wait": self.pace.data_wait,
            "memory_gib": peak_memory_gib(module.device),
        }
        self._write(
            [{**row, **figures} for row in rows if row["step"] % self.config.log.every == 0]
        )
        if (many := int(self.latest["skipped_in_a_row"])) >= self.config.optim.max_skipped:
            raise RunError(
                f"The gradient was not finite for {many} steps in a row (step "
                f"{int(self.latest['step'])}); the weights are those before. Resume from "
                f"{self.folder.checkpoints} with a lower optim.lr, a longer optim.warmup, or "
                "train.precision=float32."
            )

    def _look(self, trainer: L.Trainer, module: TaskModule) -> None:
        """Score the model; remember it if it is the best; stop if none was for long."""
        scores = self._validate()
        done = trainer.global_step
        # The row belongs to the last step whose weights were judged.
        self._write([{"step": done - 1, **{f"val/{k}": v for k, v in scores.items()}}])
        score, words = scores[self._judgement.score], self._judgement.words
        is_best = module.judge(score, done)
        self._log.say(
            f"step {done} of {self.config.train.steps}: validation {words.format(score)}"
            + (" (best so far)" if is_best else f" (best {words.format(module.best_score)})")
        )
        if module.looks_since >= self.config.validation.patience:
            module.stopped = (
                f"no better validation score in {module.looks_since} looks, after step {done}"
            )
            self._log.say(f"Stopped early: {module.stopped}.")
            trainer.should_stop = True

    def _write(self, rows: list[dict[str, Any]]) -> None:
        now = time.time()
        append_lines(
            self.folder.metrics,
            [{"step": row.pop("step"), "phase": PHASE, "time": now, **row} for row in rows],
        )


def _ours(module: L.LightningModule) -> TaskModule:
    if not isinstance(module, TaskModule):
        raise TypeError(f"this recorder serves TaskModule, not {type(module).__name__}")
    return module
