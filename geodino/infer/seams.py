"""Do the borders of chips show in a map?"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from geodino.geo.windows import Window
from geodino.infer.cover import ChipAxis, Cover

_EVERY = 16
"""Of the pixels along a border one in so many is looked at, and as many away from it."""


@dataclass(frozen=True, slots=True)
class SeamSums:
    """Sums of absolute differences between neighbouring pixels, and how many there were."""

    across: float = 0.0
    """Between neighbours that two chips share in different parts: where one fades into the next."""

    across_count: int = 0
    within: float = 0.0
    """Between neighbours that one chip has alone."""

    within_count: int = 0

    def __add__(self, other: "SeamSums") -> "SeamSums":
        """Return the sums of both."""
        return SeamSums(
            self.across + other.across,
            self.across_count + other.across_count,
            self.within + other.within,
            self.within_count + other.within_count,
        )

    @property
    def score(self) -> float | None:
        """Mean difference across the borders of chips over that within: 1 where none shows.

        None where there is no border, or nothing changes within a chip.
        """
        if self.across_count == 0 or self.within == 0.0:
            return None
        across, within = self.across / self.across_count, self.within / self.within_count
        return across / within


class SeamMeter:
    """Compares the differences of neighbouring pixels at and away from the borders of chips.

    Args:
        cover: the chips.
        window: the part of the map that is measured; its rows come from top to bottom.
    """

    def __init__(self, cover: Cover, window: Window) -> None:
        self._rows = cover.rows
        self._left = window.left
        self._columns = shared(cover.columns, window.left, window.right)
        self._before: tuple[np.ndarray, np.ndarray] | None = None
        self.sums = SeamSums()
        """Of the rows that came."""

    def add(
        self, top: int, values: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
    ) -> None:
        """Measure some rows; the first of them is row ``top`` of the map."""
        along = np.arange(top, top + len(values)) % _EVERY == 0
        self.sums = self.sums + _compared(values[along], valid[along], self._columns)
        columns = slice(-self._left % _EVERY, None, _EVERY)
        down, kept = values[:, columns].T, valid[:, columns].T
        stop = top + len(values)
        if self._before is not None:
            down = np.concatenate([self._before[0], down], axis=1)
            kept = np.concatenate([self._before[1], kept], axis=1)
            top -= 1
        self.sums = self.sums + _compared(down, kept, shared(self._rows, top, stop))
        self._before = down[:, -1:].copy(), kept[:, -1:].copy()


def shared(axis: ChipAxis, first: int, stop: int) -> Bool[np.ndarray, "n"]:
    """Return whether each place and the one before it, from ``first + 1`` on, straddle a border."""
    found = np.zeros(stop - first, dtype=bool)
    for number in axis.touching(first, stop):
        # Without overlap chips meet between two places; these two straddle the border.
        low, high = axis.first(number) - first, axis.full(number) - first
        if number:
            found[max(0, low) : max(0, high + 1)] = True
    return found[1:]


def _compared(
    values: Float[np.ndarray, "n m"],
    valid: Bool[np.ndarray, "n m"],
    borders: Bool[np.ndarray, "m1"],
) -> SeamSums:
    both = valid[:, 1:] & valid[:, :-1]
    steps = np.where(both, np.abs(np.diff(values, axis=1)), 0.0).sum(axis=0, dtype=np.float64)
    counts = both.sum(axis=0)
    return SeamSums(
        float(steps[borders].sum()),
        int(counts[borders].sum()),
        float(steps[~borders].sum()),
        int(counts[~borders].sum()),
    )
