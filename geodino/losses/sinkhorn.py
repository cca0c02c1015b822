r"""Sinkhorn-Knopp centring of the teacher, in a form that cannot overflow and never builds Q.

The assignment of ``n`` samples (over all ranks) to ``K`` prototypes starts from
``exp(logits / temp)``; every iteration divides each prototype by its sum over the samples and then
each sample by its sum over the prototypes (SwAV, Caron et al. 2020, section 3.1 and listing; DINOv2,
Oquab et al. 2023, section 4). The factors ``1/K`` and ``1/n`` of the published listing cancel in
the last step and are left out, so the number of samples need not be known.

**Why nothing overflows.** The first iteration runs on logarithms: with ``z = logits / temp``,

.. math:: f_k = -\log \sum_b e^{z_{bk}}, \qquad g_b = -\log \sum_k e^{z_{bk} + f_k}, \qquad
          E_{bk} = e^{z_{bk} + f_k + g_b}.

Each sample of ``E`` sums to 1. For a prototype, :math:`\sum_b e^{z_{bk} + f_k} = 1`, and since each
of these terms is at most 1, :math:`e^{g_b} \ge 1/K`; so the prototype sums
:math:`r_k = \sum_b E_{bk}` lie in ``[1/K, n]``. Further iterations keep them there: dividing the
prototypes by ``r`` leaves samples with sums in ``[1/max r, 1/min r]``; dividing by those multiplies
prototypes that now sum to 1 by factors in ``[min r, max r]``, hence so are their new sums. After
``i`` more iterations the prototype scaling therefore lies in ``[n^-i, K^i]``, far inside float32 for
the few iterations in use, and no quotient is 0/0, whatever the logits were.

The kernel in memory is ``E`` with every sample divided by its largest entry, which saves a pass; the
quotient, in ``[1/K, 1]``, sits in the sample scaling.
"""

from dataclasses import dataclass

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor

from geodino.losses.chunks import cache_rows

_PANEL = 2048
"""Columns worked on at once on a CPU."""

