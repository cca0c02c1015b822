"""A model folder with a canopy head: two more files beside the backbone's.

``canopy.safetensors`` holds the head, ``canopy.json`` what it is: config, bins, unit, and a section
``extra`` for whatever was learned about it later. Plain timm opens the folder as before.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.canopy import UNIT, CanopyConfig, CanopyModel
from geodino.models.card import ModelCard
from geodino.models.head_folder import HeadFiles, LoadedHead, load_headed, save_headed

FILES = HeadFiles("canopy", "a canopy model")

LoadedCanopy = LoadedHead[CanopyModel, str]
"""A canopy model in memory; it has no classes."""


def save_canopy(
    folder: Path | str,
    model: CanopyModel,
    *,
    contract: InputContract,
    card: ModelCard | Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder with a canopy head; each file is whole or absent.

    Arguments and errors are those of :func:`geodino.models.head_folder.save_headed`.
    """
    described = {
        "unit": UNIT,
        "config": model.config.model_dump(mode="json"),
        "taps": [tap.layer for tap in model.taps],
        "bins_m": [round(float(height), 6) for height in model.bins_m],
    }
    save_headed(
        folder, model, of=FILES, contract=contract, card=card, described=described, extra=extra
    )


def is_canopy_folder(folder: Path | str) -> bool:
    """Whether a folder holds a canopy model of ours."""
    return FILES.are_in(folder)


def load_canopy(folder: Path | str) -> LoadedCanopy:
    """Read a model folder with a canopy head, strictly.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
    """
    return load_headed(folder, of=FILES, build=_built, is_same=_what_differs)


def _built(backbone: Backbone, described: Mapping[str, Any]) -> CanopyModel:
    return CanopyModel(backbone, CanopyConfig.model_validate(described["config"]))


def _what_differs(model: CanopyModel, described: Mapping[str, Any]) -> str:
    taps, unit = list(described["taps"]), described["unit"]
    bins_m, made = torch.tensor(described["bins_m"]), model.bins_m
    is_same = bins_m.shape == made.shape and torch.allclose(bins_m, made, rtol=1e-4, atol=1e-5)
    if unit == UNIT and taps == [tap.layer for tap in model.taps] and is_same:
        return ""
    return f"its unit ({unit}), taps ({taps}) or bins are"
