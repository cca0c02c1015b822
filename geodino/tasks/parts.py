"""Which parts of a labelled set are learnt from."""

from typing import Literal

from pydantic import model_validator

from geodino.config import Config

TrainPart = Literal["train", "val"]


class TrainPartsConfig(Config):
    """Which crops are learnt from. Validation and testing see whole images instead."""

    parts: tuple[TrainPart, ...] = ("train",)
    """Parts that are learnt from. ``[train, val]`` also learns from what validation is measured on,
    as published protocols do: the best step is then no honest choice."""

    @model_validator(mode="after")
    def _learns_from_train(self) -> "TrainPartsConfig":
        if "train" not in self.parts or len(set(self.parts)) != len(self.parts):
            raise ValueError("parts must be [train] or [train, val]")
        return self
