"""The report of a recalibration: that of fine-tuning, with the curve in the place of training."""

from dataclasses import replace
from pathlib import Path

from geodino.report.canopy import CurveShown, render_canopy
from geodino.runs.finetune.canopy.report import collected, ground, points
from geodino.runs.finetune.canopy.results import Results
from geodino.runs.finetune.page import write_page
from geodino.runs.recalibrate.fit import Learnt
from geodino.runs.recalibrate.prepare import PreparedRecalibration
from geodino.runs.record import RunFolder


def write_report(
    prepared: PreparedRecalibration,
    learnt: Learnt,
    results: Results,
    folder: RunFolder,
    *,
    out: Path | None = None,
) -> Path:
    """Write ``report.html``, or another file; return where it is.

    Raises:
        GeodinoError: it cannot be written, or a file of the run is damaged.
    """
    curve, wanted = learnt.curve, prepared.config.recalibrate
    figures = (
        ("knots", f"{len(curve.predicted_m)}"),
        ("labels it was fitted to", f"{int(learnt.bins.pixels.sum()):,}"),
        ("labelled images", f"{len(prepared.source.labelled):,}"),
    )
    page = collected(prepared, results, folder, figures=figures, data=ground(prepared))
    said = learnt.words(wanted.centre)
    words = (
        said,
        (
            f"Beyond {curve.predicted_m[-1]:.1f} m, where there are no labels to set it, the curve goes "
            f"on with {curve.slope_above:.2f} m per predicted metre."
        ),
    )
    before = 1 + len(_quantiles(prepared))
    page = replace(
        page,
        summary=(said, *page.summary),
        curve=CurveShown(
            curve=curve, bins=learnt.bins, before=points(results, before), words=words
        ),
    )
    return write_page(folder, render_canopy(page), out=out)


def _quantiles(prepared: PreparedRecalibration) -> tuple[float, ...]:
    task = prepared.task
    return () if task is None else task.canopy.model.config.quantiles
