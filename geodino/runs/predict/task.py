"""The tasks whose maps are made: which of them a model is for."""

from pathlib import Path

from geodino.errors import CheckpointError
from geodino.models.canopy_open import is_canopy
from geodino.models.foreign.hugging_face import HUB
from geodino.models.segmentation_folder import FILES as SEGMENTATION
from geodino.runs.predict.base import Task
from geodino.runs.predict.classes import ClassTask
from geodino.runs.predict.heights import HeightTask


def open_task(model: str) -> Task:
    """Open MODEL.

    Raises:
        CheckpointError: there is no model there, or one without a head.
    """
    if SEGMENTATION.place(model) is not None:
        return ClassTask.open(model)
    if not model.startswith(HUB) and Path(model).exists() and not is_canopy(model):
        raise CheckpointError(
            f"{model} holds a backbone and no head: it has features, not heights or classes. Train a "
            "head with `geodino finetune canopy --model` or `geodino finetune segmentation --model`, "
            "or write features with `geodino embed`."
        )
    return HeightTask.open(model)


def task_within(model: str) -> Task | None:
    """Open MODEL if it has a head; None for a backbone alone.

    Raises:
        CheckpointError: it is damaged, or cannot be fetched.
    """
    if SEGMENTATION.place(model) is not None:
        return ClassTask.open(model)
    return HeightTask.within(model)
