"""The model that `geodino embed` encodes chips with."""

from dataclasses import dataclass, fields
from pathlib import Path

import torch

from geodino.errors import RecipeError
from geodino.geo.contract import InputContract
from geodino.infer.cover import chip_group
from geodino.infer.encode import Encoder
from geodino.infer.tokens import TokenPredictor
from geodino.runs import models
from geodino.runs.device import compute_type
from geodino.runs.mapping.chips import chip_overlap, chip_side
from geodino.runs.models import OpenedModel
from geodino.runs.sources import Meeting

_MOST = 256
"""Chips of a batch at most, where each is a row of a table."""


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
        if wanted is not None:
            return chip_side(wanted, patch=patch)
        if self.image_size is None:
            raise RecipeError(
                f"{self.item} does not say what size of images {self.name} was "
                f"trained on. Choose a side with --chip, a multiple of {patch}."
            )
        return -(-self.image_size // patch) * patch

    def overlap(self, wanted: int | None, *, chip: int) -> int:
        """Return the pixels that chips share.

        Raises:
            RecipeError: not a whole number of patches, or more than half a chip.
        """
        return chip_overlap(wanted, chip=chip, patch=self.loaded.backbone.patch_size)

    def predictor(self, device: torch.device, how: Meeting) -> TokenPredictor:
        """Return the backbone on ``device``, for maps."""
        dtype = compute_type(how.precision, device)
        return TokenPredictor(self.loaded.backbone, device=device, scale=how.scale, dtype=dtype)

    def encoder(self, device: torch.device, *, chip: int, how: Meeting) -> Encoder:
        """Return the backbone on ``device``, for rows of a table."""
        return Encoder(
            self.loaded.backbone.to(device),
            device=device,
            batch=chip_group(how.batch, chip=chip, device=device, most=_MOST),
            scale=how.scale,
            dtype=compute_type(how.precision, device),
        )


def open_model(model: str | Path) -> EmbeddingModel:
    """Open whatever MODEL names.

    Raises:
        CheckpointError: there is no model there, it is damaged, or it cannot be fetched.
    """
    opened = models.open_model(model)
    return EmbeddingModel(**{f.name: getattr(opened, f.name) for f in fields(opened)})
