"""Flips and quarter turns of a crop with its labels."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodino.tasks.canopy.config import Augment

Move = Callable[[NDArray[Any]], NDArray[Any]]
"""Moves the pixels of an array ``[..., h, w]``."""


def drawn_move(augment: Augment, generator: np.random.Generator) -> Move:
    """Draw how a square crop is flipped and turned; the identity for ``none``."""
    if augment == "none":
        return lambda array: array
    down, across = (bool(generator.integers(2)) for _ in range(2))
    turns = int(generator.integers(2)) if augment == "turns" else 0

    def move(array: NDArray[Any]) -> NDArray[Any]:
        axes = tuple(axis for axis, wanted in ((-2, down), (-1, across)) if wanted)
        flipped = np.flip(array, axes) if axes else array
        return np.ascontiguousarray(np.rot90(flipped, turns, axes=(-2, -1)))

    return move


def moved_places(places: NDArray[np.int64], side: int, move: Move) -> NDArray[np.int64]:
    """Return where pixels (``row * side + column``) of a square crop go."""
    came_from = move(np.arange(side * side).reshape(side, side)).reshape(-1)
    goes_to = np.empty_like(came_from)
    goes_to[came_from] = np.arange(side * side)
    moved: NDArray[np.int64] = goes_to[places]
    return moved
