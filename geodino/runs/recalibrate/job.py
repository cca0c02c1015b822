"""A recalibration: prepare or take up a run, fit its curve, measure and export the model."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geodino.data.splits import NAMES
from geodino.errors import CheckpointError, RecipeError, SourceError
from geodino.io.raster import HandlePool
from geodino.runs.card import RunCard
from geodino.runs.finetune.canopy.export import label_facts
from geodino.runs.finetune.canopy.judge import Subject
from geodino.runs.finetune.canopy.results import Results, results_of
from geodino.runs.finetune.canopy.scene import validation_areas
from geodino.runs.finetune.canopy.words import in_words
from geodino.runs.finetune.finish import finished
from geodino.runs.finetune.job import check_resumed, record
from geodino.runs.finetune.request import FinetuneJob
from geodino.runs.predict.heights import HeightTask
from geodino.runs.recalibrate.export import export
from geodino.runs.recalibrate.fit import BeforeAndAfter, Learnt, composed, learn
from geodino.runs.recalibrate.prepare import PreparedRecalibration, prepare, read_prepared
from geodino.runs.record import RunFolder, RunLog
from geodino.runs.sources import Meeting
from geodino.tasks.canopy.areas import Area, find_areas
from geodino.tasks.chips import Chips


@dataclass(frozen=True, kw_only=True)
class Ground:
    """What a prepared recalibration is made of once its labels were looked at."""

    prepared: PreparedRecalibration
    task: HeightTask
    subject: Subject

    train: tuple[Area, ...]
    """All areas of the training ground."""


def recalibrate(job: FinetuneJob, folder: RunFolder, device: torch.device) -> dict[str, Any]:
    """Run the job; see the command's help.

    Returns:
        The run folder, the model folder, and the results.

    Raises:
        GeodinoError: any mistake the user can mend; nothing that was there before is lost.
    """
    if job.unfreeze:
        raise RecipeError(
            "--unfreeze: a recalibration trains no network. Leave it out, or choose a recipe that "
            "trains a head, such as canopy."
        )
    with HandlePool() as pool:
        if job.resume:
            prepared = read_prepared(folder, pool)
            check_resumed(job, folder, prepared)
        else:
            if folder.is_used():
                folder.claim()  # says why not
            prepared = prepare(job, pool)
        ground = look(prepared)
        card = _card(ground, device, job)
        if job.dry_run:
            RunLog(None, quiet=job.quiet).say(card.text)
            return card.facts
        if not job.resume:
            record(folder, prepared)
        log = RunLog(folder.log, quiet=job.quiet)
        try:
            log.say(card.text)
            return _carried_out(ground, folder, device, log)
        finally:
            log.close()


def _carried_out(
    ground: Ground, folder: RunFolder, device: torch.device, log: RunLog
) -> dict[str, Any]:
    prepared, task, subject = ground.prepared, ground.task, ground.subject
    with ThreadPoolExecutor(prepared.threads, "geodino-read") as threads:
        learnt = Learnt.load(folder.root)
        if learnt is None:
            log.say("Predicting the training and validation ground.")
            predictor = task.predictor(device, Meeting(precision="float32"))
            learnt = learn(subject, prepared.config, ground.train, predictor, threads)
            learnt.save(folder.root)
        said = learnt.words(prepared.config.recalibrate.centre)
        log.say(said)
        log.say("Measuring the heights before and after on all labelled areas.")
        curve = composed(learnt.curve, task)
        predictor = BeforeAndAfter(task, curve, device=device)
        results = results_of(subject, predictor, threads, effects=False)
    facts = {**results.facts, "recalibration": _facts(learnt, results, subject)}
    export(ground.prepared, task, curve, results, folder, chips=subject.chips, said=said)

    def draw() -> Path:
        from geodino.runs.recalibrate.report import write_report  # plots load late

        return write_report(prepared, learnt, results, folder)

    found = finished(folder, log, facts=facts, words=in_words(results), draw=draw)
    log.say(f"Done. The model is in {folder.model}.")
    return {"run": str(folder.root), "model": str(folder.model), **found}


def _facts(learnt: Learnt, results: Results, subject: Subject) -> dict[str, Any]:
    """What is said of the curve; how many of the reported labels lie where no label set it."""
    before = 1 + len(subject.model.config.quantiles)
    heights = np.concatenate([np.zeros(0), *(s.values[before] for s in results.values)])
    highest = learnt.curve.predicted_m[-1]
    beyond = float((heights > highest).mean()) if heights.size and highest > 0 else None
    return {
        "curve": learnt.curve.model_dump(mode="json"),
        "prior_sites": learnt.prior_sites,
        "errors_on_val_m": dict(learnt.errors_m),
        "share_beyond_highest_knot": beyond,
    }


def look(prepared: PreparedRecalibration) -> Ground:
    """Find the labels of training and validation ground.

    Raises:
        SourceError: there are none on one of them.
    """
    task = prepared.task
    if task is None:
        raise CheckpointError(f"{prepared.opened.name} holds a backbone and no head.")
    train = find_areas(prepared.source, "train", threads=prepared.threads)
    if not train:
        raise SourceError(
            "There is no label on the ground for training: declare other shares (split.shares), "
            "another seed of the split (split.seed), or name a file (--split)."
        )
    maps = prepared.config.maps
    chip = task.chip(None if maps.chip == "auto" else maps.chip)
    overlap = task.overlap(None if maps.overlap == "auto" else maps.overlap, chip=chip)
    subject = Subject(
        source=prepared.source,
        model=task.canopy.model,
        chips=Chips(chip=chip, overlap=overlap),
        val=validation_areas(prepared),
        config=prepared.config,
        seed=prepared.config.train.seed,
        threads=prepared.threads,
    )
    return Ground(prepared=prepared, task=task, subject=subject, train=train)


def _card(ground: Ground, device: torch.device, job: FinetuneJob) -> RunCard:
    """Describe a run before it starts."""
    prepared, task, subject = ground.prepared, ground.task, ground.subject
    config, source = prepared.config, prepared.source
    wanted = config.recalibrate
    index, labels = source.images, label_facts(prepared)
    sites = {name: len(source.split.sites(name)) for name in NAMES}
    gsd = "its own" if config.gsd_m is None else f"resampled to {config.gsd_m:g} m"
    lines = {
        "recipe": config.description,
        "model": f"{prepared.opened.name}, licence {task.canopy.license}; nothing of it is trained",
        "images": f"{len(source.labelled)} labelled of {len(index.tiles)}, {source.values}, GSD {gsd}",
        "labels": f"{labels['kind']}, metres; 99 % below {labels['p99_m']:.1f} m, up to "
        f"{labels['highest_m']:.1f} m",
        "ground": ", ".join(f"{n} sites for {name}" for name, n in sites.items()),
        "curve": f"{wanted.knots} knots at most, the {wanted.centre} of each bin; the model's own "
        f"heights worth {', '.join(f'{p:g}' for p in wanted.prior_sites)} sites, or left alone",
        "fitted on": f"{min(wanted.areas, len(ground.train))} of {len(ground.train)} areas, chosen "
        f"on {min(wanted.areas, len(subject.val))} of {len(subject.val)}",
        "maps": f"chips of {subject.chips.chip} px, overlap {subject.chips.overlap} px",
        "device": str(device),
        "out": str(job.out),
    }
    notes = [*prepared.notes]
    notes += [f"{key} = {d['value']}: {d['reason']}" for key, d in prepared.derived.items()]
    notes += [f"unusable: {reason}" for _, reason in index.bad[:5]]
    facts = {"sites": sites, "label_facts": labels, "recipe_values": config.model_dump(mode="json")}
    return RunCard.of(lines, notes=notes, facts=facts)
