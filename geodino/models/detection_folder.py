"""A model folder with a head that finds objects: two more files beside the backbone's.

``detection.safetensors`` holds the head, ``detection.json`` what it is: its config, the names of
the classes, the strides of its maps, and a section ``extra`` (chip, overlap, results).
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.card import ModelCard
from geodino.models.detection.faster_rcnn import DetectionModel
from geodino.models.detection.head import DetectionConfig
from geodino.models.head_folder import (
    HeadFiles,
    LoadedHead,
    load_headed,
    names_in,
    save_headed,
)

FILES = HeadFiles("detection", "a detection model")


LoadedDetection = LoadedHead[DetectionModel, str]
"""A detection model in memory; its classes are names."""


def save_detection(
    folder: Path | str,
    model: DetectionModel,
    *,
    classes: Sequence[str],
    contract: InputContract,
    card: ModelCard | Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder with a detection head; each file is whole or absent.

    Arguments and errors are those of :func:`geodino.models.head_folder.save_headed`.
    """
    if len(classes) != model.classes:
        raise ValueError(f"{len(classes)} classes for a head of {model.classes}")
    described = {
        "config": model.config.model_dump(mode="json"),
        "classes": list(classes),
        "taps": [tap.layer for tap in model.head.pyramid.taps],
        "strides": list(model.head.pyramid.strides),
    }
    save_headed(
        folder, model, of=FILES, contract=contract, card=card, described=described, extra=extra
    )


def load_detection(folder: Path | str) -> LoadedDetection:
    """Read a model folder with a detection head, strictly.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
    """
    return load_headed(folder, of=FILES, build=_built, classes=names_in, is_same=_what_differs)


def _built(backbone: Backbone, described: Mapping[str, Any]) -> DetectionModel:
    # JSON has no tuples.
    config = DetectionConfig.model_validate_json(json.dumps(described["config"]))
    return DetectionModel(backbone, config, classes=len(described["classes"]))


def _what_differs(model: DetectionModel, described: Mapping[str, Any]) -> str:
    pyramid = model.head.pyramid
    if list(described["taps"]) != [tap.layer for tap in pyramid.taps]:
        return f"its taps ({described['taps']}) are"
    same = list(described["strides"]) == list(pyramid.strides)
    return "" if same else f"its strides ({described['strides']}) are"
