"""From a curve to a canopy model folder: the weights MODEL had, and what becomes of its heights."""

from typing import Any

from geodino.evals.results import MODEL
from geodino.metrics.recalibration import HeightCurve
from geodino.models.canopy_folder import save_canopy
from geodino.models.card import ModelCard
from geodino.runs.finetune.canopy.export import label_facts
from geodino.runs.finetune.canopy.judge import BEFORE, MEAN
from geodino.runs.finetune.canopy.results import Results
from geodino.runs.predict.heights import RECALIBRATION, HeightTask
from geodino.runs.recalibrate.prepare import PreparedRecalibration
from geodino.runs.record import RunFolder
from geodino.tasks.canopy.applicability import load_applicability
from geodino.tasks.chips import Chips

ROWS = {"mae_m": MODEL, "mae_before_m": BEFORE, "mae_of_mean_height_m": MEAN}
"""What is kept of the results, by the row it stands in."""


def export(
    prepared: PreparedRecalibration,
    task: HeightTask,
    curve: HeightCurve,
    results: Results,
    folder: RunFolder,
    *,
    chips: Chips,
    said: str,
) -> None:
    """Write the model folder.

    Args:
        prepared: the run.
        task: the model it began with.
        curve: from the head's own heights to the new ones.
        results: what was measured.
        folder: of the run.
        chips: that maps are made of.
        said: how the curve was chosen, as a sentence.

    Raises:
        RunError: it cannot be written.
    """
    save_canopy(
        folder.model,
        task.canopy.model,
        contract=prepared.contract,
        card=_card(prepared, task, curve, results, folder, chips=chips, said=said),
        extra={
            **{k: task.canopy.extra[k] for k in ("augment",) if k in task.canopy.extra},
            "chip": chips.chip,
            "overlap": chips.overlap,
            "gsd_m": prepared.config.gsd_m,
            "intervals": results.facts["intervals"],
            "intervals_missing": results.facts["intervals_missing"],
            "labels": label_facts(prepared),
            "results": {"on": results.facts["reported_on"], **_errors(results)},
            RECALIBRATION: curve.model_dump(mode="json"),
        },
    )
    # It tells of the ground the head was trained on, which is still the same.
    old = prepared.opened.folder
    kept = None if old is None else load_applicability(old)
    if kept is not None:
        kept.save(folder.model)


def _errors(results: Results) -> dict[str, float | None]:
    on = results.facts["reported_on"]
    scores: dict[str, Any] = results.facts[on]["scores"] if on else {}
    return {
        key: scores[row]["mae_m"]["value"] if row in scores else None for key, row in ROWS.items()
    }


def _card(
    prepared: PreparedRecalibration,
    task: HeightTask,
    curve: HeightCurve,
    results: Results,
    folder: RunFolder,
    *,
    chips: Chips,
    said: str,
) -> dict[str, Any]:
    errors, on = _errors(results), results.facts["reported_on"]
    evaluation = said
    if errors["mae_m"] is not None and errors["mae_before_m"] is not None:
        evaluation += (
            f" Mean absolute error {errors['mae_m']:.2f} m on the {on} ground of its run, "
            f"{errors['mae_before_m']:.2f} m before."
        )
    beyond = (
        "Its heights are those of the model it began with."
        if curve.is_identity
        else f"Predictions above {curve.predicted_m[-1]:.1f} m, where no label set the curve, go on "
        f"with {curve.slope_above:.2f} m per metre."
    )
    name = prepared.opened.name
    return ModelCard(
        name=f"{folder.root.resolve().name}-canopy",
        description=f"Canopy height from {name}, recalibrated on local labels.",
        data=f"{len(prepared.source.labelled)} labelled images set the curve; what the network was "
        f"trained on, {name} says.",
        training="No weight was changed. Heights go through the curve in canopy.json "
        f"(`extra.{RECALIBRATION}`), which `geodino predict` applies.",
        evaluation=evaluation,
        limits=f"The curve holds for ground like that of its labels. {beyond}",
        lineage=prepared.lineage,
        image_size=chips.chip,
    ).model_dump()
