"""Results as rows: torchgeo-bench's columns first, so that tables merge, then ours."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from geodino.errors import SourceError
from geodino.evals.results import MODEL, Outcome, SetResult
from geodino.evals.scoring import ERRORS

COLUMNS = (
    "dataset", "method", "metric_name", "metric_value", "ci_lower", "ci_upper", "feature_dim",
    "best_c", "best_lr", "best_batch_size", "n_train", "n_val", "n_test", "seed", "model", "name",
    "normalization", "image_size", "interpolation", "partition", "bands", "c_range_start",
    "c_range_stop", "c_range_num", "merge_val", "bootstrap", "fw_iou", "precision", "recall", "f1",
    "ece", "rms_ce", "mce", "ece_ts", "rms_ce_ts", "mce_ts", "temperature", "calibration_n_bins",
)  # fmt: skip
"""Columns of torchgeo-bench 0.4's results."""

OWN = ("encoder", "features", "protocol", "adapted", "fingerprint", "seconds")
"""Columns that geodino adds."""

_METRICS = {"micro_map": "micro_mAP"}
"""What torchgeo-bench calls scores."""

_GRID = (-6, 4, 40)

_NORMALISATION = {
    "zscore": "bandspec_zscore",
    "contract": "model_native",
    "minmax": "minmax_uint8",
}
"""What torchgeo-bench calls the ways of bringing values to a model."""


def rows(result: SetResult, outcomes: Iterable[Outcome] | None = None) -> list[dict[str, Any]]:
    """Return one row per outcome and metric.

    Args:
        result: of a set.
        outcomes: whose; None: those of the first seed.
    """
    found = []
    for outcome in result.outcomes if outcomes is None else outcomes:
        shared = _shared(result, outcome)
        found += [
            {
                **shared,
                "metric_name": metric,
                "metric_value": score.value,
                "ci_lower": score.low,
                "ci_upper": score.high,
            }
            for metric, score in result.scores_of(outcome).items()
        ]
    return found


def _shared(result: SetResult, outcome: Outcome) -> dict[str, Any]:
    """What the rows of all scores of an outcome have in common."""
    about, settings, chosen = result.set, result.settings, outcome.prediction.chosen
    grid = (None,) * 3 if outcome.method != "linear" else _GRID
    return {
        "dataset": about["name"],
        "method": outcome.method,
        "feature_dim": outcome.dim,
        "best_c": chosen.get("c"),
        "best_lr": chosen.get("lr"),
        **{name: about[name] for name in ("n_train", "n_val", "n_test")},
        "seed": outcome.seed,
        "model": "geodino",
        "name": settings["model"],
        "normalization": _NORMALISATION[settings["values"]],
        "image_size": settings["image_size"],
        "interpolation": "bilinear",
        "partition": about["partition"],
        "bands": settings["bands"],
        **dict(zip(("c_range_start", "c_range_stop", "c_range_num"), grid, strict=True)),
        "merge_val": outcome.method == "linear" or None,
        "bootstrap": settings["resamples"],
        **result.calibration(outcome),
        "encoder": outcome.encoder,
        "features": outcome.features,
        "protocol": settings["protocol"],
        "adapted": settings["adapted"],
        "fingerprint": about["fingerprint"],
    }


