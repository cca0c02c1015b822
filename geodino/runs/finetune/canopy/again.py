"""The report of a finished run again, from what the run holds; only its pictures are predicted."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from geodino.data.splits import SplitName
from geodino.errors import CheckpointError, RunError
from geodino.infer.heights import HeightPredictor
from geodino.io.raster import HandlePool
from geodino.metrics.conformal import QuantileIntervals, ResidualIntervals
from geodino.metrics.coverage import CoverageReport, GroupCoverage
from geodino.metrics.height import HeightClassScores
from geodino.models.canopy_folder import is_canopy_folder, load_canopy
from geodino.runs.finetune.canopy.judge import SHOWN
from geodino.runs.finetune.canopy.prepare import read_prepared
from geodino.runs.finetune.canopy.report import write_report
from geodino.runs.finetune.canopy.results import Intervals, Results
from geodino.runs.finetune.canopy.scene import CanopyScene, look
from geodino.runs.record import RunFolder
from geodino.tasks.canopy.areas import Area, Compared, find_areas
from geodino.tasks.canopy.evaluate import by_site, judged


def report_again(folder: RunFolder, *, device: torch.device, out: Path | None = None) -> Path:
    """Write the report of a finished run; every score is the one that was recorded.

    Args:
        folder: the run.
        device: where the pictured areas are predicted.
        out: another place for the page.

    Raises:
        RunError: the run has not finished, or its images, labels or model are others by now.
        GeodinoError: a file of it is missing or damaged.
    """
    facts = folder.read_facts().get("results")
    if facts is None or not is_canopy_folder(folder.model):
        raise RunError(
            f"{folder.root} has not finished: there are no results to report. `geodino finetune "
            "canopy --resume` goes on with it."
        )
    with HandlePool() as pool:
        scene = look(read_prepared(folder, pool))
        scene = replace(scene, canopy=load_canopy(folder.model).model.to(device))
        shown = _shown(scene, facts["reported_on"], device=device)
        results = Results(
            facts={"scored": "", **facts},
            intervals=_intervals(facts, folder),
            classes=_classes(facts.get("classes", [])),
            coverage=_coverage(facts["coverage"]),
            shown=shown,
            values=by_site([_listed(one) for one in shown]),
        )
        return write_report(scene, results, folder, out=out)


def _shown(scene: CanopyScene, which: SplitName | None, *, device: torch.device) -> list[Compared]:
    """Predict one area each of the first sites that are reported."""
    if which is None:
        return []
    prepared = scene.prepared
    first: dict[str, list[Area]] = {}
    for area in find_areas(prepared.source, which, threads=prepared.threads):
        first.setdefault(area.site, []).append(area)
    predictor = HeightPredictor(scene.canopy, device=device)
    shown: list[Compared] = []
    with scene.readers() as threads:
        for areas in first.values():
            if len(shown) == SHOWN:
                break
            found = judged(prepared.source, areas, which, predictor, scene.chips, threads=threads)
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
