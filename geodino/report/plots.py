"""Plots as SVG inside the page: matplotlib draws, the page's style sheet colours.

Every plot is drawn in stand-in colours that are then replaced by CSS variables, so that one plot
serves light, dark and paper; text stays text, in the page's font. The same values give the same
characters.
"""

import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from geodino.report.content import Curve, Histogram, Score
from geodino.report.curves import shortened
from geodino.report.words import tick

INK, MUTED, GRID, PLAIN, ACCENT, SECOND = (
    "#010101", "#020202", "#030303", "#040404", "#050505", "#060606",
)  # fmt: skip
_VARIABLES = {
    INK: "var(--ink)", MUTED: "var(--muted)", GRID: "var(--line)", PLAIN: "var(--plain)",
    ACCENT: "var(--accent)", SECOND: "var(--second)",
}  # fmt: skip

_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "axes.labelsize": 9,
    "font.size": 9,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.4,
    "path.simplify": True,
    "text.parse_math": False,  # names may hold any character
}

STEPS = [1, 2, 5, 10]
"""First digits of what lies between two numbers on an axis: each is written in full."""

_DECADES = 30.0
"""Largest over smallest value from which a logarithmic axis says more than a linear one."""

_FEW = 30
"""A curve of no more points shows each of them."""


@contextmanager
def styled(salt: str) -> Iterator[None]:
    """Draw in our style, whatever matplotlib's settings of this user are.

    ``salt`` keeps the names inside one plot from those inside another.
    """
    with mpl.rc_context():
        mpl.rcdefaults()
        settings: Any = {**_STYLE, "svg.hashsalt": salt}
        mpl.rcParams.update(settings)
        yield


def curve_plot(
    curve: Curve, *, label: str, log: bool, phases: Sequence[tuple[str, float]] = ()
) -> Markup:
    """Draw a scalar over steps; where it has many points, their mean and range."""
    short = shortened(curve)

    def draw(axes: Axes) -> None:
        few = len(short.steps) <= _FEW
        if (short.low < short.high).any():
            axes.fill_between(
                short.steps, short.low, short.high, color=ACCENT, alpha=0.25, linewidth=0
            )
        axes.plot(
            short.steps, short.mean, color=ACCENT, marker="o" if few else None, markersize=2.5
        )
        for _, begin in phases[1:]:
            axes.axvline(begin, color=MUTED, linewidth=0.8, linestyle=(0, (3, 2)))
        if log and len(short.low) and short.high.max() > _DECADES * short.low.min() > 0:
            axes.set_yscale("log")
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: tick(value, value)))
        else:
            axes.yaxis.set_major_locator(MaxNLocator(4, steps=STEPS))
            axes.yaxis.set_major_formatter(_even(axes.yaxis))
        axes.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=STEPS))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.margins(x=0.02, y=0.08)

    return svg(draw, label=label, size=(3.3, 1.75), box=(0.17, 0.13, 0.81, 0.83))


def histogram_plot(histogram: Histogram, *, label: str) -> Markup:
    """Draw how often values occur, and a line at the mean of the source."""

    def draw(axes: Axes) -> None:
        total = max(int(histogram.counts.sum()), 1)
        axes.stairs(histogram.counts / total, histogram.edges, fill=True, color=ACCENT, alpha=0.65)
        axes.axvline(histogram.mean, color=SECOND, linewidth=1.2)
        axes.yaxis.set_major_locator(NullLocator())
        axes.spines["left"].set_visible(False)
        axes.grid(visible=False)
        axes.set_ylim(bottom=0)
        axes.margins(x=0)
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
        axes.xaxis.set_major_formatter(_even(axes.xaxis))

    return svg(draw, label=label, size=(3.3, 1.15), box=(0.04, 0.2, 0.92, 0.76))


def score_plot(scores: Sequence[Score], *, label: str) -> Markup:
    """Draw scores with their intervals, best first; floors in grey."""
    ordered = sorted(scores, key=lambda s: s.value)

    def draw(axes: Axes) -> None:
        for y, score in enumerate(ordered):
            colour = ACCENT if score.is_model else MUTED
            axes.plot([score.low, score.high], [y, y], color=colour, linewidth=2.2)
            axes.plot([score.value], [y], color=colour, marker="o", markersize=5)
        names = [f"{s.encoder} · {s.method} · {s.features}" for s in ordered]
        axes.set_yticks(range(len(ordered)), names)
        axes.set_ylim(-0.6, len(ordered) - 0.4)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2f}"))

    height = 0.45 + 0.2 * len(ordered)
    below = 0.32 / height
    return svg(draw, label=label, size=(7.2, height), box=(0.34, below, 0.64, 0.98 - below))


def _even(axis: Axis) -> FuncFormatter:
    """Return what writes the numbers of an axis with evenly spaced ones."""

    def write(value: float, _: int | None) -> str:
        places = axis.get_majorticklocs()
        return tick(value, float(places[1] - places[0]) if len(places) > 1 else abs(value) or 1.0)

    return FuncFormatter(write)


def svg(
    draw: Callable[[Axes], None],
    *,
    label: str,
    size: tuple[float, float],
    box: tuple[float, float, float, float],
) -> Markup:
    """Draw into one set of axes and return the SVG element.

    Args:
        draw: fills the axes.
        label: what the plot shows, for those who cannot see it.
        size: inches, at 72 units each.
        box: left, bottom, width and height of the axes as shares of the figure.
    """
    with styled(label):
        figure = Figure(figsize=size)
        draw(figure.add_axes(box))
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    return themed(drawn.getvalue(), label=label)


def themed(text: str, *, label: str) -> Markup:
    """Turn matplotlib's file into an element of the page: coloured by it, labelled, short."""
    head, body = text[text.index("<svg") :].split(">", maxsplit=1)
    view = re.search(r'viewBox="[^"]*"', head)
    if view is None:
        raise ValueError("matplotlib wrote an SVG without a viewBox")
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    # A rule for `*` would hold for the whole page.
    body = re.sub(r"<style[^>]*>.*?</style>", "", body, flags=re.DOTALL)
    body = re.sub(r"<!--.*?-->", "", body, flags=re.DOTALL)
    body = re.sub(r'<g id="[A-Za-z0-9_.]+"', "<g", body)
    # The font is the page's.
    body = re.sub(r"font: ([\d.]+)px [^;\"]+", r"font-size: \1px", body)
    body = re.sub(r" ?font-family: [^;\"]+;?", "", body)
    body = re.sub(r'"[^"]*"', lambda value: re.sub(r"(\.\d\d)\d+", r"\1", value[0]), body)
    body = re.sub(r"\n\s*", "\n", body)
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, variable)
    opening = f'<svg {view[0]} role="img" aria-label="{escape(label)}" class="plot"'
    # The link names of old SVG are what matplotlib writes.
    return Markup(f'{opening} xmlns:xlink="http://www.w3.org/1999/xlink">{body}')  # noqa: S704
