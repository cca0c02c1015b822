"""The tasks that predictions are made for: which of them a model is for."""

from pathlib import Path

from geodino.errors import CheckpointError
from geodino.models.canopy_open import is_canopy
from geodino.models.foreign.hugging_face import HUB
from geodino.runs.predict.base import Task
from geodino.runs.predict.boxes import BoxTask
from geodino.runs.predict.classes import ClassTask
from geodino.runs.predict.heights import HeightTask
from geodino.runs.predict.images import ImageTask

_OF_FOLDERS: tuple[type[Task], ...] = (ClassTask, BoxTask, ImageTask)
"""Tasks whose models are folders of ours alone; heights come in other forms too."""


def open_task(model: str) -> Task:
    """Open MODEL.

    Raises:
        CheckpointError: there is no model there, or one without a head.
    """
    found = _in_folder(model)
    if found is not None:
        return found
    if not model.startswith(HUB) and Path(model).exists() and not is_canopy(model):
        raise CheckpointError(
            f"{model} holds a backbone and no head: it has features, not heights, classes or "
            "objects. Train a head with `geodino finetune canopy --model`, `geodino finetune "
            "segmentation --model` or `geodino finetune detection --model`, or write features with "
            "`geodino embed`."
        )
    return HeightTask.open(model)


def task_within(model: str) -> Task | None:
    """Open MODEL if it has a head; None for a backbone alone.

    Raises:
        CheckpointError: it is damaged, or cannot be fetched.
    """
    return _in_folder(model) or HeightTask.within(model)


def _in_folder(model: str) -> Task | None:
    kind = next((k for k in _OF_FOLDERS if k.files.place(model) is not None), None)
    return None if kind is None else kind.open(model)
