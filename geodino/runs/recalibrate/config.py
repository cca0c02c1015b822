"""The recipe of a run that sets the heights of a canopy model right on local labels."""

from pydantic import Field

from geodino.config import Config
from geodino.metrics.recalibration import RecalibrationConfig
from geodino.runs.finetune.canopy.config import GroundConfig


class RecalibrateTrainConfig(Config):
    """What is random."""

    seed: int = Field(default=0, ge=0)
    """Which areas and labels are looked at follows from it, and the intervals over sites."""


class RecalibrateConfig(GroundConfig):
    """A complete recipe of recalibration."""

    recalibrate: RecalibrationConfig
    """The curve; the section that makes a recipe one of recalibration."""

    train: RecalibrateTrainConfig = RecalibrateTrainConfig()
    """Seed."""
