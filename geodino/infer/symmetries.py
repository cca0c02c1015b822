"""A prediction as the mean over flips and turns of its chip."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from geodino.infer.engine import Predictor

Symmetries = Literal["none", "flips", "turns"]
"""``flips``: both axes, four ways; ``turns``: these and quarter turns, eight ways."""


class Symmetric:
    """Predicts a chip in several orientations and takes the mean.

    Flips and turns move the sun: a model that reads heights from shadows sees them fall where it
    never saw one, unless it was trained with the same.

    Args:
        predictor: the model.
        symmetries: the orientations.
    """

    def __init__(self, predictor: Predictor, symmetries: Symmetries) -> None:
        self._predictor = predictor
        turns = (0, 1) if symmetries == "turns" else (0,)
        flips: Sequence[tuple[int, ...]] = ((), (-1,), (-2,), (-2, -1))
        self._ways = [(k, f) for k in turns for f in (flips if symmetries != "none" else flips[:1])]
        self.channels, self.stride = predictor.channels, predictor.stride
        self.align, self.device = predictor.align, predictor.device

    def __call__(
        self, pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
    ) -> Float[Tensor, "b k hh ww"]:
        """Predict each orientation, turned back, and average."""
        total: Tensor | None = None
        for turn, flip in self._ways:
            seen = torch.rot90(pixels.flip(flip), turn, (-2, -1))
            mask = torch.rot90(valid.flip(flip), turn, (-2, -1))
            values = torch.rot90(self._predictor(seen, mask), -turn, (-2, -1)).flip(flip)
            total = values if total is None else total + values
        if total is None:
            raise ValueError("no orientation")
        return total / len(self._ways)
