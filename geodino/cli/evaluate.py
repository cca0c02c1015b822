"""The command ``geodino evaluate``."""

from pathlib import Path
from typing import Annotated

import typer

from geodino.cli.options import Device, DryRun, Json, Model, Quiet, show, words


def evaluate(
    model: Model,
    suite: Annotated[
        str,
        typer.Option(
            help="mini, geobench-v1[/SET], geobench-v2[/SET], torchgeo/SET, or a folder: one folder "
            "a class, or one with a dataset.yaml.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Where results are written.")],
    data: Annotated[Path | None, typer.Option(help="Where the files of a named suite lie.")] = None,
    partition: Annotated[
        str, typer.Option(help="Of GEO-Bench v1: default, 0.01x_train, 0.10x_train, ...")
    ] = "default",
    protocol: Annotated[
        str, typer.Option(help="geodino, torchgeo-bench or dinov3-approx.")
    ] = "geodino",
    bands: Annotated[
        str | None,
        typer.Option(help="model, rgb, all, or names with commas; left out, as the protocol says."),
    ] = None,
    probe: Annotated[
        str | None,
        typer.Option(help="Probes, with commas; left out, those of the protocol."),
    ] = None,
    features: Annotated[
        str | None, typer.Option(help="cls, mean, concat; left out, those of the protocol.")
    ] = None,
    by: Annotated[
        str | None, typer.Option(help="Score groups too: region, sensor, season.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side that images are resized to, pixels.", min=1)
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(help="CSV of published rows to stand beside the results.")
    ] = None,
    tiles: Annotated[
        Path | None,
        typer.Option(help="Index of the tiles the model saw; left out, that of its run."),
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Where features are kept; left out, in --out.")
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images per forward pass.", min=1)] = None,
    seed: Annotated[int, typer.Option(help="Of floors, probes and the bootstrap.")] = 0,
    seeds: Annotated[
        int,
        typer.Option(help="Repeat probes that draw something with so many seeds.", min=1),
    ] = 1,
    device: Device = "auto",
    *,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sets that are left.")
    ] = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure a model on labelled images with probes on frozen features, beside its floors."""
    from geodino.runs.evaluate import EvaluateJob, evaluate

    job = EvaluateJob(
        model=model,
        suite=suite,
        out=out,
        data=data,
        partition=partition,
        protocol=protocol,
        bands=bands,
        probes=tuple(words(probe)),
        features=tuple(words(features)),
        by=tuple(words(by)),
        image_size=image_size,
        reference=reference,
        tiles=tiles,
        cache=cache,
        batch=batch,
        seed=seed,
        seeds=seeds,
        device=device,
        resume=resume,
        dry_run=dry_run,
        quiet=quiet or as_json,
    )
    facts = evaluate(job)
    # People read what was said as it went on; programs take all of it.
    if as_json:
        show(facts, as_json=True)
    elif not dry_run:
        show({name: facts[name] for name in ("out", "report")}, as_json=False)
