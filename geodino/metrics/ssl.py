"""Health of prototype assignments: whether targets are sharp and prototypes share the samples.

A collapsing self-supervised run shows here first: targets as flat as the uniform distribution, or
a few prototypes that take every sample (Caron et al. 2021, "Emerging properties", section 5.3).
Every function works on the samples of one rank, a block at a time, and returns a tensor, so that
nothing waits for the device.
"""

from collections.abc import Iterator
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK = 1 << 22
"""Probabilities worked on at once."""


@runtime_checkable
class Assignment(Protocol):
    """Distributions over prototypes, one a sample, in the form ``diag(s) kernel diag(p)``."""

    @property
    def kernel(self) -> Tensor:
        """[n k] positive matrix."""
        ...

    @property
    def prototype_scale(self) -> Tensor:
        """[k] factors."""
        ...

    @property
    def sample_scale(self) -> Tensor:
        """[n] factors."""
        ...


@torch.no_grad()
def target_entropy(targets: Assignment) -> Float[Tensor, ""]:
    """Return the mean entropy of a sample's distribution, in nats: 0 one-hot, log k uniform."""
    total = targets.sample_scale.new_zeros(())
    for probs in _blocks(targets):
        total += torch.special.entr(probs).sum()
    mean: Tensor = total / len(targets.kernel)
    return mean


@torch.no_grad()
def effective_prototypes(targets: Assignment) -> Float[Tensor, ""]:
    """Return how many prototypes are in use: exp of the entropy of the mean distribution."""
    usage = torch.zeros_like(targets.prototype_scale)
    for probs in _blocks(targets):
        usage += probs.sum(0)
    entropy: Tensor = torch.special.entr(usage / len(targets.kernel)).sum()
    return entropy.exp()


@torch.no_grad()
def favoured_prototypes(targets: Assignment) -> Int[Tensor, ""]:
    """Return how many prototypes are the most probable one of at least one sample."""
    favoured = torch.zeros_like(targets.prototype_scale, dtype=torch.bool)
    for probs in _blocks(targets):
        favoured.index_fill_(0, probs.argmax(1), value=True)
    count: Tensor = favoured.sum()
    return count


def _blocks(targets: Assignment) -> Iterator[Tensor]:
    """Yield the distributions [rows k] of a few samples after another."""
    rows = max(1, _BLOCK // targets.kernel.shape[1])
    for kernel, scale in zip(
        torch.split(targets.kernel, rows), torch.split(targets.sample_scale, rows), strict=True
    ):
        yield (kernel * targets.prototype_scale).mul_(scale[:, None])
