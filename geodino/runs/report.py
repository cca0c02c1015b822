"""``geodino report``: what a run folder holds, on one page that needs nothing else."""

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geodino.data.index import load_index
from geodino.data.tiles import TileIndex
from geodino.errors import RunError
from geodino.files import read_lines, write_text
from geodino.geo.contract import InputContract
from geodino.models.build import assemble
from geodino.report.alarms import training_alarms
from geodino.report.content import Evaluation, Head, Pairs, Repeat, Report, Training
from geodino.report.curves import chips_seen, first_and_last, seconds_of_steps, training_of
from geodino.report.evaluation import evaluation_of
from geodino.report.page import render
from geodino.report.words import count, duration, first_of, interval, moment, number
from geodino.runs.build import whole_batch
from geodino.runs.device import choose_device
from geodino.runs.evaluate.run import sets_in
from geodino.runs.finetune.config import LabelledConfig
from geodino.runs.finetune.finished import report_finished
from geodino.runs.recipe import (
    DistillConfig,
    TrainingConfig,
    load_recorded_any,
    load_recorded_training,
)
from geodino.runs.record import REPLACED, RunFolder
from geodino.runs.repeat import repeat_of
from geodino.runs.report_data import collect_data
from geodino.runs.report_features import collect_features


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """A run folder, read."""

    folder: RunFolder
    config: TrainingConfig
    index: TileIndex
    contract: InputContract
    facts: dict[str, Any]
    rows: list[dict[str, Any]]
    """Lines of metrics.jsonl."""

    @property
    def steps(self) -> int:
        """Steps of the whole run; fewer than the recipe's where health brought a phase forward."""
        return int(self.facts.get("results", {}).get("step", self.config.phases.steps))

    @property
    def steps_done(self) -> int:
        """Steps that are on record."""
        done = [int(row["step"]) + 1 for row in self.rows if "loss/total" in row]
        return int(self.facts.get("results", {}).get("step", max(done, default=0)))


def report(run: Path, *, out: Path | None, device: str) -> dict[str, Any]:
    """Write the report of a run, finished or not; return where it lies.

    Raises:
        GeodinoError: there is no run, or one of its files is damaged.
    """
    folder = RunFolder(run)
    config = load_recorded_any(folder.recipe) if folder.recipe.is_file() else None
    if isinstance(config, LabelledConfig):
        path = report_finished(folder, config, device=choose_device(device), out=out)
    else:
        path = write_report(folder, device=choose_device(device), out=out)
    return {"report": str(path), "bytes": path.stat().st_size}


def write_report(folder: RunFolder, *, device: torch.device, out: Path | None = None) -> Path:
    """Write ``report.html`` of a run; the same folder and device give the same bytes.

    Args:
        folder: the run.
        device: where features of the tiles are computed for the search of neighbours.
        out: another place for the page.

    Raises:
        GeodinoError: there is no run, or one of its files is damaged. Tiles that are gone are no
            error: the page says which of its parts are missing for that.
    """
    run = read_run(folder)
    training = training_of(run.rows)
    evaluations = tuple(_evaluations(folder.root))
    page = Report(
        head=_head(run, training, evaluations),
        data=collect_data(run.folder, run.config, run.index, run.contract, run.facts),
        training=training,
        features=collect_features(folder, run.config, run.index, run.contract, device=device),
        evaluations=evaluations,
        evaluate_with=_command(
            "evaluate", "--model", str(folder.root), "--suite", "FOLDER", "--out",
            str(folder.root / "evaluation"),
        ),
        repeat=_repeat(run),
    )  # fmt: skip
    path = folder.report if out is None else out
    write_text(path, render(page))
    return path


