"""Any network of timm as a student: the last map is the patches, timm's pooled features the CLS token."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import Any

import timm
import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodino.errors import RecipeError
from geodino.models.backbone import Backbone, Tokens
from geodino.models.draws import EncodeDraws
from geodino.models.sizes import ModelConfig

_ARGUMENTS: tuple[Mapping[str, Any], ...] = (
    MappingProxyType({"dynamic_img_size": True}),
    MappingProxyType({}),
)
"""What is tried in turn: networks with learned positions take any image size only if asked to."""


_COMMON_SIDE = 256
"""Side of an image that most strides divide, pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What must be known of a network before it is built."""

    dim: int
    """Width of its features."""

    stride: int
    """Pixels per cell of its last map."""

    arguments: Mapping[str, Any]
    """What timm needs beside the name, the bands and the absence of a classifier."""


class TimmBackbone(Backbone):
    """A network of timm that no class of ours knows; each crop set runs on its own.

    The CLS token is what ``timm.create_model(..., num_classes=0)`` returns, the patches are the
    cells of ``forward_features``. There are no masks, no registers and no draws of ours.

    Args:
        trunk: timm's network, without classifier.
        config: what the trunk was built from.
        mean: per band, of stored values.
        std: per band, of stored values.
    """

    def __init__(
        self,
        trunk: nn.Module,
        *,
        config: ModelConfig,
        mean: Sequence[float],
        std: Sequence[float],
    ) -> None:
        super().__init__(trunk, config=config, mean=mean, std=std)
        self.mask_token = None
        self.local_cls_norm = None

    @property
    def depth(self) -> int:
        """No transformer blocks that take draws or a layer-wise learning rate."""
        return 0

    @property
    def layers(self) -> int:
        """Taps: the feature maps that timm names."""
        return len(self.trunk.feature_info)

    def encode(
        self,
        crops: list[Tensor],
        *,
        masks: list[Tensor | None] | None = None,
        draws: EncodeDraws | None = None,
    ) -> list[Tokens]:
        """Encode each crop set; see ``Backbone.encode``.

        Raises:
            ContractError: sides that are no multiple of the stride.
            ValueError: masks, of which such a network knows nothing.
        """
        if any(mask is not None for mask in masks or ()):
            raise ValueError(f"{self.config.name} has no mask token: nothing can be masked")
        return [self._encode(crop) for crop in crops]

    def _encode(self, crop: Float[Tensor, "b c h w"]) -> Tokens:
        grid = self.grid(crop)
        features = self.trunk.forward_features(crop.to(next(self.trunk.parameters()).dtype))
        cls = self.trunk.forward_head(features, pre_logits=True)
        patches = cells(self.trunk, features)
        return Tokens(cls=cls, registers=patches[:, :0], patches=patches, grid=grid)

    def _tap(self, image: Tensor, layers: Sequence[int], *, norm: bool) -> list[Tokens]:
        last = self.layers - 1
        before = sorted({layer for layer in layers if layer != last})
        maps: dict[int, Tensor] = {}
        if before:
            tapped = self.trunk.forward_intermediates(
                image, indices=before, intermediates_only=True, output_fmt="NCHW"
            )
            maps = dict(zip(before, tapped, strict=True))
        tokens = {layer: _pooled(x) for layer, x in maps.items()}
        if last in layers:
            tokens[last] = self._encode(image)
        return [tokens[layer] for layer in layers]


def _pooled(x: Float[Tensor, "b d h w"]) -> Tokens:
    patches = x.flatten(2).transpose(1, 2)
    return Tokens(
        cls=patches.mean(1),
        registers=patches[:, :0],
        patches=patches,
        grid=(x.shape[2], x.shape[3]),
    )


def cells(trunk: Any, features: Tensor) -> Float[Tensor, "b n d"]:
    """Return the last map of a network of timm as tokens, row-major, without its prefix tokens."""
    if features.ndim == 3:
        return features[:, int(getattr(trunk, "num_prefix_tokens", 0)) :]
    if getattr(trunk, "output_fmt", "NCHW") == "NHWC":
        return features.flatten(1, 2)
    return features.flatten(2).transpose(1, 2)


def timm_names() -> frozenset[str]:
    """Return the architectures that timm can build."""
    return frozenset(timm.list_models())


@lru_cache(maxsize=64)
def facts_of(architecture: str) -> Facts:
    """Build a network without memory and look at what it gives for an image of its own size.

    Raises:
        RecipeError: it gives no square map, or its pooled features are wider than its map.
    """
    trunk, arguments = _without_memory(architecture)
    own = int(trunk.default_cfg["input_size"][-1])
    found, refused = None, ""
    for side in (own, _COMMON_SIDE):  # its own size may end in a part of a cell
        try:
            patches, pooled = _outputs(trunk, side)
        except (AttributeError, RuntimeError, AssertionError, TypeError) as error:
            refused = f" ({' '.join(str(error).split())[:120]})"
            continue
        edge = round(patches.shape[1] ** 0.5)
        if patches.shape[1] == edge**2 and side % edge == 0:
            found = patches, pooled, side // edge
            break
    if found is None:
        raise RecipeError(
            f"{architecture} cannot be a student: timm's network gives no square grid of features"
            f"{refused}. Choose a ViT, a ConvNeXt or a ResNet."
        )
    patches, pooled, stride = found
    if pooled.shape[-1] != patches.shape[-1]:
        raise RecipeError(
            f"{architecture} cannot be a student: timm widens its map of {patches.shape[-1]} "
            f"channels to {pooled.shape[-1]} after pooling, so that one vector per image and one "
            "per cell would be of two kinds. Choose another, such as efficientnet_b0 or resnet18."
        )
    return Facts(dim=int(patches.shape[-1]), stride=stride, arguments=arguments)


def check_side(architecture: str, side: int, grid: int) -> None:
    """Check that an image of ``side`` pixels becomes ``grid`` x ``grid`` cells.

    Raises:
        RecipeError: the network takes no such image, or makes another grid of it.
    """
    trunk, _ = _without_memory(architecture)
    try:
        count = _outputs(trunk, side)[0].shape[1]
    except (RuntimeError, AssertionError) as error:
        raise RecipeError(
            f"{architecture} takes no crops of {side} px "
            f"({' '.join(str(error).split())[:120]}): its cells cannot be laid on the teacher's "
            f"grid of {grid} x {grid}. Choose other crop sizes, or a student for any image size."
        ) from None
    if count != grid * grid:
        raise RecipeError(
            f"{architecture} makes {count} cells of a crop of {side} px, the teacher {grid} x "
            f"{grid}: they cannot be aligned. Choose other crop sizes, or another student."
        )


def build_trunk(config: ModelConfig, *, bands: int, generator: torch.Generator | None) -> Any:
    """Build a network with timm's own initial weights.

    Args:
        config: which one.
        bands: input channels.
        generator: the weights depend on its state alone; None where they are overwritten anyway.
    """
    seed = 0
    if generator is not None:
        drawn = torch.randint(2**62, (), generator=generator, dtype=torch.int64, device="cpu")
        seed = int(drawn)
    # timm draws from the global state: it is put back, and no other draw sees the seed.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.manual_seed(seed)
        return timm.create_model(config.size.architecture, **config.timm_args(bands=bands))


def _without_memory(architecture: str) -> tuple[Any, Mapping[str, Any]]:
    for arguments in _ARGUMENTS:
        try:
            with torch.device("meta"), warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)
                trunk = timm.create_model(architecture, num_classes=0, **arguments)
        except TypeError as error:
            refused = error
            continue
        return trunk.eval(), arguments
    raise RecipeError(f"timm cannot build {architecture} without a classifier ({refused}).")


def _outputs(trunk: Any, side: int) -> tuple[Tensor, Tensor]:
    image = torch.empty(1, 3, side, side, device="meta")
    with torch.no_grad():
        features = trunk.forward_features(image)
        return cells(trunk, features), trunk.forward_head(features, pre_logits=True)
