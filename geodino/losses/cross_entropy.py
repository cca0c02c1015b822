"""Cross-entropy between teacher assignments and prototype scores, fused with the last layer.

The student's logits ``features @ prototypes.T / temp`` are formed a block of rows at a time, turned
into the gradient of the logits in place, and multiplied into the gradients of features and
prototypes at once; backward only scales these. The idea is that of fused linear cross-entropy
(Hsu et al. 2024, "Liger Kernel"; Wijmans et al. 2024, "Cut your losses"), here for soft targets
that are themselves never built (see `geodino.losses.sinkhorn.Targets`).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from geodino.losses.chunks import cache_rows, matmul_rows
from geodino.losses.sinkhorn import Targets


def prototype_cross_entropy(
    features: Float[Tensor, "n d"],
    prototypes: Float[Tensor, "k d"],
    targets: Targets,
    *,
    target_rows: Int[Tensor, "n m"] | None,
    row_weights: Float[Tensor, " n"] | Float[Tensor, "n m"],
    student_temp: float,
) -> Float[Tensor, ""]:
    r"""Weighted cross-entropy of every row against its teacher samples.

    .. math:: \sum_n \sum_m w_{nm} \sum_k -Q_{t(n,m),k} \log
              \mathrm{softmax}_k(\mathrm{features}_n \cdot \mathrm{prototypes}_k / \tau_s)

    Matrix products run in the autocast dtype where autocast to bfloat16 is on, else in the wider
    dtype of the two operands; softmax, sums and both gradients are float32 (float64 for float64
    operands). Only the wanted gradients are computed, in the forward pass; there are no second
    derivatives. Nothing is read back to the host.

    Args:
        features: bottleneck outputs of the student, L2-normalised.
        prototypes: weight of the head's last layer.
        targets: assignments of the teacher, summing to 1 over the prototypes.
        target_rows: rows of ``targets`` each feature row is compared with; None pairs row i
            with target i.
        row_weights: weight per row or per pair, not negative; 0 drops the pair.
        student_temp: the paper's tau_s (0.1).

    Returns:
        The weighted sum, a float32 (or float64) scalar.

    Raises:
        ValueError: ``target_rows`` is None and the numbers of rows differ.
    """
    if target_rows is None and len(targets.kernel) != len(features):
        raise ValueError(
            f"{len(features)} feature rows cannot be paired with {len(targets.kernel)} targets; "
            "give target_rows"
        )
    dtype = _matmul_dtype(features, prototypes)
    with torch.autocast(features.device.type, enabled=False):
        pairs = _Pairs.of(targets, target_rows, row_weights)
        want = torch.is_grad_enabled()
        wants = (want and features.requires_grad, want and prototypes.requires_grad)
        value: Tensor = _FusedCrossEntropy.apply(  # type: ignore[no-untyped-call]
            features, prototypes, pairs, student_temp, dtype, wants
        )
    return value


def _matmul_dtype(features: Tensor, prototypes: Tensor) -> torch.dtype:
    device = features.device.type
    wide = torch.promote_types(features.dtype, prototypes.dtype)
    if torch.is_autocast_enabled(device) and wide != torch.float64:
        wide = torch.get_autocast_dtype(device)
    # Unnormalised gradients reach the number of prototypes, beyond float16.
    return torch.float32 if wide == torch.float16 else wide


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pairs:
    """Which target rows, with what share, belong to each feature row."""

    kernel: Tensor
    prototype_scale: Tensor
    rows: Tensor | None
    weight: Tensor
    """[n] sum of the weights of a row's pairs."""
    share: Tensor
    """[n m] share of each pair in its row's weight, times the sample scaling."""

    @classmethod
    def of(cls, targets: Targets, rows: Tensor | None, weights: Tensor) -> "_Pairs":
        scale = targets.sample_scale[:, None] if rows is None else targets.sample_scale[rows]
        weights = weights.to(scale.dtype)
        if weights.ndim == 1:
            weights = weights[:, None].expand_as(scale)
        weight = weights.sum(1)
        # A row without any pair has weight 0: its share is 0 as well, not 0/0.
        share = weights / weight.where(weight > 0, 1.0)[:, None] * scale
        return cls(
            kernel=targets.kernel,
            prototype_scale=targets.prototype_scale,
            rows=rows,
            weight=weight,
            share=share,
        )

    def mean_target(self, block: slice, out: Tensor) -> tuple[Tensor, Tensor]:
        """Return [b k] targets written to ``out`` and the [b 1] factor they still lack."""
        if self.rows is None:
            torch.mul(self.kernel[block], self.prototype_scale, out=out)
            return out, self.share[block]
        first, *others = self.rows[block].unbind(1)
        chosen, shares = self.kernel.index_select(0, first), self.share[block]
        if not others:
            return torch.mul(chosen, self.prototype_scale, out=out), shares
        torch.mul(chosen, shares[:, :1], out=out)
        for m, other in enumerate(others, start=1):
            out.addcmul_(self.kernel.index_select(0, other), shares[:, m, None])
        return out.mul_(self.prototype_scale), torch.ones_like(shares[:, :1])


