"""The command line: arguments in, one job out. Nothing heavy is imported before a job runs."""

import sys
import warnings
from pathlib import Path
from typing import Annotated

import typer

from geodino.cli.change import change
from geodino.cli.distill import distill
from geodino.cli.embed import embed
from geodino.cli.evaluate import evaluate
from geodino.cli.finetune import finetune
from geodino.cli.options import (
    Aoi,
    Device,
    DryRunCard,
    Json,
    Overrides,
    Quiet,
    Recipe,
    ResumeRun,
    RunOut,
    Seed,
    StrictTiles,
    Tiles,
    When,
    Where,
    filters,
    show,
    show_done,
)
from geodino.cli.predict import predict
from geodino.errors import GeodinoError, SourceError

app = typer.Typer(
    name="geodino",
    help="From satellite and aerial tiles to a foundation model, and from that model to maps.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # in rich's own markup words in brackets are commands
    context_settings={"help_option_names": ["-h", "--help"]},
)
recipes_app = typer.Typer(
    help="Recipes that travel with the package.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
app.add_typer(recipes_app, name="recipes")


@app.command()
def pretrain(
    tiles: Tiles,
    out: RunOut,
    recipe: Recipe = None,
    overrides: Overrides = None,
    init: Annotated[
        str | None,
        typer.Option(help="Model whose weights the run begins with (init.model)."),
    ] = None,
    aoi: Aoi = None,
    when: When = None,
    where: Where = None,
    seed: Seed = None,
    device: Device = "auto",
    devices: Annotated[int, typer.Option(help="Devices on each machine.", min=1)] = 1,
    nodes: Annotated[int, typer.Option(help="Machines (torchrun, SLURM).", min=1)] = 1,
    strategy: Annotated[str, typer.Option(help="auto, ddp (all) or fsdp (parts).")] = "auto",
    *,
    resume: ResumeRun = False,
    strict: StrictTiles = False,
    dry_run: DryRunCard = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Pretrain a backbone on a folder of tiles, without labels."""
    from geodino.runs.pretrain import PretrainJob, pretrain

    job = PretrainJob(
        tiles=tiles,
        out=out,
        recipe=recipe,
        overrides=(*(overrides or ()), *filters(aoi, when, where)),
        init=init,
        seed=seed,
        device=device,
        devices=devices,
        nodes=nodes,
        strategy=strategy,
        resume=resume,
        strict=strict,
        dry_run=dry_run,
        quiet=quiet or as_json,
    )
    show_done(pretrain(job), dry_run=dry_run, as_json=as_json)


app.command()(distill)
app.command()(embed)
app.command()(predict)
app.command()(change)
app.command()(finetune)
app.command()(evaluate)


@app.command()
def inspect(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Folders, globs, files, stores, indexes, STAC documents or descriptors.",
            metavar="SRC",
        ),
    ],
    overrides: Overrides = None,
    aoi: Aoi = None,
    when: When = None,
    where: Where = None,
    pixels: Annotated[
        int | None, typer.Option(help="Pixels read at most, about.", min=1, metavar="N")
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Also write a page, complete in itself.")
    ] = None,
    write_descriptor: Annotated[
        Path | None, typer.Option(help="Folder where a dataset.yaml is drafted.", metavar="FOLDER")
    ] = None,
    *,
    strict: Annotated[
        bool, typer.Option("--strict", help="A file that cannot be used is an error.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Look through an archive: say what it holds, and ask what no file tells."""
    from geodino.runs.inspect.job import InspectJob, inspect

    job = InspectJob(
        sources=tuple(sources),
        overrides=tuple(overrides or ()),
        aoi=aoi,
        datetime=when,
        where=where,
        pixels=pixels,
        html=html,
        draft=write_descriptor,
        strict=strict,
        quiet=quiet or as_json,
    )
    found = inspect(job)
    if as_json:
        show(found.facts, as_json=True)
    elif not quiet:
        print(found.text)
    if found.refusal is not None:
        raise SourceError(found.refusal)


@app.command()
def export(
    run: Annotated[str, typer.Argument(help="Run folder, or another MODEL with --out.")],
    to: Annotated[str, typer.Option(help="timm, hub or onnx.")] = "timm",
    out: Annotated[Path | None, typer.Option(help="Target; left out, it lies in RUN.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Export the newest checkpoint of a run, the model of fine-tuning, or convert another one."""
    from geodino.runs.export import export_model

    show(export_model(run, to=to, out=out), as_json=as_json)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder, finished or not.")],
    out: Annotated[
        Path | None, typer.Option(help="Where the page goes; left out, RUN/report.html.")
    ] = None,
    device: Device = "auto",
    *,
    as_json: Json = False,
) -> None:
    """Write what a run learnt, from what and how well, as one self-contained HTML page."""
    from geodino.runs.report import report

    show(report(run, out=out, device=device), as_json=as_json)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where everything is written.")] = Path("demo-run"),
    tiles: Annotated[str | None, typer.Option(help="Your own tiles instead of made ones.")] = None,
    device: Device = "auto",
    *,
    as_json: Json = False,
) -> None:
    """Make a small world, pretrain on it, map its features, write a report: three minutes."""
    from geodino.runs.demo import demo, next_steps

    done = demo(out=out, tiles=tiles, device=device, quiet=as_json)
    show(done if as_json else next_steps(done, own=tiles is not None), as_json=as_json)


@app.command()
def doctor(*, as_json: Json = False) -> None:
    """Look at this machine: versions, devices, GDAL drivers, permissions."""
    from geodino.runs.doctor import examine

    show(examine(), as_json=as_json)


@recipes_app.command("list")
def list_recipes(*, as_json: Json = False) -> None:
    """List the recipes and what each is for."""
    from geodino.runs.recipe import load_any_recipe, recipe_names

    show({name: load_any_recipe(name).description for name in recipe_names()}, as_json=as_json)


@recipes_app.command("show")
def show_recipe(
    name: Annotated[str, typer.Argument(help="Recipe name or YAML file.")],
    overrides: Overrides = None,
    *,
    as_json: Json = False,
) -> None:
    """Print a recipe, complete, with every default."""
    from geodino.runs.recipe import dump, load_any_recipe

    config = load_any_recipe(name, overrides or ())
    if as_json:
        show(config.model_dump(mode="json"), as_json=True)
    else:
        print(dump(config), end="")


@recipes_app.command("explain")
def explain_recipe(
    key: Annotated[str | None, typer.Argument(help="Only keys that hold this text.")] = None,
    task: Annotated[
        str | None,
        typer.Option(help="Advise instead: canopy, classification, segmentation, detection."),
    ] = None,
    gsd: Annotated[
        float | None, typer.Option(help="With --task: pixel of your images, metres.")
    ] = None,
    *,
    as_json: Json = False,
) -> None:
    """Explain every key a recipe may hold; with --task, which weights suit a task, and why."""
    if task is not None:
        _advise(task, gsd, as_json=as_json)
        return
    from geodino.runs.recipe import explain

    rows = [row for row in explain() if key is None or key in row[0]]
    if as_json:
        show([{"key": k, "default": d, "meaning": m} for k, d, m in rows], as_json=True)
        return
    for name, default, meaning in rows:
        print(f"{name} = {default}\n    {meaning}")


def _advise(task: str, gsd: float | None, *, as_json: bool) -> None:
    from dataclasses import asdict

    from geodino.evals.advice import in_words, recommend

    advice = recommend(task, gsd_m=gsd)
    show(asdict(advice) if as_json else in_words(advice), as_json=as_json)


def main() -> None:
    """Run the command line; a user's mistake is one message and exit code 2."""
    # rasterio warns at every photo and every tile without a place; the run card says it once.
    warnings.filterwarnings("ignore", message="Dataset has no geotransform")
    try:
        app()
    except GeodinoError as error:
        print(f"geodino: {error}", file=sys.stderr)
        sys.exit(2)
