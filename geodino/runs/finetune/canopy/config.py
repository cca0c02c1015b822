"""The recipe of a run that learns canopy heights."""

from typing import Literal

from pydantic import Field

from geodino.data.labels.config import LabelsConfig
from geodino.metrics.conformal import IntervalConfig
from geodino.models.canopy import CanopyConfig
from geodino.runs.finetune.config import FinetuneConfig, TiledConfig
from geodino.tasks.canopy.config import (
    ApplicabilityConfig,
    CanopyProtocol,
    CurriculumConfig,
    MapsConfig,
    SamplingConfig,
)

StartHead = Literal["auto", "model", "fresh"]


class GroundConfig(TiledConfig):
    """What every recipe holds that learns from heights, whatever it makes of them."""

    scale: float | None = Field(default=None, gt=0)
    """What stored values of images are multiplied by before the model, as by --scale of geodino
    predict, which the maps need as well: 1 takes float32 for the uint8 a model was trained on.
    ``null``: images are of the type the model was trained on."""

    labels: LabelsConfig = LabelsConfig()
    """How labels are read."""

    maps: MapsConfig = MapsConfig()
    """How maps are made of chips."""

    intervals: IntervalConfig = IntervalConfig()
    """How intervals are calibrated."""

    protocol: CanopyProtocol = CanopyProtocol()
    """How heights are scored, and where."""


class CanopyFinetuneConfig(FinetuneConfig, GroundConfig):
    """A complete recipe of fine-tuning for canopy heights."""

    canopy: CanopyConfig
    """The head and its bins; the section that makes a recipe one of canopy heights."""

    start_head: StartHead = "auto"
    """What the head begins with where MODEL has a canopy head already. ``auto``: with that one's
    weights if both are made alike, with the same bins, else anew; ``model``: with its weights, or
    not at all; ``fresh``: anew."""

    sampling: SamplingConfig = SamplingConfig()
    """Which crops are learnt from."""

    curriculum: CurriculumConfig = CurriculumConfig()
    """The losses."""

    applicability: ApplicabilityConfig = ApplicabilityConfig()
    """What is kept of the training ground's features."""
