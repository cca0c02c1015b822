"""Four maps of strides 4, 8, 16 and 32 from four taps, and the way from stride 4 back to pixels."""

from collections.abc import Iterator, Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geodino.errors import RecipeError
from geodino.models.decoders.layers import spread
from geodino.models.decoders.taps import Tap

STRIDES = (4, 8, 16, 32)
"""Strides of the four maps, pixels."""

_SLAB = 16
"""Rows of cells whose outputs are enlarged at a time."""


def pyramid(taps: Sequence[Tap], *, head: str) -> nn.ModuleList:
    """Return what takes each tap to its stride: transposed convolution, nothing, or pooling.

    Weights are unset.

    Args:
        taps: four, shallow to deep.
        head: what the head is called, for the message.

    Raises:
        RecipeError: cells that cannot be brought to the strides.
    """
    return nn.ModuleList(
        _resize(tap, stride, head) for tap, stride in zip(taps, STRIDES, strict=True)
    )


def _resize(tap: Tap, want: int, head: str) -> nn.Module:
    have = tap.stride
    if have & (have - 1):
        raise RecipeError(
            f"A {head} head makes maps of strides {', '.join(map(str, STRIDES))} pixels, to which "
            f"cells of {have} pixels cannot be brought: choose a backbone with patches of 4, 8, 16 "
            "or 32 pixels, or `head.kind: linear`."
        )
    if have > want:
        return spread(tap.dim, factor=have // want)
    return nn.Identity() if have == want else nn.MaxPool2d(want // have)


def enlarged(cells: Float[Tensor, "b c h w"]) -> Iterator[Float[Tensor, "b c rows w2"]]:
    """Yield a map of stride 4 at the image's own pixels, bilinearly, some rows at a time."""
    factor, height = STRIDES[0], cells.shape[2]
    # One more row above and below what is enlarged: bilinear weights reach no further.
    for top in range(0, height, _SLAB):
        stop = min(top + _SLAB, height)
        above, below = int(top > 0), int(stop < height)
        part = cells[:, :, top - above : stop + below]
        large = F.interpolate(part, scale_factor=factor, mode="bilinear", align_corners=False)
        end = large.shape[2] - below * factor
        yield large[:, :, above * factor : end]
