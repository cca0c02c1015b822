"""Tensors out of other people's files: safetensors, whole or in shards, and pickles of tensors."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from geodino.errors import CheckpointError

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
"""Endings of files that may hold weights."""

_WHOLE, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PICKLED = "pytorch_model.bin"
"""What timm's ``save_for_hf`` writes unless it is told otherwise."""


def read_file(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a weights file; of a training checkpoint, those of the teacher.

    A pickle is read with ``weights_only=True``: nothing in it is ever run.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else than weights.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} does not exist: give a weights file, or a model folder.")
    found: Mapping[str, Any]
    found = _safetensors(path) if path.suffix == ".safetensors" else _pickle(path)
    return _weights(found, path)


def read_folder(folder: Path) -> dict[str, Tensor]:
    """Read ``model.safetensors`` of a folder, all shards its index names, or ``pytorch_model.bin``.

    Raises:
        CheckpointError: a file is missing or damaged, or the shards are not those of the index.
    """
    index = folder / _INDEX
    if not index.is_file():
        if (folder / _WHOLE).is_file():
            return dict(_safetensors(folder / _WHOLE))
        if (folder / _PICKLED).is_file():
            return read_file(folder / _PICKLED)
        raise CheckpointError(
            f"{folder} has none of {_WHOLE}, {_INDEX} and {_PICKLED}: it holds no weights. Get the "
            "whole repository again."
        )
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no `weight_map`: it is no index of shards.")
    names = sorted(set(map(str, weight_map.values())))
    # A name with a folder in it could point anywhere.
    outside = [name for name in names if Path(name).name != name]
    if outside:
        raise CheckpointError(f"{index} names the shard {outside[0]!r} outside of its folder.")
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of its {len(names)} shards, e.g. {missing[0]}: get "
            "the whole repository again."
        )
    state: dict[str, Tensor] = {}
    for name in names:
        state |= _safetensors(folder / name)
    if state.keys() != weight_map.keys():
        wrong = min(state.keys() ^ weight_map.keys())
        raise CheckpointError(
            f"The shards of {folder} do not hold the tensors that {_INDEX} names, e.g. {wrong}: "
            "they belong to different downloads. Get the whole repository again."
        )
    return state


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        CheckpointError: the file is missing, or holds no JSON object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} has no {path.name}: it is no model folder of geodino, timm or "
            "transformers."
        ) from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path} is not JSON ({error}): get it again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds no JSON object: get it again.")
    return value


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as stored:
            return {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path} is damaged ({_short(error)}): get it again, it may have been cut off."
        ) from error


def _pickle(path: Path) -> Mapping[str, Any]:
    try:
        # Memory-mapped where the format allows it: a 7B file does not fit twice.
        state = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except UnpicklingError as error:
        raise CheckpointError(
            f"{path} is damaged, or holds objects other than tensors and plain values "
            f"({_short(error)}). geodino never runs what a pickle holds: get the file again, or "
            "save its tensors as safetensors where you trust it."
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError) as error:
        raise CheckpointError(
            f"{path} is damaged ({_short(error)}): get it again, it may have been cut off."
        ) from error
    if not isinstance(state, Mapping):
        raise CheckpointError(
            f"{path} holds a {type(state).__name__} where a mapping of names to tensors was "
            "expected: it is no weights file."
        )
    return state


def _weights(found: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of its part that holds the weights."""
    for part in ("teacher", "model", "state_dict"):
        if isinstance(found.get(part), Mapping):
            found = found[part]
    others = [name for name, value in found.items() if not isinstance(value, Tensor)]
    if others or not found:
        what = f"{others[:3]} are no tensors" if others else "it is empty"
        raise CheckpointError(
            f"{path} holds no weights: {what}. Give a backbone's file, or a training checkpoint "
            "with its `teacher`."
        )
    return {str(name): value for name, value in found.items()}


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
