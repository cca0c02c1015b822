"""How heads are learnt, and judged while they are: what recipes of all tasks share."""

import math
from typing import Literal

from pydantic import Field

from geodino.config import Config


class HeadOptimConfig(Config):
    """AdamW with a linear warm-up and then a schedule."""

    lr: float = Field(default=1e-4, gt=0)
    """Learning rate of the head after the warm-up."""

    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the first and second moment."""

    weight_decay: float = Field(default=1e-3, ge=0)
    """Decoupled weight decay; biases and norms have none."""

    warmup: float = Field(default=0.06, ge=0, lt=1)
    """Share of the steps in which the rate rises from 0. CHMv2: 6,000 of 100,000."""

    schedule: Literal["cosine", "poly", "steps"] = "cosine"
    """How the rate falls after the warm-up: half a cosine to 0; ``poly``, the remaining share of
    the steps to the power ``power``; or ``steps``, to a tenth at each of ``milestones``."""

    power: float = Field(default=1.0, gt=0)
    """Of the schedule ``poly``."""

    milestones: tuple[float, ...] = (8 / 12, 11 / 12)
    """Of the schedule ``steps``: shares of the run."""

    clip: float = Field(default=1.0, gt=0)
    """Largest gradient norm, for the head and the backbone each on its own."""

    unfreeze: bool = False
    """Whether the backbone learns as well."""

    backbone_lr: float = Field(default=0.1, gt=0)
    """Factor on the learning rate of a backbone that learns."""

    layer_decay: float = Field(default=0.75, gt=0, le=1)
    """Further factor from one block of such a backbone to the one before it."""

    max_skipped: int = Field(default=50, ge=1)
    """Stop the run after this many steps in a row whose gradient was not finite."""


class ValidationConfig(Config):
    """How the head is judged while it learns."""

    every: int = Field(default=500, ge=1)
    """Steps between two looks at the validation ground."""

    areas: int = Field(default=64, ge=1)
    """At most so many areas of it are predicted each time, drawn once; the results at the end are
    over all of them."""

    patience: int = Field(default=8, ge=1)
    """Stop after this many looks in a row without a better score."""


def rate_at(optim: HeadOptimConfig, step: int, steps: int) -> float:
    """Return the head's learning rate at ``step`` (from 0) of ``steps``."""
    warmup = round(optim.warmup * steps)
    if step < warmup:
        return optim.lr * (step + 1) / (warmup + 1)
    if optim.schedule == "steps":
        passed = sum(step >= share * steps for share in optim.milestones)
        return float(optim.lr * 0.1**passed)
    done = (step - warmup) / max(steps - warmup, 1)
    if optim.schedule == "poly":
        return float(optim.lr * (1.0 - done) ** optim.power)
    return optim.lr * 0.5 * (1.0 + math.cos(math.pi * done))
