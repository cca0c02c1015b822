"""Plots of how good heights are: against the truth, class by class, and what intervals kept."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator
from numpy import ndarray

from geodino.geo.height_colours import round_highest_m
from geodino.metrics.coverage import CoverageReport, GroupCoverage
from geodino.metrics.height import HeightClassScores
from geodino.metrics.height_maps import finite_values
from geodino.metrics.recalibration import HeightBins, HeightCurve
from geodino.report.plots import ACCENT, INK, MUTED, SECOND, STEPS, svg

Values = Float[ndarray, "*s"]

_CELLS = 36
"""Hexagons from end to end of an axis."""

_SHOWN = 99.9
"""Percentile of the heights that the axes reach; what lies beyond is drawn at their ends."""

_FAINTEST = 0.12
"""Opacity of a hexagon of one pixel."""


def height_scatter(
    predicted_m: Values,
    true_m: Values,
    valid: Bool[ndarray, "*s"],
    *,
    label: str,
    highest_m: float | None = None,
) -> Markup:
    """Draw predicted against true heights as hexagons, with the line of equality and scores.

    The more opaque a hexagon, the more pixels it holds, on a logarithmic scale. A truth below 0 m
    counts as 0 m, as in :mod:`geodino.metrics.height`. Heights beyond the axes lie at their ends;
    scores are of all.

    Args:
        predicted_m: metres.
        true_m: metres.
        valid: which pixels count.
        label: what the plot shows, for those who cannot see it.
        highest_m: end of both axes; None suits the heights.

    Raises:
        ValueError: a valid pixel without a finite height.
    """
    p = finite_values(predicted_m, valid, name="predicted height")
    t = np.maximum(finite_values(true_m, valid, name="true height"), 0.0)
    top = highest_m
    if top is None:
        both = np.concatenate([p, t])
        top = round_highest_m(float(np.percentile(both, _SHOWN)) if both.size else 0.0)

    def draw(axes: Axes) -> None:
        axes.plot([0, top], [0, top], color=SECOND, linewidth=1.0, zorder=3)
        if t.size:
            _hexagons(axes, t.clip(0, top), p.clip(0, top), top)
        for line, words in enumerate(_scores(p, t)):
            axes.text(0.03, 0.97 - 0.075 * line, words, transform=axes.transAxes, va="top")
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="true, m", ylabel="predicted, m")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, steps=STEPS))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    return svg(draw, label=label, size=(3.6, 3.6), box=(0.13, 0.12, 0.84, 0.84))


def curve_of_heights(curve: HeightCurve, bins: HeightBins | None, *, label: str) -> Markup:
    """Draw what predicted heights become, with the line of no change and the bins it was fitted to.

    Beyond the highest knot the curve is dashed.

    Args:
        curve: what heights become.
        bins: a dot each, the larger the more sites it is worth; None draws none.
        label: what the plot shows, for those who cannot see it.
    """
    last = curve.predicted_m[-1]
    top = round_highest_m(max(1.25 * last, curve.height_m[-1], 1.0))

    def draw(axes: Axes) -> None:
        beyond = np.array([last, max(last, top)])
        axes.plot([0, top], [0, top], color=SECOND, linewidth=1.0)
        axes.plot(curve.predicted_m, curve.height_m, color=ACCENT, linewidth=1.6)
        axes.plot(beyond, curve.apply(beyond), color=ACCENT, linewidth=1.2, linestyle="--")
        if bins is not None:
            size = 6 + 24 * bins.sites / bins.sites.max()
            axes.scatter(bins.predicted_m, bins.true_m, s=size, color=INK, alpha=0.5, linewidth=0)
        axes.set(xlim=(0, top), ylim=(0, top), xlabel="predicted, m", ylabel="becomes, m")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(6, steps=STEPS))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    return svg(draw, label=label, size=(3.6, 3.6), box=(0.13, 0.12, 0.84, 0.84))


def class_error_plot(classes: Sequence[HeightClassScores], *, label: str) -> Markup:
    """Draw the mean absolute error of each height class as a bar, and its bias as a dot.

    How many pixels a class has stands above its bar: few say little.

    Args:
        classes: by true height, as :class:`geodino.metrics.height.HeightScores` has them.
        label: what the plot shows, for those who cannot see it.
    """

    def draw(axes: Axes) -> None:
        places = np.arange(len(classes))
        mae = np.array([one.mae_m for one in classes])
        bias = np.array([one.bias_predicted_minus_true_m for one in classes])
        some = np.isfinite(mae)
        axes.bar(places[some], mae[some], width=0.7, color=ACCENT, alpha=0.65, linewidth=0)
        axes.plot(places[some], bias[some], color=SECOND, marker="o", markersize=4, linestyle="")
        axes.axhline(0.0, color=MUTED, linewidth=0.6)
        for place, one, height in zip(places, classes, np.where(some, mae, 0.0), strict=True):
            axes.annotate(
                short_count(one.pixels), (place, height), (0, 2), textcoords="offset points",
                ha="center", va="bottom", color=MUTED, fontsize=8,
            )  # fmt: skip
        axes.set_xticks(places, [one.name.replace("m", " m") for one in classes])
        axes.tick_params(axis="x", length=0)
        axes.grid(visible=False, axis="x")
        axes.margins(y=0.14)
        axes.set_xlim(-0.6, len(classes) - 0.4)
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylabel("error, m")

    return svg(draw, label=label, size=(7.2, 2.3), box=(0.07, 0.12, 0.92, 0.85))


def class_coverage_plot(report: CoverageReport, *, promised: float, label: str) -> Markup:
    """Draw how often the truth lies in its interval, by predicted height, lowest class on top.

    Args:
        report: what was counted.
        promised: coverage the intervals were made for, 0 to 1; marked by a line.
        label: what the plot shows, for those who cannot see it.
    """
    groups = [(one, one.name.replace("m", " m")) for one in report.classes]
    return _coverage(groups, promised=promised, label=label)


def site_coverage_plot(
    report: CoverageReport, *, promised: float, label: str, most: int = 30
) -> Markup:
    """Draw how often the truth lies in its interval, site by site, the least covered on top.

    Args:
        report: what was counted.
        promised: coverage the intervals were made for, 0 to 1; marked by a line.
        label: what the plot shows, for those who cannot see it.
        most: sites shown; of more, the least covered ones.
    """
    worst = sorted(report.sites, key=lambda site: site.coverage)[:most]
    return _coverage([(one, one.name) for one in worst], promised=promised, label=label)


def short_count(pixels: int) -> str:
    """Return a count in a few characters: ``950``, ``12 k``, ``3.4 M``."""
    if pixels < 1000:
        return str(pixels)
    # What would be rounded to 1000 k is written as 1.0 M.
    power = next(p for p in (1, 2, 3) if pixels < 999.5 * 1000**p or p == 3)
    value = pixels / 1000**power
    return f"{value:.1f} {' kMG'[power]}" if value < 9.95 else f"{value:,.0f} {' kMG'[power]}"


def _hexagons(axes: Axes, x: Float[ndarray, " n"], y: Float[ndarray, " n"], top: float) -> None:
    cells = axes.hexbin(
        x, y, gridsize=_CELLS, extent=(0, top, 0, top), mincnt=1, linewidths=0, zorder=2
    )
    logs = np.log(np.asarray(cells.get_array(), dtype=np.float64))
    share = logs / max(float(logs.max()), 1e-9)
    opacity = _FAINTEST + (1 - _FAINTEST) * share
    cells.set_array(None)
    # One colour of many opacities: the page's own, light or dark.
    cells.set_facecolor([(*to_rgb(ACCENT), float(o)) for o in opacity])


def _scores(p: Float[ndarray, " n"], t: Float[ndarray, " n"]) -> list[str]:
    if not t.size:
        return ["no pixel"]
    error = p - t
    spread = np.square(t - t.mean()).sum()
    r2 = (
        f"{1 - np.square(error).sum() / spread:.2f}" if spread > 1e-12 * np.square(t).sum() else "–"
    )
    return [
        f"{short_count(t.size)} pixels",
        f"MAE {np.abs(error).mean():.2f} m",
        f"RMSE {np.sqrt(np.square(error).mean()):.2f} m",
        f"bias {error.mean():+.2f} m",
        f"R² {r2}",
    ]


def _coverage(
    groups: Sequence[tuple[GroupCoverage, str]], *, promised: float, label: str
) -> Markup:
    rows = list(reversed(groups))  # the first on top

    def draw(axes: Axes) -> None:
        axes.axvline(promised, color=SECOND, linewidth=1.2)
        for y, (one, _) in enumerate(rows):
            said = "no pixel"
            if np.isfinite(one.coverage):
                axes.plot([promised, one.coverage], [y, y], color=ACCENT, linewidth=1.6)
                axes.plot(
                    [one.coverage], [y], color=ACCENT, marker="o", markersize=5, clip_on=False
                )
                said = f"{100 * one.coverage:.1f} % · {one.width_m:.1f} m wide"
                said += f" · {short_count(one.pixels)} pixels"
            axes.text(
                1.02, y, said, transform=axes.get_yaxis_transform(), va="center", color=INK,
                fontsize=8,
            )  # fmt: skip
        axes.set_yticks(range(len(rows)), [name for _, name in rows])
        axes.set_ylim(-0.6, len(rows) - 0.4)
        low = min((one.coverage for one, _ in rows if np.isfinite(one.coverage)), default=promised)
        axes.set_xlim(max(0.0, min(low, promised) - 0.05), 1.0)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.yaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_locator(MaxNLocator(5, steps=STEPS))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))

    height = 0.45 + 0.2 * len(rows)
    below = 0.32 / height
    return svg(draw, label=label, size=(7.2, height), box=(0.2, below, 0.5, 0.98 - below))