class _FusedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        features: Tensor,
        prototypes: Tensor,
        pairs: _Pairs,
        temp: float,
        dtype: torch.dtype,
        wants: tuple[bool, bool],
    ) -> Tensor:
        # Dividing n x d numbers here spares dividing n x k logits.
        scaled = (features.detach() / temp).to(dtype)
        weight = prototypes.detach().to(dtype)
        value, grad_features, grad_prototypes = _value_and_gradients(scaled, weight, pairs, wants)
        ctx.save_for_backward(
            None if grad_features is None else (grad_features / temp).to(features.dtype),
            None if grad_prototypes is None else grad_prototypes.to(prototypes.dtype),
        )
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = (None if g is None else g * grad.to(g.dtype) for g in ctx.saved_tensors)
        return (*saved, None, None, None, None)


def _value_and_gradients(
    scaled: Tensor, prototypes: Tensor, pairs: _Pairs, wants: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Return the loss and its gradients with respect to ``scaled`` and ``prototypes``."""
    wide = torch.promote_types(scaled.dtype, torch.float32)
    value = torch.zeros((), dtype=wide, device=scaled.device)
    grad_scaled = torch.empty_like(scaled, dtype=wide) if wants[0] else None
    grad_prototypes = torch.empty_like(prototypes, dtype=wide) if wants[1] else None
    if grad_prototypes is not None and not len(scaled):
        grad_prototypes.zero_()
    chunks = _even_chunks(len(scaled), matmul_rows(len(prototypes), scaled))
    logits = scaled.new_empty(max(map(len, chunks), default=0), len(prototypes))
    for chunk in chunks:
        part = slice(chunk.start, chunk.stop)
        block = torch.mm(scaled[part], prototypes.T, out=logits[: len(chunk)])
        losses, factor = _logit_gradient(block, pairs, chunk.start, gradient=any(wants))
        value += losses.sum()
        if grad_scaled is not None:
            torch.mul(block @ prototypes, factor, out=grad_scaled[part])
        if grad_prototypes is not None:
            weighted = (scaled[part] * factor).to(scaled.dtype)
            _add_product(grad_prototypes, block.T, weighted, first=chunk.start == 0)
    return value, grad_scaled, grad_prototypes


def _even_chunks(count: int, most: int) -> list[range]:
    """Split ``range(count)`` into as few parts of at most ``most`` as there can be, evenly."""
    parts = -(-count // most)
    bounds = [count * i // parts for i in range(parts + 1)] if parts else []
    return [range(start, stop) for start, stop in pairwise(bounds)]


def _add_product(total: Tensor, left: Tensor, right: Tensor, *, first: bool) -> None:
    """Add ``left @ right`` to ``total``, or write it there at first."""
    if left.dtype == total.dtype:
        # beta = 0 ignores what the memory held before, NaN included.
        total.addmm_(left, right, beta=0 if first else 1)
        return
    # A shorter product is widened a slab at a time, so that it is never held whole.
    rows = cache_rows(total.shape[1], total)
    for out, part in zip(torch.split(total, rows), torch.split(left, rows), strict=True):
        product = part @ right
        if first:
            out.copy_(product)
        else:
            out.add_(product)


def _logit_gradient(
    logits: Tensor, pairs: _Pairs, start: int, *, gradient: bool
) -> tuple[Tensor, Tensor]:
    """Turn logits into their gradient, up to a factor per row; return the losses and factors.

    With ``e = exp(logits - max)`` and ``s = sum(e)``, the gradient of a row of weight ``w`` is
    ``w (e / s - q) = (w / s) (e - s q)``. The factor ``w / s`` is left to the narrow side of the
    matrix products, which saves passes over the logits.
    """
    n, k = logits.shape
    wide = torch.promote_types(pairs.weight.dtype, logits.dtype)
    rows = min(cache_rows(k, pairs.weight), n)
    losses, factors = pairs.weight.new_empty(n), pairs.weight.new_empty(n, 1)
    buffer = torch.empty((rows, k), dtype=wide, device=logits.device)
    for lo in range(0, n, rows):
        hi = min(lo + rows, n)
        target, lacking = pairs.mean_target(slice(start + lo, start + hi), buffer[: hi - lo])
        scores = logits[lo:hi].to(wide)
        weight = pairs.weight[start + lo : start + hi]
        agreement = torch.linalg.vecdot(target, scores) * lacking[:, 0]
        top = scores.amax(1, keepdim=True)
        total = scores.sub_(top).exp_().sum(1, keepdim=True)
        losses[lo:hi] = weight * ((top + total.log())[:, 0] - agreement)
        if gradient:
            scores.addcmul_(target, -total * lacking)
            if scores.dtype != logits.dtype:
                logits[lo:hi] = scores
            torch.div(weight[:, None], total, out=factors[lo:hi])
    return losses, factors
