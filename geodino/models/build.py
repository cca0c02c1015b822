"""From a config and an input contract to a backbone, with the paper's initial weights."""

from collections.abc import Sequence

import torch
from timm.models import model_entrypoint
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva

from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.convnext import ConvNextBackbone
from geodino.models.init import initialise, restore_buffers
from geodino.models.sizes import ModelConfig
from geodino.models.vit import VitBackbone


def build_backbone(
    config: ModelConfig,
    contract: InputContract,
    *,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
) -> Backbone:
    """Build a backbone for the contract's bands with fresh weights.

    Args:
        config: which model.
        contract: its bands set the input channels, its mean and std the normalisation.
        generator: the weights depend on its state alone, not on the device.
        device: where the weights live.
    """
    backbone = assemble(config, mean=contract.mean, std=contract.std)
    backbone.to_empty(device=device)
    initialise(backbone, generator=generator)
    return backbone


def assemble(config: ModelConfig, *, mean: Sequence[float], std: Sequence[float]) -> Backbone:
    """Build a backbone on the meta device: names and shapes, no memory, no randomness."""
    # The entry point, not create_model: that one drops arguments that are None, such as the
    # absence of LayerScale.
    trunk = model_entrypoint(config.size.architecture)(
        pretrained=False, device="meta", **config.timm_args(bands=len(mean))
    )
    return wrap(trunk, config=config, mean=mean, std=std)


def wrap(
    trunk: Eva | ConvNeXt, *, config: ModelConfig, mean: Sequence[float], std: Sequence[float]
) -> Backbone:
    """Put a network timm built behind the interface."""
    if isinstance(trunk, Eva):
        return VitBackbone(trunk, config=config, mean=mean, std=std)
    return ConvNextBackbone(trunk, config=config, mean=mean, std=std)


def materialise(backbone: Backbone, *, device: torch.device | str = "cpu") -> None:
    """Give an assembled backbone memory and its buffers; the parameters hold anything."""
    backbone.to_empty(device=device)
    restore_buffers(backbone)
