"""The report of a run that learnt classes of whole images, from what was measured at its end."""

from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from geodino.data.labelled.sets import parts_in_words
from geodino.files import read_lines
from geodino.report.classes import ClassReport, class_rows, picture_row, render_classes
from geodino.report.content import Pairs, Picture
from geodino.report.curves import training_of
from geodino.report.scores import score_rows, with_interval
from geodino.runs.display import Display
from geodino.runs.finetune.classification.results import in_words, read_predictions
from geodino.runs.finetune.classification.scene import ClassificationScene, spoken
from geodino.runs.finetune.page import repeated, write_page
from geodino.runs.record import RunFolder

_TITLES = {
    "loss/cross_entropy": "cross-entropy",
    "lr": "learning rate",
    "gradient_norm": "gradient norm",
}
_OF_CLASS = {"recall": "recall", "precision": "precision", "f1": "F1"}

_SHOWN = 12
"""Pictures of images that were taken for another class, and of those that were not."""


def write_report(
    scene: ClassificationScene, facts: dict[str, Any], folder: RunFolder, *, out: Path | None = None
) -> Path:
    """Write ``report.html``, or another file, of results and predictions; return where it is.

    Raises:
        GeodinoError: it cannot be written, or a file of the run is damaged.
    """
    return write_page(folder, render_classes(_collected(scene, facts, folder)), out=out)


def _collected(scene: ClassificationScene, facts: dict[str, Any], folder: RunFolder) -> ClassReport:
    prepared, confusion = scene.prepared, facts["test"]["confusion"]
    found, metric = facts["test"], facts["metric"]
    columns = list(next(iter(found["scores"].values())))
    of_class = [key for key in _OF_CLASS if key in next(iter(found["classes"].values()))]
    return ClassReport(
        task="classification",
        name=folder.root.resolve().name,
        summary=tuple(in_words(facts)),
        figures=_figures(scene, folder),
        data=_data(scene),
        decisions=prepared.notes,
        curves=training_of(read_lines(folder.metrics)).curves,
        titles={**{f"val/{name}": f"validation {spoken(name)}" for name in columns}, **_TITLES},
        columns=tuple(spoken(name) for name in columns),
        rows=score_rows(found["scores"], columns),
        rows_of=f"{found['images']} test images; nothing was chosen on them. predictions.parquet holds "
        "what is said of each.",
        differences=tuple((name, with_interval(row)) for name, row in found["model_minus"].items()),
        differences_of=f"{spoken(metric).capitalize()} of the model minus that of each floor, on the "
        "same images; above 0 the model is better",
        names=prepared.source.classes,
        class_columns=(*(_OF_CLASS[key] for key in of_class), "test images"),
        classes=class_rows(found["classes"], of_class, counted="images"),
        confusion=None if confusion is None else np.array(confusion, dtype=np.int64),
        counted="images",
        images=(),
        images_of="",
        legend=Markup(""),
        pictures=picture_row(_pictures(scene, folder)),
        pictures_of="Test images: first those whose wrong answer the model is surest of, then some of "
        "those it has right. Hatched: no valid image.",
        repeat=repeated("classification", prepared, folder),
    )


def _figures(scene: ClassificationScene, folder: RunFolder) -> Pairs:
    source = scene.prepared.source
    size = source.image_size
    return (
        ("steps to the best", f"{folder.read_facts()['results']['step']:,}"),
        ("training images", f"{len(source.keys('train')):,}"),
        ("classes", str(len(source.classes))),
        ("image", "own size" if size is None else f"{size} px"),
    )


def _data(scene: ClassificationScene) -> Pairs:
    prepared, source = scene.prepared, scene.prepared.source
    counts = source.counts("train").tolist()
    shares = ", ".join(f"{name} {n:,}" for name, n in zip(source.classes, counts, strict=True))
    return (
        ("images", prepared.images_from),
        *((("labels", prepared.labels_from),) if prepared.labels_from else ()),
        ("set", f"{source.set.facts.name}, {source.set.facts.kind}"),
        ("images by part", parts_in_words(source.set.parts)),
        ("training images by class", shares),
        ("bands", ", ".join(prepared.contract.band_names)),
        ("augmentation", prepared.config.sampling.augment),
    )


def _pictures(scene: ClassificationScene, folder: RunFolder) -> list[Picture]:
    """Images the model is wrong about, the surest first, then some it is right about."""
    said = read_predictions(folder)
    wrong = [row for row in said if row["score"] < 1]
    wrong.sort(key=lambda row: (row["score"], -(row["confidence"] or 0.0)))
    right = [row for row in said if row["score"] == 1]
    spread = np.unique(np.linspace(0, len(right) - 1, min(_SHOWN, len(right))).round().astype(int))
    display = Display.of(scene.prepared.contract)
    rows = [*wrong[:_SHOWN], *(right[i] for i in spread.tolist())]
    return [_picture(scene, display, row) for row in rows]


def _picture(scene: ClassificationScene, display: Display, row: dict[str, Any]) -> Picture:
    source, key = scene.prepared.source, row["id"]
    true, predicted = (row[name] or "none" for name in ("label", "predicted"))
    values, valid = source.seen(source.set.image(key))
    caption = true if true == predicted else f"{predicted}, but it is {true}"
    return display.stored(values, valid, alt=f"{key}: {caption}", caption=caption)
