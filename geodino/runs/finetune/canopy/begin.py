"""The model a run on labelled ground begins with: its backbone, and its head if there is one."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from geodino.errors import RecipeError, RunError
from geodino.models.canopy import CanopyConfig, CanopyModel
from geodino.models.decoders.dpt import DptConfig
from geodino.models.vit import VitBackbone
from geodino.runs.finetune.canopy.config import CanopyFinetuneConfig
from geodino.runs.finetune.config import LabelledConfig
from geodino.runs.finetune.prepared import opened_again, started
from geodino.runs.models import OpenedModel, open_model, tensors_hash
from geodino.runs.predict.heights import HeightTask
from geodino.runs.record import RunFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class Beginning:
    """MODEL, opened."""

    opened: OpenedModel
    """Its backbone, and what is known of it."""

    task: HeightTask | None
    """The same with its canopy head; None for a backbone alone."""


def begin_with(model: str) -> Beginning:
    """Open MODEL, whether it has a canopy head or not.

    Raises:
        CheckpointError: there is no model there, it is damaged, or it cannot be fetched.
    """
    task = HeightTask.within(model)
    return Beginning(opened=open_model(model) if task is None else task.described(model), task=task)


def begin_again(config: LabelledConfig, folder: RunFolder) -> Beginning:
    """Open the model that a recorded run began with.

    Raises:
        RunError: it is another by now, or its head is.
    """
    if config.start is None:
        raise RunError(f"{folder.recipe} names no model: it was not recorded by a run.")
    found = begin_with(config.start.model)
    opened_again(config, folder, lambda _: found.opened)
    recorded = config.start.head_sha256
    if recorded is not None and (found.task is None or head_hash(found.task) != recorded):
        raise RunError(
            f"The model {config.start.model} has another head than when the run began: put it back, "
            "or start a new run in another --out."
        )
    return found


def head_hash(task: HeightTask) -> str:
    """Return the hash a run remembers the head it began with by."""
    return tensors_hash(task.canopy.model.head.state_dict())


def begin_with_head(
    config: CanopyFinetuneConfig, found: Beginning, model: str
) -> tuple[CanopyFinetuneConfig, tuple[str, ...]]:
    """Decide whether the head begins with that of MODEL; return the recipe with it, and notes.

    Raises:
        RecipeError: the recipe asks for the head of MODEL, and it has none, or another one.
    """
    name, task = found.opened.name, found.task
    note, takes = "", False
    if task is None:
        if config.start_head == "model":
            raise RecipeError(
                f"start_head: {name} is a backbone without a canopy head to begin with: give "
                "--model a canopy model, or leave start_head out."
            )
    elif config.start_head == "fresh":
        note = f"The head begins anew, not with that of {name} (start_head: fresh)."
    else:
        differing = head_differences(config.canopy, task.canopy.model)
        takes = not differing
        words = "; ".join(differing)
        if differing and config.start_head == "model":
            raise RecipeError(
                f"start_head: the head of {name} is not the recipe's: {words}. Set the recipe's as "
                "they are there, or leave start_head out for a new head."
            )
        note = (
            f"The head begins with the weights of that of {name}."
            if takes
            else f"The head begins anew, since that of {name} is another one: {words}."
        )
        if takes and task.curve is not None:
            note += " Its recalibration is not kept: the head learns on from its own heights."
    head = head_hash(task) if takes and task is not None else None
    return started(config, found.opened, model, head=head), (note,) if note else ()


def head_differences(wanted: CanopyConfig, have: CanopyModel) -> list[str]:
    """Return what keeps a recipe's head from beginning with a model's, as words; empty for nothing.

    Where the untrained head would start (``bins.initial_m``) is no difference.
    """
    ours, theirs = dict(_decisive(wanted, have)), dict(_decisive(have.config, have))
    if ours["head.kind"] != theirs["head.kind"]:
        return [f"canopy.head.kind is {theirs['head.kind']} there and {ours['head.kind']} here"]
    ours["head.taps"] = [tap.layer for tap in CanopyModel(have.backbone, wanted).taps]
    theirs["head.taps"] = [tap.layer for tap in have.taps]
    return [
        f"canopy.{key} is {theirs[key]} there and {ours[key]} here"
        for key in ours
        if ours[key] != theirs[key]
    ]


def _decisive(config: CanopyConfig, model: CanopyModel) -> Iterator[tuple[str, Any]]:
    """What weights of a head depend on, by its key."""
    head = config.head
    if isinstance(head, DptConfig) and head.readout == "auto":
        readout = "project" if isinstance(model.backbone, VitBackbone) else "ignore"
        head = head.model_copy(update={"readout": readout})
    values = {
        "head": head.model_dump(mode="json"),
        "bins": config.bins.model_dump(mode="json", exclude={"initial_m"}),
    }
    for section, inner in values.items():
        for key, value in inner.items():
            yield f"{section}.{key}", value
    yield "quantiles", list(config.quantiles)
