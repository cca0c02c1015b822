"""What a trained head is worth: mean IoU with intervals beside floors, classes, confusion."""

from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from geodino.data.labelled.sets import PartName
from geodino.files import finite
from geodino.infer.classes import ClassPredictor
from geodino.metrics.segmentation import segmentation_scores
from geodino.runs.finetune.floors import in_doubt
from geodino.runs.finetune.segmentation.scene import SegmentationScene
from geodino.tasks.segmentation.evaluate import Judged, cells_of, judged
from geodino.tasks.segmentation.floors import BANDS, MAJORITY, ClassFloors, fit_floors
from geodino.tasks.segmentation.scores import (
    MIN_IMAGES,
    ImageConfusions,
    by_class,
    intervals,
)

MODEL = "model"

SHOWN = 6
"""Images that pictures are made of."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found on the images of one part."""

    part: PartName
    rows: dict[str, ImageConfusions]
    """Confusion by image, of the model and of each floor."""

    shown: list[Judged] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything a run found out about its model."""

    facts: dict[str, Any]
    """For run.json, without anything that is not finite."""

    confusion: Int[np.ndarray, "c c"] | None
    """Pixels per (true class, predicted class) of what is reported; None without labels."""

    shown: list[Judged]


def results_of(scene: SegmentationScene, threads: Executor, *, device: torch.device) -> Results:
    """Measure the scene's model, which is on ``device``, on the test and validation parts."""
    prepared, config = scene.prepared, scene.prepared.config
    source, seed = prepared.source, config.train.seed
    predictor = ClassPredictor(scene.network, device=device)
    floors = fit_floors(
        source, scene.windows, pixels=config.floors.pixels, seed=seed, threads=prepared.threads
    )
    names, background = source.classes, source.set.facts.background
    found = {
        part: measure(scene, part, predictor, floors, threads)
        for part in ("test", "val")
        if part not in prepared.data.unlabelled
    }
    test, val = found.get("test"), found.get("val")
    reported = test or val
    facts: dict[str, Any] = {
        "reported_on": reported.part if reported else None,
        "classes": list(names),
        "background": None if background is None else names[background],
        "floors": {
            "most_frequent_class": names[floors.majority],
            "bands": floors.bands is not None,
        },
        "val": scored(val, names, background=background, seed=seed),
        "test": scored(test, names, background=background, seed=seed),
        "learnt_from": list(config.sampling.parts),
    }
    return Results(
        facts=finite(facts),
        confusion=reported.rows[MODEL].whole if reported else None,
        shown=reported.shown if reported else [],
    )


def measure(
    scene: SegmentationScene,
    part: PartName,
    predictor: ClassPredictor,
    floors: ClassFloors,
    threads: Executor,
) -> Measured | None:
    """Predict all images of a part; None where none of them can be scored."""
    source = scene.prepared.source
    rows = {name: ImageConfusions(len(source.classes)) for name in (MODEL, MAJORITY, BANDS)}
    shown: dict[str, Judged] = {}
    for one in judged(source, cells_of(source, part), predictor, scene.chips, threads=threads):
        key = one.cell.key
        rows[MODEL].add(key, one.truth, one.predicted)
        # What the model is not asked, invalid pixels, the floors are not asked either.
        asked = np.where(one.predicted == 255, np.uint8(255), one.truth)
        rows[MAJORITY].add(key, asked, floors.constant(asked))
        guess = floors.by_bands(one.cell)
        if guess is not None:
            rows[BANDS].add(key, asked, guess)
        if key not in shown and len(shown) < SHOWN:
            shown[key] = one
    if not rows[MODEL].images:
        return None
    kept = {name: confusions for name, confusions in rows.items() if confusions.images}
    return Measured(part=part, rows=kept, shown=list(shown.values()))


def scored(
    measured: Measured | None, names: tuple[str, ...], *, background: int | None, seed: int
) -> dict[str, Any] | None:
    """Return scores over all images with their intervals, those of the floors, and differences."""
    if measured is None:
        return None
    model = measured.rows[MODEL]
    whole = model.whole
    found: dict[str, Any] = {
        "images": len(model.images),
        "pixels": int(whole.sum()),
        "scores": {},
        "classes": by_class(whole, names),
        "confusion": whole.tolist(),
        "by_image": {
            key: float(segmentation_scores(model.images[key], background=background).miou)
            for key in sorted(model.images)
        },
        "model_minus": {},
    }
    for name, rows in measured.rows.items():
        scores = intervals(rows.stacked, background=background, seed=seed)
        found["scores"][name] = {key: asdict(value) for key, value in scores.items()}
        if name != MODEL and rows.images.keys() == model.images.keys():
            difference = intervals(
                model.stacked, background=background, seed=seed, minus=rows.stacked
            )
            found["model_minus"][name] = {k: asdict(v) for k, v in difference.items()}
    if len(model.images) < MIN_IMAGES:
        found["note"] = "one image: no interval can be given, since images are what is resampled"
    return found


def in_words(results: Results) -> list[str]:
    """Return the results as lines for people."""
    facts, lines = results.facts, []
    on = facts["reported_on"]
    if not on:
        return ["Nothing could be measured: no image of test or val has labels."]
    found = facts[on]
    what = f"{found['images']} {on} images, {found['pixels']:,} pixels"
    for name, scores in found["scores"].items():
        miou, right = scores["miou"], scores["pixel_accuracy"]["value"]
        between = "" if miou["low"] is None else f" ({miou['low']:.3f} to {miou['high']:.3f})"
        lines.append(f"{name}: mean IoU {miou['value']:.3f}{between}, {right:.1%} right on {what}")
    lines += in_doubt({name: row["miou"] for name, row in found["model_minus"].items()})
    worst = {n: c["iou"] for n, c in found["classes"].items() if c["iou"] is not None}
    if worst:
        name = min(worst, key=lambda n: worst[n])
        lines.append(f"The weakest class is {name}: IoU {worst[name]:.3f}.")
    if on != "test":
        lines.append("There is no labelled test part: what is reported is of the validation part.")
    if "val" in facts["learnt_from"] and on == "val":
        lines.append("The model learnt from the validation part: these scores flatter it.")
    return lines
