"""``geodino pretrain``: prepare or take up a run, train it, export its model."""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodino.data.index import load_index, save_index
from geodino.data.parallel import thread_count
from geodino.data.sources.find import absolute
from geodino.errors import RunError
from geodino.files import write_text
from geodino.geo.contract import InputContract
from geodino.runs.card import run_card
from geodino.runs.device import choose_device
from geodino.runs.init import model_name, record_start
from geodino.runs.prepare import Prepared, check_groups, prepare
from geodino.runs.processes import Processes, parse_wanted, this_rank
from geodino.runs.recipe import RunConfig, differences, dump, load_recorded
from geodino.runs.record import RunFolder, RunLog, environment
from geodino.runs.train import Training

_WAIT_FOR_RANK_ZERO_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainJob:
    """What ``geodino pretrain`` was asked."""

    tiles: str
    out: Path
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    init: str | None = None
    seed: int | None = None
    device: str = "auto"
    devices: int = 1
    nodes: int = 1
    strategy: str = "auto"
    resume: bool = False
    strict: bool = False
    dry_run: bool = False
    quiet: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """All overrides, those of own options included."""
        seed = () if self.seed is None else (f"train.seed={self.seed}",)
        strict = ("data.strict=true",) if self.strict else ()
        init = () if self.init is None else (f"init.model={json.dumps(model_name(self.init))}",)
        return (*self.overrides, *init, *seed, *strict)


def pretrain(job: PretrainJob) -> dict[str, Any]:
    """Run the job; see the command's help.

    Returns:
        The run folder, the model folder, the steps done, and the last metrics.

    Raises:
        GeodinoError: any mistake the user can mend; nothing that was there before is lost.
    """
    processes = _processes(job)
    folder = RunFolder(job.out)
    if this_rank(job.devices) > 0:
        if job.dry_run:
            return {}  # the first process says it
        prepared = _taken_over(folder)
        if job.resume:
            check_groups(prepared.config, processes.world, fixed=True)
        return _training(job, folder, prepared, RunLog(None, quiet=True)).run(resume=job.resume)
    if job.resume:
        folder.require()
        prepared = _resumed(job, folder)
        check_groups(prepared.config, processes.world, fixed=True)
    else:
        if folder.is_used():
            folder.claim()  # says why not
        prepared = prepare(job.tiles, job.recipe, job.settings, processes=processes)
    card = run_card(prepared, processes=processes, out=job.out)
    if job.dry_run:
        RunLog(None, quiet=job.quiet).say(card.text)
        return card.facts
    if not job.resume:
        _record(folder, prepared)
    log = RunLog(folder.log, quiet=job.quiet)
    try:
        log.say(card.text)
        return _training(job, folder, prepared, log).run(resume=job.resume)
    finally:
        log.close()


def _record(folder: RunFolder, prepared: Prepared) -> None:
    """Write what the run is, before its first step; run.json last, as the mark that all is there."""
    folder.claim()
    folder.write_recipe(dump(prepared.config))
    save_index(prepared.index, folder.tiles)
    write_text(folder.contract, prepared.contract.to_json() + "\n")
    begun = record_start(folder, prepared.config, prepared.contract, prepared.start)
    folder.write_facts(
        {
            **begun,
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


def _processes(job: PretrainJob) -> Processes:
    return Processes(
        device=choose_device(job.device),
        devices=job.devices,
        nodes=job.nodes,
        wanted=parse_wanted(job.strategy),
    )


def _training(job: PretrainJob, folder: RunFolder, prepared: Prepared, log: RunLog) -> Training:
    return Training(
        folder=folder,
        prepared=prepared,
        processes=_processes(job),
        rank=this_rank(job.devices),
        log=log,
        quiet=job.quiet,
    )
