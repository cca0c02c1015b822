"""The report of a run that learnt classes of pixels, from what was measured at its end."""

from pathlib import Path
from typing import Any

from geodino.files import read_lines
from geodino.report.class_maps import ClassCase, class_legend, class_panels
from geodino.report.classes import ClassReport, class_rows, render_classes
from geodino.report.content import Pairs
from geodino.report.curves import training_of
from geodino.report.scores import figure, score_rows, with_interval
from geodino.runs.display import Display
from geodino.runs.finetune.page import labelled_set, repeated, write_page
from geodino.runs.finetune.segmentation.results import Results, in_words
from geodino.runs.finetune.segmentation.scene import SegmentationScene
from geodino.runs.record import RunFolder
from geodino.tasks.segmentation.evaluate import Judged

_TITLES = {
    "loss/total": "total loss",
    "loss/cross_entropy": "cross-entropy",
    "loss/focal": "focal loss",
    "loss/dice": "Dice loss",
    "loss/class": "classes of queries",
    "loss/mask": "masks of queries",
    "val/miou": "validation mean IoU",
    "val/pixel_accuracy": "validation share of right pixels",
    "lr": "learning rate",
    "gradient_norm": "gradient norm",
}
"""Curves that are shown, in this order, before those of single classes."""

_COLUMNS = {"miou": "mean IoU", "pixel_accuracy": "right pixels"}
_OF_CLASS = ("iou", "precision", "recall")
_IMAGES = 20
"""Images in the table, at most."""


def write_report(
    scene: SegmentationScene, results: Results, folder: RunFolder, *, out: Path | None = None
) -> Path:
    """Write ``report.html``, or another file; return where it is.

    Raises:
        GeodinoError: it cannot be written, or a file of the run is damaged.
    """
    return write_page(folder, render_classes(_collected(scene, results, folder)), out=out)


def _collected(scene: SegmentationScene, results: Results, folder: RunFolder) -> ClassReport:
    facts, prepared = results.facts, scene.prepared
    on = facts["reported_on"]
    empty: dict[str, Any] = {"scores": {}, "model_minus": {}, "classes": {}, "by_image": {}}
    found: dict[str, Any] = facts[on] if on else empty
    recorded = folder.read_facts()
    rows_of = "Nothing could be measured: no image of test or val has labels."
    if on:
        rows_of = (
            f"{found['images']} whole {on} images, {found['pixels']:,} labelled pixels, predicted as "
            "`geodino predict` would."
        )
    names, colours = prepared.source.classes, prepared.data.colours
    cases = [_case(scene, one) for one in results.shown]
    worst = sorted(found["by_image"].items(), key=lambda item: _known(item[1]))[:_IMAGES]
    return ClassReport(
        task="segmentation",
        name=folder.root.resolve().name,
        summary=tuple(in_words(results)),
        figures=_figures(scene, recorded),
        data=_data(scene),
        decisions=prepared.notes,
        curves=training_of(read_lines(folder.metrics)).curves,
        titles=_TITLES | {f"val/iou/{name}": f"validation IoU: {name}" for name in names},
        columns=tuple(_COLUMNS.values()),
        rows=score_rows(found["scores"], _COLUMNS),
        rows_of=rows_of,
        differences=tuple(
            (name, with_interval(row["miou"])) for name, row in found["model_minus"].items()
        ),
        differences_of="Mean IoU of the model minus that of each floor, on the same images; above 0 the "
        "model is better",
        names=names,
        class_columns=("IoU", "precision", "recall", "true pixels"),
        classes=class_rows(found["classes"], _OF_CLASS, counted="pixels"),
        confusion=results.confusion,
        counted="pixels",
        images=tuple((key, figure(value)) for key, value in worst),
        images_of="Mean IoU of single images, the lowest first",
        legend=class_legend(names, colours),
        pictures=class_panels(cases, colours=colours),
        pictures_of="Some images, or a part of large ones, predicted as maps are. Hatched: no truth, or "
        "no valid image.",
        repeat=repeated("segmentation", prepared, folder),
    )


def _known(value: float | None) -> float:
    return float("inf") if value is None else value


def _figures(scene: SegmentationScene, recorded: dict[str, Any]) -> Pairs:
    parts = scene.prepared.data.set.parts
    return (
        ("steps to the best", f"{recorded['results']['step']:,}"),
        ("training images", f"{len(parts.get('train', ())):,}"),
        ("classes", str(len(scene.prepared.source.classes))),
        ("crop", f"{scene.crop} px"),
    )


def _data(scene: SegmentationScene) -> Pairs:
    prepared = scene.prepared
    counts = scene.windows.frequency
    total = max(int(counts.sum()), 1)
    shares = ", ".join(
        f"{name} {n / total:.1%}"
        for name, n in zip(prepared.source.classes, counts.tolist(), strict=True)
    )
    return (
        *labelled_set(prepared),
        ("classes in training", shares),
        ("augmentation", prepared.config.sampling.augment),
        *_seen(prepared.config.gsd_m),
    )


def _seen(gsd_m: float | None) -> Pairs:
    if gsd_m is None:
        return ()
    return (("seen by the model", f"resampled to {gsd_m:g} m; scored on the images' own pixels"),)


def _case(scene: SegmentationScene, one: Judged) -> ClassCase:
    source = scene.prepared.source
    pixels, seen = source.read(one.cell.key, one.cell.window)
    return ClassCase(
        name=one.cell.key,
        image=Display.of(scene.prepared.opened.loaded.contract).seen(pixels, seen),
        predicted=one.predicted,
        truth=one.truth,
    )
