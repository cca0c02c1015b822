"""The report of a run that learnt canopy heights, from what was measured at its end."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from geodino.data.splits import NAMES
from geodino.files import read_lines
from geodino.report.canopy import CanopyReport, HeightPoints, KeptIntervals, render_canopy
from geodino.report.content import Pairs
from geodino.report.curves import training_of
from geodino.report.maps import HeightCase
from geodino.report.scores import score_rows, with_interval
from geodino.runs.display import Display
from geodino.runs.finetune.canopy.prepare import PreparedGround
from geodino.runs.finetune.canopy.results import Results
from geodino.runs.finetune.canopy.scene import CanopyScene
from geodino.runs.finetune.canopy.words import in_words
from geodino.runs.finetune.page import repeated, write_page
from geodino.runs.record import RunFolder
from geodino.tasks.canopy.areas import Compared

_COLUMNS = {
    "mae_m": "MAE",
    "rmse_m": "RMSE",
    "bias_predicted_minus_true_m": "bias, predicted minus true",
    "r2": "R2",
    "block_r2_m": "block R2",
    "edge_error_m_per_px": "edge error",
    "tree_cover_iou": "tree cover IoU",
    "nmae": "nMAE",
}


def write_report(
    scene: CanopyScene, results: Results, folder: RunFolder, *, out: Path | None = None
) -> Path:
    """Write ``report.html``, or another file; return where it is.

    Raises:
        GeodinoError: it cannot be written, or a file of the run is damaged.
    """
    recorded = folder.read_facts()
    page = collected(
        scene.prepared, results, folder, figures=_figures(scene, recorded), data=_data(scene)
    )
    page = replace(
        page,
        curves=training_of(read_lines(folder.metrics)).curves,
        effects=_effects(results.facts["effects_on_val"]),
    )
    return write_page(folder, render_canopy(page), out=out)


def collected(
    prepared: PreparedGround[Any],
    results: Results,
    folder: RunFolder,
    *,
    figures: Pairs,
    data: Pairs,
) -> CanopyReport:
    """Return the page of any run that was judged on labelled ground, but for how it learnt."""
    facts = results.facts
    on = facts["reported_on"]
    found: dict[str, Any] = facts[on] if on else {"scores": {}, "by_site": {}, "model_minus": {}}
    rows_of = "Nothing could be measured: there is no labelled ground to do it on."
    if on:
        rows_of = (
            f"Whole labelled areas of {found['sites']} {on} sites, {found['pixels']:,} labels, each "
            "predicted as `geodino predict` would and compared on the labels' own grid."
        ) + facts["scored"]
    return CanopyReport(
        name=folder.root.resolve().name,
        summary=tuple(in_words(results)),
        figures=figures,
        data=data,
        decisions=prepared.notes,
        curves=(),
        columns=tuple(_COLUMNS.values()),
        rows=score_rows(found["scores"], _COLUMNS, decimals=2),
        rows_of=rows_of,
        differences=tuple(
            (name, with_interval(row["mae_m"], decimals=2) + " m")
            for name, row in found["model_minus"].items()
        ),
        classes=results.classes,
        sites=tuple(
            (
                name,
                f"{s['pixels']:,.0f}",
                _metres(s["mae_m"]),
                _metres(s["bias_predicted_minus_true_m"]),
            )
            for name, s in found["by_site"].items()
        ),
        coverage=_coverage(results),
        coverage_of=_coverage_words(facts),
        effects=(),
        cases=tuple(_case(prepared, one) for one in results.shown if one.true_m.ndim == 2),
        points=points(results, 0),
        repeat=repeated("canopy", prepared, folder),
    )


def _metres(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f} m"


def _figures(scene: CanopyScene, recorded: dict[str, Any]) -> Pairs:
    results = recorded["results"]
    windows = scene.windows
    return (
        ("steps to the best", f"{results['step']:,}"),
        ("labelled images", f"{len(scene.prepared.source.labelled):,}"),
        ("training labels", f"{windows.labels:,}"),
        ("crop", f"{windows.crop} px"),
    )


def ground(prepared: PreparedGround[Any]) -> Pairs:
    """Return what ground a run stands on, as rows."""
    split = prepared.source.split
    return (
        ("images", prepared.images_from),
        ("labels", prepared.labels_from),
        ("split", prepared.split_from or "blocks of ground, drawn by a seed"),
        ("sites", ", ".join(f"{len(split.sites(name))} {name}" for name in NAMES)),
    )


def _data(scene: CanopyScene) -> Pairs:
    prepared, windows = scene.prepared, scene.windows
    tall_m = f"{windows.tall_m:.1f} m"
    return (
        *ground(prepared),
        (
            "windows to learn from",
            f"{len(windows)}, {len(windows.low)} low, {len(windows.tall)} tall (from {tall_m})",
        ),
        ("augmentation", prepared.config.sampling.augment),
    )


def _coverage(results: Results) -> KeptIntervals | None:
    if results.coverage is None or results.intervals is None:
        return None
    return KeptIntervals(promised=results.intervals.coverage, found=results.coverage)


def _coverage_words(facts: dict[str, Any]) -> str:
    if facts["intervals"] is None:
        return str(facts["intervals_missing"])
    promised, sites = facts["intervals"]["coverage"], facts["intervals"]["sites"]
    text = (
        f"Intervals promise to hold {promised:.0%} of the pixels of a new site, on average over "
        f"sites; they were calibrated on {sites} sites."
    )
    if facts["coverage"] is None:
        return f"{text} There is no test ground to check them on."
    return f"{text} On the test sites they hold {facts['coverage']['coverage']:.0%}."


def _effects(effects: dict[str, Any]) -> Pairs:
    rows: list[tuple[str, str]] = [
        ("as the model makes maps", f"MAE {_metres(effects['mae_m'])} on {effects['areas']} areas")
    ]
    rows += [
        (
            name,
            f"changes heights by {_metres(e['mean_change_m'])} on average; MAE {_metres(e['mae_m'])}",
        )
        for name, e in effects.items()
        if isinstance(e, dict)
    ]
    return tuple(rows)


def _case(prepared: PreparedGround[Any], one: Compared) -> HeightCase:
    source, area = prepared.source, one.area
    pixels, seen = source.read_image(area.image, area.window)
    return HeightCase(
        name=f"site {area.site}, image {Path(source.images.tiles[area.image].path).name}",
        image=Display.of(prepared.opened.loaded.contract).seen(pixels, seen),
        predicted_m=np.where(one.valid, one.values[0], np.nan),
        true_m=one.true_m,
        valid=one.valid,
    )


def points(results: Results, channel: int) -> HeightPoints | None:
    """Return heights beside labels of what was reported; None without any.

    Args:
        results: what was measured.
        channel: of what was predicted: 0 is the height.
    """
    if not results.values:
        return None
    found = results.facts[results.facts["reported_on"]]
    true_m = np.concatenate([site.true_m for site in results.values])
    words = f"All {true_m.size:,} labels."
    if true_m.size < found["pixels"]:
        words = f"{true_m.size:,} of the {found['pixels']:,} labels: scores in the plot are theirs."
    return HeightPoints(
        predicted_m=np.concatenate([site.values[channel] for site in results.values]),
        true_m=true_m,
        words=words,
    )