def best_rows(table: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """Return the best row of each encoder, the model first; all rows are of one set and score."""
    found: dict[str, Mapping[str, Any]] = {}
    for row in table:
        value, before = row["metric_value"], found.get(row["encoder"])
        if before is None or (value is not None and _is_better(row, before)):
            found[row["encoder"]] = row
    return dict(sorted(found.items(), key=lambda item: item[0] != MODEL))


def _is_better(row: Mapping[str, Any], before: Mapping[str, Any]) -> bool:
    if before["metric_value"] is None:
        return True
    gain = row["metric_value"] - before["metric_value"]
    return bool(gain < 0 if row["metric_name"] in ERRORS else gain > 0)


def as_csv(table: Iterable[Mapping[str, Any]]) -> str:
    """Return rows as CSV, torchgeo-bench's columns first; NaN and None are empty."""
    text = StringIO()
    writer = csv.DictWriter(text, fieldnames=[*COLUMNS, *OWN], lineterminator="\n", restval="")
    writer.writeheader()
    for row in table:
        name = str(row["metric_name"])
        told = {**row, "metric_name": _METRICS.get(name, name)}
        writer.writerow({column: _cell(value) for column, value in told.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    return "" if value is None or (isinstance(value, float) and np.isnan(value)) else value


def read_rows(path: Path | str) -> list[dict[str, str]]:
    """Read a table of results, ours or torchgeo-bench's, to stand beside others.

    Raises:
        SourceError: it is no such table.
    """
    try:
        with Path(path).open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            found = list(reader)
            columns = reader.fieldnames or ()
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as a table of results ({error}).") from error
    lost = [
        name
        for name in ("dataset", "method", "metric_name", "metric_value", "name")
        if name not in columns
    ]
    if lost:
        raise SourceError(
            f"{path} is no table of results: it lacks {', '.join(lost)}. Columns of torchgeo-bench's "
            "CSV are expected."
        )
    return found


def predictions(result: SetResult) -> pa.Table:
    """Return one row per outcome and test image: its key, what is true, what was said."""
    parts = [_of(result, i) for i in range(len(result.outcomes))]
    return pa.concat_tables(parts)


def write_predictions(result: SetResult, path: Path) -> None:
    """Write :func:`predictions` as Parquet."""
    pq.write_table(predictions(result), path)


def _of(result: SetResult, number: int) -> pa.Table:
    outcome = result.outcomes[number]
    n = len(result.keys)
    true, said, sure, score = _columns(result, number)
    return pa.table(
        {
            "dataset": pa.array([result.facts.name] * n, pa.string()),
            "encoder": pa.array([outcome.encoder] * n, pa.string()),
            "method": pa.array([outcome.method] * n, pa.string()),
            "features": pa.array([outcome.features] * n, pa.string()),
            "id": pa.array(list(result.keys), pa.string()),
            "label": pa.array(true, pa.string()),
            "predicted": pa.array(said, pa.string()),
            "confidence": pa.array(sure, pa.float64()),
            "score": pa.array(score, pa.float64()),
        }
    )


def _columns(
    result: SetResult, number: int
) -> tuple[Sequence[str], Sequence[str], Sequence[float | None], Sequence[float | None]]:
    """Truth, prediction, confidence and score of each image, as far as the kind has them.

    The score is 1 or 0 for a class, the Jaccard index for several, the share of right pixels for a
    map, the root of the mean squared error for numbers.
    """
    outcome, facts = result.outcomes[number], result.facts
    found, n = outcome.prediction, len(result.keys)
    names = facts.classes
    empty: list[float | None] = [None] * n
    if facts.kind == "classification":
        truth = np.asarray(result.labels)
        true, said = [names[i] for i in truth], [names[i] for i in found.classes]
        return (
            true,
            said,
            found.confidence.tolist(),
            (truth == found.classes).astype(float).tolist(),
        )
    if facts.kind == "multilabel":
        labels, given = np.asarray(result.labels, dtype=bool), np.asarray(found.labels, dtype=bool)
        both, any_of = (labels & given).sum(axis=1), (labels | given).sum(axis=1)
        score = np.where(any_of > 0, both / np.maximum(any_of, 1), 1.0)
        return _listed(labels, names), _listed(given, names), empty, score.tolist()
    if facts.kind == "segmentation":
        sums = np.asarray(found.confusion)
        pixels = sums.sum(axis=(1, 2))
        right = np.trace(sums, axis1=1, axis2=2)
        share = [r / p if p else None for r, p in zip(right.tolist(), pixels.tolist(), strict=True)]
        return [""] * n, [""] * n, empty, share
    sums = result.judged(outcome).sums
    error = [float(np.sqrt(s[3] / s[0])) if s[0] else None for s in sums]
    if found.values is None:
        return [""] * n, [""] * n, empty, error
    truth = np.asarray(result.labels)
    return [f"{v:g}" for v in truth], [f"{v:g}" for v in found.values], empty, error


def _listed(chosen: np.ndarray, names: Sequence[str]) -> list[str]:
    return [
        ", ".join(name for name, is_in in zip(names, row, strict=True) if is_in) for row in chosen
    ]


def as_json(result: SetResult, alarms: Sequence[str]) -> dict[str, Any]:
    """Return everything that was found, but for the predictions."""
    found = {
        "set": result.set,
        "settings": result.settings,
        "alarms": list(alarms),
        "rows": rows(result),
        "repeats": rows(result, result.repeats),
        "comparisons": [
            {
                "method": c.method,
                "features": c.features,
                "metric": c.metric,
                "model": c.model,
                "floor": c.floor,
                "floor_score": c.floor_score,
                "difference": c.difference.value,
                "low": c.difference.low,
                "high": c.difference.high,
                "verdict": c.verdict,
            }
            for c in result.comparisons
        ],
        "groups": result.group_scores,
        "per_class": [
            {
                "encoder": o.encoder,
                "method": o.method,
                "features": o.features,
                "chosen": o.prediction.chosen,
                "digest": o.digest,
                **result.per_class(o),
            }
            for o in result.outcomes
        ],
    }
    finite: dict[str, Any] = json.loads(
        json.dumps(found, default=str), parse_constant=lambda _: None
    )
    return finite
