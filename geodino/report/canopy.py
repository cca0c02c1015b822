"""The page of a run that learnt canopy heights: curves, results beside floors, coverage, pictures."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from geodino.report.content import Curve, Pairs, Picture, Repeat
from geodino.report.curves import is_constant
from geodino.report.pictures import SIDE, coloured, data_uri, enlarged, enlargement, hatched
from geodino.report.plots import ACCENT, MUTED, SECOND, STEPS, curve_plot, svg
from geodino.report.words import number

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


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """One line of the table of results, each score as text with its interval."""

    name: str
    cells: tuple[str, ...]
    is_model: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class HeightPictures:
    """One labelled area as seen, as predicted, as measured, and how far the two are apart."""

    title: str
    pictures: tuple[Picture, ...]


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
    classes: tuple[tuple[str, float, float], ...]
    """Height class, mean absolute error and bias, metres."""
    sites: tuple[tuple[str, ...], ...]
    """Name, pixels, MAE, bias of each site."""
    coverage: tuple[tuple[str, str, str, str], ...]
    """Site or class, pixels, covered, width."""
    coverage_of: str
    effects: Pairs
    pictures: tuple[HeightPictures, ...]
    scatter: tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]] | None
    """True and predicted heights of a sample."""
    repeat: Repeat


def render_canopy(report: CanopyReport) -> str:
    """Return the whole page; the same report gives the same text."""
    environment = Environment(
        loader=PackageLoader("geodino.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(number=number, image=_image)
    style, _, _ = environment.loader.get_source(environment, "style.css")  # type: ignore[union-attr]
    return environment.get_template("canopy.html.j2").render(
        report=report,
        style=Markup(style),  # noqa: S704  (our own file)
        panels=[_panel(curve) for curve in _shown(report.curves)],
        classes=class_plot(report.classes) if report.classes else None,
        scatter=None if report.scatter is None else scatter_plot(*report.scatter),
    )


def height_picture(
    height_m: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    *,
    low_m: float,
    high_m: float,
    alt: str,
    caption: str,
) -> Picture:
    """Show heights, or differences of heights, from ``low_m`` to ``high_m``; hatched where invalid."""
    step = max(1, -(-max(valid.shape) // (2 * SIDE)))
    shown, there = height_m[::step, ::step], valid[::step, ::step]
    rgb = coloured(np.where(there, shown, low_m), low=low_m, high=max(high_m, low_m + 1e-6))
    factor = enlargement(max(there.shape))
    drawn = hatched(enlarged(rgb, factor), enlarged(there, factor))
    return Picture(rgb=drawn, alt=alt, caption=caption)


def class_plot(classes: tuple[tuple[str, float, float], ...]) -> Markup:
    """Draw error and bias of each class of true height."""

    def draw(axes: Axes) -> None:
        places = np.arange(len(classes))
        axes.bar(places, [mae for _, mae, _ in classes], width=0.6, color=ACCENT, alpha=0.65)
        axes.plot(places, [bias for _, _, bias in classes], color=SECOND, marker="o", markersize=4)
        axes.axhline(0.0, color=MUTED, linewidth=0.8)
        axes.set_xticks(places, [name for name, _, _ in classes])
        axes.grid(visible=False, axis="x")
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=STEPS))

    label = "Mean absolute error (bars) and bias (line) by true height, metres"
    return svg(draw, label=label, size=(7.2, 2.4), box=(0.07, 0.12, 0.92, 0.84))


def scatter_plot(true_m: Float[np.ndarray, " n"], predicted_m: Float[np.ndarray, " n"]) -> Markup:
    """Draw predicted against true heights of a sample of pixels."""
    top = float(max(true_m.max(), predicted_m.max(), 1.0))

    def draw(axes: Axes) -> None:
        axes.plot(
            true_m, predicted_m, linestyle="none", marker=".", markersize=2, color=ACCENT, alpha=0.4
        )
        axes.plot([0, top], [0, top], color=MUTED, linewidth=0.8)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(5, steps=STEPS))
        axes.set_xlim(0, top)
        axes.set_ylim(0, top)

    label = "Predicted against true height of a sample of pixels, metres"
    return svg(draw, label=label, size=(3.6, 3.6), box=(0.1, 0.08, 0.88, 0.9))


@dataclass(frozen=True, kw_only=True, slots=True)
class _Panel:
    title: str
    plot: Markup


def _shown(curves: tuple[Curve, ...]) -> list[Curve]:
    by_name: dict[str, Any] = {curve.name: curve for curve in curves}
    found = [by_name[name] for name in _TITLES if name in by_name]
    return [c for c in found if len(c.values) == 1 or not is_constant(c)]


def _panel(curve: Curve) -> _Panel:
    title = _TITLES[curve.name]
    last = curve.values[np.isfinite(curve.values)]
    said = number(float(last[-1])) if len(last) else "no finite value"
    return _Panel(title=title, plot=curve_plot(curve, label=f"{title}: {said} at last", log=False))


def _image(picture: Picture) -> Markup:
    height, width = picture.rgb.shape[:2]
    link = data_uri(picture.rgb, kind="photo")
    return Markup('<img src="{}" alt="{}" width="{}" height="{}">').format(
        link, picture.alt, width, height
    )
