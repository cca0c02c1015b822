"""Convolutions whose weights nobody has set yet, and how they are drawn."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geodino.models.shards import fill

OUT_GAIN = 0.1
"""Standard deviation of a last layer's weights, times the root of its inputs. Measured on a toy
forest with ``initial_logits``: 0.05 to 0.3 learn alike (0.12 to 0.15 m after 600 steps) and torch's
own initial weights worse (0.28 m); zeros leave the high bins to die before they were ever needed."""


def conv(before: int, after: int, *, kernel: int, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    """Return an unset convolution that keeps the size, or divides it by ``stride``."""
    layer: nn.Conv2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.Conv2d, before, after, kernel, stride=stride, padding=kernel // 2, bias=bias
    )
    return layer


def spread(channels: int, *, factor: int) -> nn.ConvTranspose2d:
    """Return an unset transposed convolution that gives each cell ``factor`` x ``factor`` cells."""
    layer: nn.ConvTranspose2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.ConvTranspose2d, channels, channels, factor, stride=factor
    )
    return layer


def linear(before: int, after: int) -> nn.Linear:
    """Return an unset linear layer."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, before, after)  # type: ignore[no-untyped-call]
    return layer


def draw(
    layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear,
    generator: torch.Generator,
    *,
    gain: float = 1.0,
) -> None:
    """Draw the weights from a normal of standard deviation ``gain / sqrt(inputs)``; zero the bias.

    A gain of 1 keeps the scale of what passes, of sqrt(2) that of what a ReLU has halved (He et
    al. 2015).
    """
    weight = layer.weight
    # A transposed convolution whose kernel is its stride reads each input cell once.
    is_spread = isinstance(layer, nn.ConvTranspose2d)
    inputs = weight.shape[0] if is_spread else weight[0].numel()
    drawn = torch.empty(weight.shape, dtype=torch.float32)
    fill(weight, drawn.normal_(0.0, gain * inputs**-0.5, generator=generator))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def enlarge(
    x: Float[Tensor, "b c h w"], *, factor: int, corners: bool = False
) -> Float[Tensor, "b c h2 w2"]:
    """Enlarge a map by a whole factor, bilinearly.

    Args:
        x: the map.
        factor: at least 1.
        corners: let the centres of the corner cells coincide instead of the outer edges. That
            squeezes the picture by up to ``(factor - 1) / 2`` small cells at each side.
    """
    if factor == 1:
        return x
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=corners)
