"""Training a prepared head to its end, or until a signal; then results, model and report."""

import math
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import DDPStrategy

from geodino.errors import CheckpointError, SourceError
from geodino.infer.heights import HeightPredictor
from geodino.models.canopy import CanopyModel, build_canopy
from geodino.runs.checkpoints import read_checkpoint
from geodino.runs.device import keep_freed_memory
from geodino.runs.finetune.prepare import PreparedFinetune
from geodino.runs.finetune.recorder import PHASE, FinetuneRecorder
from geodino.runs.networks import seeded_generator
from geodino.runs.processes import Processes
from geodino.runs.progress_line import ProgressLine
from geodino.runs.record import RunFolder, RunLog
from geodino.runs.signals import Signals, StopAsked
from geodino.runs.trainer import build_trainer, quiet_lightning
from geodino.tasks.canopy.areas import Area, drawn_areas, find_areas
from geodino.tasks.canopy.crops import CropFeed, Windows, find_windows
from geodino.tasks.canopy.evaluate import Chips, SiteSums, judged
from geodino.tasks.canopy.objective import CanopyObjective
from geodino.tasks.canopy.source import FootprintLabels
from geodino.tasks.module import CanopyData, CanopyModule


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What a prepared run is made of once its labels were looked at."""

    prepared: PreparedFinetune
    model: CanopyModel
    windows: Windows
    chips: Chips

    val: tuple[Area, ...]
    """All validation areas."""

    @property
    def crop(self) -> int:
        """Side of a crop, pixels."""
        return self.windows.crop


def look(prepared: PreparedFinetune) -> Scene:
    """Build the model, and look at the labels of all training and validation ground.

    Raises:
        SourceError: there are no labels on one of them.
        RecipeError: the head does not fit the backbone.
    """
    config = prepared.config
    model = build_canopy(
        prepared.opened.loaded.backbone,
        config.canopy,
        generator=seeded_generator(config.train.seed, "canopy head"),
        frozen=not config.optim.unfreeze,
    )
    if config.optim.unfreeze:
        model.backbone.requires_grad_(requires_grad=True)
    crop = -(-config.sampling.crop // model.multiple) * model.multiple
    windows = find_windows(prepared.source, config.sampling, crop=crop, threads=prepared.threads)
    val = find_areas(prepared.source, "val", threads=prepared.threads)
    if not val:
        raise SourceError(
            "There is no label on the ground for validation: declare other shares (split.shares), "
            "another seed of the split (split.seed), or name a file (--split)."
        )
    maps = config.maps
    chips = Chips.fitting(
        chip=crop if maps.chip == "auto" else maps.chip,
        overlap=None if maps.overlap == "auto" else maps.overlap,
        align=model.backbone.patch_size,
    )
    return Scene(prepared=prepared, model=model, windows=windows, chips=chips, val=val)


@dataclass(kw_only=True)
class Finetuning:
    """The training of one head."""

    folder: RunFolder
    scene: Scene
    device: torch.device
    log: RunLog
    quiet: bool

    def run(self, *, resume: bool) -> CanopyModule | str:
        """Train from the last checkpoint or the beginning.

        Returns:
            The module with its best weights, on the device; or the signal that stopped it.

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
                module.take_best()
                self.log.say(f"All {done} steps are done already; the results are made again.")
                return module.to(self.device)
            self.log.say(f"Going on from step {done} of {config.train.steps} ({checkpoint}).")
        self.folder.forget_leftovers()
        self.folder.keep_metrics_before(done)
        if self.device.type == "cpu":
            keep_freed_memory()
        with readers(self.scene) as threads:
            stopped = self._fit(module, checkpoint, threads)
        if stopped is not None:
            return stopped
        module.take_best()
        return module.to(self.device)

    def _fit(self, module: CanopyModule, checkpoint: Path | None, threads: Executor) -> str | None:
        prepared = self.scene.prepared
        config = prepared.config
        feed = CropFeed(
            prepared.source,
            self.scene.windows,
            config.sampling,
            seed=config.train.seed,
            batch=config.train.batch,
            threads=prepared.threads,
        )
        recorder = FinetuneRecorder(
            self.folder,
            config,
            log=self.log,
            identity=self._identity(),
            validate=lambda: validation(self.scene, module.model, threads),
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
        data = CanopyData(feed, steps=config.train.steps)
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

    def _module(self) -> CanopyModule:
        prepared = self.scene.prepared
        config, labels = prepared.config, prepared.source.labels
        objective = CanopyObjective(
            config.curriculum,
            config.train.steps,
            quantiles=config.canopy.quantiles,
            percentile=labels.index.percentile if isinstance(labels, FootprintLabels) else None,
        )
        return CanopyModule(
            self.scene.model, objective, optim=config.optim, steps=config.train.steps
        )

    def _identity(self) -> dict[str, str]:
        prepared = self.scene.prepared
        return {"recipe": prepared.config.digest(), "data": prepared.fingerprint}

    def _checked(self, path: Path) -> dict[str, Any]:
        state = read_checkpoint(path)
        for name, expected in self._identity().items():
            if state["geodino"].get(name) != expected:
                raise CheckpointError(
                    f"{path} is a checkpoint of another {name}: it cannot be resumed in this run "
                    "folder. Put the run's own checkpoint back, or start a new run."
                )
        return state


@contextmanager
def readers(scene: Scene) -> Iterator[Executor]:
    """Yield threads that read what maps are made of."""
    with ThreadPoolExecutor(scene.prepared.threads, thread_name_prefix="geodino-maps") as executor:
        yield executor


def validation(scene: Scene, model: CanopyModel, threads: Executor) -> dict[str, float]:
    """Return the scores of a model on some of the validation ground; it trains on afterwards.

    Raises:
        SourceError: no pixel of it has both a label and a valid image.
    """
    prepared = scene.prepared
    config = prepared.config
    areas = drawn_areas(scene.val, config.validation.areas, seed=config.train.seed)
    was_training = model.training
    sums = SiteSums(config.protocol)
    predictor = HeightPredictor(model, device=model.bins_m.device)
    for compared in judged(prepared.source, areas, "val", predictor, scene.chips, threads=threads):
        sums.add(compared)
    model.train(was_training)
    whole = sums.whole
    if whole is None:
        raise SourceError(
            "No pixel of the validation ground has both a label and a valid image: declare other "
            "shares (split.shares), another seed of the split (split.seed), or name a file "
            "(--split)."
        )
    return {
        name: value
        for name, value in whole.named().items()
        if not name.startswith("class/") and math.isfinite(value)
    }
