"""``geodino finetune``: prepare or take up a run, train its head, measure and export it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from geodino.data.index import save_index
from geodino.data.sources.find import absolute
from geodino.errors import GeodinoError, RecipeError, RunError
from geodino.files import write_text
from geodino.io.raster import HandlePool
from geodino.runs.device import choose_device
from geodino.runs.finetune.card import finetune_card
from geodino.runs.finetune.export import export
from geodino.runs.finetune.prepare import (
    PreparedFinetune,
    asked_again,
    prepare,
    read_prepared,
)
from geodino.runs.finetune.results import MEAN, Results, results_of
from geodino.runs.finetune.train import Finetuning, Scene, look, readers
from geodino.runs.init import model_name
from geodino.runs.recipe import differences, dump
from geodino.runs.record import RunFolder, RunLog, environment

Task = Literal["canopy"]
"""What a model can be fine-tuned for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneJob:
    """What ``geodino finetune`` was asked."""

    task: str
    images: str
    labels: str
    out: Path
    model: str | None = None
    """MODEL; left out, the one that a resumed run began with."""

    recipe: str | None = None
    overrides: tuple[str, ...] = ()
    split: str | None = None
    unfreeze: bool = False
    seed: int | None = None
    device: str = "auto"
    resume: bool = False
    dry_run: bool = False
    quiet: bool = False

    @property
    def settings(self) -> tuple[str, ...]:
        """All overrides, those of own options included."""
        seed = () if self.seed is None else (f"train.seed={self.seed}",)
        return (*self.overrides, *(("optim.unfreeze=true",) if self.unfreeze else ()), *seed)


def finetune(job: FinetuneJob) -> dict[str, Any]:
    """Run the job; see the command's help.

    Returns:
        The run folder, the model folder, the steps done, and the results.

    Raises:
        GeodinoError: any mistake the user can mend; nothing that was there before is lost.
    """
    if job.task not in get_args(Task):
        raise RecipeError(
            f"geodino finetune {job.task}: there is no such task. There is: "
            f"{', '.join(get_args(Task))}."
        )
    device = choose_device(job.device)
    folder = RunFolder(job.out)
    with HandlePool() as pool:
        if job.resume:
            folder.require()
            prepared = _resumed(job, folder, pool)
        else:
            if folder.is_used():
                folder.claim()  # says why not
            if job.model is None:
                raise RecipeError("--model is missing: name the model whose features are used.")
            prepared = prepare(
                job.images, job.labels, job.model, job.recipe, job.settings, split=job.split,
                pool=pool,
            )  # fmt: skip
        scene = look(prepared)
        card = finetune_card(scene, device=device, out=job.out)
        if job.dry_run:
            RunLog(None, quiet=job.quiet).say(card.text)
            return card.facts
        if not job.resume:
            _record(folder, prepared)
        log = RunLog(folder.log, quiet=job.quiet)
        try:
            log.say(card.text)
            run = Finetuning(folder=folder, scene=scene, device=device, log=log, quiet=job.quiet)
            return _carried_out(run, resume=job.resume)
        finally:
            log.close()


def _carried_out(run: Finetuning, *, resume: bool) -> dict[str, Any]:
    folder, scene, log = run.folder, run.scene, run.log
    trained = run.run(resume=resume)
    if isinstance(trained, str):
        return {"run": str(folder.root), "stopped": trained}
    log.say("Measuring the best head on all labelled areas.")
    with readers(scene) as threads:
        results = results_of(scene, threads, device=run.device)
    export(scene, results, folder, step=trained.best_step)
    facts = {
        "step": trained.best_step,
        "stopped_early": trained.stopped or None,
        **results.facts,
    }
    recorded = folder.read_facts()
    folder.write_facts({**recorded, "results": facts})
    for line in in_words(results):
        log.say(line)
    log.say(f"Done. The model is in {folder.model}.")
    return {
        "run": str(folder.root),
        "model": str(folder.model),
        **facts,
        **_report(scene, results, folder, log),
    }


