"""What a recipe of segmentation may say about learning it."""

from typing import Literal

from pydantic import Field, model_validator

from geodino.config import Config
from geodino.tasks.augment import Augment
from geodino.tasks.parts import TrainPartsConfig


class ClassSamplingConfig(TrainPartsConfig):
    """Which crops are learnt from. Validation and testing see whole images instead."""

    crop: int = Field(default=512, ge=16)
    """Side of a crop, pixels; rounded up to what the head needs."""

    balance: float = Field(default=0.0, ge=0, le=1)
    """Share of the crops that are drawn by class: first a class, each as likely, then a window and a
    pixel of it that the crop holds. The others are drawn from all windows alike."""

    min_label_share: float = Field(default=0.05, ge=0, le=1)
    """A crop needs labels on this share of its pixels."""

    census: int = Field(default=4096, ge=1)
    """Windows whose labels are looked at before the first step, drawn by the seed where there are
    more: for ``balance``, for the weights of classes, and for the floors."""

    augment: Augment = "flips"
    """``none``; ``flips`` along both axes; or ``turns``, flips and quarter turns."""


class ClassLossConfig(Config):
    """The losses, summed."""

    kind: Literal["cross_entropy", "focal"] = "cross_entropy"
    """The loss of single pixels."""

    gamma: float = Field(default=2.0, ge=0)
    """Of the focal loss: how much less sure pixels count."""

    dice: float = Field(default=0.0, ge=0)
    """Weight of the Dice loss beside it."""

    weights: Literal["none", "inverse"] | tuple[float, ...] = "none"
    """Weight of each class in the loss of single pixels: ``none``, all alike; ``inverse``, the median
    frequency of classes over the class's own, at most 10; or a list of numbers."""

    @model_validator(mode="after")
    def _are_weights(self) -> "ClassLossConfig":
        if isinstance(self.weights, tuple) and (
            min(self.weights, default=0.0) < 0 or not any(self.weights)
        ):
            raise ValueError("weights must be at least 0, and some above")
        return self


class FloorConfig(Config):
    """What the results are compared with."""

    pixels: int = Field(default=20_000, ge=0)
    """Pixels of the training part that a logistic regression on band values is fitted on; 0 leaves
    that floor out."""
