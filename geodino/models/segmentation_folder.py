"""A model folder with a head that tells classes apart: two more files beside the backbone's.

``segmentation.safetensors`` holds the head, ``segmentation.json`` what it is: its config, the
classes with names and colours, and a section ``extra`` (chip, overlap, results).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.card import ModelCard
from geodino.models.head_folder import HeadFiles, LoadedHead, load_headed, save_headed
from geodino.models.segmentation import SegmentationConfig, SegmentationModel

FILES = HeadFiles("segmentation", "a segmentation model")

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


@dataclass(frozen=True, slots=True)
class ClassOfMap:
    """A class: its number is its place."""

    name: str
    colour: Colour


LoadedSegmentation = LoadedHead[SegmentationModel, ClassOfMap]
"""A segmentation model in memory."""


def save_segmentation(
    folder: Path | str,
    model: SegmentationModel,
    *,
    classes: Sequence[ClassOfMap],
    contract: InputContract,
    card: ModelCard | Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder with a segmentation head; each file is whole or absent.

    Arguments and errors are those of :func:`geodino.models.head_folder.save_headed`.
    """
    if len(classes) != model.classes:
        raise ValueError(f"{len(classes)} classes for a head of {model.classes}")
    described = {
        "config": model.config.model_dump(mode="json"),
        "taps": [tap.layer for tap in model.taps],
        "classes": [{"name": one.name, "colour": list(one.colour)} for one in classes],
    }
    save_headed(
        folder, model, of=FILES, contract=contract, card=card, described=described, extra=extra
    )


def load_segmentation(folder: Path | str) -> LoadedSegmentation:
    """Read a model folder with a segmentation head, strictly.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
    """
    return load_headed(folder, of=FILES, build=_built, classes=_classes, is_same=_what_differs)


def _built(backbone: Backbone, described: Mapping[str, Any]) -> SegmentationModel:
    config = SegmentationConfig.model_validate(described["config"])
    return SegmentationModel(backbone, config, classes=len(described["classes"]))


def _classes(described: Mapping[str, Any]) -> tuple[ClassOfMap, ...]:
    found = []
    for one in described["classes"]:
        red, green, blue = one["colour"]
        found.append(ClassOfMap(str(one["name"]), (int(red), int(green), int(blue))))
    return tuple(found)


def _what_differs(model: SegmentationModel, described: Mapping[str, Any]) -> str:
    taps = list(described["taps"])
    return "" if taps == [tap.layer for tap in model.taps] else f"its taps ({taps}) are"
