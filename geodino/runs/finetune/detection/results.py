"""What a trained detector is worth: AP50 and COCO's AP beside a floor, classes, a score to cut at."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from geodino import seeds
from geodino.data.labelled.sets import PartName
from geodino.evals.results import MODEL
from geodino.files import finite
from geodino.infer.search import BoxFinder
from geodino.metrics.boxes import AtScore, Matches, at_score
from geodino.metrics.detection import DetectionScorer
from geodino.runs.finetune.detection.scene import DetectionScene
from geodino.runs.finetune.floors import in_doubt
from geodino.tasks.detection.evaluate import random_boxes
from geodino.tasks.detection.judge import Judged, judged, on_own_ground

RANDOM = "random boxes"

_SINGLE = ("coco_ap50", "coco_ap75", "coco_ap_small", "coco_ap_medium", "coco_ap_large")
"""Scores without an interval."""

_SHOWN = 6
"""Images that pictures are made of."""

_MIN_IMAGES = 2
"""Images from which an interval over images means anything."""


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found in the images of one part."""

    part: PartName
    images: tuple[Judged, ...]
    scorers: dict[str, DetectionScorer]
    """Of the model, and of boxes without a model."""

    @property
    def truths(self) -> int:
        """True boxes that count."""
        return sum(one.counted for one in self.images)

    def at(self, score: float | None) -> AtScore | None:
        """Judge the boxes from a score on; None takes the best one."""
        found = [one.matches() for one in self.images]
        every = Matches(
            right=np.concatenate([one.right for one in found]),
            wrong=np.concatenate([one.wrong for one in found]),
            seen=np.concatenate([one.seen for one in found]),
        )
        scores = np.concatenate([one.scores for one in self.images])
        return at_score(scores, every, truths=self.truths, score=score)


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything a run found out about its model."""

    facts: dict[str, Any]
    """For run.json, without anything that is not finite."""

    shown: list[Judged]
    """Some images, to make pictures of."""

    parts: dict[PartName, Measured] = field(default_factory=dict)
    """What was measured; empty where results are read again."""


def results_of(scene: DetectionScene, device: torch.device) -> Results:
    """Measure the scene's model, which is on ``device``, on the test and validation parts."""
    prepared, config = scene.prepared, scene.prepared.config
    names, seed = prepared.source.classes, config.train.seed
    parts: dict[PartName, Measured] = {}
    for part in ("test", "val"):
        if prepared.source.set.parts.get(part) and part not in prepared.data.unlabelled:
            found = measure(scene, part, device)
            if found.truths:
                parts[found.part] = found
    on: PartName = "test" if "test" in parts else "val"
    best = parts["val"].at(None)
    score = config.detection.least_score if best is None else best.score
    facts: dict[str, Any] = {
        "reported_on": on,
        "classes": list(names),
        "score": score,
        **{
            part: scored(parts.get(part), names, score=score, seed=seed) for part in ("val", "test")
        },
        "learnt_from": list(config.sampling.parts),
    }
    shown = shown_keys(facts)
    return Results(
        facts=finite(facts),
        shown=[one for one in parts[on].images if one.key in shown],
        parts=parts,
    )


def shown_keys(facts: dict[str, Any]) -> tuple[str, ...]:
    """Return some reported images with objects, evenly spread over them."""
    by_image = facts[facts["reported_on"]]["by_image"]
    held = [key for key, row in by_image.items() if row["boxes"]]
    places = np.linspace(0, len(held) - 1, min(_SHOWN, len(held))).round().astype(int)
    return tuple(held[i] for i in np.unique(places).tolist())


def measure(scene: DetectionScene, part: PartName, device: torch.device) -> Measured:
    """Find the objects of all images of a part, and draw some boxes at random."""
    source, seed = scene.prepared.source, scene.prepared.config.train.seed
    classes = len(source.classes)
    scorers = {name: DetectionScorer(classes) for name in (MODEL, RANDOM)}
    images = []
    keys = source.set.parts[part]
    finder = BoxFinder(scene.network, device=device)
    for one in judged(finder, source, keys, scene.chips, iou=scene.joined_iou, device=device):
        one.add_to(scorers[MODEL])
        grid = source.grid(one.key)
        drawn = random_boxes(
            scene.places, one.key, (grid.height, grid.width), classes=classes, seed=seed
        )
        floor = Judged(key=one.key, found=on_own_ground(source, one.key, drawn), truth=one.truth)
        floor.add_to(scorers[RANDOM])
        images.append(one)
    return Measured(part=part, images=tuple(images), scorers=scorers)


