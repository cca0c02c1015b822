"""Parameters that are spread over processes (FSDP2): giving them values, reading them, their parts.

A parameter that is not spread is its own part, so that callers need not ask.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def is_spread(tensor: Tensor) -> bool:
    """Whether each process holds only a part of ``tensor``."""
    return isinstance(tensor, DTensor)


def part(tensor: Tensor) -> Tensor:
    """Return what this process holds of ``tensor``, sharing its memory; call without a gradient."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all of ``tensor``; where it is spread all processes call this together."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@torch.no_grad()
def fill(parameter: Tensor, values: Tensor) -> None:
    """Copy ``values`` into ``parameter``; where it is spread each process takes its own part.

    Args:
        parameter: of any device and dtype.
        values: all of them, the same in every process; nothing is sent between processes.
    """
    if isinstance(parameter, DTensor):
        mesh, placements = parameter.device_mesh, parameter.placements
        on_device = values.to(parameter.device, parameter.dtype)
        spread = distribute_tensor(on_device, mesh, placements, src_data_rank=None)
        parameter.to_local().copy_(spread.to_local())
    else:
        parameter.copy_(values)


def take(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Give a module, spread or not, the values of one that is whole.

    Raises:
        ValueError: they differ in their tensors.
    """
    mine = module.state_dict()
    if mine.keys() != state.keys():
        raise ValueError(f"tensors differ: {sorted(mine.keys() ^ state.keys())[:3]}")
    for name, tensor in mine.items():
        fill(tensor, state[name])
