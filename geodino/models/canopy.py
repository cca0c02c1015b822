"""Canopy height: a backbone, a dense head, and bins of metres between them and the map."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Num
from pydantic import field_validator
from torch import Tensor

from geodino.config import Config
from geodino.models.backbone import Backbone, Tokens
from geodino.models.decoders.bins import BinsConfig, expected_height, initial_logits
from geodino.models.decoders.dense import DenseHead, DenseHeadConfig, build_head
from geodino.models.decoders.dpt import DptConfig
from geodino.models.headed import HeadedModel

UNIT = "m"
"""Of every height: metres above the ground."""


class CanopyConfig(Config):
    """What stands on the backbone to predict canopy height."""

    head: DenseHeadConfig = DptConfig()
    """The dense head, by its ``kind``: ``dpt`` or ``linear``."""

    bins: BinsConfig = BinsConfig()
    """The heights it chooses between."""

    quantiles: tuple[float, ...] = ()
    """Quantiles of the height predicted beside it, such as 0.05, 0.5, 0.95; each is one more set
    of bins. Nothing keeps them from crossing."""

    @field_validator("quantiles")
    @classmethod
    def _are_ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if any(not 0 < value < 1 for value in values) or list(values) != sorted(set(values)):
            raise ValueError(
                "quantiles must lie between 0 and 1, in ascending order, such as [0.05, 0.95]"
            )
        return values


class CanopyModel(HeadedModel):
    """Stored pixel values in, metres above the ground out, at the same pixels.

    Images of any size are padded at the right and bottom with invalid pixels to the multiple the
    head needs, and the result is cropped back: pixel (i, j) of the result is pixel (i, j) of the
    image.

    Args:
        backbone: with its weights.
        config: the head and its bins; the head's weights are unset until ``init_head`` or a state
            dict sets them.

    Attributes:
        backbone: of any family.
        head: gives one channel per bin, for the height and for each quantile.
        taps: where the head looks at the backbone, shallow to deep.
        bins_m: heights of the bins, metres; a float32 buffer that follows from the config and is
            no part of the state dict.
        multiple: sides are padded to a multiple of this, pixels.
    """

    head: DenseHead
    bins_m: Tensor

    def __init__(self, backbone: Backbone, config: CanopyConfig) -> None:
        super().__init__(backbone)
        self.config = config
        groups = 1 + len(config.quantiles)
        self.head, self.taps = build_head(backbone, config.head, outputs=groups * config.bins.count)
        self.multiple = math.lcm(self.head.multiple, backbone.patch_size)
        self.register_buffer("bins_m", config.bins.heights(), persistent=False)

    def init_head(self, generator: torch.Generator) -> None:
        """Draw the head's weights; it then predicts little more than ``bins.initial_m`` anywhere."""
        bins = self.config.bins
        start = initial_logits(self.bins_m, bins.initial_m, weighting=bins.weighting)
        self.head.init_weights(generator, bias=start.repeat(1 + len(self.config.quantiles)))

    def features(
        self,
        image: Num[Tensor, "b c h w"],
        valid: Bool[Tensor, "b h w"],
        *,
        more: tuple[int, ...] = (),
    ) -> list[Tokens]:
        """Return the tokens the head reads, of an image of whole ``multiple``.

        Args:
            image: stored values.
            valid: True where a pixel may be used.
            more: further layers, whose tokens follow.
        """
        layers = [*(tap.layer for tap in self.taps), *more]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            return self.backbone.tap(image, layers, valid, norm=True)

    def logits(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, "b g k h w"]:
        """Return the raw outputs: per bin, for the height (0) and each quantile (1, ...)."""
        height, width = image.shape[-2:]
        tokens = self.features(*pad(image, valid, multiple=self.multiple))
        cropped: Tensor = self.head(tokens)[..., :height, :width]
        return cropped.reshape(len(image), -1, self.config.bins.count, height, width)

    def forward(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, "b g h w"]:
        """Return the height and after it each of ``config.quantiles``, metres, float32.

        Args:
            image: stored values, as the backbone's contract says.
            valid: True where a pixel may be used; None uses all. Heights of other pixels are
                guesses from their surroundings.

        Raises:
            ContractError: another number of bands than the backbone was built for.
        """
        padded = pad(image, valid, multiple=self.multiple)
        return self._maps(self.features(*padded), image)

    def maps_and_tokens(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> tuple[Float[Tensor, "b g h w"], Tokens]:
        """Return what ``forward`` does, and the backbone's last tokens from the same pass.

        The tokens are of the image in whole ``multiple``: their grid may reach beyond it at the
        right and bottom.
        """
        padded = pad(image, valid, multiple=self.multiple)
        last = self.backbone.layers - 1
        more = () if self.taps[-1].layer == last else (last,)
        tokens = self.features(*padded, more=more)
        return self._maps(tokens[: len(self.taps)], image), tokens[-1]

    def _maps(self, tokens: list[Tokens], image: Tensor) -> Tensor:
        """Turn the tokens the head reads into metres, cropped to the image."""
        height, width = image.shape[-2:]
        bins = self.config.bins
        parts = []
        for rows in self.head.slabs(tokens):
            by_group = rows.reshape(-1, bins.count, *rows.shape[-2:])
            parts.append(expected_height(by_group, self.bins_m, weighting=bins.weighting))
        maps = torch.cat(parts, dim=1)
        return maps.view(len(image), -1, *maps.shape[-2:])[..., :height, :width]

    def heights(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, "b h w"]:
        """Return the height above the ground, metres, float32; see ``forward``."""
        maps: Tensor = self(image, valid)
        return maps[:, 0]

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "CanopyModel":
        """Keep the bins float32 when the weights change their dtype."""
        super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        if self.bins_m.dtype != torch.float32:
            self.bins_m = self.config.bins.heights().to(self.bins_m.device)
        return self


def build_canopy(
    backbone: Backbone, config: CanopyConfig, *, generator: torch.Generator, frozen: bool = True
) -> CanopyModel:
    """Put a fresh head on a backbone.

    Args:
        backbone: with its weights.
        config: the head and its bins.
        generator: the head's weights depend on its state alone.
        frozen: the backbone does not learn.

    Raises:
        RecipeError: the head does not fit the backbone.
    """
    model = CanopyModel(backbone, config)
    model.init_head(generator)
    if frozen:
        model.freeze()
    return model


def pad(
    image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None, *, multiple: int
) -> tuple[Tensor, Tensor]:
    """Pad an image at the right and bottom, never in front: no pixel changes its place.

    Returns:
        The image with sides that are multiples of ``multiple``, and where it is valid: nowhere in
        what was added, so that the backbone sees the band mean there.
    """
    if valid is None:
        valid = torch.ones_like(image[:, 0], dtype=torch.bool)
    right, below = (-side % multiple for side in (image.shape[-1], image.shape[-2]))
    if right or below:
        image = F.pad(image.float(), (0, right, 0, below))
        valid = F.pad(valid, (0, right, 0, below))
    return image, valid
