"""Maps at four strides and one more, from a backbone of any family."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geodino.models.backbone import Backbone, Tokens
from geodino.models.decoders.layers import conv, draw
from geodino.models.decoders.taps import Tap, taps_of
from geodino.models.vit import VitBackbone


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of each cell: no cell knows of another."""

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """Normalise each cell."""
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class Pyramid(nn.Module):
    """Maps of one width at growing strides.

    A ViT has one stride: its last map is made 4 and 2 times finer and 2 times coarser, each by
    layers of its own (Li et al. 2022, "Exploring plain vision transformer backbones for object
    detection"). Other networks are tapped at four stages, whose maps are summed from coarse to fine
    (Lin et al. 2017, "Feature pyramid networks"). Every second cell of the coarsest map makes a
    fifth one.

    Args:
        backbone: what is tapped.
        channels: of every map.

    Attributes:
        taps: where the backbone is looked at, shallow to deep.
        strides: pixels of the image per cell of each map, along each axis.
    """

    def __init__(self, backbone: Backbone, *, channels: int) -> None:
        super().__init__()
        self.is_plain = isinstance(backbone, VitBackbone)
        every = taps_of(backbone)
        self.taps: tuple[Tap, ...] = every[-1:] if self.is_plain else every
        if self.is_plain:
            dim, stride = self.taps[0].dim, self.taps[0].stride
            four = (stride // 4, stride // 2, stride, stride * 2)
            self.scale = nn.ModuleList([_finer(dim, 2), _finer(dim, 1), nn.Identity(), _coarser()])
            dims = (dim // 4, dim // 2, dim, dim)
        else:
            four = tuple(tap.stride for tap in self.taps)  # type: ignore[assignment]
            self.scale = nn.ModuleList([nn.Identity() for _ in four])
            dims = tuple(tap.dim for tap in self.taps)  # type: ignore[assignment]
        self.strides: tuple[int, ...] = (*four, four[-1] * 2)
        self.lateral = nn.ModuleList(
            [
                nn.Sequential(conv(dim, channels, kernel=1, bias=False), ChannelNorm(channels))
                for dim in dims
            ]
        )
        self.smooth = nn.ModuleList(
            [
                nn.Sequential(conv(channels, channels, kernel=3, bias=False), ChannelNorm(channels))
                for _ in dims
            ]
        )

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                draw(module, generator)

    def forward(self, tokens: Sequence[Tokens]) -> list[Tensor]:
        """Return the maps, fine to coarse ``[b c h w]``, of the tokens of the taps."""
        given = [one.map for one in tokens] * (4 if self.is_plain else 1)
        maps = [
            lateral(scale(x))
            for lateral, scale, x in zip(self.lateral, self.scale, given, strict=True)
        ]
        if not self.is_plain:
            for i in range(len(maps) - 2, -1, -1):
                above = F.interpolate(maps[i + 1], size=maps[i].shape[-2:], mode="nearest")
                maps[i] = maps[i] + above
        maps = [smooth(x) for smooth, x in zip(self.smooth, maps, strict=True)]
        return [*maps, maps[-1][..., ::2, ::2]]


def _finer(dim: int, times: int) -> nn.Sequential:
    """Make a map twice as fine, once or twice, with half of the channels each time."""
    layers: list[nn.Module] = []
    for i in range(times):
        if i:
            layers += [ChannelNorm(dim), nn.GELU()]
        layers.append(_halving(dim))
        dim //= 2
    return nn.Sequential(*layers)


def _halving(dim: int) -> nn.ConvTranspose2d:
    layer: nn.ConvTranspose2d = nn.utils.skip_init(  # type: ignore[no-untyped-call]
        nn.ConvTranspose2d, dim, dim // 2, 2, stride=2
    )
    return layer


def _coarser() -> nn.MaxPool2d:
    return nn.MaxPool2d(2, ceil_mode=True)
