"""Projection heads: features to a normalised bottleneck to prototype scores."""

from collections.abc import Callable
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from geodino.config import Config
from geodino.models.shards import fill


class HeadConfig(Config):
    """A DINO or iBOT head: an MLP to a bottleneck, L2 normalisation, a linear map to prototypes."""

    prototypes: int = Field(default=65536, gt=0)
    """Prototypes the features are assigned to. 65536 suits large runs; small data needs fewer."""

    hidden: int = Field(default=2048, gt=0)
    """Width of the hidden layers of the MLP."""

    bottleneck: int = Field(default=256, gt=0)
    """Width of the normalised bottleneck."""

    layers: int = Field(default=3, gt=0)
    """Linear layers of the MLP, with a GELU between two; 1 is a single linear map."""

    init: Literal["paper", "unit"] = "paper"
    """Standard deviation of the initial weights: ``paper`` 0.02; ``unit`` 1 / sqrt(inputs), with
    which the teacher's first targets are not uniform and short runs learn from the first step."""


class ProjectionHead(nn.Module):
    """MLP, L2 normalisation, and a bias-free linear layer to the prototypes (DINOv3's head).

    The last layer is not weight-normalised. Weights are unset until `init_weights` or a state dict
    sets them; construction draws no random numbers.
    """

    def __init__(
        self, in_dim: int, config: HeadConfig, *, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__()
        self.init = config.init
        widths = [in_dim, *[config.hidden] * (config.layers - 1), config.bottleneck]
        steps: list[nn.Module] = []
        for before, after in pairwise(widths):
            steps += [_unset_linear(before, after, bias=True, device=device), nn.GELU()]
        steps.pop()
        self.mlp = steps[0] if config.layers == 1 else nn.Sequential(*steps)
        self.last_layer = _unset_linear(
            config.bottleneck, config.prototypes, bias=False, device=device
        )

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw weights from a normal, cut at ±2, as the config's ``init`` says; set biases to 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                std = 0.02 if self.init == "paper" else module.in_features**-0.5
                # Drawn whole on the CPU: the same weights on any device and number of processes.
                drawn = torch.empty(module.weight.shape, dtype=torch.float32)
                fill(module.weight, nn.init.trunc_normal_(drawn, std=std, generator=generator))
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def bottleneck(self, x: Float[Tensor, "n c"]) -> Float[Tensor, "n d"]:
        """Return L2-normalised bottleneck features, in float32 unless the MLP is in float64."""
        out: Tensor = self.mlp(x)
        # The method's floors: 1e-12 is 0 in float16.
        eps = 1e-6 if out.dtype == torch.float16 else 1e-12
        return F.normalize(out.to(torch.promote_types(out.dtype, torch.float32)), dim=-1, eps=eps)

    def forward(
        self, x: Float[Tensor, "n c"], loss: Callable[[Tensor, Tensor], Tensor] | None = None
    ) -> Float[Tensor, "..."]:
        """Return the prototype scores ``[n k]`` (logits before any temperature), or a loss.

        Args:
            x: features.
            loss: computes the last layer itself: takes the bottleneck and the weight of the last
                layer. A head that is spread over processes has its weight only inside this call.
        """
        if loss is not None:
            return loss(self.bottleneck(x), self.last_layer.weight)
        logits: Tensor = self.last_layer(self.bottleneck(x).to(self.last_layer.weight.dtype))
        return logits


def _unset_linear(before: int, after: int, *, bias: bool, device: torch.device | str) -> nn.Linear:
    layer: nn.Linear = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Linear, before, after, bias=bias, device=device
    )
    return layer
