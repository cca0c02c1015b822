"""Options that several commands share, and what becomes of their values."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from geodino.runs.sources import Meeting

Recipe = Annotated[
    str | None,
    typer.Option(help="Name or YAML file; left out, one is chosen from the data and the device."),
]
Tiles = Annotated[
    str,
    typer.Option(help="Folder, glob, raster, zarr store, STAC document, index or world:NAME."),
]
RunOut = Annotated[Path, typer.Option("--out", help="Run folder.")]
Model = Annotated[
    str, typer.Option(help="Run or model folder, timm:NAME.TAG, hub:OWNER/NAME, weights file.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="key.path=value, repeatable.", metavar="KEY=VALUE")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Say nothing but errors.")]
Aoi = Annotated[str | None, typer.Option(help="Vector file: only tiles that touch it (data.aoi).")]
When = Annotated[
    str | None,
    typer.Option(
        "--datetime", help="START/END, .. for an open end (data.datetime).", metavar="A/B"
    ),
]
Where = Annotated[
    str | None, typer.Option(help="Condition on the tile index, e.g. 'gsd_x_m < 1' (data.where).")
]
Rasters = Annotated[
    list[str], typer.Argument(help="Folders, globs, rasters or tile indexes.", metavar="RASTER")
]
Mosaic = Annotated[
    str | None,
    typer.Option(
        help="One map of rasters that overlap; there counts the first, last, newest or oldest.",
        metavar="ORDER",
    ),
]
MapAoi = Annotated[
    Path | None, typer.Option("--aoi", help="Vector file: only pixels in its areas are done.")
]
Bands = Annotated[
    str | None,
    typer.Option(help="Bands in the model's order, with commas: names, or numbers from 1."),
]
Scale = Annotated[float | None, typer.Option(help="Multiplies stored values before the model.")]
Accept = Annotated[
    str, typer.Option(help="Differences from the training data to take: gsd,units,values.")
]
Overlap = Annotated[int | None, typer.Option(help="Pixels that chips share.")]
Batch = Annotated[int | None, typer.Option(help="Chips per forward pass.", min=1)]
Precision = Annotated[
    str,
    typer.Option(
        help="What matrices are multiplied in: float32, bfloat16, or auto (bfloat16 on CUDA)."
    ),
]
MaxMemory = Annotated[
    str | None, typer.Option(help="Most this process may hold, such as 2GB.", metavar="SIZE")
]
Shard = Annotated[
    str | None, typer.Option(help="Do part i of n; --assemble joins them.", metavar="I/N")
]
Acquired = Annotated[
    str | None, typer.Option("--datetime", help="Acquisition, where the files do not say it.")
]
DataOverrides = Annotated[
    list[str] | None,
    typer.Option("--set", help="data.KEY=VALUE, such as data.nodata=0.", metavar="KEY=VALUE"),
]
Assemble = Annotated[bool, typer.Option("--assemble", help="Join what shards wrote.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with a map begun.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Strict = Annotated[bool, typer.Option("--strict", help="An unreadable raster stops the job.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Validate, say what would be made, stop.")]
ResumeRun = Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")]
StrictTiles = Annotated[bool, typer.Option("--strict", help="An unreadable tile stops the run.")]
DryRunCard = Annotated[bool, typer.Option("--dry-run", help="Validate, print the run card, stop.")]
Seed = Annotated[int | None, typer.Option(help="Seed of everything random (train.seed).")]


def filters(aoi: str | None, when: str | None, where: str | None) -> tuple[str, ...]:
    """Write the filters as overrides, quoted so that YAML reads them as text."""
    import json

    given = {"aoi": aoi, "datetime": when, "where": where}
    return tuple(f"data.{name}={json.dumps(v)}" for name, v in given.items() if v is not None)


def words(text: str | None) -> list[str]:
    """Split at commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


def meeting(
    *,
    bands: str | None,
    scale: float | None,
    accept: str,
    chip: int | None,
    batch: int | None,
    precision: str,
) -> "Meeting":
    """Read how a model and a raster meet."""
    from geodino.runs.sources import Meeting, parse_bands

    return Meeting.asked(
        bands=parse_bands(words(bands)),
        scale=scale,
        accept=words(accept),
        chip=chip,
        batch=batch,
        precision=precision,
    )


def show_done(facts: Mapping[str, object], *, dry_run: bool, as_json: bool) -> None:
    """Print what a job did; a dry run has said everything in its card."""
    if as_json or not dry_run:
        show(facts, as_json=as_json)


def show(result: object, *, as_json: bool) -> None:
    """Print a job's result: as JSON, or as ``name: value`` lines."""
    if as_json:
        import json

        print(json.dumps(result, indent=1, default=str))
    elif isinstance(result, dict):
        width = max((len(str(name)) for name in result), default=0)
        for name, value in result.items():
            print(f"{name!s:<{width}}  {value}")
    elif result is not None:
        print(result)
