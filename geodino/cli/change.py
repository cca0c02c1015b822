"""The command ``geodino change``."""

from pathlib import Path
from typing import Annotated

import typer

from geodino.cli.options import (
    Accept,
    Assemble,
    Bands,
    Batch,
    DataOverrides,
    Device,
    DryRun,
    Json,
    MapAoi,
    MaxMemory,
    Model,
    Mosaic,
    Overlap,
    Overwrite,
    Precision,
    Quiet,
    Resume,
    Scale,
    Shard,
    meeting,
    show_done,
)


def change(
    before: Annotated[
        str, typer.Argument(help="Raster of the earlier date, or several as for predict.")
    ],
    after: Annotated[str, typer.Argument(help="Raster of the later date, on the same grid.")],
    model: Model,
    out: Annotated[Path, typer.Option(help="FILE.tif; a patch of the model is a pixel.")],
    mosaic: Mosaic = None,
    aoi: MapAoi = None,
    bands: Bands = None,
    scale: Scale = None,
    accept: Accept = "",
    gsd: Annotated[
        float | None,
        typer.Option(help="Metres per pixel the model is shown; a patch of which is a pixel."),
    ] = None,
    chip: Annotated[
        int | None, typer.Option(help="Side of a chip, px; left out, that of the training crops.")
    ] = None,
    overlap: Overlap = None,
    batch: Batch = None,
    precision: Precision = "auto",
    dtype: Annotated[str, typer.Option(help="float32, or uint8 (hundredths).")] = "float32",
    max_memory: MaxMemory = None,
    shard: Shard = None,
    overrides: DataOverrides = None,
    device: Device = "auto",
    *,
    assemble: Assemble = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Map how much the ground changed between two dates, without training."""
    from geodino.runs.change import ChangeJob, change
    from geodino.runs.mapping.job import parse_memory, parse_shard

    job = ChangeJob(
        rasters=(before, after),
        model=model,
        out=out,
        how=meeting(
            bands=bands, scale=scale, accept=accept, chip=chip, batch=batch, precision=precision
        ),
        overlap=overlap,
        gsd_m=gsd,
        mosaic=mosaic,
        aoi=aoi,
        dtype=dtype,
        max_memory=parse_memory(max_memory),
        shard=parse_shard(shard),
        assemble=assemble,
        resume=resume,
        overrides=tuple(overrides or ()),
        device=device,
        overwrite=overwrite,
        dry_run=dry_run,
        quiet=quiet or as_json,
    )
    show_done(change(job), dry_run=dry_run, as_json=as_json)
