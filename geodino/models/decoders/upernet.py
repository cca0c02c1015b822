"""UPerNet's head (Xiao et al. 2018, arXiv 1807.10221): a pyramid of pooled contexts and fused maps.

Four taps become maps of strides 4, 8, 16 and 32. The deepest is pooled to a few grids that tell
what is around (PPM); maps are then added from deep to shallow (FPN), joined at the finest stride,
and enlarged to the image's own pixels.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from geodino.config import Config
from geodino.models.backbone import Tokens
from geodino.models.decoders.layers import OUT_GAIN, conv, draw
from geodino.models.decoders.pyramid import STRIDES, enlarged, pyramid
from geodino.models.decoders.taps import Tap

_HE = 2.0**0.5
_GROUPS = 32


class UperNetConfig(Config):
    """A UPerNet head: the one of the published protocols of LoveDA and iSAID."""

    kind: Literal["upernet"] = "upernet"
    """Which head: ``upernet``, a pyramid of contexts and fused maps."""

    taps: tuple[int, int, int, int] | None = None
    """Layers of the backbone to look at, counted from 0; None is four evenly spread over a ViT's
    blocks, or the stages of a ConvNeXt."""

    channels: int = Field(default=512, ge=1)
    """Channels of every map. Published protocols: 512."""

    pools: tuple[int, ...] = (1, 2, 3, 6)
    """Sides of the grids that the deepest map is pooled to."""

    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Share of the channels that are dropped before the last layer while learning."""

    norm: Literal["batch", "group"] = "batch"
    """Normalisation after each convolution: over the batch, as published; or over groups of
    channels of each image, for batches of few crops."""


class _Block(nn.Module):
    """A convolution without bias, a norm, and a ReLU."""

    def __init__(self, before: int, after: int, *, kernel: int, norm: str) -> None:
        super().__init__()
        self.conv = conv(before, after, kernel=kernel, bias=False)
        self.norm: nn.Module = (
            nn.BatchNorm2d(after) if norm == "batch" else nn.GroupNorm(_groups(after), after)
        )

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """Return the map, of the same size."""
        return F.relu(self.norm(self.conv(x)))


def _groups(channels: int) -> int:
    """The largest number of groups, up to 32 and of at least four channels, that divides them."""
    most = max(1, min(_GROUPS, channels // 4))
    return max(n for n in range(1, most + 1) if channels % n == 0)


class UperNetHead(nn.Module):
    """Pyramid pooling on the deepest map, fusion from deep to shallow, and one map of all four.

    Weights are unset until ``init_weights`` or a state dict sets them.

    Args:
        taps: where the tokens come from, shallow to deep.
        config: its widths.
        outputs: channels of the result.

    Attributes:
        multiple: sides of images must be multiples of this, pixels.

    Raises:
        RecipeError: cells that cannot be brought to the strides.
    """

    def __init__(self, taps: Sequence[Tap], config: UperNetConfig, *, outputs: int) -> None:
        super().__init__()
        self.config = config
        self.multiple = max(*STRIDES, *(tap.stride for tap in taps))
        width, norm = config.channels, config.norm
        self.resize = pyramid(taps, head="UPerNet")
        self.lateral = nn.ModuleList(
            _Block(tap.dim, width, kernel=1, norm=norm) for tap in taps[:-1]
        )
        deepest = taps[-1].dim
        # A grid of one cell has no spread over one image to normalise by.
        self.context = nn.ModuleList(
            _Block(deepest, width, kernel=1, norm="group" if side == 1 else norm)
            for side in config.pools
        )
        joined = deepest + len(config.pools) * width
        self.bottleneck = _Block(joined, width, kernel=3, norm=norm)
        self.smooth = nn.ModuleList(_Block(width, width, kernel=3, norm=norm) for _ in STRIDES[:-1])
        self.fuse = _Block(len(STRIDES) * width, width, kernel=3, norm=norm)
        self.drop = nn.Dropout2d(config.dropout)
        self.out = conv(width, outputs, kernel=1)

    def init_weights(self, generator: torch.Generator, *, bias: Float[Tensor, "k"]) -> None:
        """Draw all weights from ``generator``; the outputs begin near ``bias``."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                draw(module, generator, gain=_HE)
            elif isinstance(module, nn.ConvTranspose2d):
                draw(module, generator)
            elif isinstance(module, nn.BatchNorm2d | nn.GroupNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
        draw(self.out, generator, gain=OUT_GAIN)
        with torch.no_grad():
            self.out.bias.copy_(bias)  # type: ignore[union-attr]

    def maps(self, tokens: Sequence[Tokens]) -> list[Tensor]:
        """Return four maps of strides 4, 8, 16 and 32, shallow to deep."""
        return [layer(tapped.map) for layer, tapped in zip(self.resize, tokens, strict=True)]

    def fused(self, maps: Sequence[Tensor]) -> Float[Tensor, "b c h w"]:
        """Return the map of stride 4 that all four went into."""
        levels = [block(x) for block, x in zip(self.lateral, maps[:-1], strict=True)]
        levels.append(self._with_context(maps[-1]))
        for i in range(len(levels) - 2, -1, -1):
            levels[i] = levels[i] + _to_size(levels[i + 1], levels[i].shape[-2:])
        smooth = [block(x) for block, x in zip(self.smooth, levels[:-1], strict=True)]
        smooth.append(levels[-1])
        size = smooth[0].shape[-2:]
        joined = torch.cat([_to_size(x, size) for x in smooth], dim=1)
        fused: Tensor = self.fuse(joined)
        return fused

    def forward(self, tokens: Sequence[Tokens]) -> Float[Tensor, "b k h w"]:
        """Return the outputs at the image's own pixels, for sides that are whole ``multiple``."""
        return torch.cat(list(self.slabs(tokens)), dim=2)

    def slabs(self, tokens: Sequence[Tokens]) -> Iterator[Float[Tensor, "b k rows w"]]:
        """Yield the outputs some rows at a time, from the top: all of them need much memory."""
        cells: Tensor = self.out(self.drop(self.fused(self.maps(tokens))))
        yield from enlarged(cells)

    def _with_context(self, x: Float[Tensor, "b d h w"]) -> Float[Tensor, "b c h w"]:
        size = x.shape[-2:]
        around = [
            _to_size(block(F.adaptive_avg_pool2d(x, side)), size)
            for side, block in zip(self.config.pools, self.context, strict=True)
        ]
        found: Tensor = self.bottleneck(torch.cat([x, *around], dim=1))
        return found


def _to_size(x: Float[Tensor, "b c h w"], size: tuple[int, ...]) -> Float[Tensor, "b c h2 w2"]:
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)
