"""What the run cards of all tasks share: what learns, how long it takes, what was decided."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from geodino.models.backbone import Backbone
from geodino.models.build import assemble
from geodino.models.headed import HeadedModel
from geodino.runs.card import clock, duration_s, forward_flops
from geodino.runs.finetune.config import FinetuneConfig
from geodino.runs.finetune.prepared import PreparedFinetune
from geodino.runs.memory import in_words


def model_line(prepared: PreparedFinetune[Any]) -> str:
    """Name the backbone, and say whether it learns."""
    how = "learns" if prepared.config.optim.unfreeze else "frozen"
    return f"{prepared.opened.name} ({prepared.opened.loaded.config.name}), backbone {how}"


def weights_line(model: HeadedModel) -> str:
    """Say how many weights there are, and how many learn, which may be a few thousand."""
    learnt, whole = _weights(model)
    return f"{learnt / 1e6:.3f} of {whole / 1e6:.1f} M weights learn"


def cost_lines(
    config: FinetuneConfig,
    model: HeadedModel,
    *,
    flops: float,
    kept: int,
    device: torch.device,
    each: str = "a crop",
) -> dict[str, str]:
    """Say how long the steps take and what memory must hold at least.

    Args:
        config: the recipe.
        model: what learns.
        flops: of a step for one sample.
        kept: numbers that a step holds beside the weights.
        device: where it computes.
        each: what a sample is.
    """
    learnt, whole = _weights(model)
    fast, slow = (
        clock(s) for s in duration_s(flops * config.train.batch * config.train.steps, device)
    )
    return {
        "device": str(device),
        "time": f"about {fast if fast == slow else f'{fast} to {slow}'} of steps "
        f"({flops / 1e9:.1f} GFLOP {each}), and validation",
        "memory": f"at least {in_words(round(4.0 * (whole + 3 * learnt + kept)))}",
    }


def step_flops(
    prepared: PreparedFinetune[Any],
    crop: int,
    build: Callable[[Backbone], HeadedModel],
    forward: Callable[[Any, Tensor], Any] = lambda model, image: model(image),
) -> float:
    """Return the floating-point operations of a step for one crop, counted on the meta device.

    Forward through all, backward (twice as much) through what learns.

    Args:
        prepared: the run.
        crop: side, pixels.
        build: puts the head on a backbone without weights.
        forward: runs the model on images.
    """
    loaded = prepared.opened.loaded
    bands = len(loaded.contract.bands)
    backbone = assemble(loaded.config, mean=(0.0,) * bands, std=(1.0,) * bands)
    twin = build(backbone).to("meta").eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        forward(twin, torch.empty(1, bands, crop, crop, device="meta"))
    whole = float(counter.get_total_flops())
    below = forward_flops(loaded.config, loaded.contract, crop)
    return 3 * whole if prepared.config.optim.unfreeze else 3 * whole - 2 * below


def notes_of(prepared: PreparedFinetune[Any]) -> list[str]:
    """Return what was decided on the way, as sentences."""
    derived = [f"{key} = {d['value']}: {d['reason']}" for key, d in prepared.derived.items()]
    return [*prepared.notes, *derived]


def _weights(model: HeadedModel) -> tuple[int, int]:
    """How many learn, and how many there are."""
    learnt = sum(p.numel() for p in model.parameters() if p.requires_grad)
    return learnt, sum(p.numel() for p in model.parameters())
