"""ConvNeXts behind the same interface: the last map is the patches, its mean the CLS token."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from timm.models.convnext import ConvNeXt
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from geodino.models.backbone import Backbone, Tokens
from geodino.models.draws import EncodeDraws
from geodino.models.sizes import ModelConfig


class ConvNextBackbone(Backbone):
    """A timm ``ConvNeXt``; each crop set runs on its own.

    The CLS token is the mean of the last map and the patches are its cells, both through the
    trunk's last norm, as DINOv3 does for its ConvNeXts. There is no mask token: masked patches are
    blocks of zeros (the band mean) in the normalised input. A convolution near a mask still sees
    its border, which a ViT's mask token hides as well only up to its patch.

    Args:
        trunk: timm's network.
        config: what the trunk was built from.
        mean: per band, of stored values.
        std: per band, of stored values.
    """

    def __init__(
        self, trunk: ConvNeXt, *, config: ModelConfig, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(trunk, config=config, mean=mean, std=std)
        self.mask_token = None
        self.local_cls_norm = None

    @property
    def depth(self) -> int:
        """No transformer blocks."""
        return 0

    @property
    def layers(self) -> int:
        """Taps: one after each stage."""
        return len(self.trunk.stages)

    def encode(
        self,
        crops: list[Tensor],
        *,
        masks: list[Tensor | None] | None = None,
        draws: EncodeDraws | None = None,
    ) -> list[Tokens]:
        """Encode each crop set; see ``Backbone.encode``. ``draws`` has nothing for a ConvNeXt."""
        last = self.layers - 1
        return [
            self._stages(self._hidden(crop, mask), taps=[last], norm=True)[last]
            for crop, mask in zip(crops, masks or [None] * len(crops), strict=True)
        ]

    def _tap(self, image: Tensor, layers: Sequence[int], *, norm: bool) -> list[Tokens]:
        tapped = self._stages(self._hidden(image, None), taps=layers, norm=norm)
        return [tapped[layer] for layer in layers]

    def _hidden(
        self, crop: Float[Tensor, "b c h w"], mask: Bool[Tensor, "b n"] | None
    ) -> Float[Tensor, "b c h w"]:
        grid = self.grid(crop)
        if mask is None:
            return crop
        blocks = mask.view(-1, 1, *grid)
        for axis in (2, 3):
            blocks = blocks.repeat_interleave(self.patch_size, dim=axis)
        return torch.where(blocks, 0.0, crop)

    def _stages(
        self, x: Float[Tensor, "b c h w"], *, taps: Sequence[int], norm: bool
    ) -> dict[int, Tokens]:
        trunk = self.trunk
        x = trunk.stem(x.to(trunk.stem[0].weight.dtype))
        tapped = {}
        for number, stage in enumerate(trunk.stages[: max(taps) + 1]):
            x = stage.downsample(x)
            for block in stage.blocks:
                if self.config.activation_checkpointing and torch.is_grad_enabled():
                    x = checkpoint(block, x, use_reentrant=False)
                else:
                    x = block(x)
            if number in taps:
                tapped[number] = self._finish(x, norm=norm and number == self.layers - 1)
        return tapped

    def _finish(self, x: Float[Tensor, "b d h w"], *, norm: bool) -> Tokens:
        pooled = self.trunk.head.global_pool(x)
        if norm:
            pooled, x = self.trunk.head.norm(pooled), self.trunk.head.norm(x)
        patches = x.flatten(2).transpose(1, 2)
        return Tokens(
            cls=pooled.flatten(1),
            registers=patches[:, :0],
            patches=patches,
            grid=(x.shape[2], x.shape[3]),
        )
