"""From the results of a suite to its page."""

import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from geodino import seeds
from geodino.evals.pool import published_names, shared_metric, standing
from geodino.evals.scoring import ERRORS
from geodino.evals.tables import best_rows
from geodino.files import write_text
from geodino.metrics.intervals import stratified_iqm
from geodino.report.evaluation import (
    EvaluationPage,
    between,
    in_words,
    render_evaluation,
    section_of,
    suite_rows,
)
from geodino.runs.evaluate.job import EvaluateJob
from geodino.runs.record import environment

_SHOWN = 12
"""Published rows of a set that are shown, the best ones."""

_SUMMED = 2
"""Sets that a mean over sets needs."""


def write_page(
    job: EvaluateJob,
    results: Sequence[dict[str, Any]],
    facts: dict[str, Any],
    published: Sequence[dict[str, str]] | None,
) -> Path:
    """Write the page; return where. ``published`` are the rows of ``job.reference``."""
    encoders, rows = suite_rows(results)
    about = environment()
    absent = [(m["name"], f"{m['reason']}. {m['cure']}") for m in facts["missing"]]
    absent += [(f["name"], f["reason"]) for f in facts["failed"]]
    first = results[0]["settings"]
    said = (
        f"{len(results)} of {len(results) + len(absent)} sets of {job.suite} were measured with the "
        f"protocol {job.protocol}, on frozen features."
    )
    page = EvaluationPage(
        name=first["model"],
        summary=(said,),
        figures=(
            ("sets", str(len(results))),
            ("test images", f"{sum(r['set']['n_test'] for r in results):,}"),
            ("protocol", job.protocol),
            ("seed", str(job.seed)),
        ),
        encoders=encoders,
        rows=rows,
        missing=tuple(absent),
        alarms=tuple(facts["alarms"]),
        sections=tuple(section_of(result) for result in results),
        overall=_overall(results, job.seed),
        reference=None if published is None else _beside(job.reference, published, results),
        standings=() if published is None else _standings(published, results, job.seed),
        commands=(_command(job),),
        facts=(
            ("weights", f"SHA-256 {first['sha256']}"),
            ("geodino", about["geodino"]),
            ("commit", about["commit"] or "an installed package, not a checkout"),
            *((name, number) for name, number in about["versions"].items()),
        ),
    )
    path = job.out / "report.html"
    write_text(path, render_evaluation(page))
    return path


def _beside(
    path: Path | None, published: Sequence[dict[str, str]], results: Sequence[dict[str, Any]]
) -> tuple[str, tuple[tuple[str, str, str, str, bool], ...]]:
    """Published rows of the same sets and metric, and the model's best among them."""
    lines: list[tuple[str, str, str, str, bool]] = []
    for result in results:
        name, metric = result["set"]["name"], _metric(result, published)
        ours = best_rows([r for r in result["rows"] if r["metric_name"] == metric])["model"]
        found = [
            (float(row["metric_value"]), f"{row['name']} ({row['method']}, {row.get('bands', '')})")
            for row in published
            if row["dataset"] == name
            and row["metric_name"] in published_names(metric)
            and row["metric_value"]
        ]
        sign = 1 if metric in ERRORS else -1
        found = sorted(found, key=lambda line: sign * line[0])[:_SHOWN]
        every = [(*line, False) for line in found]
        if ours["metric_value"] is not None:
            who = f"{ours['name']} ({ours['method']}, {ours['bands']})"
            every.append((ours["metric_value"], who, True))
        every.sort(key=lambda line: sign * line[0])
        lines += [
            (name, in_words(metric), who, f"{score:.3f}", is_ours) for score, who, is_ours in every
        ]
    said = (
        f"Rows of {path.name if path else 'a table'}, the best {_SHOWN} of each set in the same "
        "metric. They are comparable as far as their protocol, bands and partition are the same."
    )
    return said, tuple(lines)


def _overall(results: Sequence[dict[str, Any]], seed: int) -> tuple[tuple[str, str], ...]:
    """By encoder: the interquartile mean over sets and seeds of what the first table shows."""
    scores: dict[str, list[np.ndarray]] = defaultdict(list)
    shares = [result for result in results if result["set"]["metric"] not in ERRORS]
    for result in shares:
        metric = result["set"]["metric"]
        for encoder, best in best_rows(
            [row for row in result["rows"] if row["metric_name"] == metric]
        ).items():
            scores[encoder].append(_of_seeds(result, best))
    if len(shares) < _SUMMED:
        return ()
    found = []
    for encoder, of_sets in scores.items():
        if len(of_sets) == len(shares) and all(map(len, of_sets)):
            mean = stratified_iqm(of_sets, generator=seeds.rng(seed, "iqm", encoder))
            found.append((encoder, between(mean)))
    return tuple(found)


def _of_seeds(result: Mapping[str, Any], row: Mapping[str, Any]) -> np.ndarray:
    """The score of a row, and of its repeats with other seeds."""
    same = ("encoder", "method", "features", "metric_name")
    values = [
        one["metric_value"]
        for one in (*result["rows"], *result["repeats"])
        if all(one[name] == row[name] for name in same)
    ]
    return np.array([value for value in values if value is not None], dtype=np.float64)


def _metric(result: dict[str, Any], published: Sequence[dict[str, str]]) -> str:
    """The score of a set that published rows have too."""
    own = list(dict.fromkeys(row["metric_name"] for row in result["rows"]))
    return shared_metric(result["set"]["name"], result["set"]["metric"], own, published)


def _standings(
    published: Sequence[dict[str, str]], results: Sequence[dict[str, Any]], seed: int
) -> tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...]:
    """The model in the pool of the published ones, by each probe that both have."""
    found = []
    name = results[0]["settings"]["model"]
    for method in ("linear", "knn5"):
        ours = {}
        for result in results:
            metric = _metric(result, published)
            rows = [
                row
                for row in result["rows"]
                if row["metric_name"] == metric and row["method"] == method
            ]
            mine = best_rows(rows).get("model")
            if mine is not None and mine["metric_value"] is not None:
                ours[result["set"]["name"]] = (metric, _of_seeds(result, mine))
        generator = seeds.rng(seed, "iqm", method)
        stands = standing(ours, published, name=name, method=method, generator=generator)
        if stands is not None:
            said = (
                f"{method}: interquartile mean over {', '.join(stands.sets)} and their seeds, each "
                f"set scaled from 0 (worst) to 1 (best) of a pool of {len(stands.pool)} published "
                "models; with another pool the numbers are others."
            )
            lines = tuple(
                (model, between(score), model not in stands.pool)
                for model, score in stands.scores.items()
            )
            found.append((said, lines))
    return tuple(found)


def _command(job: EvaluateJob) -> str:
    words = [
        "geodino",
        "evaluate",
        "--model",
        job.model,
        "--suite",
        job.suite,
        "--protocol",
        job.protocol,
    ]
    for option, value in (
        ("--data", job.data),
        ("--partition", job.partition if job.partition != "default" else None),
        ("--bands", job.bands),
        ("--probe", ",".join(job.probes)),
        ("--features", ",".join(job.features)),
        ("--by", ",".join(job.by)),
        ("--image-size", job.image_size),
        ("--seeds", job.seeds if job.seeds > 1 else None),
    ):
        if value:
            words += [option, str(value)]
    return shlex.join([*words, "--seed", str(job.seed), "--out", "NEW"])
