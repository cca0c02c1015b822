"""The report of a run that learnt to find objects, from what was measured at its end."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from markupsafe import Markup

from geodino.data.labelled.boxes import name_of
from geodino.data.labelled.sets import Boxes
from geodino.files import read_lines
from geodino.geo.windows import Window
from geodino.report.box_pictures import BoxCase, ShownBoxes, box_legend, box_panels
from geodino.report.classes import ClassReport, class_rows, render_classes
from geodino.report.content import Pairs
from geodino.report.curves import training_of
from geodino.report.scores import score_rows, with_interval
from geodino.runs.display import Display
from geodino.runs.finetune.detection.results import Results, in_words
from geodino.runs.finetune.detection.scene import DetectionScene
from geodino.runs.finetune.page import labelled_set, repeated, write_page
from geodino.runs.record import RunFolder
from geodino.tasks.detection.judge import Judged, native

_TITLES = {
    "loss/total": "total loss",
    "loss/rpn_cls": "proposals: object or not",
    "loss/rpn_box": "proposals: boxes",
    "loss/roi_cls": "boxes: class",
    "loss/roi_box": "boxes: corners",
    "val/ap50": "validation AP50",
    "val/coco_ap": "validation COCO AP",
    "lr": "learning rate",
    "gradient_norm": "gradient norm",
}
"""Curves that are shown, in this order, before those of single classes."""

_COLUMNS = {
    "ap50": "AP50",
    "coco_ap": "COCO AP",
    "coco_ap50": "COCO AP50",
    "coco_ap75": "COCO AP75",
    "coco_ap_small": "small",
    "coco_ap_medium": "medium",
    "coco_ap_large": "large",
}
_IMAGES = 20
"""Images in the table, at most."""

_WINDOW = 768
"""Longest side of what is shown of an image, pixels."""


def write_report(
    scene: DetectionScene, results: Results, folder: RunFolder, *, out: Path | None = None
) -> Path:
    """Write ``report.html``, or another file; return where it is.

    Raises:
        GeodinoError: it cannot be written, or a file of the run is damaged.
    """
    return write_page(folder, render_classes(_collected(scene, results, folder)), out=out)


def _collected(scene: DetectionScene, results: Results, folder: RunFolder) -> ClassReport:
    facts, prepared = results.facts, scene.prepared
    found: dict[str, Any] = facts[facts["reported_on"]]
    recorded = folder.read_facts()
    names = prepared.source.classes
    worst = sorted(found["by_image"].items(), key=lambda item: -_errors(item[1]))[:_IMAGES]
    return ClassReport(
        task="detection",
        name=folder.root.resolve().name,
        summary=tuple(in_words(results)),
        figures=_figures(scene, recorded),
        data=_data(scene),
        decisions=prepared.notes,
        curves=training_of(read_lines(folder.metrics)).curves,
        titles=_TITLES | {f"val/ap50/{name}": f"validation AP50: {name}" for name in names},
        columns=tuple(_COLUMNS.values()),
        rows=score_rows(found["scores"], _COLUMNS),
        rows_of=f"{found['boxes']:,} objects in {found['images']} whole {facts['reported_on']} images. "
        "AP50: PASCAL VOC's area under precision and recall at IoU .5. COCO AP: its mean over IoUs from "
        ".5 to .95; small up to 32 x 32 px, large from 96 x 96 px on.",
        differences=tuple(
            (name, with_interval(row["ap50"])) for name, row in found["model_minus"].items()
        ),
        differences_of="AP50 of the model minus that of each floor, on the same images; above 0 the model "
        "is better",
        names=names,
        class_columns=("AP50", "COCO AP", "true boxes"),
        classes=class_rows(found["classes"], ("ap50", "coco_ap"), counted="boxes"),
        confusion=None,
        counted="boxes",
        images=tuple((name_of(key), _in_image(row)) for key, row in worst),
        images_of=f"Boxes from a score of {facts['score']:.2f} on, images with most errors first",
        legend=Markup(""),
        pictures=box_legend()
        + box_panels([_case(scene, one, facts["score"]) for one in results.shown]),
        pictures_of="Some images, or a part of large ones, with the boxes from a score of "
        f"{facts['score']:.2f} on. Hatched: invalid pixels.",
        repeat=repeated("detection", prepared, folder),
    )


def _errors(row: dict[str, int]) -> int:
    return row["wrong"] + row["boxes"] - row["right"]


def _in_image(row: dict[str, int]) -> str:
    return f"{row['right']} of {row['boxes']} found, {row['wrong']} wrong"


def _figures(scene: DetectionScene, recorded: dict[str, Any]) -> Pairs:
    return (
        ("steps to the best", f"{recorded['results']['step']:,}"),
        ("training images", f"{len(scene.prepared.data.set.parts['train']):,}"),
        ("objects learnt from", f"{len(scene.places.image):,}"),
        ("classes", str(len(scene.prepared.source.classes))),
    )


def _data(scene: DetectionScene) -> Pairs:
    prepared = scene.prepared
    names = prepared.source.classes
    counts = np.bincount(scene.places.classes, minlength=len(names)).tolist()
    size, gsd_m = prepared.config.size, prepared.config.gsd_m
    seen = (
        "as the files"
        if gsd_m is None
        else f"resampled to {gsd_m:g} m; judged in the files' pixels"
    )
    return (
        *labelled_set(prepared),
        ("objects in training", ", ".join(f"{n} {c}" for c, n in zip(names, counts, strict=True))),
        ("size", seen if size is None else f"{size} px along the longer side"),
        ("augmentation", prepared.config.sampling.augment),
    )


def _case(scene: DetectionScene, one: Judged, score: float) -> BoxCase:
    source = native(scene.prepared.source)
    window = _window(one.truth, source.size(one.key))
    pixels, seen = source.read(one.key, window)
    sure = one.from_score(score)
    matches, counted = sure.matches(), ~one.truth.difficult
    return BoxCase(
        name=name_of(one.key),
        image=Display.of(scene.prepared.opened.loaded.contract).seen(pixels, seen),
        true=_within(window, one.truth.xyxy, counted & matches.seen, counted & ~matches.seen),
        found=_within(window, sure.boxes, matches.right, matches.wrong),
    )


def _within(
    window: Window,
    xyxy: Float[np.ndarray, "n 4"],
    right: Bool[np.ndarray, " n"],
    wrong: Bool[np.ndarray, " n"],
) -> ShownBoxes:
    """The boxes that reach into a window, in its pixels."""
    moved = xyxy.astype(np.float64) - np.array([window.left, window.top] * 2)
    inside = (moved[:, 2:] > 0).all(axis=1) & (moved[:, 0] < window.width)
    inside &= moved[:, 1] < window.height
    return ShownBoxes(xyxy=moved[inside], right=right[inside], wrong=wrong[inside])


def _window(truth: Boxes, size: tuple[int, int]) -> Window:
    """What is shown of an image: all of it, or a part around one of its objects."""
    height, width = size
    counted = truth.xyxy[~truth.difficult].astype(np.float64)
    left, top, right, bottom = counted[len(counted) // 2].tolist()
    extents = (min(height, _WINDOW), min(width, _WINDOW))
    corner = [
        int(np.clip((low + high - extent) / 2, 0, length - extent))
        for low, high, extent, length in zip(
            (top, left), (bottom, right), extents, size, strict=True
        )
    ]
    return Window(corner[0], corner[1], *extents)
