"""Some of what a model can be judged on, where all of it would take too long."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from geodino import seeds

T = TypeVar("T")


def drawn(items: Sequence[T], count: int, *, seed: int) -> tuple[T, ...]:
    """Return at most ``count`` of the items, drawn by seed, in their order."""
    if len(items) <= count:
        return tuple(items)
    some = seeds.rng(seed, "areas").permutation(len(items))[:count]
    return tuple(items[i] for i in np.sort(some).tolist())
