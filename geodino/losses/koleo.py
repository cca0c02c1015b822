r"""KoLeo: spreads features apart by the distance to their nearest neighbour.

.. math:: -\frac{1}{n} \sum_i \log\left(\lVert x_i - x_{nn(i)} + \epsilon \rVert + \epsilon\right),
          \qquad \epsilon = 10^{-8}

on L2-normalised features (Sablayrolles et al. 2019, "Spreading vectors for similarity search";
Kozachenko and Leonenko 1987). The neighbour has the largest inner product; a feature's product with
itself counts as -1. Adding epsilon to the difference keeps duplicates, and a batch of one, which is
its own neighbour, finite in value and gradient.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

_EPS = 1e-8


def koleo(features: Float[Tensor, "b d"], *, group: int) -> Float[Tensor, ""]:
    """Return KoLeo with neighbours searched inside groups of ``group`` consecutive rows.

    ``group = b`` is the reference's value. Crop-major global crops may be passed together where
    the group divides the batch: the value is then the mean over the crops.

    Args:
        features: CLS features before the head; normalised here, in float32 (float64 stays).
        group: rows per group; divides ``b``.

    Raises:
        ValueError: the group does not divide the rows.
    """
    if group < 1 or len(features) % group:
        raise ValueError(f"KoLeo groups of {group} do not divide {len(features)} rows")
    with torch.autocast(features.device.type, enabled=False):
        x = torch.unflatten(_normalised(features), 0, (-1, group))
        return _spread(x, x, offset=0, top_k=1)


def koleo_distributed(
    features: Float[Tensor, "b d"],
    *,
    group: int | None = None,
    top_k: int = 1,
    process_group: dist.ProcessGroup | None = None,
) -> Float[Tensor, ""]:
    """Return KoLeo of this rank's rows with neighbours searched across ranks.

    The mean over ranks is the loss; gradients reach the neighbours on other ranks.

    Args:
        features: CLS features before the head; equally many rows on every rank.
        group: rows of all ranks that are searched together, a multiple of ``b`` (or a divisor of
            it, for groups inside the rank); all of them when None.
        top_k: nearest neighbours whose distances are averaged (of the logarithm).
        process_group: ranks that take part; the default group when None, and this process alone
            where no group is initialised.

    Raises:
        ValueError: the group fits neither the rows of a rank nor those of all.
    """
    several = dist.is_available() and dist.is_initialized()
    world = dist.get_world_size(process_group) if several else 1
    rank = dist.get_rank(process_group) if several else 0
    local, everything = len(features), world * len(features)
    group = everything if group is None else group
    if group < 1 or everything % group or (group % local and local % group):
        raise ValueError(f"KoLeo groups of {group} do not fit {world} ranks with {local} rows each")
    with torch.autocast(features.device.type, enabled=False):
        x = _normalised(features)
        if group <= local:
            x = torch.unflatten(x, 0, (-1, group))
            return _spread(x, x, offset=0, top_k=top_k)
        gathered: Tensor = x
        if world > 1:
            gathered = _Gather.apply(x, process_group, world, rank)  # type: ignore[no-untyped-call]
        first = rank * local // group * group
        neighbours = gathered[first : first + group]
        return _spread(x[None], neighbours[None], offset=rank * local - first, top_k=top_k)


def _normalised(features: Tensor) -> Tensor:
    wide = torch.promote_types(features.dtype, torch.float32)
    return F.normalize(features.to(wide), dim=-1, eps=_EPS)


def _spread(
    x: Float[Tensor, "g n d"], among: Float[Tensor, "g m d"], *, offset: int, top_k: int
) -> Float[Tensor, ""]:
    """KoLeo of ``x``, whose row i is row ``offset + i`` of the rows it is searched ``among``."""
    with torch.no_grad():
        similarity = x @ among.mT
        similarity.diagonal(offset, 1, 2).fill_(-1.0)
        nearest = similarity.topk(top_k, dim=2).indices
    index = nearest.flatten(1)[:, :, None].expand(-1, -1, x.shape[2])
    neighbours = torch.unflatten(among.gather(1, index), 1, nearest.shape[1:])
    distance: Tensor = torch.linalg.vector_norm(x[:, :, None] - neighbours + _EPS, dim=-1)
    return -(distance + _EPS).log().mean()


class _Gather(torch.autograd.Function):
    """All rows of all ranks; the gradient of a row is the sum over the ranks that used it."""

    @staticmethod
    def forward(
        ctx: Any, local: Tensor, group: dist.ProcessGroup | None, world: int, rank: int
    ) -> Tensor:
        ctx.group, ctx.rows = group, slice(rank * len(local), (rank + 1) * len(local))
        gathered = local.new_empty(world * len(local), *local.shape[1:])
        dist.all_gather_single(gathered, local.contiguous(), group=group)
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        total: Tensor = grad.contiguous().clone()
        dist.all_reduce(total, group=ctx.group)
        return total[ctx.rows], None, None, None
