"""Classes as a map: what a segmentation model gives a chip, and how classes are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from geodino.io.cog.layout import Layer
from geodino.models.precision import multiplying_in
from geodino.models.segmentation import SegmentationModel
from geodino.models.segmentation_folder import ClassOfMap

ProbabilityType = Literal["float32", "uint8"]
"""Shares of 1 with NaN for no data, or whole 254ths with 255 for none."""

CLASSES, PROBABILITIES = "classes", "probabilities"
"""Names of the files of a map."""

NO_CLASS = 255
"""Stored where there are no data."""

_PARTS = 254


class ClassPredictor:
    """A segmentation model on a device; the probability of each class.

    Where chips overlap it is the probabilities that are blended, not the classes.

    Args:
        model: the model.
        device: where it computes.
        scale: what stored values are multiplied by first; None leaves them alone.
        dtype: what matrices are multiplied in: float32 or bfloat16.
    """

    stride = 1

    def __init__(
        self,
        model: SegmentationModel,
        *,
        device: torch.device,
        scale: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._model = model.to(device).eval()
        self._scale = scale
        self._dtype = dtype
        self.device = device
        self.align = model.backbone.patch_size
        self.channels = model.classes

    @torch.inference_mode()
    def __call__(
        self, pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
    ) -> Float[Tensor, "b k h w"]:
        """Return the probability of each class."""
        if self._scale is not None:
            pixels = pixels.float() * self._scale
        with multiplying_in(self._dtype, self.device):
            return self._model.probabilities(pixels, valid)


def most_likely(
    probabilities: Float[np.ndarray, "k h w"], valid: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w"]:
    """Return the number of the likeliest class (of several the first); 255 where not valid."""
    found = np.argmax(np.where(valid, probabilities, 0.0), axis=0).astype(np.uint8)
    return np.where(valid, found, np.uint8(NO_CLASS))


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassProduct:
    """How classes are stored: a band of numbers, and the probabilities in a file beside it.

    Args:
        classes: names and colours by number.
        probabilities: stored type of the probabilities; None leaves them out.
    """

    classes: Sequence[ClassOfMap]
    probabilities: ProbabilityType | None = None

    @property
    def layers(self) -> tuple[Layer, ...]:
        """The map, and the probabilities where they are wanted."""
        names = Layer(
            name=CLASSES,
            count=1,
            dtype="uint8",
            nodata=float(NO_CLASS),
            resampling="mode",
            descriptions=("class",),
            colour_table={i: (*one.colour, 255) for i, one in enumerate(self.classes)},
        )
        if self.probabilities is None:
            return (names,)
        count, is_whole = len(self.classes), self.probabilities == "uint8"
        return (
            names,
            Layer(
                name=PROBABILITIES,
                count=count,
                dtype=self.probabilities,
                nodata=float(NO_CLASS) if is_whole else float("nan"),
                descriptions=tuple(one.name for one in self.classes),
                scales=(1 / _PARTS,) * count if is_whole else (),
                offsets=(0.0,) * count if is_whole else (),
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
        """Return the bands of each file."""
        found: dict[str, Shaped[np.ndarray, "c h w"]] = {}
        if values is None:
            found[CLASSES] = np.full((1, *valid.shape), NO_CLASS, np.uint8)
        else:
            found[CLASSES] = most_likely(values, valid)[None]
        if self.probabilities is None:
            return found
        shape = (len(self.classes), *valid.shape)
        if self.probabilities == "float32":
            bands = np.full(shape, np.nan, np.float32)
        else:
            bands = np.full(shape, NO_CLASS, np.uint8)
        if values is not None:
            shares = np.clip(np.where(valid, values, 0.0), 0.0, 1.0)
            kept = np.rint(shares * _PARTS) if self.probabilities == "uint8" else shares
            np.copyto(bands, kept.astype(bands.dtype), where=valid)
        found[PROBABILITIES] = bands
        return found
