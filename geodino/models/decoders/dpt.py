"""The dense prediction transformer's head (Ranftl et al. 2021, arXiv 2103.13413) as CHMv2 has it.

Four taps of the backbone become maps of strides 4, 8, 16 and 32, which are fused from deep to
shallow and enlarged to the image's own pixels.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from geodino.config import Config
from geodino.errors import RecipeError
from geodino.models.backbone import Tokens
from geodino.models.decoders.layers import OUT_GAIN, conv, draw, enlarge, linear, spread
from geodino.models.decoders.taps import Tap

Readout = Literal["auto", "project", "add", "ignore"]

STRIDES = (4, 8, 16, 32)
"""Strides of the four reassembled maps, pixels."""

_SLAB = 16
"""Rows of outputs at a time."""

_HE = 2.0**0.5


class DptConfig(Config):
    """A DPT head. The defaults suit backbones up to ViT-B; CHMv2's widths are given under each."""

    kind: Literal["dpt"] = "dpt"
    """Which head: ``dpt``, convolutions that fuse four layers, or ``linear``, one map per patch."""

    taps: tuple[int, int, int, int] | None = None
    """Layers of the backbone to look at, counted from 0; None is four evenly spread over a ViT's
    blocks, or the stages of a ConvNeXt."""

    readout: Readout = "auto"
    """What the CLS token does to the patches: ``project`` (joined and mapped back to the width),
    ``add``, ``ignore``. auto: ``project`` for ViTs, ``ignore`` for networks without a CLS token."""

    channels: tuple[int, int, int, int] = (48, 96, 192, 384)
    """Channels of the four maps, shallow to deep. CHMv2: 128, 256, 512, 1024."""

    fusion: int = Field(default=64, ge=2, multiple_of=2)
    """Channels where maps are fused. CHMv2: 256."""

    hidden: int = Field(default=32, ge=1)
    """Channels before the last layer. CHMv2: 128."""

    enlarge: Literal["edges", "corners"] = "edges"
    """What coincides when a map is enlarged twofold: the outer edges, so that nothing moves, or
    the centres of the corner cells, as in CHMv2, which squeezes the picture towards its centre by
    up to half a small cell at each of five steps and so depends on the size of the image."""

    residual_bias: bool = True
    """Biases in the residual units."""

    batch_norm: bool = False
    """Normalise the tapped features over the batch; no head for canopy does."""

    fusion_conv: bool = False
    """One more convolution and ReLU after the fusion, as depth heads have."""


