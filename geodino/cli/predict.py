"""The command ``geodino predict``."""

from pathlib import Path
from typing import Annotated

import typer

from geodino.cli.options import Device, Json, Model, Quiet, show, words


def predict(
    rasters: Annotated[
        list[str], typer.Argument(help="Folders, globs, rasters or tile indexes.", metavar="RASTER")
    ],
    model: Model,
    out: Annotated[Path, typer.Option(help="FILE.tif, or a folder of GeoTIFFs.")],
    aoi: Annotated[
        Path | None, typer.Option(help="Vector file: only pixels in its areas are predicted.")
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option(help="Bands in the model's order, with commas: names, or numbers from 1."),
    ] = None,
    scale: Annotated[
        float | None, typer.Option(help="Multiplies stored values before the model.")
    ] = None,
    accept: Annotated[
        str, typer.Option(help="Differences from the training data to take: gsd,units,values.")
    ] = "",
    gsd: Annotated[
        float | None,
        typer.Option(help="Metres per pixel that the model is shown; the map keeps the raster's."),
    ] = None,
    chip: Annotated[
        int | None, typer.Option(help="Side of a chip, px; left out, what the model was made with.")
    ] = None,
    overlap: Annotated[int | None, typer.Option(help="Pixels that chips share.")] = None,
    batch: Annotated[int | None, typer.Option(help="Chips per forward pass.", min=1)] = None,
    dtype: Annotated[str, typer.Option(help="float32 (m) or uint16 (cm).")] = "float32",
    symmetries: Annotated[
        str, typer.Option(help="Mean over orientations: none, flips (4) or turns (8).")
    ] = "none",
    max_memory: Annotated[
        str | None, typer.Option(help="Most this process may hold, such as 2GB.", metavar="SIZE")
    ] = None,
    shard: Annotated[
        str | None, typer.Option(help="Do part i of n; --assemble joins them.", metavar="I/N")
    ] = None,
    datetime: Annotated[
        str | None, typer.Option(help="Acquisition, where the files do not say it.")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", help="data.KEY=VALUE, such as data.nodata=0.", metavar="KEY=VALUE"),
    ] = None,
    device: Device = "auto",
    *,
    interval: Annotated[
        bool, typer.Option(help="Bands lower and upper, where the model is calibrated.")
    ] = True,
    assemble: Annotated[bool, typer.Option("--assemble", help="Join what shards wrote.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a map begun.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="An unreadable raster stops the job.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Validate, say what would be made, stop.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Map rasters with a model: seamless, in bounded memory, to cloud-optimised GeoTIFFs."""
    from geodino.runs.mapping.job import parse_memory, parse_shard
    from geodino.runs.predict import PredictJob, predict
    from geodino.runs.sources import Meeting, parse_accept, parse_bands

    job = PredictJob(
        rasters=tuple(rasters),
        model=model,
        out=out,
        how=Meeting(
            bands=parse_bands(words(bands)),
            scale=scale,
            accept=parse_accept(words(accept)),
            chip=chip,
            batch=batch,
        ),
        overlap=overlap,
        gsd_m=gsd,
        aoi=aoi,
        dtype=dtype,
        symmetries=symmetries,
        interval=interval,
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
    facts = predict(job)
    if as_json or not dry_run:  # a dry run has said everything in its card
        show(facts, as_json=as_json)
