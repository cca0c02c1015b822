"""A model among others: scores scaled between the worst and the best of a stated pool.

GEO-Bench and GEO-Bench-2 sum suites up so. The numbers belong to the pool: with other models in it
they are others.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from geodino.evals.scoring import ERRORS
from geodino.metrics.bootstrap import Interval
from geodino.metrics.intervals import min_max_normalised, stratified_iqm

Scores = Float[np.ndarray, " _"]
"""Of one model on one set, one a seed."""

METRICS = {"micro_f1": ("micro_f1", "f1"), "micro_map": ("micro_map", "micro_mAP")}
"""Names that published tables give to scores of several labels."""


def published_names(metric: str) -> tuple[str, ...]:
    """Return the names that a score may have in a table."""
    return METRICS.get(metric, (metric,))


def shared_metric(
    dataset: str, main: str, own: Sequence[str], published: Iterable[Mapping[str, str]]
) -> str:
    """Return the score in which published rows of a set can be compared.

    Args:
        dataset: name of the set.
        main: the score the set reports; taken where published rows have it, or none has any.
        own: all scores at hand.
        published: rows with torchgeo-bench's columns. It reports BigEarthNet's mean average
            precision, GEO-Bench its F1.
    """
    there = {row["metric_name"] for row in published if row["dataset"] == dataset}
    fitting = [metric for metric in (main, *own) if there.intersection(published_names(metric))]
    return fitting[0] if fitting else main


_SETTING = ("bands", "partition", "normalization", "image_size", "interpolation", "merge_val")
"""Columns in which rows of one model, set and method may differ beside the seed."""

_LEAST = 2
"""Models that a pool needs: one spans nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a model stands in a pool."""

    method: str
    """The probe whose rows are compared."""

    sets: tuple[str, ...]
    """Those on which the model and the whole pool have a score, and the pool differs."""

    pool: tuple[str, ...]
    """Whose worst and best scores are 0 and 1."""

    scores: Mapping[str, Interval]
    """Of each model, the best first: the interquartile mean over sets and seeds, with the interval
    over seeds; of no width where each set has one."""


def standing(
    ours: Mapping[str, tuple[str, Scores]],
    published: Iterable[Mapping[str, str]],
    *,
    name: str,
    method: str,
    generator: np.random.Generator,
) -> Standing | None:
    """Place a model among published ones.

    The pool is every published model with a row of this method on the most sets that the model was
    measured on; a model with several rows of a set (bands, partitions) enters with those that are
    best on average over its seeds.

    Args:
        ours: by set, the metric and the model's score with each seed.
        published: rows with torchgeo-bench's columns.
        name: of the model.
        method: whose rows are compared.
        generator: draws seeds again for the intervals.

    Returns:
        None where no two published models share a set with the model.
    """
    table = _pooled(ours, published, method)
    sets = _shared(table, tuple(ours))
    pool = tuple(sorted(model for model, found in table.items() if set(sets) <= found.keys()))
    sets = tuple(
        s for s in sets if len(np.unique(np.concatenate([table[model][s] for model in pool]))) > 1
    )
    if len(pool) < _LEAST or not sets:
        return None
    scores = {model: {s: table[model][s] for s in sets} for model in pool}
    own = f"{name} (this model)" if name in scores else name
    scores[own] = {s: np.asarray(ours[s][1]) for s in sets}
    errors = [s for s in sets if ours[s][0] in ERRORS]
    scaled = min_max_normalised(scores, pool=pool, errors=errors).scores
    means = {
        model: stratified_iqm([found[s] for s in sets], generator=generator)
        for model, found in scaled.items()
    }
    best_first = dict(sorted(means.items(), key=lambda item: -item[1].value))
    return Standing(method=method, sets=sets, pool=pool, scores=best_first)


def _pooled(
    ours: Mapping[str, tuple[str, Scores]], published: Iterable[Mapping[str, str]], method: str
) -> dict[str, dict[str, Scores]]:
    """By model and set, the scores of its best rows that differ in their seeds alone."""
    seen: dict[tuple[str, str], dict[tuple[str, ...], list[float]]] = {}
    for row in published:
        asked = ours.get(row["dataset"])
        if asked is None or row["method"] != method or not row["metric_value"]:
            continue
        if row["metric_name"] in published_names(asked[0]):
            of = seen.setdefault((row["name"], row["dataset"]), {})
            setting = tuple(row.get(column, "") for column in _SETTING)
            of.setdefault(setting, []).append(float(row["metric_value"]))
    table: dict[str, dict[str, Scores]] = defaultdict(dict)
    for (model, dataset), found in seen.items():
        better = min if ours[dataset][0] in ERRORS else max
        table[model][dataset] = np.array(better(found.values(), key=np.mean))
    return table


def _shared(table: Mapping[str, Mapping[str, Any]], sets: Sequence[str]) -> tuple[str, ...]:
    """The sets that most models have in common: those that half of them or more have."""
    count = {s: sum(s in found for found in table.values()) for s in sets}
    return tuple(s for s in sets if table and 2 * count[s] >= len(table))
