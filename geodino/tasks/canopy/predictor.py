"""A canopy model as the engine of maps calls it, and the same model on moved chips."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from geodino.models.canopy import CanopyModel

Turn = Literal["none", "across", "down", "quarter"]
"""How chips are shown: as they are, mirrored along rows, along columns, or turned by 90 degrees."""


class CanopyPredictor:
    """Predicts the height and each quantile of chips.

    Args:
        model: on its device; put into evaluation mode.
        turn: how chips are moved before the model, and moved back after.
    """

    stride = 1

    def __init__(self, model: CanopyModel, *, turn: Turn = "none") -> None:
        self._model = model.eval()
        self._turn = turn
        self.channels = 1 + len(model.config.quantiles)
        self.align = model.multiple
        self.device = model.bins_m.device

    @torch.inference_mode()
    def __call__(
        self, pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
    ) -> Float[Tensor, "b k hh ww"]:
        """Predict chips of stored values."""
        shown = pixels.float()
        if self._turn == "quarter":
            maps = self._model(shown.rot90(1, (-2, -1)), valid.rot90(1, (-2, -1)))
            turned: Tensor = maps.rot90(-1, (-2, -1))
            return turned
        axes = {"none": [], "across": [-1], "down": [-2]}[self._turn]
        flipped: Tensor = self._model(shown.flip(axes), valid.flip(axes)).flip(axes)
        return flipped
