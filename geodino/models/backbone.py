"""The one interface to every backbone: stored pixel values in, tokens out.

Everything above this room sees a :class:`Backbone`: it normalises by its input contract, so no
caller can forget to, and it hides whether timm's network underneath is a ViT or a ConvNeXt.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor, nn

from geodino.errors import ContractError
from geodino.models.draws import EncodeDraws
from geodino.models.sizes import ModelConfig


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """What a backbone makes of a batch of images of one size, after the last norm."""

    cls: Float[Tensor, "b d"]
    """One vector per image."""

    registers: Float[Tensor, "b r d"]
    """Register tokens; none (``r = 0``) for a ConvNeXt."""

    patches: Float[Tensor, "b n d"]
    """One vector per patch, row-major over ``grid``."""

    grid: tuple[int, int]
    """Patches down and across."""

    @property
    def map(self) -> Float[Tensor, "b d h w"]:
        """The patches as an image of features."""
        images, _, dim = self.patches.shape
        return self.patches.transpose(1, 2).reshape(images, dim, *self.grid)


class Backbone(nn.Module, ABC):
    """A timm network behind its normalisation and its mask token.

    Args:
        trunk: timm's network.
        config: what the trunk was built from.
        mean: per band, of stored values.
        std: per band, of stored values.

    Attributes:
        trunk: timm's network, with timm's parameter names; opens in plain timm.
        mask_token: replaces masked patches ``[1, d]``; None for a ConvNeXt, which masks pixels.
        local_cls_norm: last norm of the local crops' CLS while training, or None.
        mean: float32 buffer ``[c, 1, 1]``, not part of the state dict (the contract has it).
        std: as ``mean``.
        dim: width of the features.
        patch_size: pixels per patch along each axis.
        depth: transformer blocks; 0 for a ConvNeXt.
        layers: how many places ``feature_maps`` can tap: blocks of a ViT, stages of a ConvNeXt.
    """

    trunk: Any
    mask_token: nn.Parameter | None
    local_cls_norm: nn.LayerNorm | None
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        *,
        config: ModelConfig,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.config = config
        self.dim = int(self.trunk.num_features)
        self.patch_size = config.stride
        self.bands = len(mean)
        self._statistics = (tuple(mean), tuple(std))
        self.reset_statistics("cpu")

    @property
    @abstractmethod
    def depth(self) -> int:
        """Transformer blocks; 0 for a ConvNeXt."""

    @property
    @abstractmethod
    def layers(self) -> int:
        """How many places ``tap`` and ``feature_maps`` can look at."""

    @abstractmethod
    def encode(
        self,
        crops: list[Tensor],
        *,
        masks: list[Tensor | None] | None = None,
        draws: EncodeDraws | None = None,
    ) -> list[Tokens]:
        """Encode sets of normalised crops together.

        Args:
            crops: per crop set ``[b c h w]``, normalised (``normalise``); sizes differ by set.
            masks: per crop set, True where a patch is hidden ``[b n]``, or None.
            draws: drop-path rows and RoPE factors; None computes everything, unaugmented.

        Raises:
            ContractError: another number of bands, or sides that are no multiple of the patch.
        """

    @abstractmethod
    def _tap(self, image: Tensor, layers: Sequence[int], *, norm: bool) -> list[Tokens]:
        """Tokens of a normalised image after each of ``layers``."""

    def forward(
        self,
        crops: list[Tensor],
        *,
        masks: list[Tensor | None] | None = None,
        draws: EncodeDraws | None = None,
    ) -> list[Tokens]:
        """``encode``, for wrappers that hook into calls."""
        return self.encode(crops, masks=masks, draws=draws)

    def normalise(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, "b c h w"]:
        """Turn stored values into the network's input: ``(x - mean) / std``, float32.

        Args:
            image: stored values of any dtype.
            valid: True where a pixel may be used; others become 0, the band mean, whatever they
                hold.

        Raises:
            ContractError: another number of bands than the model was built for.
        """
        if image.shape[1] != self.bands:
            raise ContractError(
                f"The image has {image.shape[1]} bands but the model was built for {self.bands}: "
                "choose the model's bands in the model's order, or use another model."
            )
        normalised = (image.float() - self.mean) / self.std
        if valid is None:
            return normalised
        return torch.where(valid[:, None], normalised, 0.0)

    def tokens(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> Tokens:
        """Encode stored values, as in evaluation whatever the module's mode.

        Args:
            image: stored values; sides are multiples of ``patch_size``.
            valid: see ``normalise``.
        """
        (tokens,) = self([self.normalise(image, valid)])
        return tokens  # type: ignore[no-any-return]

    def tap(
        self,
        image: Num[Tensor, "b c h w"],
        layers: Sequence[int],
        valid: Bool[Tensor, "b h w"] | None = None,
        *,
        norm: bool = True,
    ) -> list[Tokens]:
        """Return the tokens after each of ``layers``, counted from 0, in the order asked.

        Args:
            image: stored values.
            layers: blocks of a ViT, stages of a ConvNeXt; negative numbers count from the end.
            valid: see ``normalise``.
            norm: apply the last norm to every tap, as DINOv3's dense heads expect. A ConvNeXt's
                norm fits its last stage only and leaves the others alone.

        Raises:
            IndexError: a layer the model does not have.
        """
        return self._tap(
            self.normalise(image, valid), [range(self.layers)[i] for i in layers], norm=norm
        )

    def feature_maps(
        self,
        image: Num[Tensor, "b c h w"],
        layers: Sequence[int],
        valid: Bool[Tensor, "b h w"] | None = None,
        *,
        norm: bool = True,
    ) -> list[Tensor]:
        """Return the patch tokens after each of ``layers`` as images ``[b d h w]`` (see ``tap``)."""
        return [tokens.map for tokens in self.tap(image, layers, valid, norm=norm)]

    def grid(self, crop: Float[Tensor, "b c h w"]) -> tuple[int, int]:
        """Return how many patches a crop has down and across.

        Raises:
            ContractError: sides that are no multiple of the patch.
        """
        height, width = crop.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ContractError(
                f"An image of {height} x {width} pixels does not divide into patches of "
                f"{self.patch_size}: pad or crop its sides to multiples of {self.patch_size}."
            )
        return height // self.patch_size, width // self.patch_size

    def reset_statistics(self, device: torch.device | str) -> None:
        """Write the contract's mean and std into the buffers, on ``device``, as float32."""
        for name, values in zip(("mean", "std"), self._statistics, strict=True):
            buffer = torch.tensor(values, dtype=torch.float32, device=device)[:, None, None]
            self.register_buffer(name, buffer, persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], *args: Any, **kwargs: Any) -> "Backbone":
        """Keep the statistics float32 when the weights change their dtype."""
        super()._apply(fn, *args, **kwargs)  # type: ignore[no-untyped-call]
        if self.mean.dtype != torch.float32:
            self.reset_statistics(self.mean.device)
        return self