class ResidualUnit(nn.Module):
    """ReLU, 3x3, ReLU, 3x3, plus what came in."""

    def __init__(self, channels: int, *, bias: bool) -> None:
        super().__init__()
        self.first = conv(channels, channels, kernel=3, bias=bias)
        self.second = conv(channels, channels, kernel=3, bias=bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Return the sum."""
        out: Tensor = self.second(F.relu(self.first(F.relu(x))))
        return out + x


class FusionBlock(nn.Module):
    """Join a deeper map with a shallower one, and enlarge the result twofold.

    Args:
        channels: of all maps.
        bias: of the residual units.
        corners: see ``DptConfig.enlarge``.
        is_deepest: there is nothing deeper to join with.
    """

    def __init__(self, channels: int, *, bias: bool, corners: bool, is_deepest: bool) -> None:
        super().__init__()
        self.corners = corners
        self.skip = None if is_deepest else ResidualUnit(channels, bias=bias)
        self.unit = ResidualUnit(channels, bias=bias)
        self.project = conv(channels, channels, kernel=1)

    def forward(
        self, x: Float[Tensor, "b c h w"], shallower: Float[Tensor, "b c i j"] | None = None
    ) -> Float[Tensor, "b c h2 w2"]:
        """Fuse; a shallower map of another size is brought to the deeper one's."""
        if self.skip is not None and shallower is not None:
            if shallower.shape != x.shape:
                shallower = F.interpolate(shallower, x.shape[-2:], mode="bilinear")
            x = x + self.skip(shallower)
        fused: Tensor = self.project(enlarge(self.unit(x), factor=2, corners=self.corners))
        return fused


class DptHead(nn.Module):
    """Reassemble four taps, fuse them, and give ``outputs`` channels per pixel.

    Weights are unset until ``init_weights`` or a state dict sets them.

    Args:
        taps: where the tokens come from, shallow to deep.
        config: the widths; its readout is not ``auto``.
        outputs: channels of the result.

    Attributes:
        multiple: sides of images must be multiples of this, pixels. On others the deepest map
            rounds up, and the result is larger than the image by a part that is spread over all of
            it.

    Raises:
        RecipeError: a stride that is no power of two.
    """

    def __init__(self, taps: Sequence[Tap], config: DptConfig, *, outputs: int) -> None:
        super().__init__()
        if config.readout == "auto":
            raise ValueError("readout 'auto' is settled before the head is built")
        self.config = config
        dims = [tap.dim for tap in taps]
        corners = config.enlarge == "corners"
        self.corners = corners
        self.multiple = max(STRIDES[-1], *(tap.stride for tap in taps))
        self.readout = nn.ModuleList(
            linear(2 * dim, dim) for dim in dims if config.readout == "project"
        )
        self.norm = nn.ModuleList(nn.BatchNorm2d(dim) for dim in dims if config.batch_norm)
        self.project = nn.ModuleList(
            conv(dim, width, kernel=1) for dim, width in zip(dims, config.channels, strict=True)
        )
        self.resize = nn.ModuleList(
            _resize(width, tap.stride, stride)
            for width, tap, stride in zip(config.channels, taps, STRIDES, strict=True)
        )
        self.reduce = nn.ModuleList(
            conv(width, config.fusion, kernel=3, bias=False) for width in config.channels
        )
        self.fuse = nn.ModuleList(
            FusionBlock(
                config.fusion, bias=config.residual_bias, corners=corners, is_deepest=i == 0
            )
            for i in range(len(STRIDES))
        )
        self.after = conv(config.fusion, config.fusion, kernel=3) if config.fusion_conv else None
        self.up = conv(config.fusion, config.fusion // 2, kernel=3)
        self.middle = conv(config.fusion // 2, config.hidden, kernel=3)
        self.out = conv(config.hidden, outputs, kernel=1)

    def init_weights(self, generator: torch.Generator, *, bias: Float[Tensor, "k"]) -> None:
        """Draw all weights; residual units begin as the identity, the last layer near ``bias``.

        Args:
            generator: on the CPU; the weights depend on it alone.
            bias: of the last layer.
        """
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                draw(module, generator)
        for module in self.modules():
            if isinstance(module, ResidualUnit):
                draw(module.first, generator, gain=_HE)
                nn.init.zeros_(module.second.weight)
        draw(self.out, generator, gain=OUT_GAIN)
        with torch.no_grad():
            self.out.bias.copy_(bias)  # type: ignore[union-attr]

    def reassemble(self, tokens: Sequence[Tokens]) -> list[Tensor]:
        """Return four maps of strides 4, 8, 16 and 32, shallow to deep."""
        maps = []
        for i, tapped in enumerate(tokens):
            x = self._read(i, tapped)
            if self.norm:
                x = self.norm[i](x)
            maps.append(self.resize[i](self.project[i](x)))
        return maps

    def fused(self, maps: Sequence[Tensor]) -> Float[Tensor, "b c h w"]:
        """Return the fused map of stride 2."""
        reduced = [conv(x) for conv, x in zip(self.reduce, maps, strict=True)]
        x: Tensor = self.fuse[0](reduced[-1])
        for block, shallower in zip(list(self.fuse)[1:], reduced[-2::-1], strict=True):
            x = block(x, shallower)
        return x if self.after is None else F.relu(self.after(x))

    def forward(self, tokens: Sequence[Tokens]) -> Float[Tensor, "b k h w"]:
        """Return the outputs at the image's own pixels, for sides that are whole ``multiple``."""
        return torch.cat(list(self.slabs(tokens)), dim=2)

    def slabs(self, tokens: Sequence[Tokens]) -> Iterator[Float[Tensor, "b k rows w"]]:
        """Yield the outputs some rows at a time, from the top: all of them need much memory."""
        x = self.up(self.fused(self.reassemble(tokens)))
        x = F.relu(self.middle(enlarge(x, factor=2, corners=self.corners)))
        for rows in torch.split(x, _SLAB, dim=2):
            yield self.out(rows)

    def _read(self, i: int, tapped: Tokens) -> Float[Tensor, "b d h w"]:
        if self.config.readout == "ignore":
            return tapped.map
        if self.config.readout == "add":
            return tapped.map + tapped.cls[:, :, None, None]
        cls = tapped.cls[:, None].expand_as(tapped.patches)
        mixed = F.gelu(self.readout[i](torch.cat((tapped.patches, cls), dim=-1)))
        read: Tensor = mixed.transpose(1, 2).reshape(tapped.map.shape)
        return read


def _resize(channels: int, have: int, want: int) -> nn.Module:
    """The layer that takes a map of stride ``have`` to stride ``want``, pixels."""
    if have & (have - 1):
        raise RecipeError(
            f"A DPT head makes maps of strides {', '.join(map(str, STRIDES))} pixels, to which "
            f"cells of {have} pixels cannot be brought: choose a backbone with patches of 4, 8, 16 "
            "or 32 pixels, or `head.kind: linear`."
        )
    if have > want:
        return spread(channels, factor=have // want)
    if have == want:
        return nn.Identity()
    return conv(channels, channels, kernel=want // have + 1, stride=want // have)
