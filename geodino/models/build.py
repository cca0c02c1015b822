"""From a config and an input contract to a backbone, with the paper's initial weights."""

from collections.abc import Sequence

import torch
from timm.models import model_entrypoint
from timm.models.convnext import ConvNeXt
from timm.models.eva import Eva
from torch import nn

from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.convnext import ConvNextBackbone
from geodino.models.init import initialise, restore_buffers
from geodino.models.sizes import ModelConfig
from geodino.models.timm_backbone import TimmBackbone, build_trunk
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
    if config.family == "timm":
        bands = len(contract.bands)
        trunk = build_trunk(config, bands=bands, generator=generator)
        return wrap(trunk, config=config, mean=contract.mean, std=contract.std).to(device)
    backbone = assemble(config, mean=contract.mean, std=contract.std)
    backbone.to_empty(device=device)
    initialise(backbone, generator=generator)
    return backbone


def assemble(config: ModelConfig, *, mean: Sequence[float], std: Sequence[float]) -> Backbone:
    """Build a backbone on the meta device: names and shapes, no memory, no randomness."""
    if config.family == "timm":
        with torch.device("meta"):
            trunk = build_trunk(config, bands=len(mean), generator=None)
        return wrap(trunk, config=config, mean=mean, std=std)
    # The entry point, not create_model: that one drops arguments that are None, such as the
    # absence of LayerScale.
    trunk = model_entrypoint(config.size.architecture)(
        pretrained=False, device="meta", **config.timm_args(bands=len(mean))
    )
    return wrap(trunk, config=config, mean=mean, std=std)


def wrap(
    trunk: nn.Module, *, config: ModelConfig, mean: Sequence[float], std: Sequence[float]
) -> Backbone:
    """Put a network timm built behind the interface."""
    if isinstance(trunk, Eva):
        return VitBackbone(trunk, config=config, mean=mean, std=std)
    if config.family == "convnext" and isinstance(trunk, ConvNeXt):
        return ConvNextBackbone(trunk, config=config, mean=mean, std=std)
    return TimmBackbone(trunk, config=config, mean=mean, std=std)


def materialise(backbone: Backbone, *, device: torch.device | str = "cpu") -> None:
    """Give an assembled backbone memory and its buffers; the parameters hold anything."""
    if isinstance(backbone, TimmBackbone):
        # Buffers that no file stores are known to timm's constructors alone.
        bands = backbone.bands
        backbone.trunk = build_trunk(backbone.config, bands=bands, generator=None).to(device)
        backbone.reset_statistics(device)
        return
    backbone.to_empty(device=device)
    restore_buffers(backbone)