_MOST_ITERATIONS = 6
"""K^5 and n^5 still fit into float32 for a million prototypes or samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Targets:
    """Teacher assignments ``Q = diag(sample_scale) kernel diag(prototype_scale)``, never built.

    Every row of Q is a distribution over the prototypes. There is no gradient.
    """

    kernel: Float[Tensor, "n k"]
    """Positive matrix, one row per sample; it lies in the buffer the logits came in."""

    prototype_scale: Float[Tensor, " k"]
    """One factor per prototype."""

    sample_scale: Float[Tensor, " n"]
    """One factor per sample."""

    @classmethod
    def from_probs(cls, probs: Float[Tensor, "n k"]) -> "Targets":
        """Wrap distributions that exist already; each row must sum to 1."""
        rows, columns = probs.shape
        return cls(
            kernel=probs.detach(),
            prototype_scale=probs.new_ones(columns),
            sample_scale=probs.new_ones(rows),
        )

    def rows(self, index: Int[Tensor, " i"]) -> Float[Tensor, "i k"]:
        """Return the distributions of the samples in ``index``."""
        chosen = self.kernel.index_select(0, index).mul_(self.prototype_scale)
        return chosen.mul_(self.sample_scale[index, None])

    def dense(self) -> Float[Tensor, "n k"]:
        """Return the whole of Q; as large as the logits, so meant for tests and small reports."""
        return self.kernel * self.prototype_scale * self.sample_scale[:, None]


@torch.no_grad()
def sinkhorn(
    logits: Float[Tensor, "n k"],
    *,
    temp: float,
    iterations: int = 3,
    process_group: dist.ProcessGroup | None = None,
) -> Targets:
    """Centre and sharpen teacher logits over the samples of all ranks.

    Float32 and float64 logits are **consumed**: the result lies in their buffer. Logits of a
    shorter dtype are left alone and cost one float32 buffer. Nothing is read back to the host.

    Args:
        logits: teacher head outputs of this rank, one row per sample; ranks may differ in rows.
        temp: teacher temperature.
        iterations: rounds of normalisation, 1 to 6; the method uses 3.
        process_group: ranks that share the assignment; the default group when None, and this
            process alone where no group is initialised.

    Raises:
        ValueError: logits with a gradient, a temperature that is not positive, or iterations
            outside 1 to 6.
    """
    if logits.requires_grad:
        raise ValueError("sinkhorn overwrites its logits; compute them under torch.no_grad()")
    if temp <= 0 or not 1 <= iterations <= _MOST_ITERATIONS:
        raise ValueError(
            f"sinkhorn needs temp > 0 and 1 to {_MOST_ITERATIONS} iterations, "
            f"found temp={temp}, iterations={iterations}"
        )
    wide = logits.dtype in (torch.float32, torch.float64)
    kernel = logits if wide else torch.empty_like(logits, dtype=torch.float32)
    log_scale = _log_prototype_sums(logits, kernel.dtype, temp, process_group).neg_()
    sample_scale, sums = _fill_kernel(logits, kernel, log_scale, temp)
    prototype_scale = torch.ones_like(sums)
    for left in range(iterations - 1, 0, -1):
        prototype_scale = _summed(sums, process_group).reciprocal_()
        sums = _scale_samples(kernel, prototype_scale, sample_scale, sums_too=left > 1)
    return Targets(kernel=kernel, prototype_scale=prototype_scale, sample_scale=sample_scale)


def _log_prototype_sums(
    logits: Tensor, dtype: torch.dtype, temp: float, group: dist.ProcessGroup | None
) -> Tensor:
    """Return the log of the sum over all samples of exp(logits / temp), one per prototype."""
    # Narrow panels on a CPU: several passes then run over numbers in the cache.
    width = _PANEL if logits.device.type == "cpu" else max(1, logits.shape[1])
    rows = cache_rows(width, logits)
    sums = torch.full((logits.shape[1],), -torch.inf, dtype=dtype, device=logits.device)
    for panel, out in zip(torch.split(logits, width, 1), torch.split(sums, width), strict=True):
        for block in torch.split(panel, rows) if len(panel) else ():
            top = block.amax(0).to(dtype).div_(temp)
            inner = torch.add(-top, block, alpha=1 / temp).exp_().sum(0)
            torch.logaddexp(out, inner.log_().add_(top), out=out)
    if not _several(group):
        return sums
    top = sums.clone()
    dist.all_reduce(top, op=dist.ReduceOp.MAX, group=group)
    return top + _summed((sums - top).exp_(), group).log_()


def _fill_kernel(
    logits: Tensor, kernel: Tensor, log_scale: Tensor, temp: float
) -> tuple[Tensor, Tensor]:
    """Write the kernel; return the sample scaling of the first iteration and prototype sums."""
    sample_scale = kernel.new_empty(len(kernel))
    sums = torch.zeros_like(log_scale)
    rows = cache_rows(kernel.shape[1], kernel)
    for source, out, scale in zip(
        torch.split(logits, rows),
        torch.split(kernel, rows),
        torch.split(sample_scale, rows),
        strict=True,
    ):
        torch.add(log_scale, source.to(kernel.dtype), alpha=1 / temp, out=out)
        out.sub_(out.amax(1, keepdim=True)).exp_()
        torch.reciprocal(out.sum(1), out=scale)
        sums.addmv_(out.T, scale)
    return sample_scale, sums


def _scale_samples(
    kernel: Tensor, prototype_scale: Tensor, sample_scale: Tensor, *, sums_too: bool
) -> Tensor:
    """Set ``sample_scale`` so that samples sum to 1; return the prototype sums that follow."""
    sums = torch.zeros_like(prototype_scale)
    rows = cache_rows(kernel.shape[1], kernel)
    for block, scale in zip(
        torch.split(kernel, rows), torch.split(sample_scale, rows), strict=True
    ):
        torch.reciprocal(block @ prototype_scale, out=scale)
        if sums_too:
            sums.addmv_(block.T, scale)
    return sums


def _summed(values: Tensor, group: dist.ProcessGroup | None) -> Tensor:
    """Sum over ranks, in place."""
    if _several(group):
        dist.all_reduce(values, group=group)
    return values


def _several(group: dist.ProcessGroup | None) -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1
