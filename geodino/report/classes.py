"""The page of a run that learnt classes, of pixels or images: results, floors, confusion, pictures."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int
from markupsafe import Markup

from geodino.report.content import Curve, Pairs, Picture, Repeat
from geodino.report.panels import curve_panels
from geodino.report.pictures import data_uri
from geodino.report.render import rendered
from geodino.report.scores import ScoreRow, figure

_MOST_CLASSES = 40
"""Classes in the table of confusion, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassRow:
    """One class in the table of classes, figures as text."""

    name: str
    cells: tuple[str, ...]


def class_rows(
    classes: Mapping[str, Mapping[str, Any]], scores: Iterable[str], *, counted: str
) -> tuple[ClassRow, ...]:
    """Return a row for each class.

    Args:
        classes: by name, and there by name of the figure.
        scores: which figures are scores.
        counted: which one counts what the class is made of; it stands last.
    """
    scores = tuple(scores)
    return tuple(
        ClassRow(name=name, cells=(*(figure(row[key]) for key in scores), f"{row[counted]:,}"))
        for name, row in classes.items()
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassReport:
    """Everything the page says."""

    task: str
    """What was learnt: ``segmentation`` or ``classification``."""
    name: str
    summary: tuple[str, ...]
    figures: Pairs
    data: Pairs
    decisions: tuple[str, ...]
    curves: tuple[Curve, ...]
    titles: Mapping[str, str]
    """Of the curves that are shown, in this order."""
    columns: tuple[str, ...]
    rows: tuple[ScoreRow, ...]
    rows_of: str
    differences: Pairs
    differences_of: str
    """What was subtracted, the caption of ``differences``."""
    names: tuple[str, ...]
    class_columns: tuple[str, ...]
    classes: tuple[ClassRow, ...]
    confusion: Int[np.ndarray, "c c"] | None
    """Pixels or images per (true class, predicted class)."""
    counted: str
    """What ``confusion`` counts: ``pixels``, ``images``."""
    images: Pairs
    """Some images, each with what is said of it."""
    images_of: str
    """The caption of ``images``."""
    legend: Markup
    """The colours of the classes, where they have any."""
    pictures: Markup
    """Images with what was predicted."""
    pictures_of: str
    """What the pictures show."""
    repeat: Repeat


def render_classes(report: ClassReport) -> str:
    """Return the whole page; the same report gives the same text."""
    return rendered(
        "classes.html.j2",
        report=report,
        panels=curve_panels(report.curves, report.titles),
        confusion=None if report.confusion is None else confusion_table(report),
    )


def picture_row(pictures: Sequence[Picture]) -> Markup:
    """Return pictures side by side, each over its caption."""
    figures = Markup("").join(
        Markup(
            '<figure><img src="{}" alt="{}" width="{}" height="{}"><figcaption>{}</figcaption></figure>\n'
        ).format(
            data_uri(one.rgb, kind="photo"),
            one.alt,
            one.rgb.shape[1],
            one.rgb.shape[0],
            one.caption,
        )
        for one in pictures
    )
    return Markup('<div class="sample">{}</div>').format(figures) if pictures else Markup("")


def confusion_table(report: ClassReport) -> Markup:
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
        "{}, %</caption><thead><tr><th></th>{}</tr></thead><tbody>{}</tbody></table></div>"
    ).format(report.counted, heads, rows)


def _share(share: float, *, known: bool) -> Markup:
    if not known:
        return Markup('<td class="n">none</td>')
    shade = f"background:color-mix(in srgb, var(--accent) {round(60 * share)}%, transparent)"
    return Markup('<td class="n" style="{}">{}</td>').format(shade, f"{100 * share:.1f}")
