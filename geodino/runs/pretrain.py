"""``geodino pretrain``: prepare or take up a run, train it, export its model."""

import json
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodino.data.index import load_index, save_index
from geodino.data.parallel import thread_count
from geodino.data.sources.find import absolute
from geodino.errors import RunError
from geodino.files import write_text
from geodino.geo.contract import InputContract
from geodino.runs.card import RunCard, run_card
from geodino.runs.device import choose_device
from geodino.runs.init import model_name, record_start
from geodino.runs.prepare import Prepared, PreparedTraining, check_groups, prepare
from geodino.runs.processes import Processes, parse_wanted, this_rank
from geodino.runs.recipe import differences, dump, load_recorded
from geodino.runs.record import RunFolder, RunLog, environment
from geodino.runs.train import Pretraining, Training

_WAIT_FOR_RANK_ZERO_S = 3600.0


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingJob(ABC):
    """What a command that trains was asked, and how it goes about it."""

    tiles: str
    out: Path
    recipe: str | None = None
    overrides: tuple[str, ...] = ()
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
        return (*self.overrides, *self.own_settings(), *seed, *strict)

    def own_settings(self) -> tuple[str, ...]:
        """Return the overrides that options of the one command stand for."""
        return ()

    def processes(self) -> Processes:
        """Return how many processes there are, and on which devices."""
        return Processes(device=choose_device(self.device), devices=self.devices)

    @abstractmethod
    def prepare(
        self, processes: Processes | None, *, like: PreparedTraining | None = None
    ) -> PreparedTraining:
        """Settle everything; ``like`` a recorded run, only the recipe is read anew."""

    @abstractmethod
    def read(self, folder: RunFolder) -> PreparedTraining:
        """Read what a run folder says the run is."""

    def begin(self, folder: RunFolder, prepared: PreparedTraining) -> dict[str, Any]:
        """Write what else a new run begins with; return what run.json says of it."""
        return {}

    @abstractmethod
    def card(self, prepared: PreparedTraining, processes: Processes) -> RunCard:
        """Describe the run before it starts."""

    @abstractmethod
    def training(self, folder: RunFolder, prepared: PreparedTraining, log: RunLog) -> Training:
        """Return this process's part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PretrainJob(TrainingJob):
    """What ``geodino pretrain`` was asked."""

    init: str | None = None
    """MODEL whose weights the run begins with."""

    nodes: int = 1
    """Machines."""

    strategy: str = "auto"
    """auto, ddp or fsdp."""

    def own_settings(self) -> tuple[str, ...]:
        """The override that ``init`` stands for."""
        return () if self.init is None else (f"init.model={json.dumps(model_name(self.init))}",)

    def processes(self) -> Processes:
        """Return how many processes there are, on how many machines, and how they share."""
        return Processes(
            device=choose_device(self.device),
            devices=self.devices,
            nodes=self.nodes,
            wanted=parse_wanted(self.strategy),
        )

    def prepare(
        self, processes: Processes | None, *, like: PreparedTraining | None = None
    ) -> Prepared:
        """Look at the tiles and settle the recipe."""
        return prepare(
            self.tiles,
            self.recipe,
            self.settings,
            processes=processes,
            like=None if like is None else _of_pretraining(like),
        )

    def read(self, folder: RunFolder) -> Prepared:
        """Read recipe, tiles and contract."""
        config = load_recorded(folder.recipe)
        return Prepared(config=config, **recorded(folder))

    def begin(self, folder: RunFolder, prepared: PreparedTraining) -> dict[str, Any]:
        """Write the initial weights, if not random ones."""
        start = _of_pretraining(prepared)
        return record_start(folder, start.config, start.contract, start.start)

    def card(self, prepared: PreparedTraining, processes: Processes) -> RunCard:
        """Say what will be pretrained."""
        return run_card(_of_pretraining(prepared), processes=processes, out=self.out)

    def training(self, folder: RunFolder, prepared: PreparedTraining, log: RunLog) -> Pretraining:
        """Return this process's part."""
        return Pretraining(
            folder=folder,
            prepared=_of_pretraining(prepared),
            processes=self.processes(),
            rank=this_rank(self.devices),
            log=log,
            quiet=self.quiet,
        )


