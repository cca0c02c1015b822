"""From the results of a suite to its page."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geodino.evals.pool import published_names, shared_metric, standing
from geodino.evals.tables import read_rows
from geodino.files import write_text
from geodino.report.evaluation import (
    EvaluationPage,
    in_words,
    render_evaluation,
    section_of,
    suite_rows,
)
from geodino.runs.evaluate.job import EvaluateJob
from geodino.runs.evaluate.words import best_rows
from geodino.runs.record import environment

_SHOWN = 12
"""Published rows of a set that are shown, the best ones."""


def write_page(job: EvaluateJob, results: Sequence[dict[str, Any]], facts: dict[str, Any]) -> Path:
    """Write the page; return where.

    Raises:
        SourceError: the published rows cannot be read.
    """
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
        reference=None if job.reference is None else _beside(job.reference, results),
        standings=() if job.reference is None else _standings(job.reference, results),
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
    path: Path, results: Sequence[dict[str, Any]]
) -> tuple[str, tuple[tuple[str, str, str, str, bool], ...]]:
    """Published rows of the same sets and metric, and the model's best among them."""
    published = read_rows(path)
    lines: list[tuple[str, str, str, str, bool]] = []
    for result in results:
        name, metric = result["set"]["name"], _metric(result, published)
        ours = best_rows([r for r in result["rows"] if r["metric_name"] == metric])["model"]
        found = [
            (
                float(row["metric_value"]),
                f"{row['name']} ({row['method']}, {row.get('bands', '')})",
                False,
            )
            for row in published
            if row["dataset"] == name
            and row["metric_name"] in published_names(metric)
            and row["metric_value"]
        ]
        found = sorted(found, reverse=True)[:_SHOWN]
        mine = (ours["metric_value"], f"{ours['name']} ({ours['method']}, {ours['bands']})", True)
        every = sorted([*found, mine], key=lambda line: -line[0])
        lines += [
            (name, in_words(metric), who, f"{score:.3f}", is_ours) for score, who, is_ours in every
        ]
    said = (
        f"Rows of {path.name}, the best {_SHOWN} of each set in the same metric. They are comparable "
        "as far as their protocol, bands and partition are the same."
    )
    return said, tuple(lines)


def _metric(result: dict[str, Any], published: Sequence[dict[str, str]]) -> str:
    """The score of a set that published rows have too."""
    own = list(dict.fromkeys(row["metric_name"] for row in result["rows"]))
    return shared_metric(result["set"]["name"], result["set"]["metric"], own, published)


def _standings(
    path: Path, results: Sequence[dict[str, Any]]
) -> tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...]:
    """The model in the pool of the published ones, by each probe that both have."""
    published, found = read_rows(path), []
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
                ours[result["set"]["name"]] = (metric, float(mine["metric_value"]))
        stands = standing(ours, published, name=name, method=method)
        if stands is not None:
            said = (
                f"{method}: interquartile mean over {', '.join(stands.sets)}, each set scaled from 0 "
                f"(worst) to 1 (best) of a pool of {len(stands.pool)} published models; with another "
                "pool the numbers are others."
            )
            lines = tuple(
                (model, f"{score:.3f}", model not in stands.pool)
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
        ("--bands", job.bands),
        ("--probe", ",".join(job.probes)),
        ("--features", ",".join(job.features)),
        ("--by", ",".join(job.by)),
        ("--image-size", job.image_size),
    ):
        if value:
            words += [option, str(value)]
    return shlex.join([*words, "--seed", str(job.seed), "--out", "NEW"])
