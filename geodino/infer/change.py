"""Change between two dates: the cosine distance of frozen features, patch by patch.

Nothing is trained: one model encodes both dates, and the angle between the two tokens of a patch
says how much it changed. RaVAEn (Ruzicka et al., Scientific Reports 12:16939, 2022) compares tiles
of two dates by the same distance; here it is taken between patches.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from geodino.geo.windows import Window
from geodino.infer.chips import Pixels, Raster
from geodino.infer.tokens import TokenPredictor
from geodino.io.cog.layout import Layer

ChangeType = Literal["float32", "uint8"]
"""Values with NaN for no data, or whole hundredths with 255 for none."""

CHANGE = "change"
"""Name of the layer and of its first band."""

_STEPS = 100
_NONE = 255
_HIGHEST = 2.0
"""Cosine distance of opposite features."""


def stacked(before: Raster, after: Raster) -> Raster:
    """Return both dates as one raster: bands of ``before``, then those of ``after``.

    A pixel is valid where it is on both dates. The model is shown the same holes on both, so that a
    cloud mask or a collar of one date is no change of its surroundings.

    Args:
        before: the earlier date; its grid is that of the result.
        after: the later one, with as many rows and columns.
    """

    def read(window: Window) -> Pixels:
        first, valid_before = before.read(window)
        second, valid_after = after.read(window)
        return np.concatenate([first, second]), valid_before & valid_after

    return Raster(
        name=f"{before.name}, {after.name}", grid=before.grid, read=read, block=before.block
    )


def cosine_distance(
    before: Float[Tensor, "b d *s"], after: Float[Tensor, "b d *s"]
) -> Float[Tensor, "b *s"]:
    r"""Return :math:`1 - \cos(a, b)` of the features of two dates: 0 for the same, at most 2.

    It is computed as half the squared distance of the unit vectors, which is the same, and exactly
    0 for equal features where the difference of 1 and a cosine would leave rounding.
    """
    apart = F.normalize(before, dim=1) - F.normalize(after, dim=1)
    return 0.5 * apart.square().sum(dim=1)


class ChangePredictor:
    """A model on a device; how much each patch changed, and how much of it both dates show.

    Args:
        tokens: the model, for one date.
    """

    channels = 2

    def __init__(self, tokens: TokenPredictor) -> None:
        self._tokens = tokens
        self.device = tokens.device
        self.stride = self.align = tokens.stride

    @torch.inference_mode()
    def __call__(
        self, pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
    ) -> Float[Tensor, "b 2 hh ww"]:
        """Return cosine distance and share of valid pixels; ``pixels`` as of :func:`stacked`."""
        # One after the other, in batches of one size: equal dates give equal tokens, bit for bit.
        before, after = (self._tokens(date, valid) for date in pixels.chunk(2, dim=1))
        share = F.avg_pool2d(valid[:, None].float(), self.stride)
        return torch.cat([cosine_distance(before, after)[:, None], share], dim=1)


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeProduct:
    """How change is stored: the bands ``change`` and ``valid``, a pixel per patch.

    Both are nodata where a patch has no pixel that is valid on both dates. Elsewhere ``valid`` is
    the share of its pixels that are.

    Args:
        dtype: stored type.
    """

    dtype: ChangeType = "float32"

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The one file."""
        is_whole = self.dtype == "uint8"
        return (
            Layer(
                name=CHANGE,
                count=2,
                dtype=self.dtype,
                nodata=float(_NONE) if is_whole else float("nan"),
                descriptions=(CHANGE, "valid"),
                scales=(1 / _STEPS,) * 2 if is_whole else (),
                offsets=(0.0,) * 2 if is_whole else (),
            ),
        )

    def counts(
        self, values: Float[np.ndarray, "k h w"], valid: Bool[np.ndarray, "h w"]
    ) -> Mapping[str, int]:
        """Nothing is counted."""
        return {}

    def stored(
        self, values: Float[np.ndarray, "k h w"] | None, valid: Bool[np.ndarray, "h w"]
    ) -> dict[str, Shaped[np.ndarray, "c h w"]]:
        """Return the two bands."""
        (layer,) = self.layers
        empty = np.dtype(self.dtype).type(layer.nodata)
        if values is None:
            return {CHANGE: np.full((layer.count, *valid.shape), empty)}
        bands = np.clip(values, 0, _HIGHEST)
        if self.dtype == "uint8":
            bands = np.rint(bands * _STEPS).astype(np.uint8)
        np.copyto(bands, empty, where=~valid)
        return {CHANGE: bands}
