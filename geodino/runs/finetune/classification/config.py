"""The recipe of a run that learns classes of whole images."""

from typing import Literal

from pydantic import Field

from geodino.config import Config
from geodino.models.classification import ClassificationConfig
from geodino.runs.finetune.config import FinetuneConfig
from geodino.tasks.classification.config import (
    ImageFloorsConfig,
    ImageLossConfig,
    ImageSamplingConfig,
)


class LabelledImagesConfig(Config):
    """Which labelled images there are, and how they come to the model."""

    layout: str = "auto"
    """``auto``: --images is a set by itself, as for ``geodino evaluate``. Or a set of a suite whose
    files lie in --images: ``torchgeo/EuroSAT``, ``geobench-v1/m-eurosat``."""

    partition: str = "default"
    """Of a set of GEO-Bench v1: ``0.01x_train`` has a hundredth of the training images."""

    classes: tuple[str, ...] = ()
    """With a table of labels (--labels): names of the classes in the order of their numbers; a label
    that is none of them is refused. Left out: those of the table, sorted."""

    bands: str = "model"
    """``model``: those MODEL reads; ``rgb``, ``all``, or names with commas: its first layer is
    adapted to them."""

    values: Literal["contract", "zscore"] = "contract"
    """What stored values become. ``contract``: as MODEL was trained, through declared units where
    those differ; ``zscore``: the set's own mean and deviation take the place of MODEL's."""

    val_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of the training images of each class that are for validation, where the set has no such
    part. Drawn image by image: where neighbours lie in one set, give it a part of its own."""


class ClassificationFinetuneConfig(FinetuneConfig):
    """A complete recipe of fine-tuning for classes of whole images."""

    classification: ClassificationConfig
    """The head; the section that makes a recipe one of classification."""

    images: LabelledImagesConfig = LabelledImagesConfig()
    """Which labelled images there are, and how they come to the model."""

    sampling: ImageSamplingConfig = ImageSamplingConfig()
    """Which images are learnt from."""

    loss: ImageLossConfig = ImageLossConfig()
    """The loss."""

    floors: ImageFloorsConfig = ImageFloorsConfig()
    """What the results are compared with."""
