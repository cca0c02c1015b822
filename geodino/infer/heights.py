"""Canopy heights as a map: what a canopy model gives a chip, and how heights are stored."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from geodino.geo.validity import is_all
from geodino.io.cog.layout import Layer
from geodino.metrics.recalibration import HeightCurve
from geodino.models.canopy import CanopyModel
from geodino.models.height_curve import CurveModule
from geodino.models.precision import multiplying_in

HeightType = Literal["float32", "uint16"]
"""Metres with NaN for no data, or whole centimetres with 65535 for none."""

_CM = 100
_NONE = 65_535
_HIGHEST_CM = _NONE - 1

DISSIMILARITY = "dissimilarity"
"""Name of the band that tells how far the ground is from the training ground."""

DISSIMILAR = (
    "distance of the features to the nearest of the training ground, without a unit: 95 % of held-"
    "out ground of the same kind is below 1, above 1 a height is an extrapolation"
)
"""What its numbers mean."""

Distances = Callable[[Float[Tensor, "b n d"]], Float[Tensor, "b n"]]
"""Gives patches, by the last tokens of the backbone, their distance from the training ground."""

Interval = Callable[[Float[np.ndarray, "k h w"]], tuple[np.ndarray, np.ndarray]]
"""Gives the ends of an interval, metres, for the height and the quantiles a model predicted."""


class HeightPredictor:
    """A canopy model on a device; heights above the ground in metres.

    Args:
        model: the model.
        device: where it computes.
        scale: what stored values are multiplied by first; None leaves them alone.
        dtype: what matrices are multiplied in: float32 or bfloat16.
        curve: what becomes of its heights and quantiles; None leaves them alone.
        distances: adds a channel, the last: how far the ground is from the training ground.
    """

    stride = 1

    def __init__(
        self,
        model: CanopyModel,
        *,
        device: torch.device,
        scale: float | None = None,
        dtype: torch.dtype = torch.float32,
        curve: HeightCurve | None = None,
        distances: Distances | None = None,
    ) -> None:
        self._model = model.to(device).eval()
        self._scale = scale
        self._dtype = dtype
        self._curve = None if curve is None else CurveModule(curve).to(device)
        self._distances = distances
        self.device = device
        self.align = model.backbone.patch_size
        self.channels = 1 + len(model.config.quantiles) + (distances is not None)

    @torch.inference_mode()
    def __call__(
        self, pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
    ) -> Float[Tensor, "b k h w"]:
        """Return heights, after them the quantiles the model has, then distances if asked for."""
        if self._scale is not None:
            pixels = pixels.float() * self._scale
        if self._distances is None:
            with multiplying_in(self._dtype, self.device):
                maps: Tensor = self._model(pixels, valid)
            return self._corrected(maps)
        with multiplying_in(self._dtype, self.device):
            maps, tokens = self._model.maps_and_tokens(pixels, valid)
        maps = self._corrected(maps)
        by_patch = self._distances(tokens.patches.float()).reshape(len(pixels), *tokens.grid)
        return torch.cat([maps, between_patches(by_patch, valid, patch=self.align)], dim=1)

    def _corrected(self, maps: Float[Tensor, "b k h w"]) -> Float[Tensor, "b k h w"]:
        return maps.float() if self._curve is None else self._curve(maps)


def between_patches(
    values: Float[Tensor, "b rows columns"], valid: Bool[Tensor, "b h w"], *, patch: int
) -> Float[Tensor, "b 1 h w"]:
    """Interpolate linearly between the centres of patches; each counts by its valid pixels.

    A patch without a valid pixel shows nothing of the ground, so it does not count; where none
    counts the result is 0.

    Args:
        values: of patches; those beyond the image are ignored.
        valid: pixels that may be used, in whole patches.
        patch: side of a patch, pixels.
    """
    share = F.avg_pool2d(valid[:, None].to(values.dtype), patch)
    inside = values[:, None, : share.shape[2], : share.shape[3]]
    total, weight = (
        F.interpolate(part, scale_factor=patch, mode="bilinear") for part in (inside * share, share)
    )
    return total / weight.clamp_min(1e-6)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeightProduct:
    """How heights are stored: a band, the ends of an interval, the distance from known ground.

    Args:
        dtype: stored type.
        interval: makes the bands ``lower`` and ``upper``; None leaves them out.
        has_distance: whether the last channel is a distance, which becomes the last band.
    """

    dtype: HeightType = "float32"
    interval: Interval | None = None
    has_distance: bool = False

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The one file."""
        names = ("height",) if self.interval is None else ("height", "lower", "upper")
        units = ("m",) * len(names)
        if self.has_distance:
            names, units = (*names, DISSIMILARITY), (*units, "")
        is_whole = self.dtype == "uint16"
        return (
            Layer(
                name="height",
                count=len(names),
                dtype=self.dtype,
                nodata=float(_NONE) if is_whole else float("nan"),
                descriptions=names,
                units=units,
                scales=(1 / _CM,) * len(names) if is_whole else (),
                offsets=(0.0,) * len(names) if is_whole else (),
            ),
        )

    def stored(
        self, values: Float[np.ndarray, "k h w"] | None, valid: Bool[np.ndarray, "h w"]
    ) -> dict[str, Shaped[np.ndarray, "c h w"]]:
        """Return the bands; heights below 0 are stored as 0, 0 m is a height."""
        (layer,) = self.layers
        empty = np.dtype(self.dtype).type(layer.nodata)
        if values is None:
            return {"height": np.full((layer.count, *valid.shape), empty)}
        bands = np.empty((layer.count, *valid.shape), dtype=np.float32)
        np.maximum(values[0], np.float32(0), out=bands[0])
        if self.interval is not None:
            bands[1:3] = self.interval(values[:-1] if self.has_distance else values)
        if self.has_distance:
            bands[-1] = values[-1]
        if self.dtype == "uint16":
            np.multiply(bands, _CM, out=bands)
            np.rint(bands, out=bands)
            bands = np.clip(bands, 0, _HIGHEST_CM, out=bands).astype(np.uint16)
        if not is_all(valid):
            np.copyto(bands, empty, where=~valid)
        return {"height": bands}

    def counts(
        self, values: Float[np.ndarray, "k h w"], valid: Bool[np.ndarray, "h w"]
    ) -> dict[str, int]:
        """Return how many pixels are valid, and how many of them further than 1 from known ground."""
        if not self.has_distance:
            return {}
        far = valid & (values[-1] > 1)
        return {"valid": int(np.count_nonzero(valid)), "far": int(np.count_nonzero(far))}
