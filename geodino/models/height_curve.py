"""A curve of heights as a part of a network: local recalibration, on any device and in a graph."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodino.metrics.recalibration import HeightCurve


class CurveModule(nn.Module):
    """A curve of heights in float32.

    Args:
        curve: what becomes of predicted heights.
    """

    knots: Tensor
    heights: Tensor
    slopes: Tensor

    def __init__(self, curve: HeightCurve) -> None:
        super().__init__()
        self.register_buffer("knots", torch.tensor(curve.predicted_m))
        self.register_buffer("heights", torch.tensor(curve.height_m))
        self.register_buffer("slopes", torch.tensor(curve.slopes))

    def forward(self, predicted_m: Float[Tensor, "*s"]) -> Float[Tensor, "*s"]:
        """Return the heights that predictions become, as ``HeightCurve.apply``."""
        at = predicted_m.float().clamp_min(0.0)
        below = (torch.bucketize(at, self.knots, right=True) - 1).clamp_min(0)
        return self.heights[below] + self.slopes[below] * (at - self.knots[below])
