"""The command ``geodino distill``."""

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
    StrictTiles,
    Tiles,
    When,
    Where,
    filters,
    show_done,
)


def distill(
    tiles: Tiles,
    out: RunOut,
    teacher: Annotated[
        str | None,
        typer.Option(help="Model that teaches; may be left out with --resume.", metavar="MODEL"),
    ] = None,
    students: Annotated[
        str | None,
        typer.Option(
            help="Names of the table or of timm, with commas; left out, those of the recipe.",
            metavar="NAME,...",
        ),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(help="Name or YAML file; left out, distill-sat.")
    ] = None,
    overrides: Overrides = None,
    aoi: Aoi = None,
    when: When = None,
    where: Where = None,
    seed: Seed = None,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Devices on this machine.", min=1)] = 1,
    *,
    resume: ResumeRun = False,
    strict: StrictTiles = False,
    dry_run: DryRunCard = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Teach small models what a large one knows, several at once."""
    from geodino.runs.distill import DistillJob, distill

    job = DistillJob(
        tiles=tiles,
        out=out,
        teacher=teacher,
        students=None if students is None else tuple(students.split(",")),
        recipe=recipe,
        overrides=(*(overrides or ()), *filters(aoi, when, where)),
        seed=seed,
        device=device,
        devices=devices,
        resume=resume,
        strict=strict,
        dry_run=dry_run,
        quiet=quiet or as_json,
    )
    show_done(distill(job), dry_run=dry_run, as_json=as_json)
