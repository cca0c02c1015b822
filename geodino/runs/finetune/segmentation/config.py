"""The recipe of a run that learns a class for every pixel."""

from geodino.data.labelled.classes import ClassLabelsConfig
from geodino.models.segmentation import SegmentationConfig
from geodino.runs.finetune.config import TiledFinetuneConfig
from geodino.tasks.canopy.config import MapsConfig
from geodino.tasks.segmentation.config import ClassLossConfig, ClassSamplingConfig, FloorConfig


class SegmentationFinetuneConfig(TiledFinetuneConfig):
    """A complete recipe of fine-tuning for classes of pixels."""

    segmentation: SegmentationConfig
    """The head; the section that makes a recipe one of segmentation."""

    labels: ClassLabelsConfig = ClassLabelsConfig()
    """How labels are read, and which classes they hold."""

    sampling: ClassSamplingConfig = ClassSamplingConfig()
    """Which crops are learnt from."""

    loss: ClassLossConfig = ClassLossConfig()
    """The losses."""

    maps: MapsConfig = MapsConfig()
    """How maps are made of chips."""

    floors: FloorConfig = FloorConfig()
    """What the results are compared with."""
