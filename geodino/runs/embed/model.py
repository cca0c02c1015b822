"""The model that `geodino embed` encodes chips with."""

from dataclasses import dataclass, fields
from pathlib import Path

import torch

from geodino.errors import RecipeError
from geodino.geo.contract import InputContract
from geodino.infer.encode import Encoder
from geodino.runs import models
from geodino.runs.models import OpenedModel
from geodino.runs.sources import Meeting

BATCH_PIXELS = {"cpu": 512 * 512, "cuda": 2048 * 2048}
"""Pixels of a batch: enough to keep the device busy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingModel(OpenedModel):
    """A model that chips are encoded with."""

    @property
    def contract(self) -> InputContract:
        """What it demands of its input."""
        return self.loaded.contract

    def chip_side(self, wanted: int | None) -> int:
        """Return the side of a chip: ``wanted``, or the training crop in whole patches.

        Raises:
            RecipeError: not a multiple of the patch, or nothing to go by.
        """
        patch = self.loaded.backbone.patch_size
        if wanted is None:
            if self.image_size is None:
                raise RecipeError(
                    f"{self.item} does not say what size of images {self.name} was "
                    f"trained on. Choose a side with --chip, a multiple of {patch}."
                )
            return -(-self.image_size // patch) * patch
        if wanted < patch or wanted % patch:
            below = max(patch, wanted // patch * patch)
            raise RecipeError(
                f"--chip {wanted}: a chip is a whole number of patches of {patch} px. "
                f"Choose {below} or {below + patch}."
            )
        return wanted

    def encoder(self, device: torch.device, *, chip: int, how: Meeting) -> Encoder:
        """Return the backbone on ``device``, ready for chips of this side."""
        fitting = BATCH_PIXELS[device.type] // (chip * chip)
        return Encoder(
            self.loaded.backbone.to(device),
            device=device,
            batch=how.batch or max(1, min(256, fitting)),
            scale=how.scale,
        )


def open_model(model: str | Path) -> EmbeddingModel:
    """Open whatever MODEL names.

    Raises:
        CheckpointError: there is no model there, it is damaged, or it cannot be fetched.
    """
    opened = models.open_model(model)
    return EmbeddingModel(**{f.name: getattr(opened, f.name) for f in fields(opened)})
