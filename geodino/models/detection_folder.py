"""A model folder with a head that finds objects: two more files beside the backbone's.

``detection.safetensors`` holds the head, ``detection.json`` what it is: its config, the names of
the classes, the strides of its maps, and a section ``extra`` (chip, overlap, results).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.card import ModelCard, Parent
from geodino.models.detection.faster_rcnn import DetectionModel
from geodino.models.detection.head import DetectionConfig
from geodino.models.head_folder import HeadFiles, load_headed, save_headed

FILES = HeadFiles("detection", "a detection model")


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedDetection:
    """A detection model in memory."""

    model: DetectionModel
    """On the CPU, in evaluation mode, its backbone frozen."""

    classes: tuple[str, ...]
    """Names, by number."""

    contract: InputContract
    license: str
    """Licence the weights carry."""

    lineage: tuple[Parent, ...]
    """Weights they descend from."""

    extra: Mapping[str, Any]
    """What its maker wrote beside it: chips, results; any JSON object."""


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
    classes: list[str] = []

    def built(backbone: Backbone, described: Mapping[str, Any]) -> DetectionModel:
        classes.extend(str(name) for name in described["classes"])
        # JSON has no tuples.
        config = DetectionConfig.model_validate_json(json.dumps(described["config"]))
        return DetectionModel(backbone, config, classes=len(classes))

    model, loaded, extra = load_headed(folder, of=FILES, build=built, is_same=_what_differs)
    model.freeze()
    model.eval()
    return LoadedDetection(
        model=model,
        classes=tuple(classes),
        contract=loaded.contract,
        license=loaded.license,
        lineage=loaded.lineage,
        extra=extra,
    )


def _what_differs(model: DetectionModel, described: Mapping[str, Any]) -> str:
    pyramid = model.head.pyramid
    if list(described["taps"]) != [tap.layer for tap in pyramid.taps]:
        return f"its taps ({described['taps']}) are"
    same = list(described["strides"]) == list(pyramid.strides)
    return "" if same else f"its strides ({described['strides']}) are"
