"""Networks spread over processes (FSDP2): each holds a part of every parameter.

A block's parameters are gathered when it runs and let go afterwards, in the forward pass and again
in the backward pass; gradients are averaged and scattered. Weights, gradients, moments and the
teachers then take 1/n of the memory on each of n processes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

from geodino.models.backbone import Backbone
from geodino.models.init import restore_buffers
from geodino.pretrain.objective import Network


@dataclass(frozen=True, kw_only=True, slots=True)
class Sharding:
    """How the networks of a run, built on the meta device, are spread and get their weights."""

    bfloat16: bool
    """Parameters are gathered in bfloat16; each process keeps its part in float32, and gradients
    are summed in float32."""

    initialise: Callable[[Network, Backbone | None], None]
    """Gives the student, and a Gram teacher with weights of its own, their first values. Student
    and Gram teacher are spread already: each process fills its part."""

    def __call__(
        self, student: Network, teacher: Network, gram_teacher: Backbone | None, mesh: DeviceMesh
    ) -> None:
        """Spread the networks over ``mesh`` and make room for their parts on its device.

        The teachers hold anything afterwards.
        """
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if self.bfloat16 else None,
            reduce_dtype=torch.float32,
            # Crops, RoPE tables and row indices come in the dtype they are meant in.
            cast_forward_inputs=False,
        )
        device = _device_of(mesh)
        for network in (student, teacher):
            for part in network.parts():
                spread(part, mesh, policy, learns=network is student)
            network.to_empty(device=device)
            restore_buffers(network.backbone)
        if gram_teacher is not None:
            spread(gram_teacher, mesh, policy, learns=False)
            gram_teacher.to_empty(device=device)
            restore_buffers(gram_teacher)
        self.initialise(student, gram_teacher)


def spread(
    module: nn.Module, mesh: DeviceMesh, policy: MixedPrecisionPolicy, *, learns: bool
) -> None:
    """Spread each block of a module, then the rest of it.

    Args:
        module: a backbone or a head; on the meta device it takes no memory.
        mesh: the processes.
        policy: in which dtype parameters are gathered.
        learns: keep what is outside the blocks gathered for the backward pass, which begins there;
            a network that only infers lets go of it at once.
    """
    for block in blocks_of(module):
        fully_shard(block, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=not learns)


def blocks_of(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the blocks of a backbone, each of which is gathered on its own; none of a head."""
    trunk = getattr(module, "trunk", None)
    if trunk is None:
        return
    yield from getattr(trunk, "blocks", ())
    for stage in getattr(trunk, "stages", ()):
        yield from stage.blocks


def _device_of(mesh: DeviceMesh) -> torch.device:
    if mesh.device_type == "cuda":
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device(mesh.device_type)
