"""The command ``geodino embed``."""

from pathlib import Path
from typing import Annotated

import typer

from geodino.cli.options import (
    Accept,
    Acquired,
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
    Rasters,
    Resume,
    Scale,
    Shard,
    Strict,
    meeting,
    show_done,
)


def embed(
    rasters: Rasters,
    model: Model,
    out: Annotated[
        Path, typer.Option(help="FILE.tif, FILE.zarr, FILE.parquet, or a folder of GeoTIFFs.")
    ],
    mosaic: Mosaic = None,
    aoi: MapAoi = None,
    dtype: Annotated[str, typer.Option(help="float32, float16 or int8.")] = "float32",
    pca: Annotated[
        int, typer.Option(help="3 adds a picture of the first principal components.")
    ] = 0,
    pool: Annotated[
        str, typer.Option(help="A row of a table: mean (of the patches) or cls.")
    ] = "mean",
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
    max_memory: MaxMemory = None,
    shard: Shard = None,
    datetime: Acquired = None,
    overrides: DataOverrides = None,
    seed: Annotated[int, typer.Option(help="Seed of the sample that int8 and --pca fit.")] = 0,
    device: Device = "auto",
    *,
    assemble: Assemble = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    strict: Strict = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write the features of rasters as a seamless map (COG, zarr) or a table (GeoParquet)."""
    from geodino.runs.embed import EmbedJob, embed
    from geodino.runs.mapping.job import parse_memory, parse_shard

    job = EmbedJob(
        rasters=tuple(rasters),
        model=model,
        out=out,
        dtype=dtype,
        pca=pca,
        pool=pool,
        how=meeting(
            bands=bands, scale=scale, accept=accept, chip=chip, batch=batch, precision=precision
        ),
        overlap=overlap,
        gsd_m=gsd,
        mosaic=mosaic,
        aoi=aoi,
        max_memory=parse_memory(max_memory),
        shard=parse_shard(shard),
        assemble=assemble,
        resume=resume,
        overrides=tuple(overrides or ()),
        datetime=datetime,
        seed=seed,
        device=device,
        overwrite=overwrite,
        strict=strict,
        dry_run=dry_run,
        quiet=quiet or as_json,
    )
    show_done(embed(job), dry_run=dry_run, as_json=as_json)
