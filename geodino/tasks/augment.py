"""Flips and quarter turns of a square crop, with everything that lies in it."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64
from numpy.typing import NDArray

Augment = Literal["none", "flips", "turns"]
"""Nothing; flips along both axes; or flips and quarter turns."""


@dataclass(frozen=True, slots=True)
class Move:
    """How a square crop is mirrored, then turned by 90 degrees against the clock."""

    down: bool = False
    across: bool = False
    quarter: bool = False

    @classmethod
    def drawn(cls, augment: Augment, generator: np.random.Generator) -> "Move":
        """Draw one; what is not asked for is not done."""
        down, across, quarter = (bool(generator.integers(2)) for _ in range(3))
        flips = augment != "none"
        return cls(flips and down, flips and across, augment == "turns" and quarter)

    def pixels(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return an array ``[..., h, w]`` moved."""
        axes = tuple(axis for axis, wanted in ((-2, self.down), (-1, self.across)) if wanted)
        flipped = np.flip(array, axes) if axes else array
        return np.ascontiguousarray(np.rot90(flipped, int(self.quarter), axes=(-2, -1)))

    def places(self, places: Int64[np.ndarray, " n"], side: int) -> Int64[np.ndarray, " n"]:
        """Return where pixels, given as ``row * side + column``, lie in the moved crop."""
        came_from = self.pixels(np.arange(side * side).reshape(side, side)).reshape(-1)
        goes_to = np.empty_like(came_from)
        goes_to[came_from] = np.arange(side * side)
        moved: Int64[np.ndarray, " n"] = goes_to[places]
        return moved

    def boxes(self, xyxy: Float32[np.ndarray, "n 4"], side: int) -> Float32[np.ndarray, "n 4"]:
        """Return boxes (left, top, right, bottom) as they lie in the moved crop."""
        left, top, right, bottom = xyxy.T
        if self.down:
            top, bottom = side - bottom, side - top
        if self.across:
            left, right = side - right, side - left
        if self.quarter:
            left, top, right, bottom = top, side - right, bottom, side - left
        return np.stack([left, top, right, bottom], axis=1).astype(np.float32)