def read_run(folder: RunFolder) -> Recorded:
    """Read what a run folder says.

    Raises:
        RunError: it is no run folder, or it is damaged.
    """
    wanted = (folder.recipe, folder.tiles, folder.contract, folder.facts)
    missing = [path.name for path in wanted if not path.is_file()]
    if missing:
        raise RunError(
            f"{folder.root} is no run folder ({', '.join(missing)} missing). Name the folder that "
            "was given to `geodino pretrain` as --out."
        )
    return Recorded(
        folder=folder,
        config=load_recorded_training(folder.recipe),
        index=load_index(folder.tiles),
        contract=InputContract.from_json(
            folder.contract.read_text(encoding="utf-8"), source=folder.contract
        ),
        facts=folder.read_facts(),
        rows=_rows(folder.metrics),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    try:
        return read_lines(path)
    except json.JSONDecodeError as error:
        raise RunError(
            f"{path} is damaged ({error}). Remove the broken line, or the file to have a report "
            "without curves."
        ) from error


def _head(run: Recorded, training: Training, evaluations: tuple[Evaluation, ...]) -> Head:
    config, index, steps = run.config, run.index, run.steps
    batch, done = whole_batch(config), run.steps_done
    parameters = _parameters(run)
    seconds = seconds_of_steps(run.rows, batch=batch)
    chips = chips_seen(run.rows, batch=batch)
    losses = [c for c in training.curves if c.name == "loss/total"]
    ends = first_and_last(losses[0]) if losses else None
    times = [row["time"] for row in run.rows]
    gsd = "" if index.gsd_m is None else f" at {_gsd(index.gsd_m)}"
    what = (
        f"{_learners(config)} ({number(parameters / 1e6)} M parameters) learnt without labels from "
        f"{count(len(index.tiles), 'tile')} of {count(len(index.bands), 'band')}, "
        f"{index.dtype}{gsd}. Recipe: {config.description}"
    )
    summary = [what]
    if times:
        summary.append(
            f"{done:,} of {steps:,} steps, {count(chips, 'chip')}; "
            f"{interval(moment(min(times)), moment(max(times)))}, {duration(seconds)} spent in steps."
        )
    if ends is not None:
        summary.append(
            f"The loss went from {number(ends[0])} (mean of the first tenth of the steps) to "
            f"{number(ends[1])} (last tenth). {_best_score(evaluations)}".rstrip()
        )
    pace = chips / seconds if seconds else None
    figures = [
        ("tiles", f"{len(index.tiles):,}"),
        ("pixels", f"{number(index.pixels / 1e6)} M"),
        ("steps", f"{done:,}"),
        ("chips seen", f"{chips:,}"),
        *([("time in steps", duration(seconds))] if seconds else []),
        *([("chips a second", number(pace))] if pace else []),
        *([("loss at the end", number(ends[1]))] if ends else []),
        ("parameters", f"{number(parameters / 1e6)} M"),
    ]
    return Head(
        name=run.folder.root.resolve().name,
        summary=tuple(summary),
        alarms=tuple(_alarms(run, training, evaluations)),
        figures=tuple(figures),
    )


def _alarms(run: Recorded, training: Training, evaluations: tuple[Evaluation, ...]) -> list[str]:
    steps, alarms = run.steps, []
    if "results" not in run.facts:
        alarms.append(
            f"The run has not finished: {run.steps_done:,} of {steps:,} steps are on record. "
            "The same command with --resume goes on."
        )
    if run.index.bad:
        reasons = first_of([reason for _, reason in run.index.bad])
        alarms.append(f"{count(len(run.index.bad), 'file')} could not be used: {reasons}")
    replaced = _replaced(run.folder.log)
    if replaced:
        alarms.append(
            f"{count(len(replaced), 'tile')} could not be read while training and gave way to "
            f"others: {first_of(replaced)}"
        )
    alarms += training_alarms(training)
    for found in evaluations:
        if found.alarms:
            more = f" ({len(found.alarms) - 1} more under Probes)" if len(found.alarms) > 1 else ""
            alarms.append(f"{found.title}, {found.alarms[0]}{more}")
    commit = run.facts.get("commit")
    if commit and commit.endswith("-dirty"):
        alarms.append(f"The code was changed after commit {commit.removesuffix('-dirty')}.")
    return alarms


def _replaced(log: Path) -> list[str]:
    """The tiles that the log says were replaced, each once, with the reason."""
    if not log.is_file():
        return []
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return list(
        dict.fromkeys(line.split(REPLACED, 1)[1].strip() for line in lines if REPLACED in line)
    )


def _parameters(run: Recorded) -> int:
    config = run.config
    models = config.students.values() if isinstance(config, DistillConfig) else [config.model]
    backbones = [assemble(m, mean=run.contract.mean, std=run.contract.std) for m in models]
    return sum(p.numel() for backbone in backbones for p in backbone.trunk.parameters())


def _learners(config: TrainingConfig) -> str:
    if not isinstance(config, DistillConfig) or config.teacher is None:
        return f"{config.model.name} with patches of {config.model.stride} px"
    names = [f"{name} (patches of {m.stride} px)" for name, m in config.students.items()]
    return f"With {config.teacher.name} as their teacher, {', '.join(names)}"


def _best_score(evaluations: tuple[Evaluation, ...]) -> str:
    """The best probe of the first evaluation, never without the best of its floors."""
    for found in evaluations:
        ours = [score for score in found.scores if score.is_model]
        floors = [score for score in found.scores if not score.is_model]
        if ours and floors:
            best, floor = (max(scores, key=lambda s: s.value) for scores in (ours, floors))
            return (
                f"Best of {count(len(ours), 'probe')} on {found.title}: {found.metric} {best.value:.3f} "
                f"({best.method}, {best.features}); best floor {floor.value:.3f} "
                f"({floor.encoder}, {floor.method})."
            )
    return ""


def _evaluations(root: Path) -> list[Evaluation]:
    """Read what ``geodino evaluate`` wrote into folders of the run."""
    found = []
    for path, result in sets_in(root):
        folder = path.parents[2].relative_to(root).as_posix()
        found.append(evaluation_of(result, title=f"{result['set']['name']} ({folder})"))
    return found


def _repeat(run: Recorded) -> Repeat:
    facts, root = run.facts, run.folder.root
    machine = facts["machine"]
    seed_note = "everything random follows from it (train.seed)"
    found: Pairs = (
        ("tiles", facts["source"]),
        ("data fingerprint", facts["data"]["fingerprint"]),
        ("seed", f"{facts['seed']}: {seed_note}"),
        ("recipe digest", run.config.digest()),
        ("commit", facts["commit"] or "an installed package, not a checkout"),
        ("system", f"{machine['system']}, {machine['processor']}"),
        ("processors", f"{count(machine['threads'], 'thread')}"),
        ("GPUs", ", ".join(machine["gpus"]) or "none"),
        *(
            (key, f"{chosen['value']}, chosen because {chosen['reason']}")
            for key, chosen in facts["derived"].items()
        ),
    )
    return repeat_of(
        run.folder,
        facts,
        again=[
            *_job(run.config), "--tiles", facts["source"], "--recipe", str(root / "recipe.yaml"),
            "--out", "NEW_RUN",
        ],
        facts=found,
    )  # fmt: skip


def _job(config: TrainingConfig) -> list[str]:
    """The command that a recorded recipe belongs to, with whom it names."""
    if not isinstance(config, DistillConfig) or config.teacher is None:
        return ["pretrain"]
    return ["distill", "--teacher", config.teacher.model, "--students", ",".join(config.students)]


def _command(*words: str) -> str:
    return shlex.join(["geodino", *words])


def _gsd(gsd_m: tuple[float, float]) -> str:
    return f"{interval(number(gsd_m[0]), number(gsd_m[1]))} m"