def _of_pretraining(prepared: PreparedTraining) -> Prepared:
    if not isinstance(prepared, Prepared):
        raise TypeError(f"not prepared for pretraining: {type(prepared).__name__}")
    return prepared


def pretrain(job: PretrainJob) -> dict[str, Any]:
    """Run the job; see the command's help.

    Returns:
        The run folder, the model folder, the steps done, and the last metrics.

    Raises:
        GeodinoError: any mistake the user can mend; nothing that was there before is lost.
    """
    return carry_out(job)


def carry_out(job: TrainingJob) -> dict[str, Any]:
    """Prepare or take up a run, announce it, train it.

    Raises:
        GeodinoError: any mistake the user can mend; nothing that was there before is lost.
    """
    processes = job.processes()
    folder = RunFolder(job.out)
    if this_rank(job.devices) > 0:
        if job.dry_run:
            return {}  # the first process says it
        _wait_for(folder)
        prepared = job.read(folder)
        if job.resume:
            check_groups(prepared.config, processes.world, fixed=True)
        return job.training(folder, prepared, RunLog(None, quiet=True)).run(resume=job.resume)
    if job.resume:
        folder.require()
        prepared = _resumed(job, folder)
        check_groups(prepared.config, processes.world, fixed=True)
        check_groups(prepared.config, processes.world, fixed=True)
    else:
        if folder.is_used():
            folder.claim()  # says why not
        prepared = job.prepare(processes)
    card = job.card(prepared, processes)
    if job.dry_run:
        RunLog(None, quiet=job.quiet).say(card.text)
        return card.facts
    if not job.resume:
        _record(job, folder, prepared)
    log = RunLog(folder.log, quiet=job.quiet)
    try:
        log.say(card.text)
        return job.training(folder, prepared, log).run(resume=job.resume)
    finally:
        log.close()


def _record(job: TrainingJob, folder: RunFolder, prepared: PreparedTraining) -> None:
    """Write what the run is, before its first step; run.json last, as the mark that all is there."""
    folder.claim()
    folder.write_recipe(dump(prepared.config))
    save_index(prepared.index, folder.tiles)
    write_text(folder.contract, prepared.contract.to_json() + "\n")
    begun = job.begin(folder, prepared)
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


def _resumed(job: TrainingJob, folder: RunFolder) -> PreparedTraining:
    """Read what the run is, and refuse to go on as something else."""
    prepared = job.read(folder)
    if absolute(job.tiles) != prepared.source:
        raise RunError(
            f"{folder.root} was started with --tiles {prepared.source}, not {job.tiles}: resume it "
            "with the tiles it began with, or start a new run in another --out."
        )
    if job.recipe is not None or job.settings:
        asked = job.prepare(None, like=prepared)
        changed = differences(prepared.config, asked.config)
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


def recorded(folder: RunFolder) -> dict[str, Any]:
    """Return what a run folder says beside its recipe, by the fields of what is prepared."""
    facts = folder.read_facts()
    return {
        "index": load_index(folder.tiles),
        "contract": InputContract.from_json(
            folder.contract.read_text(encoding="utf-8"), source=folder.contract
        ),
        "source": facts["source"],
        "fingerprint": facts["data"]["fingerprint"],
        "derived": facts["derived"],
    }


def _wait_for(folder: RunFolder) -> None:
    """Wait until rank zero has prepared the run."""
    until = time.monotonic() + _WAIT_FOR_RANK_ZERO_S
    while not folder.facts.is_file():
        if time.monotonic() > until:
            raise RunError(f"{folder.facts} did not appear: the first process has not prepared it.")
        time.sleep(0.2)
