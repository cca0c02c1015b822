"""The command ``geodino finetune``."""

from typing import Annotated

import typer

from geodino.cli.options import (
    Aoi,
    Device,
    DryRunCard,
    Json,
    Overrides,
    Quiet,
    ResumeRun,
    RunOut,
    Seed,
    Tiles,
    When,
    Where,
    filters,
    show,
)


def finetune(
    task: Annotated[
        str,
        typer.Argument(help="canopy, segmentation, detection or classification.", metavar="TASK"),
    ],
    images: Tiles,
    out: RunOut,
    labels: Annotated[
        str | None,
        typer.Option(
            help="canopy: rasters of heights, or a vector file of footprints; segmentation: masks, "
            "class rasters, a vector file of polygons, or the folder of a known set again; "
            "detection: vector files of boxes, polygons or points, or COCO's JSON; "
            "classification: a table (.csv, .parquet) with the columns image and label, or nothing where "
            "--images is a labelled set as for geodino evaluate."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Run or model folder, timm:NAME.TAG, hub:OWNER/NAME, weights file; may be left out "
            "with --resume.",
            metavar="MODEL",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Name or YAML file; left out, the one called as the task.")
    ] = None,
    overrides: Overrides = None,
    split: Annotated[
        str | None,
        typer.Option(
            help="Vector file of polygons with a column split; left out, blocks are drawn. "
            "segmentation, detection: also a CSV with the columns image and split."
        ),
    ] = None,
    aoi: Aoi = None,
    when: When = None,
    where: Where = None,
    seed: Seed = None,
    device: Device = "auto",
    *,
    unfreeze: Annotated[
        bool, typer.Option("--unfreeze", help="The backbone learns as well (optim.unfreeze).")
    ] = False,
    resume: ResumeRun = False,
    dry_run: DryRunCard = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Teach a model a task from labels: canopy height, classes of pixels or images, or boxes."""
    from geodino.runs.finetune import FinetuneJob, finetune

    job = FinetuneJob(
        task=task,
        images=images,
        labels=labels,
        model=model,
        out=out,
        recipe=recipe,
        overrides=(*(overrides or ()), *filters(aoi, when, where)),
        split=split,
        unfreeze=unfreeze,
        seed=seed,
        device=device,
        resume=resume,
        dry_run=dry_run,
        quiet=quiet or as_json,
    )
    facts = finetune(job)
    if as_json:
        show(facts, as_json=True)
    elif not dry_run:  # a dry run has said everything in its card, and a run its results
        show(
            {k: facts[k] for k in ("run", "model", "report", "stopped") if k in facts},
            as_json=False,
        )
