"""What a trained head is worth: scores with intervals beside floors, classes, confusion."""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from jaxtyping import Int

from geodino import seeds
from geodino.errors import RunError
from geodino.evals.alarms import copy_alarms, empty_alarms
from geodino.evals.results import MODEL, Outcome, SetResult
from geodino.evals.runner import clusters_of, copies_across
from geodino.evals.scoring import Judged, score_names
from geodino.evals.tables import write_predictions
from geodino.files import finite, write_with
from geodino.metrics.bootstrap import Interval
from geodino.metrics.classification import confusion_matrix
from geodino.runs.finetune.classification.floors import encoded, floors
from geodino.runs.finetune.classification.scene import ClassificationScene, spoken
from geodino.runs.finetune.floors import in_doubt
from geodino.runs.record import RunFolder

PREDICTIONS = "predictions.parquet"
"""In the run folder: what the model and each floor say of each test image."""

_RESAMPLES = 1000


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything a run found out about its model."""

    facts: dict[str, Any]
    """For run.json, without anything that is not finite."""

    found: SetResult
    """Predictions of the test part: of the model and of each floor."""


def results_of(scene: ClassificationScene, *, device: torch.device) -> Results:
    """Measure the scene's model, which is on ``device``, on the test and validation parts."""
    prepared = scene.prepared
    source, facts = prepared.source, scene.facts
    extracted = encoded(scene, device=device)
    outcomes = (_of_model(scene), *floors(scene, extracted))
    found = SetResult(
        set={"name": facts.name},
        settings={},
        outcomes=outcomes,
        keys=tuple(source.keys("test")),
        labels=scene.truth("test"),
        facts=facts,
        clusters=clusters_of(source.set),
        groups={},
        seed=prepared.config.train.seed,
        resamples=_RESAMPLES,
        copies=copies_across(source.set, extracted),
    )
    val = Judged(facts, scene.predicted("val"), scene.truth("val"))
    confusion = None
    if facts.kind == "classification":
        said = outcomes[0].prediction.classes
        confusion = confusion_matrix(scene.truth("test"), said, classes=len(facts.classes))
    names = score_names(facts)
    said_of_val = {"images": len(source.keys("val")), "scores": {n: val.value(n) for n in names}}
    return Results(
        facts=finite(
            {
                "reported_on": "test",
                "kind": facts.kind,
                "metric": facts.metric,
                "classes": list(facts.classes),
                "val": said_of_val,
                "test": _scored(found, confusion),
                "alarms": [*copy_alarms(found), *empty_alarms(found)],
            }
        ),
        found=found,
    )


def _of_model(scene: ClassificationScene) -> Outcome:
    features = scene.network.config.features
    return Outcome(
        encoder=MODEL,
        method="linear",
        features=features,
        dim=scene.network.head.linear.in_features,
        prediction=scene.predicted("test"),
    )


def _scored(found: SetResult, confusion: Int[np.ndarray, "c c"] | None) -> dict[str, Any]:
    """Return scores of the model and the floors with intervals, differences, and of each class."""
    facts, ours = found.facts, found.outcomes[0]
    judged = found.judged(ours)
    counts = np.asarray(found.labels)
    per_class = found.per_class(ours)
    truth = (
        counts.sum(axis=0)
        if counts.ndim == 2
        else np.bincount(counts, minlength=len(facts.classes))
    )
    return {
        "images": len(found.keys),
        "scores": {
            outcome.encoder: {name: asdict(score) for name, score in scores.items()}
            for outcome, scores in zip(found.outcomes, found.scores, strict=True)
        },
        "model_minus": {
            outcome.encoder: asdict(_difference(judged, found.judged(outcome), found))
            for outcome in found.outcomes[1:]
        },
        "classes": {
            name: {
                **{score: values[name] for score, values in per_class.items()},
                "images": int(truth[i]),
            }
            for i, name in enumerate(facts.classes)
        },
        "calibration": found.calibration(ours),
        "confusion": None if confusion is None else confusion.tolist(),
    }


def _difference(ours: Judged, other: Judged, found: SetResult) -> Interval:
    generator = seeds.rng(found.seed, "bootstrap")
    return ours.above(other, generator=generator, resamples=found.resamples)


def write_predictions_of(results: Results, folder: RunFolder) -> None:
    """Write what the model and each floor say of each test image."""
    path = folder.root / PREDICTIONS
    write_with(path, lambda temporary: write_predictions(results.found, temporary))


def read_predictions(folder: RunFolder) -> list[dict[str, Any]]:
    """Return what the model of a run says of each test image.

    Raises:
        RunError: the file is missing or damaged.
    """
    path = folder.root / PREDICTIONS
    try:
        rows = pq.read_table(path, filters=[("encoder", "=", MODEL)]).to_pylist()
    except (OSError, ValueError) as error:
        raise RunError(
            f"{path} is missing or damaged ({error}): `geodino finetune classification --resume` "
            "predicts again."
        ) from error
    return list(rows)


def in_words(facts: dict[str, Any]) -> list[str]:
    """Return the results as lines for people."""
    lines = []
    metric, found = facts["metric"], facts["test"]
    for name, scores in found["scores"].items():
        score = scores[metric]
        lines.append(
            f"{name}: {spoken(metric)} {score['value']:.3f} ({score['low']:.3f} to {score['high']:.3f}) "
            f"on {found['images']} test images"
        )
    lines += in_doubt(found["model_minus"])
    lines += [f"{alarm[0].upper()}{alarm[1:]}" for alarm in facts["alarms"]]
    which = "recall" if facts["kind"] == "classification" else "f1"
    known = {n: row[which] for n, row in found["classes"].items() if row[which] is not None}
    if known:
        name = min(known, key=lambda n: known[n])
        lines.append(f"The weakest class is {name}: {which.replace('f1', 'F1')} {known[name]:.3f}.")
    return lines
