"""The command ``geodino distill``."""

from pathlib import Path
from typing import Annotated

import typer

from geodino.cli.options import (
    Aoi,
    Device,
    Json,
    Overrides,
    Quiet,
    Seed,
    When,
    Where,
    filters,
    show,
)


def distill(
    tiles: Annotated[
        str,
        typer.Option(help="Folder, glob, raster, zarr store, STAC document, index or world:NAME."),
    ],
    out: Annotated[Path, typer.Option(help="Run folder.")],
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
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="An unreadable tile stops the run.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate, print the run card, stop.")
    ] = False,
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
    facts = distill(job)
    if as_json or not dry_run:  # a dry run has said everything in its card
        show(facts, as_json=as_json)
