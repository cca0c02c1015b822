"""Every form of MODEL that a command takes, opened the same way."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from geodino import files
from geodino.errors import CheckpointError
from geodino.models.folder import ITEM, WEIGHTS, LoadedModel, load_model
from geodino.models.foreign import is_foreign, open_foreign
from geodino.models.foreign.releases import IMAGE_SIZE
from geodino.runs.record import model_folder


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenedModel:
    """A model with what is known of it beside its weights."""

    loaded: LoadedModel
    name: str
    sha256: str
    """Hash of its weights: of the file in a folder of ours, else of the tensors."""

    image_size: int | None
    """Side of the crops it was trained on, pixels; None where nothing says it."""

    item: str
    """Where it is described: the STAC item of its folder, or the address or path it came from."""

    folder: Path | None
    """Its model folder; None for a model that was not made by geodino."""


def open_model(model: str | Path) -> OpenedModel:
    """Open a run or model folder, ``timm:NAME.TAG``, ``hub:OWNER/NAME``, or a weights file.

    Raises:
        CheckpointError: there is no model there, it is damaged, or it cannot be fetched.
    """
    if not is_foreign(model):
        folder = model_folder(model)
        return described(load_model(folder), folder)
    name = str(model)
    loaded = open_foreign(name)
    return OpenedModel(
        loaded=loaded,
        # A product names its model, not a place on somebody's disk.
        name=name if name.startswith(("timm:", "hub:")) else Path(name).name,
        sha256=tensors_hash(loaded.backbone.state_dict()),
        image_size=IMAGE_SIZE,
        item=_address(name),
        folder=None,
    )


def described(loaded: LoadedModel, folder: Path) -> OpenedModel:
    """Add what the folder of a loaded model says about it.

    Raises:
        CheckpointError: its STAC item is missing or damaged.
    """
    try:
        properties = json.loads((folder / ITEM).read_text(encoding="utf-8"))["properties"]
        shape = properties["mlm:input"][0]["input"]["shape"]
        name = str(properties.get("title") or properties["mlm:name"])
    except (OSError, json.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{folder / ITEM} is missing or damaged ({error}). Export the model again."
        ) from error
    return OpenedModel(
        loaded=loaded,
        name=name,
        sha256=files.sha256(folder / WEIGHTS),
        image_size=int(shape[-1]) if shape and int(shape[-1]) > 0 else None,
        item=str(folder / ITEM),
        folder=folder,
    )


def tensors_hash(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of names, shapes, types and bytes, whatever file they came in."""
    digest = hashlib.sha256()
    for name in sorted(state):
        value = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(value.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _address(model: str) -> str:
    scheme, _, name = model.partition(":")
    if scheme == "timm":
        return f"https://huggingface.co/timm/{name}"
    if scheme == "hub":
        return f"https://huggingface.co/{name}"
    return model
