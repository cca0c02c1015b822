"""What the terminal is told before and after each set."""

from collections.abc import Sequence
from typing import Any

import torch

from geodino.data.labelled.sets import Missing
from geodino.evals.protocols import Protocol
from geodino.evals.results import MODEL
from geodino.evals.tables import best_rows
from geodino.runs.evaluate.job import EvaluateJob
from geodino.runs.models import OpenedModel

_NAME = "NAME"
"""Stands for the name of a set in what is said of several."""


def card_text(
    job: EvaluateJob,
    protocol: Protocol,
    opened: OpenedModel,
    found: Sequence[str],
    missing: Sequence[Missing],
    device: torch.device,
) -> str:
    """Say what will be measured, how, and what is missing with its cure."""
    contract = opened.loaded.contract
    lines = {
        "model": f"{opened.name} ({opened.loaded.config.name}; {', '.join(contract.band_names)}; "
        f"{contract.dtype})",
        "suite": f"{job.suite}: {', '.join(found) or 'nothing that is here'}",
        "protocol": f"{protocol.name}. {protocol.about}",
        "bands": job.bands or protocol.bands,
        "floors": "random weights, image statistics, the answer that needs no image",
        "device": str(device),
        "out": str(job.out),
    }
    width = max(map(len, lines))
    text = [f"  {name:<{width}}  {value}" for name, value in lines.items()]
    text += [f"  * {line}" for line in missing_words(missing)]
    return "\n".join(text)


def missing_words(missing: Sequence[Missing]) -> list[str]:
    """Say which sets are missing, why, and the cure; in one sentence where all but the name agrees."""
    groups: dict[str, list[str]] = {}
    for one in missing:
        said = f"{one.reason}. {one.cure}".replace(one.name, _NAME)
        groups.setdefault(said, []).append(one.name)
    return [
        f"{names[0]} is missing: {said.replace(_NAME, names[0])}"
        if len(names) == 1
        else f"{', '.join(names)} are missing: {said}"
        for said, names in groups.items()
    ]


def set_words(result: dict[str, Any]) -> str:
    """Say in a line how the model did on a set, beside its floors, alarms below."""
    metric = result["set"]["metric"]
    rows = [row for row in result["rows"] if row["metric_name"] == metric]
    best = best_rows(rows)
    said = []
    for encoder, row in best.items():
        value = row["metric_value"]
        low, high = row["ci_lower"], row["ci_upper"]
        of = f" ({low:.3f} to {high:.3f}; {row['method']} on {row['features']})"
        number = "undefined" if value is None else f"{value:.3f}"
        said.append(f"{encoder} {number}{of if encoder == MODEL and low is not None else ''}")
    lines = [f"{metric}: {', '.join(said)}"]
    lines += [f"    ! {alarm}" for alarm in result["alarms"]]
    return "\n".join(lines)
