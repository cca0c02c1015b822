"""Training a prepared head to its end, or until a signal."""

from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy

from geodino.errors import CheckpointError
from geodino.runs.checkpoints import read_checkpoint
from geodino.runs.device import keep_freed_memory
from geodino.runs.finetune.recorder import PHASE, FinetuneRecorder
from geodino.runs.finetune.scene import Scene, Trained
from geodino.runs.processes import Processes
from geodino.runs.progress_line import ProgressLine
from geodino.runs.record import RunFolder, RunLog
from geodino.runs.signals import Signals, StopAsked
from geodino.runs.trainer import build_trainer, quiet_lightning
from geodino.tasks.module import TaskData, TaskModule


@dataclass(kw_only=True)
class Finetuning:
    """The training of one head."""

    folder: RunFolder
    scene: Scene[Any]
    device: torch.device
    log: RunLog
    quiet: bool

    def run(self, *, resume: bool) -> Trained | str:
        """Train from the last checkpoint or the beginning.

        Returns:
            How it ended, the scene's model with its best weights and on the device; or the signal
            that stopped it.

        Raises:
            CheckpointError: the last checkpoint is damaged, or of another run.
        """
        config = self.scene.prepared.config
        checkpoint = self.folder.last_checkpoint() if resume else None
        module = self._module()
        done = 0
        if checkpoint is not None:
            state = self._checked(checkpoint)
            done = int(state["global_step"])
            if done >= config.train.steps or state["geodino_best"]["stopped"]:
                module.on_load_checkpoint(state)
                module.load_state_dict(state["state_dict"])
                self.log.say(f"All {done} steps are done already; the results are made again.")
                return self._ended(module)
            self.log.say(f"Going on from step {done} of {config.train.steps} ({checkpoint}).")
        self.folder.forget_leftovers()
        self.folder.keep_metrics_before(done)
        if self.device.type == "cpu":
            keep_freed_memory()
        with self.scene.readers() as threads:
            stopped = self._fit(module, checkpoint, threads)
        return self._ended(module) if stopped is None else stopped

    def _ended(self, module: TaskModule) -> Trained:
        module.take_best()
        module.to(self.device)
        return Trained(step=module.best_step, stopped_early=module.stopped)

    def _fit(self, module: TaskModule, checkpoint: Path | None, threads: Executor) -> str | None:
        scene, config = self.scene, self.scene.prepared.config
        feed = scene.feed()
        recorder = FinetuneRecorder(
            self.folder,
            config,
            log=self.log,
            identity=scene.prepared.identity,
            judgement=scene.judgement,
            validate=lambda: scene.validate(threads),
            wait_s=lambda: feed.waited_s,
        )
        progress = ProgressLine(
            recorder,
            self.log,
            steps=lambda: config.train.steps,
            phase=lambda _: PHASE,
            quiet=self.quiet,
        )
        with quiet_lightning():
            trainer = build_trainer(
                config,
                Processes(device=self.device, devices=1),
                "single",
                steps=config.train.steps,
                callbacks=[recorder, progress, Signals(recorder, self.log)],
                ddp=DDPStrategy,
            )
        data = TaskData(feed, steps=config.train.steps)
        try:
            with quiet_lightning():
                trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except StopAsked as stop:
            self.log.say(
                f"Stopped by {stop} at step {trainer.global_step} of {config.train.steps}; the "
                "state is saved. The same command with --resume goes on."
            )
            return str(stop)
        finally:
            data.close()
        return None

    def _module(self) -> TaskModule:
        scene, config = self.scene, self.scene.prepared.config
        return TaskModule(
            scene.model,
            scene.objective(),
            optim=config.optim,
            steps=config.train.steps,
            seed=config.train.seed,
            better=scene.judgement.better,
        )

    def _checked(self, path: Path) -> dict[str, Any]:
        state = read_checkpoint(path)
        for name, expected in self.scene.prepared.identity.items():
            if state["geodino"].get(name) != expected:
                raise CheckpointError(
                    f"{path} is a checkpoint of another {name}: it cannot be resumed in this run "
                    "folder. Put the run's own checkpoint back, or start a new run."
                )
        return state
