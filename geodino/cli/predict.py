"""The command ``geodino predict``."""

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


def predict(
    rasters: Rasters,
    model: Model,
    out: Annotated[
        Path,
        typer.Option(
            help="FILE.tif, FILE.zarr, or a folder of GeoTIFFs; of objects FILE.parquet or .geojson; "
            "of classes of whole images FILE.csv or .parquet."
        ),
    ],
    mosaic: Mosaic = None,
    aoi: MapAoi = None,
    bands: Bands = None,
    scale: Scale = None,
    accept: Accept = "",
    gsd: Annotated[
        float | None,
        typer.Option(help="Metres per pixel that the model is shown; the map keeps the raster's."),
    ] = None,
    chip: Annotated[
        int | None, typer.Option(help="Side of a chip, px; left out, what the model was made with.")
    ] = None,
    overlap: Overlap = None,
    batch: Batch = None,
    precision: Precision = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            help="Heights: float32 (m) or uint16 (cm). Probabilities of classes: float32 or uint8."
        ),
    ] = "float32",
    symmetries: Annotated[
        str, typer.Option(help="Mean over orientations: none, flips (4) or turns (8).")
    ] = "none",
    score: Annotated[
        float | None,
        typer.Option(help="Least score of objects; left out, what the model was made with."),
    ] = None,
    max_memory: MaxMemory = None,
    shard: Shard = None,
    datetime: Acquired = None,
    overrides: DataOverrides = None,
    device: Device = "auto",
    *,
    interval: Annotated[
        bool, typer.Option(help="Bands lower and upper, where the model is calibrated.")
    ] = True,
    applicability: Annotated[
        bool,
        typer.Option(
            "--applicability", help="Band dissimilarity: above 1 is unlike the training ground."
        ),
    ] = False,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities", help="Probabilities of classes beside the map, a band each."
        ),
    ] = False,
    assemble: Assemble = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    strict: Strict = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Map rasters with a model, or find objects: seamless, in bounded memory, to COG, zarr or a table."""
    from geodino.runs.mapping.job import parse_memory, parse_shard
    from geodino.runs.predict import PredictJob, predict

    job = PredictJob(
        rasters=tuple(rasters),
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
        symmetries=symmetries,
        interval=interval,
        applicability=applicability,
        probabilities=probabilities,
        score=score,
        max_memory=parse_memory(max_memory),
        shard=parse_shard(shard),
        assemble=assemble,
        resume=resume,
        overrides=tuple(overrides or ()),
        datetime=datetime,
        device=device,
        overwrite=overwrite,
        strict=strict,
        dry_run=dry_run,
        quiet=quiet or as_json,
    )
    show_done(predict(job), dry_run=dry_run, as_json=as_json)
