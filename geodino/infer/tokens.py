"""Features as a map: the patch tokens a backbone gives a chip, and how they are stored."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Shaped
from torch import Tensor

from geodino.errors import RunError
from geodino.infer.preview import COMPONENTS, Preview
from geodino.infer.quantise import NODATA, Quantiser
from geodino.io.cog.layout import Layer
from geodino.models.backbone import Backbone
from geodino.models.precision import multiplying_in

FEATURES, PICTURE = "features", "pca"
"""Names of the layers."""


class TokenPredictor:
    """A backbone on a device; the tokens of its patches.

    Args:
        backbone: the model.
        device: where it computes.
        scale: what stored values are multiplied by first; None leaves them alone.
        dtype: what matrices are multiplied in: float32 or bfloat16.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        device: torch.device,
        scale: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._backbone = backbone.to(device).eval()
        self._scale = scale
        self._dtype = dtype
        self.device = device
        self.channels = backbone.dim
        self.stride = self.align = backbone.patch_size

    @torch.inference_mode()
    def __call__(
        self, pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
    ) -> Float[Tensor, "b dim hh ww"]:
        """Return the tokens, a pixel each, float32."""
        pixels = pixels.float()
        if self._scale is not None:
            pixels = pixels * self._scale
        with multiplying_in(self._dtype, self.device):
            tokens = self._backbone.tokens(pixels, valid)
        return tokens.map.float()


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenProduct:
    """How features are stored: a band a dimension, and a picture beside them.

    Until ``quantiser`` and ``preview`` are fitted, a product tells its layers alone.

    Args:
        dim: width of the features.
        is_quantised: int8 with a scale a dimension, instead of float32.
        has_picture: whether three principal components become colours.
        is_half: whether values are those that float16 can hold.
        quantiser: scales of int8.
        preview: makes the colours.
    """

    dim: int
    is_quantised: bool = False
    has_picture: bool = False
    is_half: bool = False
    quantiser: Quantiser | None = None
    preview: Preview | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The features, and the picture."""
        scales = () if self.quantiser is None else tuple(map(float, self.quantiser.scale))
        features = Layer(
            name=FEATURES,
            count=self.dim,
            dtype="int8" if self.is_quantised else "float32",
            nodata=float(NODATA) if self.is_quantised else float("nan"),
            descriptions=tuple(f"f{i}" for i in range(self.dim)),
            scales=scales,
            offsets=(0.0,) * len(scales),
        )
        return (features, picture_layer(self.preview)) if self.has_picture else (features,)

    def stored(
        self, values: Float[np.ndarray, "d h w"] | None, valid: Bool[np.ndarray, "h w"]
    ) -> dict[str, Shaped[np.ndarray, "c h w"]]:
        """Return features, NaN or -128 where there is none, and colours from 1, or 0 there."""
        bands = {FEATURES: self._features(values, valid)}
        if self.has_picture:
            bands[PICTURE] = np.zeros((COMPONENTS, *valid.shape), dtype=np.uint8)
            if values is not None:
                if self.preview is None:
                    raise ValueError("the picture was not fitted")
                bands[PICTURE] = self.preview.colours(values, valid)
        return bands

    def counts(
        self, values: Float[np.ndarray, "d h w"], valid: Bool[np.ndarray, "h w"]
    ) -> dict[str, int]:
        """Return nothing: no pixels of features are counted."""
        return {}

    def _features(
        self, values: Float[np.ndarray, "d h w"] | None, valid: Bool[np.ndarray, "h w"]
    ) -> Shaped[np.ndarray, "d h w"]:
        shape = self.dim, *valid.shape
        if values is None:
            if self.is_quantised:
                return np.full(shape, NODATA, dtype=np.int8)
            return np.full(shape, np.nan, dtype=np.float32)
        kept = np.where(valid, values, np.float32(np.nan))
        if self.is_half:
            return halved(kept).astype(np.float32)
        if not self.is_quantised:
            return kept
        if self.quantiser is None:
            raise ValueError("the scales were not fitted")
        return self.quantiser.quantise(kept)


def halved(features: Float[np.ndarray, "..."]) -> Float16[np.ndarray, "..."]:
    """Return features as float16.

    Raises:
        RunError: one is too large.
    """
    largest = np.nanmax(np.abs(features), initial=0.0)
    if largest > np.finfo(np.float16).max:
        raise RunError(
            f"A feature of {largest:.3g} is too large for float16 (65,504). "
            "Choose --dtype float32 or int8."
        )
    return features.astype(np.float16)


def picture_layer(preview: Preview | None) -> Layer:
    """Return the picture, which says how much of the variance each colour holds."""
    shares = () if preview is None else preview.explained
    return Layer(
        name=PICTURE,
        count=COMPONENTS,
        dtype="uint8",
        nodata=0.0,
        interleave="pixel",
        colours=True,
        descriptions=tuple(
            f"component {i}: {share:.1%} of the variance" for i, share in enumerate(shares, start=1)
        ),
    )
