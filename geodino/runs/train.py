"""Training a prepared run to its end, or until a signal: what ``pretrain`` does once it is set up."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.strategies import DDPStrategy

from geodino.errors import CheckpointError, GeodinoError
from geodino.pretrain.course import Course, PhaseSteps
from geodino.pretrain.module import PhasedModule, PretrainData, PretrainModule, as_phased
from geodino.runs.build import (
    Feed,
    build_companions,
    build_course,
    build_health,
    build_module,
    build_order,
    build_planner,
    build_watch,
    compile_blocks,
    loader_config,
    resolved_chip,
    whole_batch,
)
from geodino.runs.callbacks import Pace, Recorder
from geodino.runs.checkpoints import read_rest
from geodino.runs.device import keep_freed_memory
from geodino.runs.export import export_run, save_network, whole_network
from geodino.runs.init import load_start
from geodino.runs.prepare import Prepared, PreparedTraining
from geodino.runs.processes import Processes, Strategy
from geodino.runs.progress_line import ProgressLine
from geodino.runs.record import REPLACED, RunFolder, RunLog
from geodino.runs.signals import Signals, StopAsked
from geodino.runs.snapshots import Snapshots
from geodino.runs.trainer import build_trainer, quiet_lightning


@dataclass(kw_only=True, slots=True)
class Training(ABC):
    """One process's part in training a run, whatever it learns."""

    folder: RunFolder
    prepared: PreparedTraining
    processes: Processes
    rank: int
    log: RunLog
    quiet: bool
    _feeds: list[Feed] = field(default_factory=list)

    def run(self, *, resume: bool) -> dict[str, Any]:
        """Train from the last checkpoint or the beginning; export the model and write the report.

        Raises:
            CheckpointError: the last checkpoint is damaged, or of another run.
        """
        folder, config = self.folder, self.prepared.config
        checkpoint = folder.last_checkpoint() if resume else None
        done, ends = (0, []) if checkpoint is None else self._check_identity(checkpoint)
        course = build_course(config, ends)
        if done >= course.steps:
            return self._done_already(done)
        if done:
            self.log.say(f"Going on from step {done} of {course.steps} ({checkpoint}).")
        if self.rank == 0:
            folder.forget_leftovers()
            folder.keep_metrics_before(done)
            Snapshots(folder.probes, every=config.health.every).forget_after(done)
        device = self.processes.device
        if device.type == "cpu":
            keep_freed_memory()
        module = self._module(course, is_begun=checkpoint is not None)
        wanted = config.train.compile
        if wanted == "on" or (wanted == "auto" and device.type == "cuda"):
            compile_blocks(module)
        return self._fit(module, course, checkpoint)

    @abstractmethod
    def _module(self, course: Course, *, is_begun: bool) -> PhasedModule:
        """Build what learns; ``is_begun``: a checkpoint will be loaded into it."""

    @abstractmethod
    def _export(self, module: PhasedModule) -> None:
        """Write what was learnt; all processes come here, the first one writes."""

    @abstractmethod
    def _export_again(self) -> dict[str, Any]:
        """Write what the last checkpoint holds; return what to tell of it."""

    def _sides(self) -> dict[str, int]:
        """Return the side of the probe crops, pixels, for each backbone that is watched."""
        return {"": self.prepared.config.phases.first.views.global_size}

    def _plans(self, steps: PhaseSteps) -> Callable[..., Any]:
        """Return what draws the random numbers of each step of a phase."""
        return build_planner(self.prepared.config, self.prepared.contract, steps)

    def _strategy(self) -> Strategy:
        """Return how several processes share the networks."""
        return self.processes.strategy(self.prepared.config, self.prepared.contract)[0]

    def _ddp(self) -> DDPStrategy:
        """Return what trains replicas together, where they are whole in each process."""
        # Buffers are constants here: broadcasting them every step would only cost time.
        return DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)

    def _fit(self, module: PhasedModule, course: Course, checkpoint: Path | None) -> dict[str, Any]:
        recorder = self._recorder()
        progress = ProgressLine(
            recorder,
            self.log,
            steps=lambda: course.steps,
            phase=lambda ours: as_phased(ours).steps.name,
            quiet=self.quiet,
        )
        callbacks: list[L.Callback] = [recorder, progress, Signals(recorder, self.log)]
        with quiet_lightning():
            trainer = build_trainer(
                self.prepared.config,
                self.processes,
                self._strategy(),
                steps=course.steps,
                callbacks=callbacks,
                ddp=self._ddp,
            )
        data = PretrainData(course, lambda steps: self._feed(steps, trainer))
        try:
            with quiet_lightning():
                trainer.fit(module, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except StopAsked as stop:
            self.log.say(
                f"Stopped by {stop} at step {trainer.global_step} of {course.steps}; the state is "
                f"saved. The same command with --resume goes on."
            )
            return {
                "run": str(self.folder.root),
                "step": trainer.global_step,
                "stopped": str(stop),
            }
        finally:
            for feed in self._feeds:
                feed.close()
        return self._finish(module, trainer, recorder)

    def _finish(
        self, module: PhasedModule, trainer: L.Trainer, recorder: Recorder
    ) -> dict[str, Any]:
        """Export the teacher, write the results and the report."""
        folder = self.folder
        self._export(module)
        if not trainer.is_global_zero:
            return {}
        results = {
            "run": str(folder.root),
            "model": str(folder.model),
            "step": trainer.global_step,
            **{k: v for k, v in recorder.latest.items() if k.startswith("loss/")},
            "images_per_s": recorder.pace.images_per_s,
        }
        folder.write_facts({**folder.read_facts(), "results": results})
        self.log.say(f"Done: {trainer.global_step} steps. The model is in {folder.model}.")
        return {**results, **self._report()}

    def _done_already(self, done: int) -> dict[str, Any]:
        self.log.say(f"All {done} steps are done already; the model is exported again.")
        if self.rank > 0:
            return {}
        exported = self._export_again()
        facts = self.folder.read_facts()
        if "results" not in facts:  # it died after its last step, before it could say so
            self.folder.write_facts({**facts, "results": exported})
        return {**exported, **self._report()}

    def _report(self) -> dict[str, str]:
        """Write the report; the run is finished and saved whether it can be written or not."""
        from geodino.runs.report import write_report  # plots are loaded when there is one to draw

        try:
            path = write_report(self.folder, device=self.processes.device)
        except GeodinoError as error:
            self.log.say(
                f"The model is saved, but the report could not be written: {error} "
                f"`geodino report {self.folder.root}` writes it once that is mended."
            )
            return {}
        self.log.say(f"The report is {path}.")
        return {"report": str(path)}

    def _recorder(self) -> Recorder:
        config, prepared = self.prepared.config, self.prepared
        return Recorder(
            self.folder,
            config,
            pace=Pace(wait_s=lambda: sum(feed.wait_s() for feed in self._feeds)),
            identity=self._identity(),
            health=build_health(config, prepared.contract, prepared.index, sides=self._sides()),
            watch=build_watch(config),
            on_phase_end=self._end_phase,
            on_turn=self._note_turn,
        )

    def _end_phase(self, module: PhasedModule, name: str) -> None:
        """Refresh the exported model at the end of a phase that another one follows."""
        self._export(module)
        self.log.say(f"The {name} phase is done; its model is in {self.folder.model}.")

    def _note_turn(self, step: int, reason: str) -> None:
        """Write down why the Gram phase begins."""
        if self.rank == 0:
            facts = self.folder.read_facts()
            derived = {**facts["derived"], "phases.gram.start": {"value": step, "reason": reason}}
            self.folder.write_facts({**facts, "derived": derived})
        self.log.say(f"The Gram phase begins after step {step}: {reason}.")

    def _identity(self) -> Mapping[str, str]:
        prepared = self.prepared
        return {"recipe": prepared.config.digest(), "data": prepared.fingerprint}

    def _check_identity(self, path: Path) -> tuple[int, list[int]]:
        """Return the step a checkpoint stands at, and the steps at which its phases end.

        Raises:
            CheckpointError: it is damaged, or belongs to another recipe or other tiles.
        """
        state = read_rest(path)
        for name, expected in self._identity().items():
            if state["geodino"].get(name) != expected:
                raise CheckpointError(
                    f"{path} is a checkpoint of another {name}: it cannot be resumed in this run "
                    "folder. Put the run's own checkpoint back, or start a new run."
                )
        return int(state["global_step"]), list(state["geodino_course"]["ends"])

    def _feed(self, steps: PhaseSteps, trainer: L.Trainer) -> Feed:
        """Open the batches of a phase for this process."""
        config, prepared = self.prepared.config, self.prepared
        index = prepared.index

        def on_bad(tile: int, reason: str) -> None:
            self.log.say(f"Tile {index.tiles[tile].path} {REPLACED} {reason}")

        order = build_order(
            config,
            index,
            seed=config.train.seed,
            batch=whole_batch(config),
            chip=resolved_chip(config, steps.config),
            steps=steps,
        )
        feed = Feed(
            config,
            prepared.contract,
            index,
            order=order,
            loader=loader_config(
                config, far=index.is_far, pin_memory=self.processes.device.type == "cuda"
            ),
            rank=trainer.global_rank,
            world=trainer.world_size,
            plan_of=self._plans(steps),
            span=steps.span,
            companions=build_companions(config, index),
            on_bad=on_bad,
        )
        self._feeds.append(feed)
        return feed


@dataclass(kw_only=True, slots=True)
class Pretraining(Training):
    """One process's part in pretraining."""

    prepared: Prepared

    def _module(self, course: Course, *, is_begun: bool) -> PretrainModule:
        """Build student, teachers and objectives."""
        config, folder = self.prepared.config, self.folder
        return build_module(
            config,
            self.prepared.contract,
            course,
            shard_on=self.processes.device if self._strategy() == "fsdp" else None,
            begin=None if is_begun else (lambda student: load_start(config, student, folder)),
        )

    def _export(self, module: PhasedModule) -> None:
        """Write the teacher as the run's model."""
        if not isinstance(module, PretrainModule):
            raise TypeError(f"not a module of pretraining: {type(module).__name__}")
        teacher = whole_network(module.teacher, self.prepared.config, self.prepared.contract)
        if self.rank > 0:
            return
        save_network(
            teacher,
            self.folder.model,
            config=self.prepared.config,
            contract=self.prepared.contract,
            folder=self.folder,
        )

    def _export_again(self) -> dict[str, Any]:
        """Write the teacher of the last checkpoint."""
        return export_run(self.folder.root)
