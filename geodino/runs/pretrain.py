"""``geodino pretrain``: prepare or take up a run, train it, export its model."""

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch

from geodino.data.index import load_index, save_index
from geodino.data.parallel import thread_count
from geodino.data.sources.find import absolute
from geodino.errors import CheckpointError, GeodinoError, RunError
from geodino.files import write_text
from geodino.geo.contract import InputContract
from geodino.pretrain.module import PretrainData, PretrainModule
from geodino.runs.build import (
    Feed,
    build_companions,
    build_health,
    build_module,
    build_order,
    build_planner,
    compile_blocks,
    loader_config,
    whole_batch,
)
from geodino.runs.callbacks import Pace, ProgressLine, Recorder, Signals, StopAsked
from geodino.runs.card import run_card
from geodino.runs.device import choose_device, keep_freed_memory
from geodino.runs.export import export_run, read_checkpoint, save_network
from geodino.runs.prepare import Prepared, prepare
from geodino.runs.recipe import RunConfig, differences, dump, load_recorded
from geodino.runs.record import REPLACED, RunFolder, RunLog, environment
from geodino.runs.snapshots import Snapshots
from geodino.runs.trainer import build_trainer, quiet_lightning

_WAIT_FOR_RANK_ZERO_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainJob:
    """What ``geodino pretrain`` was asked."""

    tiles: str
    out: Path
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    seed: int | None = None
    device: str = "auto"
    devices: int = 1
    resume: bool = False
    strict: bool = False
    dry_run: bool = False
    quiet: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """All overrides, those of own options included."""
        seed = () if self.seed is None else (f"train.seed={self.seed}",)
        strict = ("data.strict=true",) if self.strict else ()
        return (*self.overrides, *seed, *strict)


def pretrain(job: PretrainJob) -> dict[str, Any]:
    """Run the job; see the command's help.

    Returns:
        The run folder, the model folder, the steps done, and the last metrics.

    Raises:
        GeodinoError: any mistake the user can mend; nothing that was there before is lost.
    """
    device = choose_device(job.device)
    folder = RunFolder(job.out)
    if _rank() > 0:
        prepared = _taken_over(folder)
        return _train(job, folder, prepared, device, RunLog(None, quiet=True))
    if job.resume:
        folder.require()
        prepared = _resumed(job, folder)
    else:
        if folder.is_used():
            folder.claim()  # says why not
        prepared = prepare(job.tiles, job.recipe, job.settings, device=device, devices=job.devices)
    card = run_card(prepared, device=device, devices=job.devices, out=job.out)
    if job.dry_run:
        RunLog(None, quiet=job.quiet).say(card.text)
        return card.facts
    if not job.resume:
        _record(folder, prepared)
    log = RunLog(folder.log, quiet=job.quiet)
    try:
        log.say(card.text)
        return _train(job, folder, prepared, device, log)
    finally:
        log.close()


def _record(folder: RunFolder, prepared: Prepared) -> None:
    """Write what the run is, before its first step; run.json last, as the mark that all is there."""
    folder.claim()
    folder.write_recipe(dump(prepared.config))
    save_index(prepared.index, folder.tiles)
    write_text(folder.contract, prepared.contract.to_json() + "\n")
    folder.write_facts(
        {
            **environment(),
            "source": prepared.source,
            "data": prepared.data_facts(),
            "seed": prepared.config.train.seed,
            "derived": prepared.derived,
        }
    )


def _resumed(job: PretrainJob, folder: RunFolder) -> Prepared:
    """Read what the run is, and refuse to go on as something else."""
    config = load_recorded(folder.recipe)
    prepared = _from_folder(folder, config)
    if absolute(job.tiles) != prepared.source:
        raise RunError(
            f"{folder.root} was started with --tiles {prepared.source}, not {job.tiles}: resume it "
            "with the tiles it began with, or start a new run in another --out."
        )
    if job.recipe is not None or job.settings:
        asked = prepare(job.tiles, job.recipe, job.settings, like=prepared)
        changed = differences(config, asked.config)
        if changed:
            raise RunError(
                f"{folder.root} was started with another recipe; --resume goes on exactly as it "
                f"began. Different: {'; '.join(changed[:8])}. Leave out --recipe and --set, or "
                "start a new run in another --out."
            )
    found = prepared.index.fingerprint(threads=thread_count("auto", far=prepared.index.is_far))
    if found != prepared.fingerprint:
        raise RunError(
            f"The tiles of {folder.root} changed since it was started (a file was rewritten): "
            "restore them, or start a new run in another --out."
        )
    return prepared


def _from_folder(folder: RunFolder, config: RunConfig) -> Prepared:
    index = load_index(folder.tiles)
    contract = InputContract.from_json(
        folder.contract.read_text(encoding="utf-8"), source=folder.contract
    )
    facts = folder.read_facts()
    return Prepared(
        config=config,
        index=index,
        contract=contract,
        source=facts["source"],
        fingerprint=facts["data"]["fingerprint"],
        derived=facts["derived"],
    )


def _taken_over(folder: RunFolder) -> Prepared:
    """What rank zero prepared, once it is there."""
    until = time.monotonic() + _WAIT_FOR_RANK_ZERO_S
    while not folder.facts.is_file():
        if time.monotonic() > until:
            raise RunError(f"{folder.facts} did not appear: the first process has not prepared it.")
        time.sleep(0.2)
    return _from_folder(folder, load_recorded(folder.recipe))


