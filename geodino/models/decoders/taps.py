"""Where a dense head looks at a backbone: which layers, how wide, at which stride."""

from collections.abc import Sequence
from dataclasses import dataclass

from geodino.errors import RecipeError
from geodino.models.backbone import Backbone
from geodino.models.timm_backbone import TimmBackbone
from geodino.models.vit import VitBackbone

TAPS: dict[int, tuple[int, int, int, int]] = {
    6: (1, 2, 4, 5),
    12: (2, 5, 8, 11),
    24: (5, 11, 17, 23),
    32: (7, 15, 23, 31),
    40: (9, 19, 29, 39),
}
"""The four blocks a head taps, by the depth of the ViT; see ``even_taps`` for other depths."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tap:
    """One place of a backbone that a head looks at."""

    layer: int
    """As ``Backbone.tap`` counts."""

    dim: int
    """Width of the features there."""

    stride: int
    """Pixels of the image per cell, along each axis."""


def even_taps(depth: int) -> tuple[int, int, int, int]:
    """Return four blocks, evenly spread, the last one the network's last.

    The k-th of four is block ``ceil(k * depth / 4)``, counted from 1; the rows of ``TAPS`` are
    this rule written out. Networks of fewer than four blocks repeat some.
    """
    first, second, third, last = (-(-k * depth // 4) - 1 for k in (1, 2, 3, 4))
    return first, second, third, last


def taps_of(backbone: Backbone, layers: Sequence[int] | None = None) -> tuple[Tap, ...]:
    """Return four taps of a backbone, from shallow to deep.

    A ViT is tapped by the table, a ConvNeXt at its four stages (strides 4, 8, 16, 32), any other
    network of timm at the last four of its named maps.

    Args:
        backbone: the network.
        layers: four layers instead, as ``Backbone.tap`` counts them.

    Raises:
        RecipeError: there are no such layers, not four of them, or not from shallow to deep.
    """
    if layers is None:
        layers = _default(backbone)
    if len(layers) != 4 or list(layers) != sorted(layers) or min(layers, default=-1) < 0:
        raise RecipeError(
            f"taps {list(layers)}: a head looks at four layers, counted from 0, from shallow to "
            "deep. Leave `taps` out for the usual ones."
        )
    if max(layers) >= backbone.layers:
        raise RecipeError(
            f"taps {list(layers)}: {backbone.config.name} has {backbone.layers} layers, counted "
            "from 0. Leave `taps` out for the usual ones."
        )
    return tuple(_tap(backbone, layer) for layer in layers)


def _default(backbone: Backbone) -> tuple[int, ...]:
    if isinstance(backbone, VitBackbone):
        return TAPS.get(backbone.depth) or even_taps(backbone.depth)
    if backbone.layers < 4:
        raise RecipeError(
            f"{backbone.config.name} has {backbone.layers} feature maps where a dense head needs "
            "four: choose a ViT, a ConvNeXt or a ResNet."
        )
    if isinstance(backbone, TimmBackbone) and len({_tap(backbone, i).stride for i in
                                                   range(backbone.layers)}) == 1:  # fmt: skip
        return even_taps(backbone.layers)
    return tuple(range(backbone.layers - 4, backbone.layers))


def _tap(backbone: Backbone, layer: int) -> Tap:
    if isinstance(backbone, VitBackbone) or layer == backbone.layers - 1:
        return Tap(layer=layer, dim=backbone.dim, stride=backbone.patch_size)
    info = backbone.trunk.feature_info[layer]
    return Tap(layer=layer, dim=int(info["num_chs"]), stride=int(info["reduction"]))
