"""Rows of an evaluation, what is alarming in them, and the files they are written to."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float, Int

from geodino import files
from geodino.metrics.bootstrap import Interval
from geodino.metrics.classification import Scores

MODEL = "model"
"""Encoder name of the rows of the model under evaluation; the other encoders are floors."""

RANDOM = "random weights"
"""The same architecture, never trained."""

STATISTICS = "image statistics"
"""Mean and standard deviation of each band of each image."""

MAJORITY = "majority class"
"""The most frequent class of the training part, whatever the image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One probe on one encoder's features."""

    encoder: str
    """``MODEL`` or one of the floors."""

    method: str
    """``knn5``, ``knn20-dino``, ``linear``, ``linear-dino``; ``majority`` for that floor."""

    features: str
    """``cls``, ``mean``, ``concat``; ``statistics`` and ``none`` for those floors."""

    feature_dim: int
    """Length of the feature vector."""

    chosen: dict[str, float]
    """Hyper-parameters, see ``probes.Prediction``."""

    scores: Scores
    """What the predictions are worth."""

    labels: Int[np.ndarray, " n"]
    """Predicted class per test image."""

    confidence: Float[np.ndarray, " n"]
    """Probability of the predicted class."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The model against one floor, on the same images."""

    method: str
    """Method of the model's outcome."""

    features: str
    """Features of the model's outcome."""

    model: float
    """Accuracy of the model."""

    floor: str
    """Which floor: ``RANDOM``, ``STATISTICS`` or ``MAJORITY``."""

    floor_accuracy: float
    """Accuracy of the floor."""

    difference: Interval
    """Model minus floor, with the interval of the paired bootstrap."""

    @property
    def verdict(self) -> Literal["above", "not clearly above", "below"]:
        """``above`` means beyond chance: the whole interval is above 0."""
        if self.difference.low > 0:
            return "above"
        return "below" if self.difference.value < 0 else "not clearly above"


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationResult:
    """Everything an evaluation of one model on one suite found."""

    suite: dict[str, Any]
    """Name, classes, split and its fingerprint, numbers of images, sizes."""

    settings: dict[str, Any]
    """Seed, batch, image size, resamples, contract bands."""

    outcomes: tuple[Outcome, ...]
    """The model first, then the floors."""

    comparisons: tuple[Comparison, ...]
    """The model against each floor it can be compared with."""

    alarms: tuple[str, ...]
    """Sentences a reader must see: a model below a floor, a fit that did not converge."""

    paths: tuple[str, ...]
    """Test images, relative to the suite's folder, in the order of the predictions."""

    truth: Int[np.ndarray, " n"]
    """True class per test image."""

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row per outcome and metric; columns as in torchgeo-bench's results, then ours."""
        return [row for outcome in self.outcomes for row in self._rows(outcome)]

    def accuracy(self, *, encoder: str = MODEL, method: str, features: str) -> float:
        """Return one accuracy.

        Raises:
            KeyError: there is no such outcome.
        """
        for outcome in self.outcomes:
            if (outcome.encoder, outcome.method, outcome.features) == (encoder, method, features):
                return outcome.scores.accuracy.value
        raise KeyError((encoder, method, features))

    def table(self) -> str:
        """Return accuracies with their intervals as plain text, alarms below."""
        lines = [f"{'encoder':<17} {'method':<12} {'features':<10}  accuracy  95 % interval"]
        for o in self.outcomes:
            a = o.scores.accuracy
            lines.append(
                f"{o.encoder:<17} {o.method:<12} {o.features:<10}  {a.value:8.4f}  "
                f"{a.low:.4f}-{a.high:.4f}"
            )
        return "\n".join([*lines, *(f"! {alarm}" for alarm in self.alarms)])

    def write(self, out: Path | str) -> dict[str, Path]:
        """Write ``results.csv``, ``results.json`` and ``predictions.parquet``, each whole or not.

        The JSON holds the rows, the recall and precision per class, the confusion matrices, the
        alarms and the settings; the Parquet file one row per outcome and test image.
        """
        folder = Path(out)
        folder.mkdir(parents=True, exist_ok=True)
        names = ("results.csv", "results.json", "predictions.parquet")
        paths = {name: folder / name for name in names}
        files.write_with(paths["predictions.parquet"], self._write_predictions)
        files.write_text(paths["results.csv"], _csv(self.rows))
        files.write_text(paths["results.json"], json.dumps(self._json(), indent=1) + "\n")
        return paths

    def _rows(self, outcome: Outcome) -> list[dict[str, Any]]:
        scores = outcome.scores
        pairs = {"accuracy": scores.accuracy, "balanced_accuracy": scores.balanced_accuracy}
        return [
            {
                "dataset": self.suite["name"],
                "method": outcome.method,
                "metric_name": metric,
                "metric_value": interval.value,
                "ci_lower": interval.low,
                "ci_upper": interval.high,
                "feature_dim": outcome.feature_dim,
                "best_c": outcome.chosen.get("c"),
                "n_train": self.suite["n_train"],
                "n_val": self.suite["n_val"],
                "n_test": self.suite["n_test"],
                "seed": self.settings["seed"],
                "name": self.settings["model"],
                "normalization": "contract",
                "image_size": self.settings["image_size"],
                "interpolation": "bilinear",
                "merge_val": True,
                "bootstrap": self.settings["resamples"],
                "encoder": outcome.encoder,
                "features": outcome.features,
                "split": self.suite["fingerprint"],
            }
            for metric, interval in pairs.items()
        ]

    def _json(self) -> dict[str, Any]:
        classes: Sequence[str] = self.suite["classes"]
        return {
            "suite": self.suite,
            "settings": self.settings,
            "alarms": list(self.alarms),
            "rows": self.rows,
            "comparisons": [{**asdict(c), "verdict": c.verdict} for c in self.comparisons],
            "per_class": [
                {
                    "encoder": o.encoder,
                    "method": o.method,
                    "features": o.features,
                    "chosen": o.chosen,
                    "recall": _named(classes, o.scores.recall),
                    "precision": _named(classes, o.scores.precision),
                    "confusion": o.scores.confusion.tolist(),
                }
                for o in self.outcomes
            ],
        }

    def _write_predictions(self, path: Path) -> None:
        classes: Sequence[str] = self.suite["classes"]
        n = len(self.paths)
        columns = {
            "encoder": [o.encoder for o in self.outcomes for _ in range(n)],
            "method": [o.method for o in self.outcomes for _ in range(n)],
            "features": [o.features for o in self.outcomes for _ in range(n)],
            "path": list(self.paths) * len(self.outcomes),
            "label": [classes[i] for i in self.truth] * len(self.outcomes),
            "predicted": [classes[i] for o in self.outcomes for i in o.labels],
            "confidence": [float(c) for o in self.outcomes for c in o.confidence],
        }
        pq.write_table(pa.table(columns), path)


def _named(classes: Sequence[str], values: Float[np.ndarray, " c"]) -> dict[str, float | None]:
    pairs = zip(classes, values, strict=True)
    return {name: None if np.isnan(value) else float(value) for name, value in pairs}


def _csv(rows: list[dict[str, Any]]) -> str:
    text = StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