def scored(
    measured: Measured | None, names: tuple[str, ...], *, score: float, seed: int
) -> dict[str, Any] | None:
    """Return scores with their intervals, those of the floor, and the difference."""
    if measured is None:
        return None
    model = measured.scorers[MODEL]
    whole = model.scores()
    cut = measured.at(score)
    found: dict[str, Any] = {
        "images": len(measured.images),
        "boxes": measured.truths,
        "scores": {name: _scores(one, seed=seed) for name, one in measured.scorers.items()},
        "model_minus": {
            name: _intervals(model, seed=seed, minus=one)
            for name, one in measured.scorers.items()
            if name != MODEL
        },
        "classes": {
            name: {
                "ap50": float(whole.ap50_by_class[i]),
                "coco_ap": float(whole.coco_ap_by_class[i]),
                "boxes": int(whole.truths[i]),
            }
            for i, name in enumerate(names)
        },
        "at_score": None if cut is None else asdict(cut),
        "by_image": {one.key: _image(one, score) for one in measured.images},
    }
    if len(measured.images) < _MIN_IMAGES:
        found["note"] = "one image: no interval can be given, since images are what is resampled"
    return found


def _scores(scorer: DetectionScorer, *, seed: int) -> dict[str, dict[str, float]]:
    whole, nan = scorer.scores(), float("nan")
    single = {
        name: {"value": float(getattr(whole, name)), "low": nan, "high": nan} for name in _SINGLE
    }
    return {**_intervals(scorer, seed=seed), **single}


def _intervals(
    scorer: DetectionScorer, *, seed: int, minus: DetectionScorer | None = None
) -> dict[str, dict[str, float]]:
    generator = seeds.rng(seed, "bootstrap", "boxes")
    found = scorer.intervals(generator=generator, minus=minus)
    if scorer.images >= _MIN_IMAGES:
        return {name: asdict(one) for name, one in found.items()}
    nan = float("nan")
    return {name: {"value": one.value, "low": nan, "high": nan} for name, one in found.items()}


def _image(one: Judged, score: float) -> dict[str, int]:
    """How many boxes of an image are true, found from the score on, and right."""
    found = one.from_score(score).matches()
    return {
        "boxes": one.counted,
        "right": int(found.right.sum()),
        "wrong": int(found.wrong.sum()),
    }


def in_words(results: Results) -> list[str]:
    """Return the results as lines for people."""
    facts, lines = results.facts, []
    on = facts["reported_on"]
    found = facts[on]
    what = f"{found['boxes']:,} objects in {found['images']} {on} images"
    for name, scores in found["scores"].items():
        ap50, coco = scores["ap50"], scores["coco_ap"]["value"]
        between = "" if ap50["low"] is None else f" ({ap50['low']:.3f} to {ap50['high']:.3f})"
        lines.append(f"{name}: AP50 {ap50['value']:.3f}{between}, COCO AP {coco:.3f} on {what}")
    lines += in_doubt({name: row["ap50"] for name, row in found["model_minus"].items()})
    cut = found["at_score"]
    if cut and cut["f1"]:
        lines.append(
            f"From a score of {cut['score']:.2f} on, the best on the validation part: "
            f"{cut['precision']:.0%} of the boxes are right, {cut['recall']:.0%} of the objects found."
        )
    known = {n: c["ap50"] for n, c in found["classes"].items() if c["ap50"] is not None}
    if len(known) > 1:
        name = min(known, key=lambda n: known[n])
        lines.append(f"The weakest class is {name}: AP50 {known[name]:.3f}.")
    if on != "test":
        lines.append("No test image holds an object: what is reported is of the validation part.")
    if "val" in facts["learnt_from"] and on == "val":
        lines.append("The model learnt from the validation part: these scores flatter it.")
    return lines
