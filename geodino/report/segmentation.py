"""The page of a run that learnt classes of pixels: results beside floors, confusion, pictures."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from geodino.report.canopy import ScoreRow
from geodino.report.class_maps import ClassCase, Colour, class_legend, class_panels
from geodino.report.content import Curve, Pairs, Repeat
from geodino.report.panels import curve_panels

_TITLES = {
    "loss/total": "total loss",
    "loss/cross_entropy": "cross-entropy",
    "loss/focal": "focal loss",
    "loss/dice": "Dice loss",
    "val/miou": "validation mean IoU",
    "val/pixel_accuracy": "validation share of right pixels",
    "lr": "learning rate",
    "gradient_norm": "gradient norm",
}
"""Curves that are shown, in this order, before those of single classes."""

_IOU = "val/iou/"

_MOST_CLASSES = 40
"""Classes in the table of confusion, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One class in the table of classes, figures as text."""

    name: str
    cells: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentationReport:
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
    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    class_columns: tuple[str, ...]
    classes: tuple[ClassRow, ...]
    confusion: Int[np.ndarray, "c c"] | None
    """Pixels per (true class, predicted class)."""
    images: tuple[tuple[str, str], ...]
    """Image and its mean IoU."""
    cases: tuple[ClassCase, ...]
    repeat: Repeat


def render_segmentation(report: SegmentationReport) -> str:
    """Return the whole page; the same report gives the same text."""
    environment = Environment(
        loader=PackageLoader("geodino.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    style, _, _ = environment.loader.get_source(environment, "style.css")  # type: ignore[union-attr]
    titles = _TITLES | {f"{_IOU}{name}": f"validation IoU: {name}" for name in report.names}
    return environment.get_template("segmentation.html.j2").render(
        report=report,
        style=Markup(style),  # noqa: S704  (our own file)
        panels=curve_panels(report.curves, titles),
        legend=class_legend(report.names, report.colours),
        maps=class_panels(report.cases, colours=report.colours),
        confusion=None if report.confusion is None else confusion_table(report),
    )


def confusion_table(report: SegmentationReport) -> Markup:
    """Return the shares of each true class that are predicted as each class; darker is more."""
    counts = report.confusion
    if counts is None or len(counts) > _MOST_CLASSES:
        return Markup("")
    total = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(total, 1)
    heads = Markup("").join(
        Markup('<th scope="col" class="n">{}</th>').format(name) for name in report.names
    )
    rows = Markup("").join(
        Markup('<tr><th scope="row">{}</th>{}</tr>\n').format(
            name, Markup("").join(_share(v, known=bool(total[i, 0])) for v in shares[i].tolist())
        )
        for i, name in enumerate(report.names)
    )
    return Markup(
        '<div class="scroll"><table><caption>True classes down, predicted across: share of the true '
        "pixels, %</caption><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(heads, rows)


def _share(share: float, *, known: bool) -> Markup:
    if not known:
        return Markup('<td class="n">none</td>')
    shade = f"background:color-mix(in srgb, var(--accent) {round(60 * share)}%, transparent)"
    return Markup('<td class="n" style="{}">{}</td>').format(shade, f"{100 * share:.1f}")
