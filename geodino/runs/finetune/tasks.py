"""The tasks a model can be fine-tuned for: one row each."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from geodino.io.raster import HandlePool
from geodino.runs.card import RunCard
from geodino.runs.finetune.canopy.card import canopy_card
from geodino.runs.finetune.canopy.finish import finish as finish_canopy
from geodino.runs.finetune.canopy.prepare import prepare as prepare_canopy
from geodino.runs.finetune.canopy.prepare import read_prepared as read_canopy
from geodino.runs.finetune.canopy.scene import look as look_at_canopy
from geodino.runs.finetune.classification.card import classification_card
from geodino.runs.finetune.classification.finish import finish as finish_classification
from geodino.runs.finetune.classification.prepare import prepare as prepare_classification
from geodino.runs.finetune.classification.prepare import read_prepared as read_classification
from geodino.runs.finetune.classification.scene import look as look_at_classification
from geodino.runs.finetune.detection.card import detection_card
from geodino.runs.finetune.detection.finish import finish as finish_detection
from geodino.runs.finetune.detection.prepare import PREPARATION as DETECTION
from geodino.runs.finetune.detection.scene import look as look_at_detection
from geodino.runs.finetune.prepared import PreparedFinetune
from geodino.runs.finetune.request import FinetuneJob
from geodino.runs.finetune.scene import Scene
from geodino.runs.finetune.segmentation.card import segmentation_card
from geodino.runs.finetune.segmentation.finish import finish as finish_segmentation
from geodino.runs.finetune.segmentation.prepare import PREPARATION as SEGMENTATION
from geodino.runs.finetune.segmentation.scene import look as look_at_segmentation
from geodino.runs.record import RunFolder

Finish = Callable[..., dict[str, Any]]
"""Measures a trained scene, exports it and writes the report: (scene, trained, folder, device=,
log=) to results."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FinetuneTask:
    """How runs of one task go."""

    prepare: Callable[[FinetuneJob, str, HandlePool], PreparedFinetune[Any]]
    """Brings images, labels and MODEL together for a new run."""

    read: Callable[[RunFolder, HandlePool], PreparedFinetune[Any]]
    """Reads what a recorded run is."""

    look: Callable[[Any], Scene[Any]]
    """Builds the model, and looks at the labels."""

    card: Callable[..., RunCard]
    """Describes the run before it starts: (scene, device=, out=)."""

    finish: Finish


TASKS = {
    "canopy": FinetuneTask(
        prepare=prepare_canopy,
        read=read_canopy,
        look=look_at_canopy,
        card=canopy_card,
        finish=finish_canopy,
    ),
    "segmentation": FinetuneTask(
        prepare=SEGMENTATION.prepare,
        read=SEGMENTATION.read,
        look=look_at_segmentation,
        card=segmentation_card,
        finish=finish_segmentation,
    ),
    "classification": FinetuneTask(
        prepare=prepare_classification,
        read=read_classification,
        look=look_at_classification,
        card=classification_card,
        finish=finish_classification,
    ),
    "detection": FinetuneTask(
        prepare=DETECTION.prepare,
        read=DETECTION.read,
        look=look_at_detection,
        card=detection_card,
        finish=finish_detection,
    ),
}
"""Every task there is. Adding one = its own folder beside ``canopy``, and a row here."""
