"""Before a recalibration: model, images, labels and split are brought together."""

from dataclasses import dataclass
from typing import Any

from geodino.errors import CheckpointError, RecipeError
from geodino.io.raster import HandlePool
from geodino.runs.finetune.canopy.begin import begin_with, head_hash
from geodino.runs.finetune.canopy.prepare import PreparedGround, brought_together, read_recorded
from geodino.runs.finetune.prepared import Relation, started
from geodino.runs.finetune.request import FinetuneJob
from geodino.runs.recalibrate.config import RecalibrateConfig
from geodino.runs.recipe import load_finetune_recipe, load_recorded_finetune
from geodino.runs.record import RunFolder


@dataclass(frozen=True, kw_only=True)
class PreparedRecalibration(PreparedGround[RecalibrateConfig]):
    """Everything a recalibration is, before it runs."""

    @property
    def relation(self) -> Relation:
        """How the result descends from the model it began with."""
        return "recalibrated from"


def prepare(job: FinetuneJob, pool: HandlePool) -> PreparedRecalibration:
    """Read the recipe, open the model, bring images and labels together.

    Raises:
        GeodinoError: whatever is wrong with any of them.
    """
    if job.model is None:
        raise RecipeError("--model is missing: name the canopy model whose heights are set right.")
    config = load_finetune_recipe(RecalibrateConfig, job.recipe or "recalibrate", job.settings)
    found = begin_with(job.model)
    if found.task is None:
        raise CheckpointError(
            f"{job.model} holds a backbone and no head: it has no heights to set right. Give a "
            "canopy model, or train a head first, with --recipe canopy."
        )
    config = started(config, found.opened, job.model, head=head_hash(found.task))
    derived: dict[str, Any] = {}
    own = found.task.gsd(None)
    if config.gsd_m is None and own is not None:
        config = config.with_values({"gsd_m": own})
        derived["gsd_m"] = {"value": own, "reason": "what the model was made with"}
    notes: tuple[str, ...] = ()
    if found.task.curve is not None:
        notes = (f"{found.opened.name} was recalibrated before: the two curves become one.",)
    return brought_together(
        PreparedRecalibration, config, found, job, pool, notes=notes, derived=derived
    )


def read_prepared(folder: RunFolder, pool: HandlePool) -> PreparedRecalibration:
    """Read what a run folder says the run is.

    Raises:
        GeodinoError: a file is missing or damaged, or images, labels or model are others by now.
    """
    config = load_recorded_finetune(RecalibrateConfig, folder.recipe)
    return read_recorded(PreparedRecalibration, config, folder, pool)
