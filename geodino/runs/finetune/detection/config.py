"""The recipe of a run that learns to find objects."""

from pydantic import Field

from geodino.data.labelled.boxes import BoxLabelsConfig
from geodino.models.detection.head import DetectionConfig
from geodino.runs.finetune.config import TiledFinetuneConfig
from geodino.tasks.canopy.config import MapsConfig
from geodino.tasks.detection.crops import BoxSamplingConfig


class DetectionFinetuneConfig(TiledFinetuneConfig):
    """A complete recipe of fine-tuning for boxes around objects."""

    detection: DetectionConfig
    """The head; the section that makes a recipe one of detection."""

    labels: BoxLabelsConfig = BoxLabelsConfig()
    """How labels are read, and which classes they hold."""

    size: int | None = Field(default=None, ge=32)
    """Length of the longer side that every picture is resized to before anything sees it, pixels;
    boxes are judged in pixels of the files. null: pictures are seen as they are. Not for images with
    a place on the Earth, which are cut."""

    sampling: BoxSamplingConfig = BoxSamplingConfig()
    """Which crops are learnt from."""

    maps: MapsConfig = MapsConfig()
    """How images larger than a chip are looked at."""
