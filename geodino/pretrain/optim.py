"""The optimiser step without a host synchronisation: clip per module, skip what is not finite."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from geodino.config import Config
from geodino.models.param_groups import param_groups
from geodino.models.shards import is_spread, part


class OptimConfig(Config):
    """AdamW as DINOv3 uses it."""

    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the first and second moment; the distilled models use 0.999 for the second."""

    eps: float = Field(default=1e-8, gt=0)
    """Added to the root of the second moment."""

    clip: float = Field(default=30.0, gt=0)
    """Largest gradient norm, for the backbone and each head on its own."""

    layer_decay: float = Field(default=0.98, gt=0, le=1)
    """Factor on the learning rate from one transformer block to the one before it."""

    patch_embed_lr: float = Field(default=0.2, gt=0)
    """Further factor on the learning rate of the patch embedding."""

    max_skipped: int = Field(default=50, ge=1)
    """Stop the run after this many steps in a row whose gradient was not finite."""


def build_optimizer(
    config: OptimConfig, parts: Iterable[tuple[nn.Module, int | None]]
) -> torch.optim.AdamW:
    """Return a fused AdamW over ``parts`` (module, depth for layer-wise decay)."""
    groups = param_groups(
        parts, layer_decay=config.layer_decay, patch_embed_lr=config.patch_embed_lr
    )
    return torch.optim.AdamW(groups, lr=0.0, betas=config.betas, eps=config.eps, fused=True)


def set_rates(
    optimizer: torch.optim.Optimizer, *, lr: float, weight_decay: float, last_layer_lr: float
) -> None:
    """Write this step's learning rate and weight decay into every group, by its multipliers."""
    for group in optimizer.param_groups:
        base = last_layer_lr if group["last_layer"] else lr
        group["lr"] = base * group["lr_multiplier"]
        group["weight_decay"] = weight_decay * group["wd_multiplier"]


def clip_per_module(modules: Sequence[nn.Module], *, max_norm: float) -> Float[Tensor, " m"]:
    """Scale each module's gradients to a norm of at most ``max_norm``; return the norms before.

    The norms stay on the device. A norm that is not finite leaves gradients that are not finite:
    :func:`step_if_finite` then skips the step. Gradients that are spread over processes have the
    norm of the whole: all processes call this together.
    """
    if any(is_spread(p) for module in modules for p in module.parameters()):
        return _clip_spread(modules, max_norm=max_norm)
    norms = []
    for module in modules:
        with_grad = [p for p in module.parameters() if p.grad is not None]
        norm = nn.utils.get_total_norm([p.grad for p in with_grad if p.grad is not None])
        nn.utils.clip_grads_with_norm_(with_grad, max_norm, norm)
        norms.append(norm)
    return torch.stack(norms)


@torch.no_grad()
def _clip_spread(modules: Sequence[nn.Module], *, max_norm: float) -> Float[Tensor, " m"]:
    """The same for parameters of which each process holds a part: one sum over the processes."""
    parts = [
        [part(p.grad) for p in module.parameters() if p.grad is not None] for module in modules
    ]
    squares = torch.stack([nn.utils.get_total_norm(grads).square() for grads in parts])
    dist.all_reduce(squares)
    norms = squares.sqrt()
    for grads, norm in zip(parts, norms, strict=True):
        torch._foreach_mul_(grads, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norms


def step_if_finite(
    optimizer: Any, inner: torch.optim.Optimizer, norms: Tensor
) -> Float[Tensor, ""]:
    """Step, unless a gradient norm is not finite; return 1.0 on the device if it was skipped.

    The decision stays on the device: fused AdamW reads ``found_inf`` itself and leaves weights,
    moments and its step counter as they were.

    Args:
        optimizer: what is stepped (Lightning's wrapper, or ``inner`` itself).
        inner: the fused optimiser that reads ``found_inf``.
        norms: gradient norms from :func:`clip_per_module`.
    """
    skipped = (~torch.isfinite(norms).all()).to(torch.float32)
    inner.found_inf = skipped  # type: ignore[attr-defined]
    optimizer.step()
    return skipped
