"""Which parameters learn how fast and which decay: the groups of DINOv3 as pure functions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

_BLOCK = re.compile(r"(?:^|\.)blocks\.(\d+)\.")
_FIRST = ("cls_token", "reg_token", "storage_tokens", "mask_token", "patch_embed", "pos_embed")
_NO_DECAY = re.compile(r"norm|gamma|\.ls[12]\.")


@dataclass(frozen=True, slots=True)
class Multipliers:
    """What one parameter's learning rate and weight decay are multiplied with."""

    lr: float
    weight_decay: float
    last_layer: bool
    """True for the prototypes, whose learning rate is 0 while they are frozen at the start."""


def multipliers(
    name: str, *, depth: int | None, layer_decay: float = 1.0, patch_embed_lr: float = 1.0
) -> Multipliers:
    """Return the multipliers of one parameter by its name.

    Learning rate: ``layer_decay ** (depth + 1 - id)`` with id 0 for the patch embedding and the
    learned tokens, i + 1 for block i and depth + 1 for the rest, the patch embedding further
    times ``patch_embed_lr``; 1 everywhere without a depth (heads, ConvNeXt). Weight decay: 0 for
    biases, norms and LayerScale, 1 for the rest, the learned tokens included.

    Args:
        name: parameter name in timm's or the reference's layout.
        depth: number of transformer blocks; None for modules without layer-wise decay.
        layer_decay: factor from one layer to the one before it.
        patch_embed_lr: further factor on the patch embedding.
    """
    lr = 1.0
    if depth is not None:
        lr = layer_decay ** (depth + 1 - _layer_id(name, depth))
        if "patch_embed" in name:
            lr *= patch_embed_lr
    decays = not (name.endswith("bias") or _NO_DECAY.search(name))
    return Multipliers(lr, 1.0 if decays else 0.0, "last_layer" in name)


def _layer_id(name: str, depth: int) -> int:
    if block := _BLOCK.search(name):
        return int(block.group(1)) + 1
    return 0 if any(first in name for first in _FIRST) else depth + 1


def param_groups(
    parts: Iterable[tuple[nn.Module, int | None]],
    *,
    layer_decay: float,
    patch_embed_lr: float,
) -> list[dict[str, Any]]:
    """Gather trainable parameters of equal multipliers into optimiser groups, in a fixed order.

    Args:
        parts: modules with their depth (None: no layer-wise decay).
        layer_decay: see :func:`multipliers`.
        patch_embed_lr: see :func:`multipliers`.

    Returns:
        Groups with ``params`` and the keys ``lr_multiplier``, ``wd_multiplier``, ``last_layer``,
        which the schedules read at every step.
    """
    groups: dict[Multipliers, list[nn.Parameter]] = {}
    for module, depth in parts:
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                key = multipliers(
                    name, depth=depth, layer_decay=layer_decay, patch_embed_lr=patch_embed_lr
                )
                groups.setdefault(key, []).append(parameter)
    return [
        {
            "params": parameters,
            "lr_multiplier": key.lr,
            "wd_multiplier": key.weight_decay,
            "last_layer": key.last_layer,
        }
        for key, parameters in groups.items()
    ]
