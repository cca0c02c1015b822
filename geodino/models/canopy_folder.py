"""A model folder with a canopy head: two more files beside the backbone's.

``canopy.safetensors`` holds the head, ``canopy.json`` what it is: config, bins, unit, and a section
``extra`` for whatever was learned about it later. Plain timm opens the folder as before.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from geodino import files
from geodino.errors import CheckpointError, RecipeError
from geodino.geo.contract import InputContract
from geodino.models.canopy import UNIT, CanopyConfig, CanopyModel
from geodino.models.card import VERSION, ModelCard, Parent
from geodino.models.folder import (
    WEIGHTS,
    load_model,
    load_tensors,
    read_text,
    save_model,
    save_tensors,
)

CANOPY, CANOPY_WEIGHTS = "canopy.json", "canopy.safetensors"


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedCanopy:
    """A canopy model in memory."""

    model: CanopyModel
    """On the CPU, in evaluation mode, its backbone frozen."""

    contract: InputContract
    license: str
    """Licence the weights carry."""

    lineage: tuple[Parent, ...]
    """Weights they descend from."""

    extra: Mapping[str, Any]
    """What its maker wrote beside it: calibration, sampling distance, chips; any JSON object."""


def save_canopy(
    folder: Path | str,
    model: CanopyModel,
    *,
    contract: InputContract,
    card: ModelCard | Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder with a canopy head; each file is whole or absent.

    Args:
        folder: made if missing; files of an earlier model in it are replaced.
        model: with all of its weights in this process.
        contract: what the backbone demands of its input.
        card: what the model's maker says about it.
        extra: a JSON object that is kept as it is.

    Raises:
        RecipeError: the card has unknown or wrong entries.
        RunError: the folder cannot be written.
        ValueError: ``extra`` is no JSON.
    """
    folder = Path(folder)
    kept = json.loads(json.dumps(dict(extra or {}), allow_nan=False))
    save_model(
        folder,
        backbone=model.backbone,
        heads=None,
        contract=contract,
        config=model.backbone.config,
        head_configs=None,
        card=card,
    )
    save_tensors(folder / CANOPY_WEIGHTS, model.head.state_dict())
    described = {
        "version": VERSION,
        "unit": UNIT,
        "config": model.config.model_dump(mode="json"),
        "taps": [tap.layer for tap in model.taps],
        "bins_m": [round(float(height), 6) for height in model.bins_m],
        "backbone_sha256": files.sha256(folder / WEIGHTS),
        "extra": kept,
    }
    files.write_json(folder / CANOPY, described)


def is_canopy_folder(folder: Path | str) -> bool:
    """Whether a folder holds a canopy model of ours."""
    return (Path(folder) / CANOPY).is_file()


def load_canopy(folder: Path | str) -> LoadedCanopy:
    """Read a model folder with a canopy head, strictly.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    path = folder / CANOPY
    described = _described(path)
    loaded = load_model(folder)
    try:
        config = CanopyConfig.model_validate(described["config"])
        model = CanopyModel(loaded.backbone, config)
        taps, bins_m = list(described["taps"]), torch.tensor(described["bins_m"])
        unit, digest, extra = (described[k] for k in ("unit", "backbone_sha256", "extra"))
    except (ValidationError, RecipeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not describe a canopy model this version of geodino ({VERSION}) knows: "
            f"{error}. It was written by version {described.get('version', 'unknown')}."
        ) from error
    if unit != UNIT or taps != [tap.layer for tap in model.taps] or not _is_same(bins_m, model):
        raise CheckpointError(
            f"{path}: its unit ({unit}), taps ({taps}) or bins are not what this version of "
            f"geodino ({VERSION}) makes of its config. Open it with version "
            f"{described.get('version', 'unknown')}, or train the head again."
        )
    if digest != files.sha256(folder / WEIGHTS):
        raise CheckpointError(
            f"{folder / CANOPY_WEIGHTS} was trained on other weights than those in {WEIGHTS} "
            "beside it: the files belong to different models. Export the canopy model again."
        )
    load_tensors(folder / CANOPY_WEIGHTS, model.head.state_dict(), described_in=CANOPY)
    model.freeze()
    return LoadedCanopy(
        model=model.eval(),
        contract=loaded.contract,
        license=loaded.license,
        lineage=loaded.lineage,
        extra=extra,
    )


def _is_same(bins_m: torch.Tensor, model: CanopyModel) -> bool:
    made = model.bins_m
    return bins_m.shape == made.shape and torch.allclose(bins_m, made, rtol=1e-4, atol=1e-5)


def _described(path: Path) -> dict[str, Any]:
    try:
        described = json.loads(read_text(path))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is not JSON ({error}): export the canopy model again, or restore the file."
        ) from error
    if not isinstance(described, dict):
        raise CheckpointError(f"{path} holds no JSON object: export the canopy model again.")
    return described
