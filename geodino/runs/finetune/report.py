"""The report of a run that learnt canopy heights, from what was measured at its end."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from geodino import seeds
from geodino.data.splits import NAMES
from geodino.files import read_lines, write_text
from geodino.report.canopy import (
    CanopyReport,
    HeightPictures,
    ScoreRow,
    height_picture,
    render_canopy,
)
from geodino.report.content import Pairs, Repeat
from geodino.report.curves import training_of
from geodino.runs.display import Display
from geodino.runs.finetune.job import in_words
from geodino.runs.finetune.results import Results
from geodino.runs.finetune.train import Scene
from geodino.runs.record import RunFolder
from geodino.runs.report import license_words
from geodino.tasks.canopy.areas import Compared
from geodino.tasks.canopy.evaluate import SiteValues

_COLUMNS = {
    "mae_m": "MAE",
    "rmse_m": "RMSE",
    "bias_predicted_minus_true_m": "bias, predicted minus true",
    "r2": "R2",
    "block_r2_m": "block R2",
    "edge_error_m_per_px": "edge error",
    "tree_cover_iou": "tree cover IoU",
}

_POINTS = 3000
"""Pixels in the plot of predicted against true heights."""


def write_report(scene: Scene, results: Results, folder: RunFolder) -> Path:
    """Write ``report.html``; return where it is.

    Raises:
        GeodinoError: it cannot be written, or a file of the run is damaged.
    """
    write_text(folder.report, render_canopy(_collected(scene, results, folder)))
    return folder.report


def _collected(scene: Scene, results: Results, folder: RunFolder) -> CanopyReport:
    facts, prepared = results.facts, scene.prepared
    on = facts["reported_on"]
    found: dict[str, Any] = facts[on] if on else {"scores": {}, "by_site": {}, "model_minus": {}}
    rows = tuple(
        ScoreRow(
            name=name,
            cells=tuple(_cell(scores[key]) for key in _COLUMNS),
            is_model=name == "model",
        )
        for name, scores in found["scores"].items()
    )
    recorded = folder.read_facts()
    rows_of = "Nothing could be measured: there is no labelled ground to do it on."
    if on:
        rows_of = (
            f"Whole labelled areas of {found['sites']} {on} sites, {found['pixels']:,} labels, each "
            "predicted as `geodino predict` would and compared on the labels' own grid."
        )
    return CanopyReport(
        name=folder.root.resolve().name,
        summary=tuple(in_words(results)),
        figures=_figures(scene, recorded),
        data=_data(scene),
        decisions=prepared.notes,
        curves=training_of(read_lines(folder.metrics)).curves,
        columns=tuple(_COLUMNS.values()),
        rows=rows,
        rows_of=rows_of,
        differences=tuple(
            (name, _cell(row["mae_m"]) + " m") for name, row in found["model_minus"].items()
        ),
        classes=_classes(scene, found),
        sites=tuple(
            (
                name,
                f"{s['pixels']:,.0f}",
                _metres(s["mae_m"]),
                _metres(s["bias_predicted_minus_true_m"]),
            )
            for name, s in found["by_site"].items()
        ),
        coverage=_coverage(facts),
        coverage_of=_coverage_words(facts),
        effects=_effects(facts["effects_on_val"]),
        pictures=tuple(_pictures(scene, one) for one in results.shown if one.true_m.ndim == 2),
        scatter=_scatter(results.values, prepared.config.train.seed),
        repeat=_repeat(scene, recorded, folder),
    )


def _cell(score: dict[str, float | None]) -> str:
    value, low, high = score["value"], score["low"], score["high"]
    if value is None:
        return "none"
    return (
        f"{value:.2f}" if low is None or high is None else f"{value:.2f} ({low:.2f} to {high:.2f})"
    )


def _metres(value: float | None) -> str:
    return "none" if value is None else f"{value:.2f} m"


def _figures(scene: Scene, recorded: dict[str, Any]) -> Pairs:
    results = recorded["results"]
    windows = scene.windows
    return (
        ("steps to the best", f"{results['step']:,}"),
        ("labelled images", f"{len(scene.prepared.source.labelled):,}"),
        ("training labels", f"{windows.labels:,}"),
        ("crop", f"{windows.crop} px"),
    )


def _data(scene: Scene) -> Pairs:
    prepared, windows = scene.prepared, scene.windows
    split, tall_m = prepared.source.split, f"{windows.tall_m:.1f} m"
    return (
        ("images", prepared.images_from),
        ("labels", prepared.labels_from),
        ("split", prepared.split_from or "blocks of ground, drawn by a seed"),
        ("sites", ", ".join(f"{len(split.sites(name))} {name}" for name in NAMES)),
        (
            "windows to learn from",
            f"{len(windows)}, {len(windows.low)} low, {len(windows.tall)} tall (from {tall_m})",
        ),
        ("augmentation", prepared.config.sampling.augment),
    )


def _classes(scene: Scene, found: dict[str, Any]) -> tuple[tuple[str, float, float], ...]:
    scores = found["scores"].get("model", {})
    rows = []
    for name in scene.prepared.config.protocol.class_names:
        mae = scores.get(f"class/{name}/mae_m", {}).get("value")
        bias = scores.get(f"class/{name}/bias_predicted_minus_true_m", {}).get("value")
        if mae is not None and bias is not None:
            rows.append((name, float(mae), float(bias)))
    return tuple(rows)


def _coverage(facts: dict[str, Any]) -> tuple[tuple[str, str, str, str], ...]:
    coverage = facts["coverage"]
    if coverage is None:
        return ()
    return tuple(
        (
            group["name"],
            f"{group['pixels']:,}",
            "none" if group["coverage"] is None else f"{group['coverage']:.0%}",
            _metres(group["width_m"]),
        )
        for group in (*coverage["sites"], *coverage["classes"])
        if group["pixels"]
    )


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


def _pictures(scene: Scene, one: Compared) -> HeightPictures:
    source = scene.prepared.source
    area = one.area
    pixels, valid = source.read_image(area.image, area.window)
    display = Display.of(scene.prepared.opened.loaded.contract)
    top = float(max(one.true_m[one.valid].max(), one.values[0][one.valid].max(), 1.0))
    error = one.values[0] - one.true_m
    far = float(np.quantile(np.abs(error[one.valid]), 0.98))
    site = f"site {area.site}"
    mae = float(np.abs(error[one.valid]).mean())
    return HeightPictures(
        title=f"Site {area.site}, image {Path(source.images.tiles[area.image].path).name}",
        pictures=(
            display.stored(pixels, np.asarray(valid), alt=f"Image of {site}", caption="image"),
            height_picture(
                one.values[0], one.valid, low_m=0.0, high_m=top, alt=f"Predicted heights of {site}",
                caption=f"predicted, 0 to {top:.0f} m",
            ),
            height_picture(
                one.true_m, one.valid, low_m=0.0, high_m=top, alt=f"True heights of {site}",
                caption=f"true, 0 to {top:.0f} m",
            ),
            height_picture(
                error, one.valid, low_m=-far, high_m=far, alt=f"Errors at {site}",
                caption=f"predicted minus true, -{far:.1f} to {far:.1f} m; MAE {mae:.2f} m",
            ),
        ),
    )  # fmt: skip


def _scatter(values: list[SiteValues], seed: int) -> tuple[np.ndarray, np.ndarray] | None:
    if not values:
        return None
    true = np.concatenate([site.true_m for site in values])
    predicted = np.concatenate([site.values[0] for site in values])
    some = seeds.rng(seed, "scatter").permutation(true.size)[:_POINTS]
    return true[some], predicted[some]


def _repeat(scene: Scene, recorded: dict[str, Any], folder: RunFolder) -> Repeat:
    prepared = scene.prepared
    start = prepared.config.start
    words = [
        "geodino", "finetune", "canopy", "--images", prepared.images_from, "--labels",
        prepared.labels_from, "--model", start.model if start else "MODEL", "--recipe",
        str(folder.recipe), "--split", str(folder.split), "--out", "NEW_RUN",
    ]  # fmt: skip
    return Repeat(
        commands=(
            f"{recorded['command']}    # as it was run",
            f"{shlex.join(words)}    # the same, from the record",
        ),
        facts=(
            ("images, labels, split", f"SHA-256 {prepared.fingerprint}"),
            ("seed", str(recorded["seed"])),
            ("started from", f"{start.name}, SHA-256 {start.sha256}" if start else "unknown"),
            ("commit", recorded["commit"] or "an installed package"),
        ),
        versions=(
            ("geodino", recorded["geodino"]),
            ("Python", recorded["python"]),
            *recorded["versions"].items(),
        ),
        recipe=folder.recipe.read_text(encoding="utf-8"),
        license=license_words(folder.model / "config.json"),
    )
