"""The page of a run that learnt canopy heights: curves, results beside floors, coverage, pictures."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from markupsafe import Markup

from geodino.metrics.coverage import CoverageReport
from geodino.metrics.height import HeightClassScores
from geodino.metrics.recalibration import HeightBins, HeightCurve
from geodino.report.content import Curve, Pairs, Repeat
from geodino.report.height_plots import (
    class_coverage_plot,
    class_error_plot,
    curve_of_heights,
    height_scatter,
    site_coverage_plot,
)
from geodino.report.maps import HeightCase, height_panels
from geodino.report.panels import curve_panels
from geodino.report.render import rendered
from geodino.report.scores import ScoreRow

_TITLES = {
    "loss/total": "total loss",
    "loss/silog": "scale-invariant log error",
    "loss/charbonnier": "Charbonnier, metres",
    "loss/gradient": "patch gradient",
    "loss/pinball": "pinball, metres",
    "val/mae_m": "validation MAE, metres",
    "val/bias_predicted_minus_true_m": "validation bias, metres",
    "val/edge_error_m_per_px": "validation edge error, metres per pixel",
    "lr": "learning rate",
    "gradient_norm": "gradient norm",
}
"""Curves that are shown, in this order."""

_SITES = 30
"""Sites in the plot of coverage, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeightPoints:
    """Heights of single pixels, or of footprints."""

    predicted_m: Float[np.ndarray, " n"]
    true_m: Float[np.ndarray, " n"]
    words: str
    """Which pixels they are, as a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptIntervals:
    """What was promised of intervals, and what was found."""

    promised: float
    """Coverage, 0 to 1."""
    found: CoverageReport


@dataclass(frozen=True, kw_only=True, slots=True)
class CurveShown:
    """The curve that heights go through, and how they were before."""

    curve: HeightCurve
    bins: HeightBins | None
    """What it was fitted to; None where that is not known any more."""

    before: HeightPoints | None
    """Heights before, on the labels that are reported."""

    words: tuple[str, ...]
    """What it is and does, as sentences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CanopyReport:
    """Everything the page says."""

    name: str
    summary: tuple[str, ...]
    figures: Pairs
    data: Pairs
    decisions: tuple[str, ...]
    curves: tuple[Curve, ...]
    columns: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    rows_of: str
    differences: Pairs
    classes: tuple[HeightClassScores, ...]
    """By true height."""
    sites: tuple[tuple[str, ...], ...]
    """Name, pixels, MAE, bias of each site."""
    coverage: KeptIntervals | None
    coverage_of: str
    """What intervals promise and keep, or why there are none."""
    effects: Pairs
    cases: tuple[HeightCase, ...]
    """Labelled areas to show."""
    points: HeightPoints | None
    repeat: Repeat
    curve: CurveShown | None = None
    """What became of a model's heights, where they were set right."""


def render_canopy(report: CanopyReport) -> str:
    """Return the whole page; the same report gives the same text."""
    return rendered(
        "canopy.html.j2",
        report=report,
        panels=curve_panels(report.curves, _TITLES),
        classes=class_error_plot(
            report.classes,
            label="Mean absolute error (bars) and bias (dots) by true height, metres",
        )
        if report.classes
        else None,
        scatter=None if report.points is None else _scatter(report.points),
        before=None
        if report.curve is None or report.curve.before is None
        else _scatter(report.curve.before),
        curve=None
        if report.curve is None
        else curve_of_heights(
            report.curve.curve,
            report.curve.bins,
            label="What heights become, metres, and the labels that say so",
        ),
        maps=height_panels(report.cases),
        most_sites=_SITES,
        coverage=[] if report.coverage is None else _coverage_plots(report.coverage),
    )


def _scatter(points: HeightPoints) -> Markup:
    return height_scatter(
        points.predicted_m,
        points.true_m,
        np.ones(points.true_m.shape, dtype=bool),
        label="Predicted against true height, metres",
    )


def _coverage_plots(coverage: KeptIntervals) -> list[Markup]:
    found, promised = coverage.found, coverage.promised
    return [
        site_coverage_plot(
            found, promised=promised, most=_SITES, label="Share of the pixels of each site whose true "
            f"height lies in its interval; a line at the {promised:.0%} that were promised",
        ),
        class_coverage_plot(
            found, promised=promised, label="The same share by predicted height, all sites together",
        ),
    ]  # fmt: skip
