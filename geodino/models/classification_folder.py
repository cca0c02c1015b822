"""A model folder with a head that tells whole images apart: two more files beside the backbone's.

``classification.safetensors`` holds the head, ``classification.json`` what it is: its config, the
names of the classes, whether an image has one or several, the size images are brought to, and a
section ``extra`` (results).
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.card import ModelCard
from geodino.models.classification import ClassificationConfig, ClassificationModel
from geodino.models.head_folder import (
    HeadFiles,
    LoadedHead,
    load_headed,
    names_in,
    save_headed,
)

FILES = HeadFiles("classification", "a classification model")


LoadedClassification = LoadedHead[ClassificationModel, str]
"""A classification model in memory; its classes are names."""


def save_classification(
    folder: Path | str,
    model: ClassificationModel,
    *,
    classes: Sequence[str],
    contract: InputContract,
    card: ModelCard | Mapping[str, Any],
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a model folder with a classification head; each file is whole or absent.

    Arguments and errors are those of :func:`geodino.models.head_folder.save_headed`.
    """
    if len(classes) != model.classes:
        raise ValueError(f"{len(classes)} classes for a head of {model.classes}")
    described = {
        "config": model.config.model_dump(mode="json"),
        "kind": model.kind,
        "image_size": model.image_size,
        "classes": list(classes),
    }
    save_headed(
        folder, model, of=FILES, contract=contract, card=card, described=described, extra=extra
    )


def load_classification(folder: Path | str) -> LoadedClassification:
    """Read a model folder with a classification head, strictly.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
    """
    return load_headed(folder, of=FILES, build=_built, classes=names_in)


def _built(backbone: Backbone, described: Mapping[str, Any]) -> ClassificationModel:
    kind, size = described["kind"], described["image_size"]
    if kind not in ("classification", "multilabel"):
        raise ValueError(f"kind {kind!r}")
    return ClassificationModel(
        backbone,
        ClassificationConfig.model_validate(described["config"]),
        classes=len(described["classes"]),
        kind=kind,
        image_size=None if size is None else int(size),
    )
