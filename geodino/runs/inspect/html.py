"""An inspection as one page: style inside, nothing fetched, light and dark."""

from collections.abc import Sequence
from pathlib import Path

from geodino import __version__
from geodino.data.inspection.found import Histogram, Inspection
from geodino.report.render import rendered
from geodino.runs.inspect.words import (
    BANDS,
    COLUMNS,
    band_rows,
    ends,
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
    return rendered(
        "inspect.html.j2",
        package="geodino.runs.inspect",
        sheet="inspect.css",
        filters={
            "number": number,
            "percent": percent,
            "plural": plural,
            "bars": bars,
            "ends": ends,
            "base": lambda path: Path(path).name or path,
        },
        inspections=inspections,
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
