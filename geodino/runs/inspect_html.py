"""An inspection as one page: style inside, nothing fetched, light and dark."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from geodino import __version__
from geodino.data.inspection import Histogram, Inspection
from geodino.runs.inspect_words import (
    BANDS,
    COLUMNS,
    band_rows,
    headline,
    kind_facts,
    number,
    percent,
    plural,
    shown_bands,
    source_facts,
)

_BARS_HEIGHT = 40
"""Units of height of a drawn histogram; its bins are one unit wide."""

_LISTED = 1000
"""Files listed on the page at most; programs get all of them."""


def as_html(inspections: Sequence[Inspection]) -> str:
    """Return the whole page; the same inspections give the same text."""
    environment = Environment(
        loader=PackageLoader("geodino.runs"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(
        number=number,
        percent=percent,
        plural=plural,
        bars=bars,
        base=lambda path: Path(path).name or path,
    )
    style = (Path(__file__).parent / "templates" / "inspect.css").read_text(encoding="utf-8")
    return environment.get_template("inspect.html.j2").render(
        inspections=inspections,
        style=Markup(style),  # noqa: S704  (our own file)
        version=__version__,
        headline=headline,
        source_facts=source_facts,
        kind_facts=kind_facts,
        band_rows=band_rows,
        shown_bands=shown_bands,
        columns=COLUMNS,
        most_bands=BANDS,
        most_files=_LISTED,
    )


def bars(histogram: Histogram) -> str:
    """Return the outline of a histogram as an SVG path, one unit of width a bin."""
    top = max(histogram.shares) or 1.0
    steps = [f"V{_BARS_HEIGHT * (1 - share / top):.2f}H{i + 1}" for i, share in
             enumerate(histogram.shares)]  # fmt: skip
    return f"M0 {_BARS_HEIGHT}{''.join(steps)}V{_BARS_HEIGHT}Z"
