"""``geodino finetune``: prepare or take up a run, train its head, measure and export it."""

from typing import Any

from geodino.data.sources.find import absolute
from geodino.errors import RecipeError, RunError, suggest
from geodino.files import write_text
from geodino.io.raster import HandlePool
from geodino.runs.device import choose_device
from geodino.runs.finetune.prepared import PreparedFinetune, asked_again
from geodino.runs.finetune.request import FinetuneJob
from geodino.runs.finetune.tasks import TASKS, FinetuneTask
from geodino.runs.finetune.train import Finetuning
from geodino.runs.init import model_name
from geodino.runs.recalibrate.config import RecalibrateConfig
from geodino.runs.recipe import differences, dump, kind_of_recipe, kind_of_recorded
from geodino.runs.record import RunFolder, RunLog, environment

__all__ = ["FinetuneJob", "finetune"]


def finetune(job: FinetuneJob) -> dict[str, Any]:
    """Run the job; see the command's help.

    Returns:
        The run folder, the model folder, the steps done, and the results.

    Raises:
        GeodinoError: any mistake the user can mend; nothing that was there before is lost.
    """
    task = TASKS.get(job.task)
    if task is None:
        raise RecipeError(
            f"geodino finetune {job.task}: there is no such task.{suggest(job.task, list(TASKS))} "
            f"There is: {', '.join(TASKS)}."
        )
    device = choose_device(job.device)
    folder = RunFolder(job.out)
    if _kind(job, folder) is RecalibrateConfig:
        from geodino.runs.recalibrate.job import recalibrate  # it needs what stands below

        return recalibrate(job, folder, device)
    with HandlePool() as pool:
        prepared = (
            _resumed(job, task, folder, pool) if job.resume else _new(job, task, folder, pool)
        )
        scene = task.look(prepared)
        card = task.card(scene, device=device, out=job.out)
        if job.dry_run:
            RunLog(None, quiet=job.quiet).say(card.text)
            return card.facts
        if not job.resume:
            record(folder, prepared)
        log = RunLog(folder.log, quiet=job.quiet)
        try:
            log.say(card.text)
            run = Finetuning(folder=folder, scene=scene, device=device, log=log, quiet=job.quiet)
            trained = run.run(resume=job.resume)
            if isinstance(trained, str):
                return {"run": str(folder.root), "stopped": trained}
            results = task.finish(scene, trained, folder, device=device, log=log)
            log.say(f"Done. The model is in {folder.model}.")
            return {"run": str(folder.root), "model": str(folder.model), **results}
        finally:
            log.close()


def _kind(job: FinetuneJob, folder: RunFolder) -> type[Any] | None:
    """Return which kind of recipe is meant: that of the run, or what was asked; None for neither."""
    if job.resume:
        folder.require()
        return kind_of_recorded(folder.recipe)
    return None if job.recipe is None else kind_of_recipe(job.recipe)


def _new(
    job: FinetuneJob, task: FinetuneTask, folder: RunFolder, pool: HandlePool
) -> PreparedFinetune[Any]:
    if folder.is_used():
        folder.claim()  # says why not
    if job.model is None:
        raise RecipeError("--model is missing: name the model whose features are used.")
    return task.prepare(job, job.model, pool)


def record(folder: RunFolder, prepared: PreparedFinetune[Any]) -> None:
    """Write what the run is, before its first step; run.json last, as the mark that all is there."""
    folder.claim()
    folder.write_recipe(dump(prepared.config))
    prepared.write(folder)
    write_text(folder.contract, prepared.contract.to_json() + "\n")
    folder.write_facts(
        {
            **environment(),
            "source": prepared.images_from,
            "labels_from": prepared.labels_from,
            "split_from": prepared.split_from,
            "data": {"fingerprint": prepared.fingerprint, **prepared.data_facts},
            "seed": prepared.config.train.seed,
            "notes": list(prepared.notes),
            "derived": prepared.derived,
        }
    )


def _resumed(
    job: FinetuneJob, task: FinetuneTask, folder: RunFolder, pool: HandlePool
) -> PreparedFinetune[Any]:
    """Read what the run is, and refuse to go on as something else."""
    prepared = task.read(folder, pool)
    check_resumed(job, folder, prepared)
    return prepared


def check_resumed(job: FinetuneJob, folder: RunFolder, prepared: PreparedFinetune[Any]) -> None:
    """Refuse to go on as something else than what was recorded.

    Raises:
        RunError: naming what differs.
    """
    start = prepared.config.start
    asked = (
        ("--images", job.images, prepared.images_from),
        ("--labels", job.labels, prepared.labels_from or prepared.images_from),
        ("--model", job.model, None if start is None else start.model),
        ("--split", job.split, prepared.split_from),
    )
    for option, given, then in asked:
        if given is None:
            continue
        now = model_name(given) if option == "--model" else absolute(given)
        # A set of a suite is called by its name, which is no path.
        if then not in (now, given):
            raise RunError(
                f"{folder.root} was started with {option} {then}, not {now}: resume it with what it "
                "began with, or start a new run in another --out."
            )
    if job.recipe is not None or job.settings:
        changed = differences(
            prepared.config,
            asked_again(prepared.config, job.recipe, job.settings, prepared.derived),
        )
        if changed:
            raise RunError(
                f"{folder.root} was started with another recipe; --resume goes on exactly as it "
                f"began. Different: {'; '.join(changed[:8])}. Leave out --recipe and --set, or "
                "start a new run in another --out."
            )
