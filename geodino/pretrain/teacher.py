"""The teacher is an exponential moving average of the student."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodino.models.shards import part


class EmaUpdate:
    """``teacher <- m teacher + (1 - m) student`` over flat lists, in a few kernels.

    Buffers are constants here (normalisation, RoPE) and are not averaged.

    Args:
        student: the module that learns.
        teacher: a module with the same parameters.
    """

    def __init__(self, student: nn.Module, teacher: nn.Module) -> None:
        source = dict(student.named_parameters())
        target = dict(teacher.named_parameters())
        if source.keys() != target.keys():
            raise ValueError("student and teacher differ in their parameters")
        self._source = [source[name] for name in target]
        self._target = list(target.values())

    @torch.no_grad()
    def __call__(self, momentum: float, skipped: Float[Tensor, ""]) -> None:
        """Move the teacher by ``1 - momentum`` towards the student, or not at all if skipped.

        Args:
            momentum: m, the share of the teacher that stays.
            skipped: 1.0 where the optimiser skipped its step; then the teacher stays put.
        """
        # On the parts that this process holds: student and teacher are spread alike.
        target: list[Any] = [part(p) for p in self._target]
        source: list[Any] = [part(p) for p in self._source]
        share = (1.0 - momentum) * (1.0 - skipped)
        move = move_on_the_host if share.device.type == "cpu" else move_on_a_device
        move(target, source, share)


@torch.no_grad()
def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Give ``target`` the parameters of ``source``, in place; both are spread alike, if at all."""
    into: list[Any] = [part(p) for p in target.parameters()]
    torch._foreach_copy_(into, [part(p) for p in source.parameters()])


def move_on_the_host(target: list[Any], source: list[Any], share: Float[Tensor, ""]) -> None:
    """Move ``target`` by ``share`` towards ``source``, in a third of the other form's time."""
    torch._foreach_lerp_(target, source, float(share))


def move_on_a_device(target: list[Any], source: list[Any], share: Float[Tensor, ""]) -> None:
    """The same without reading ``share``, for which the host would wait."""
    difference = torch._foreach_sub(source, target)
    torch._foreach_mul_(difference, share)
    torch._foreach_add_(target, difference)
