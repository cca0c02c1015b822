"""Do the borders of chips show in a map?

An eye sees the squares of chips where their levels differ, however smoothly one fades into the
next and however restless each is by itself. So means along a border are compared, over a distance
at which one chip has faded into the other.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from geodino.geo.validity import is_all
from geodino.geo.windows import Window
from geodino.infer.cover import ChipAxis, Cover

_ALONG = 32
"""Pixels along a border whose mean is one side of a difference."""


@dataclass(frozen=True, slots=True)
class SeamSums:
    """Sums of absolute differences between places some pixels apart, and how many there were."""

    across: float = 0.0
    """Between places on both sides of a border, as far apart as half a fade."""

    across_count: int = 0
    within: float = 0.0
    """Between places as far apart that one chip has alone."""

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
    """Compares differences across the borders of chips with those away from them.

    Args:
        cover: the chips.
        window: the part of the map that is measured; its rows come from top to bottom.
    """

    def __init__(self, cover: Cover, window: Window) -> None:
        self._rows = cover.rows
        self._left = window.left
        self._columns = Pairs.of(cover.columns, window.left, window.right)
        self._along = max(1, _ALONG // cover.rows.stride)
        self._next: int | None = None
        self._open: Float[np.ndarray, "2 w"] | None = None
        self._before: Float[np.ndarray, "2 h n"] | None = None
        self.sums = SeamSums()
        """Of the rows that came."""

    def add(
        self, top: int, values: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
    ) -> None:
        """Measure some rows; the first of them is row ``top`` of the map. Some may be left out."""
        if top != self._next:
            self._open = self._before = None
        self._next = top + len(values)
        self.sums = self.sums + self._across(top, values, valid) + self._down(top, values, valid)

    def _across(
        self, top: int, values: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
    ) -> SeamSums:
        """Compare columns, by means of rows; the last of these may go on in the next call."""
        found = _totals(values, valid, top, self._along, axis=0)
        if self._open is not None:
            found[:, 0] += self._open
        is_whole = (top + len(values)) % self._along == 0
        self._open = None if is_whole else found[:, -1].copy()
        return _compared(found if is_whole else found[:, :-1], self._columns, self._along)

    def _down(
        self, top: int, values: Float[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"]
    ) -> SeamSums:
        """Compare rows, by means of columns; the last rows are kept for the next call."""
        found = _totals(values, valid, self._left, self._along, axis=1)
        if self._before is not None:
            found = np.concatenate([self._before, found], axis=1)
        stop = top + len(values)
        pairs = Pairs.of(self._rows, stop - found.shape[1], stop)
        self._before = found[:, -pairs.apart :].copy()
        return _compared(found.swapaxes(1, 2), pairs, self._along)


@dataclass(frozen=True, slots=True)
class Pairs:
    """Places along an axis, each with the one ``apart`` further on."""

    apart: int

    across: Bool[np.ndarray, "n"]
    """Which pairs lie on both sides of a border, its middle between them."""

    within: Bool[np.ndarray, "n"]
    """Which pairs lie where one chip counts alone."""

    @classmethod
    def of(cls, axis: ChipAxis, first: int, stop: int) -> "Pairs":
        """Return the pairs of the places from ``first`` to ``stop - 1``.

        They are half a fade apart: a chip counts for one seventh at the near end of that, and a
        chip that shares half of its side with each neighbour still has as much alone.
        """
        fade = axis.full(1) - axis.first(1) if axis.count > 1 else 0
        apart = fade // 2 + 1
        across, within = np.zeros((2, max(0, stop - first - apart)), dtype=bool)
        for number in axis.touching(first, stop):
            border = axis.first(number) - 1 + (fade + 1 - apart) // 2 - first
            if number and 0 <= border < len(across):
                across[border] = True
            low, high = axis.full(number) - first, axis.first(number + 1) - first
            within[max(0, low) : max(0, high - apart)] = True
        return cls(apart, across, within)


def _totals(
    values: Float[np.ndarray, "h w"],
    valid: Bool[np.ndarray, "h w"],
    first: int,
    every: int,
    *,
    axis: int,
) -> Float[np.ndarray, "2 n m"]:
    """Return sums and numbers of the valid values of each ``every`` places along an axis.

    They are cut at multiples of ``every``, counted from the map's first; ``first`` is where these
    values begin.
    """
    cuts = range(-first % every or every, values.shape[axis], every)
    kept = values if is_all(valid) else np.where(valid, values, np.float32(0))
    # Several times as fast as numpy's reduceat.
    parts = [np.split(part, cuts, axis=axis) for part in (kept, valid)]
    return np.stack([np.stack([one.sum(axis) for one in part], axis) for part in parts])


def _compared(totals: Float[np.ndarray, "2 n m"], pairs: Pairs, whole: int) -> SeamSums:
    """Compare means along the last axis; those of less than half of ``whole`` values do not count."""
    sums, counts = totals
    means, good = sums / np.maximum(counts, 1), 2 * counts >= whole
    both = good[:, pairs.apart :] & good[:, : -pairs.apart]
    steps = np.abs(means[:, pairs.apart :] - means[:, : -pairs.apart])
    total, count = np.where(both, steps, 0.0).sum(axis=0), both.sum(axis=0)
    return SeamSums(
        float(total[pairs.across].sum()),
        int(count[pairs.across].sum()),
        float(total[pairs.within].sum()),
        int(count[pairs.within].sum()),
    )