def _rank() -> int:
    """This process's number before the process group exists; 0 in a single process."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def _train(
    job: PretrainJob, folder: RunFolder, prepared: Prepared, device: torch.device, log: RunLog
) -> dict[str, Any]:
    """Train to the end, or until a signal; export the model."""
    config = prepared.config
    phase = config.phases.pretrain
    checkpoint = folder.last_checkpoint() if job.resume else None
    identity = {"recipe": config.digest(), "data": prepared.fingerprint}
    done = 0 if checkpoint is None else _check_identity(checkpoint, identity)
    if done >= phase.steps:
        log.say(f"All {done} steps are done already; the model is exported again.")
        if _rank() > 0:
            return {}
        exported = export_run(folder.root)
        facts = folder.read_facts()
        if "results" not in facts:  # it died after its last step, before it could say so
            folder.write_facts({**facts, "results": exported})
        return {**exported, **_report(folder, device, log)}
    if done:
        log.say(f"Going on from step {done} of {phase.steps} ({checkpoint}).")
    if _rank() == 0:
        folder.keep_metrics_before(done)
        Snapshots(folder.probes, every=config.health.every).forget_after(done)
    if device.type == "cpu":
        keep_freed_memory()
    module = build_module(config, prepared.contract)
    wanted = config.train.compile
    if wanted == "on" or (wanted == "auto" and device.type == "cuda"):
        compile_blocks(module)
    health = build_health(config, prepared.contract, prepared.index)
    feeds: list[Feed] = []

    def batches_from(step: int) -> Any:
        feed = _feed(config, prepared, trainer, log, device)
        feeds.append(feed)
        return feed.batches_from(step)

    pace = Pace(batch=whole_batch(config), wait_s=lambda: feeds[-1].wait_s() if feeds else 0.0)
    recorder = Recorder(
        folder, config, phase="pretrain", pace=pace, identity=identity, health=health
    )
    progress = ProgressLine(recorder, log, steps=phase.steps, quiet=job.quiet)
    callbacks: list[L.Callback] = [recorder, progress, Signals(recorder, log)]
    with quiet_lightning():
        trainer = build_trainer(config, device, job.devices, callbacks=callbacks)
    try:
        with quiet_lightning():
            trainer.fit(
                module,
                datamodule=PretrainData(batches_from),
                ckpt_path=checkpoint,
                weights_only=True,
            )
    except StopAsked as stop:
        log.say(
            f"Stopped by {stop} at step {trainer.global_step} of {phase.steps}; the state is "
            f"saved. The same command with --resume goes on."
        )
        return {"run": str(folder.root), "step": trainer.global_step, "stopped": str(stop)}
    finally:
        for feed in feeds:
            feed.close()
    if not trainer.is_global_zero:
        return {}
    return _finish(folder, prepared, module, trainer, recorder, log, device)


def _finish(
    folder: RunFolder,
    prepared: Prepared,
    module: PretrainModule,
    trainer: L.Trainer,
    recorder: Recorder,
    log: RunLog,
    device: torch.device,
) -> dict[str, Any]:
    """Export the teacher, write the results and the report."""
    save_network(
        module.teacher.cpu(),
        folder.model,
        config=prepared.config,
        contract=prepared.contract,
        folder=folder,
    )
    results = {
        "run": str(folder.root),
        "model": str(folder.model),
        "step": trainer.global_step,
        **{k: v for k, v in recorder.latest.items() if k.startswith("loss/")},
        "images_per_s": recorder.pace.images_per_s,
    }
    folder.write_facts({**folder.read_facts(), "results": results})
    log.say(f"Done: {trainer.global_step} steps. The model is in {folder.model}.")
    return {**results, **_report(folder, device, log)}


def _report(folder: RunFolder, device: torch.device, log: RunLog) -> dict[str, str]:
    """Write the report; the run is finished and saved whether it can be written or not."""
    from geodino.runs.report import write_report  # plots are loaded when there is one to draw

    try:
        path = write_report(folder, device=device)
    except GeodinoError as error:
        log.say(
            f"The model is saved, but the report could not be written: {error} "
            f"`geodino report {folder.root}` writes it once that is mended."
        )
        return {}
    log.say(f"The report is {path}.")
    return {"report": str(path)}


def _check_identity(path: Path, identity: dict[str, str]) -> int:
    """Return the step a checkpoint stands at.

    Raises:
        CheckpointError: it is damaged, or belongs to another recipe or other tiles.
    """
    state = read_checkpoint(path)
    for name, expected in identity.items():
        if state["geodino"].get(name) != expected:
            raise CheckpointError(
                f"{path} is a checkpoint of another {name}: it cannot be resumed in this run "
                "folder. Put the run's own checkpoint back, or start a new run."
            )
    return int(state["global_step"])


def _feed(
    config: RunConfig,
    prepared: Prepared,
    trainer: L.Trainer,
    log: RunLog,
    device: torch.device,
) -> Feed:
    def on_bad(tile: int, reason: str) -> None:
        log.say(f"Tile {prepared.index.tiles[tile].path} {REPLACED} {reason}")

    return Feed(
        config,
        prepared.contract,
        prepared.index,
        order=build_order(
            config, prepared.index, seed=config.train.seed, batch=whole_batch(config)
        ),
        loader=loader_config(config, far=prepared.index.is_far, pin_memory=device.type == "cuda"),
        rank=trainer.global_rank,
        world=trainer.world_size,
        plan_of=build_planner(config, prepared.contract),
        companions=build_companions(config, prepared.index),
        on_bad=on_bad,
    )