def in_words(results: Results) -> list[str]:
    """Return the results as lines for people."""
    facts, lines = results.facts, []
    on = facts["reported_on"]
    if on:
        found = facts[on]
        what = f"{found['sites']} {on} sites, {found['pixels']:,} labels"
        for name, scores in found["scores"].items():
            mae, bias = scores["mae_m"], scores["bias_predicted_minus_true_m"]
            between = "" if mae["low"] is None else f" ({mae['low']:.2f} to {mae['high']:.2f})"
            r2 = scores["r2"]["value"]
            shown = "" if r2 is None or name == MEAN else f", R2 {r2:.2f}"
            lines.append(
                f"{name}: MAE {mae['value']:.2f} m{between}, bias {bias['value']:+.2f} m{shown} on {what}"
            )
        if on != "test":
            lines.append(f"There is no labelled test ground: what is reported is of {on} ground.")
    coverage = facts["coverage"]
    if coverage is not None:
        lines.append(
            f"Intervals of {facts['intervals']['coverage']:.0%} cover {coverage['coverage']:.0%} of "
            f"the test sites' pixels on average; mean width {coverage['width_m']:.1f} m."
        )
    elif facts["intervals_missing"]:
        lines.append(facts["intervals_missing"])
    return lines


def _report(scene: Scene, results: Results, folder: RunFolder, log: RunLog) -> dict[str, str]:
    """Write the report; the run is finished and saved whether it can be written or not."""
    from geodino.runs.finetune.report import write_report  # plots load when there is one to draw

    try:
        path = write_report(scene, results, folder)
    except GeodinoError as error:
        log.say(f"The model is saved, but the report could not be written: {error}")
        return {}
    log.say(f"The report is {path}.")
    return {"report": str(path)}


def _record(folder: RunFolder, prepared: PreparedFinetune) -> None:
    """Write what the run is, before its first step; run.json last, as the mark that all is there."""
    folder.claim()
    folder.write_recipe(dump(prepared.config))
    save_index(prepared.source.images, folder.tiles)
    prepared.source.split.save(folder.split)
    write_text(folder.contract, prepared.contract.to_json() + "\n")
    folder.write_facts(
        {
            **environment(),
            "source": prepared.images_from,
            "labels_from": prepared.labels_from,
            "split_from": prepared.split_from,
            "data": {
                "fingerprint": prepared.fingerprint,
                "images": len(prepared.source.images.tiles),
                "labelled": len(prepared.source.labelled),
            },
            "seed": prepared.config.train.seed,
            "notes": list(prepared.notes),
            "derived": prepared.derived,
        }
    )


def _resumed(job: FinetuneJob, folder: RunFolder, pool: HandlePool) -> PreparedFinetune:
    """Read what the run is, and refuse to go on as something else."""
    prepared = read_prepared(folder, pool=pool)
    start = prepared.config.start
    asked = (
        ("--images", absolute(job.images), prepared.images_from),
        ("--labels", absolute(job.labels), prepared.labels_from),
        (
            "--model",
            None if job.model is None else model_name(job.model),
            None if start is None else start.model,
        ),
        ("--split", None if job.split is None else absolute(job.split), prepared.split_from),
    )
    for option, now, then in asked:
        if now is not None and now != then:
            raise RunError(
                f"{folder.root} was started with {option} {then}, not {now}: resume it with what it "
                "began with, or start a new run in another --out."
            )
    if job.recipe is not None or job.settings:
        changed = differences(prepared.config, asked_again(prepared, job.recipe, job.settings))
        if changed:
            raise RunError(
                f"{folder.root} was started with another recipe; --resume goes on exactly as it "
                f"began. Different: {'; '.join(changed[:8])}. Leave out --recipe and --set, or "
                "start a new run in another --out."
            )
    return prepared
