"""Options that several commands share, and what becomes of their values."""

from typing import Annotated

import typer

Recipe = Annotated[
    str | None,
    typer.Option(help="Name or YAML file; left out, one is chosen from the data and the device."),
]
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
Seed = Annotated[int | None, typer.Option(help="Seed of everything random (train.seed).")]


def filters(aoi: str | None, when: str | None, where: str | None) -> tuple[str, ...]:
    """Write the filters as overrides, quoted so that YAML reads them as text."""
    import json

    given = {"aoi": aoi, "datetime": when, "where": where}
    return tuple(f"data.{name}={json.dumps(v)}" for name, v in given.items() if v is not None)


def words(text: str | None) -> list[str]:
    """Split at commas."""
    return [word.strip() for word in (text or "").split(",") if word.strip()]


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
