"""The paper's initial weights, each parameter from its own key: no order, device or rank matters.

That is ``init: paper``; ``init: unit`` draws every linear map and convolution with a standard
deviation of 1 / sqrt(inputs) instead (LeCun et al. 1998, "Efficient BackProp", section 4.6).
DINOv3 draws linear weights and the learned tokens with a standard deviation of 0.02 and leaves
biases and the mask token at zero. timm's own initialisation of these networks also shrinks the
output projections with depth, which DINOv3 does not do.
"""

import torch
from torch import Tensor, nn

from geodino import seeds
from geodino.models.backbone import Backbone
from geodino.models.convnext import ConvNextBackbone
from geodino.models.shards import fill

STD = 0.02


def initialise(backbone: Backbone, *, generator: torch.Generator) -> None:
    """Fill every parameter and every buffer of ``backbone`` in place, on whatever device it is.

    The generator gives one number; parameter ``name`` is drawn on the CPU from that number and the
    name, so the result does not depend on the device, on the order of the parameters, or on how
    many processes they are spread over.

    Args:
        backbone: a backbone with storage (not on the meta device).
        generator: where the randomness comes from.
    """
    seed = int(torch.randint(2**62, (), generator=generator, dtype=torch.int64))
    with torch.no_grad():
        for name, module in backbone.named_modules():
            _fill_module(name, module, seed, unit=backbone.config.init == "unit")
        _fill_tokens(backbone, seed)
        _fill_layer_scale(backbone)
    restore_buffers(backbone)


def restore_buffers(backbone: Backbone) -> None:
    """Write the buffers that no file stores: statistics, timm's periods and zero key biases."""
    device = next(backbone.parameters()).device
    backbone.reset_statistics(device)
    for module in backbone.trunk.modules():
        restore = getattr(module, "init_non_persistent_buffers", None)
        if callable(restore):
            restore()


def _fill_module(name: str, module: nn.Module, seed: int, *, unit: bool) -> None:
    if isinstance(module, nn.LayerNorm):
        module.weight.fill_(1.0)
        module.bias.zero_()
    elif isinstance(module, nn.Linear | nn.Conv2d):
        inputs = module.weight[0].numel()
        if unit:
            _trunc_normal(module.weight, inputs**-0.5, seed, f"{name}.weight")
        elif name.endswith("patch_embed.proj"):
            _uniform(module.weight, inputs**-0.5, seed, f"{name}.weight")
        else:
            _trunc_normal(module.weight, STD, seed, f"{name}.weight")
        if module.bias is None:
            return
        if name.endswith("patch_embed.proj"):
            _uniform(module.bias, inputs**-0.5, seed, f"{name}.bias")
        else:
            module.bias.zero_()


def _fill_tokens(backbone: Backbone, seed: int) -> None:
    for name, parameter in backbone.named_parameters():
        last = name.rpartition(".")[2]
        if last in ("cls_token", "reg_token"):
            fill(parameter, _empty(parameter).normal_(0.0, STD, generator=_from(seed, name)))
        elif last in ("mask_token", "q_bias", "v_bias"):
            parameter.zero_()


def _fill_layer_scale(backbone: Backbone) -> None:
    value = backbone.config.initial_layer_scale
    names = ("gamma",) if isinstance(backbone, ConvNextBackbone) else ("gamma_1", "gamma_2")
    for name, parameter in backbone.named_parameters():
        if name.rpartition(".")[2] in names and value is not None:
            parameter.fill_(value)


def _trunc_normal(parameter: Tensor, std: float, seed: int, name: str) -> None:
    fill(parameter, nn.init.trunc_normal_(_empty(parameter), std=std, generator=_from(seed, name)))


def _uniform(parameter: Tensor, bound: float, seed: int, name: str) -> None:
    fill(parameter, _empty(parameter).uniform_(-bound, bound, generator=_from(seed, name)))


def _empty(parameter: Tensor) -> Tensor:
    """Room to draw in: always float32 on the CPU, so that every device and dtype starts equal."""
    return torch.empty(parameter.shape, dtype=torch.float32, device="cpu")


def _from(seed: int, name: str) -> torch.Generator:
    return torch.Generator().manual_seed(seeds.integer(seed, "init", name) >> 1)
