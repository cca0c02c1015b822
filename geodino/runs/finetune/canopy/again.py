"""The report of a finished run again, from what the run holds; only its pictures are predicted."""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from geodino.data.splits import SplitName
from geodino.errors import CheckpointError
from geodino.infer.engine import Predictor
from geodino.infer.heights import HeightPredictor
from geodino.metrics.conformal import QuantileIntervals, ResidualIntervals
from geodino.metrics.coverage import CoverageReport, GroupCoverage
from geodino.metrics.height import HeightClassScores
from geodino.models.canopy_folder import load_canopy
from geodino.runs.finetune.canopy.judge import SHOWN, Subject
from geodino.runs.finetune.canopy.results import Intervals, Results
from geodino.runs.finetune.canopy.scene import CanopyScene
from geodino.runs.record import RunFolder
from geodino.tasks.canopy.areas import Area, Compared, find_areas
from geodino.tasks.canopy.evaluate import by_site, judged


def report_again(
    scene: CanopyScene, folder: RunFolder, *, device: torch.device, out: Path | None
) -> Path:
    """Write the report of a finished run; every score is the one that was recorded.

    Args:
        scene: of the run.
        folder: the run.
        device: where the pictured areas are predicted.
        out: another place for the page.

    Raises:
        GeodinoError: a file of the run is missing or damaged.
    """
    from geodino.runs.finetune.canopy.report import write_report  # plots load late

    scene = replace(scene, canopy=load_canopy(folder.model).model.to(device))
    predictor = HeightPredictor(scene.canopy, device=device)
    return write_report(scene, results_again(folder, scene.subject, predictor), folder, out=out)


def results_again(folder: RunFolder, subject: Subject, predictor: Predictor) -> Results:
    """Return the results a run recorded; pictures and points are of one area a site.

    Args:
        folder: of the run.
        subject: what was measured, and where.
        predictor: the model, as it was measured.

    Raises:
        CheckpointError: what is recorded is damaged.
    """
    facts = folder.read_facts()["results"]
    shown = _shown(subject, facts["reported_on"], predictor)
    return Results(
        facts={"scored": "", **facts},
        intervals=_intervals(facts, folder),
        classes=_classes(facts.get("classes", [])),
        coverage=_coverage(facts["coverage"]),
        shown=shown,
        values=by_site([_listed(one) for one in shown]),
    )


def _shown(subject: Subject, which: SplitName | None, predictor: Predictor) -> list[Compared]:
    """Predict one area each of the first sites that are reported."""
    if which is None:
        return []
    first: dict[str, list[Area]] = {}
    for area in find_areas(subject.source, which, threads=subject.threads):
        first.setdefault(area.site, []).append(area)
    shown: list[Compared] = []
    with ThreadPoolExecutor(subject.threads, "geodino-read") as threads:
        for areas in first.values():
            if len(shown) == SHOWN:
                break
            found = judged(subject.source, areas, which, predictor, subject.chips, threads=threads)
            one = next((one for one in found if one.valid.any()), None)
            shown += [] if one is None else [one]
    return shown


def _listed(one: Compared) -> Compared:
    """An area as the list of its valid pixels."""
    true_m = one.true_m[one.valid]
    return replace(one, values=one.values[:, one.valid], true_m=true_m, valid=true_m == true_m)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _classes(rows: list[dict[str, Any]]) -> tuple[HeightClassScores, ...]:
    return tuple(
        HeightClassScores(
            name=row["name"],
            pixels=row["pixels"],
            mae_m=_number(row["mae_m"]),
            bias_predicted_minus_true_m=_number(row["bias_predicted_minus_true_m"]),
        )
        for row in rows
    )


def _coverage(found: dict[str, Any] | None) -> CoverageReport | None:
    if found is None:
        return None

    def groups(name: str) -> tuple[GroupCoverage, ...]:
        return tuple(
            GroupCoverage(
                name=row["name"],
                pixels=row["pixels"],
                coverage=_number(row["coverage"]),
                width_m=_number(row["width_m"]),
            )
            for row in found[name]
        )

    return CoverageReport(
        coverage=_number(found["coverage"]),
        width_m=_number(found["width_m"]),
        sites=groups("sites"),
        classes=groups("classes"),
    )


def _intervals(facts: dict[str, Any], folder: RunFolder) -> Intervals | None:
    found = facts["intervals"]
    if found is None:
        return None
    kinds: dict[str, type[Intervals]] = {
        "quantiles": QuantileIntervals, "residuals": ResidualIntervals,
    }  # fmt: skip
    if found.get("kind") not in kinds:
        raise CheckpointError(f"{folder.facts}: its intervals are of no known kind; restore it.")
    return kinds[found["kind"]].parse(found, source=str(folder.facts))
