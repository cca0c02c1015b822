"""The recipe of a run that learns canopy heights."""

from pydantic import Field

from geodino.data.labels.config import LabelsConfig
from geodino.metrics.conformal import IntervalConfig
from geodino.metrics.height import HeightProtocol
from geodino.models.canopy import CanopyConfig
from geodino.runs.finetune.config import FinetuneConfig
from geodino.tasks.canopy.config import (
    ApplicabilityConfig,
    CurriculumConfig,
    MapsConfig,
    SamplingConfig,
)


class CanopyFinetuneConfig(FinetuneConfig):
    """A complete recipe of fine-tuning for canopy heights."""

    canopy: CanopyConfig
    """The head and its bins; the section that makes a recipe one of canopy heights."""

    gsd_m: float | None = Field(default=None, gt=0)
    """Pixel of the grid the model sees, metres. ``null``: that of the images; else they are
    resampled to it, and maps back to theirs."""

    labels: LabelsConfig = LabelsConfig()
    """How labels are read."""

    sampling: SamplingConfig = SamplingConfig()
    """Which crops are learnt from."""

    curriculum: CurriculumConfig = CurriculumConfig()
    """The losses."""

    maps: MapsConfig = MapsConfig()
    """How maps are made of chips."""

    intervals: IntervalConfig = IntervalConfig()
    """How intervals are calibrated."""

    protocol: HeightProtocol = HeightProtocol()
    """How heights are scored."""

    applicability: ApplicabilityConfig = ApplicabilityConfig()
    """What is kept of the training ground's features."""
