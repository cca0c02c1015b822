"""The order of samples: from a step of a run to chips of tiles, without state.

A *super-window* is a part of a tile, aligned to the blocks of the file, that is decoded once and
cut into several *chips*. An epoch visits every super-window once, in an order of its own, and
cuts from each the same number of chips as in any other epoch. The chips of one super-window are
spread evenly over the ``depth`` visits that follow, so that samples of ``depth`` super-windows
are always mixed, one new super-window is needed per few samples at any time, and no more than
about ``depth`` are ever held in memory. Everything is a function of (seed, sample number):
any step can be computed first, on any number of ranks.

Inside a step samples lie in the order of *lanes*, fixed sixteenths of the super-windows: the rows
of a rank come from the same lanes in every step, hence ranks seldom decode the same super-window.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.cuts import Shapes, axes
from geodino.errors import SourceError
from geodino.geo.windows import Window

_LANES = 16
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, slots=True)
class OrderConfig:
    """What the order depends on beside the tiles."""

    seed: int
    batch: int
    """Samples of a global batch."""
    chip: int
    """Edge of a chip, pixels."""
    super_window: int
    """Edge of a super-window that suits the blocks perfectly, pixels."""
    chips_per_window: int
    """At most this many chips are cut from ``super_window ** 2`` pixels."""
    budget_bytes: int
    """Memory for decoded super-windows. A source that fits into it is kept whole."""


@dataclass(frozen=True, slots=True)
class Draws:
    """Samples of one step: row ``i`` is global sample ``first + i``; all arrays are (samples,)."""

    first: int
    epoch: Ints
    position: Ints
    """Which visit of the epoch."""
    window: Ints
    """Number of the super-window."""
    last: NDArray[np.bool_]
    """True where this is the last chip of the visit in the whole order."""

    def rows(self, start: int, stop: int) -> "Draws":
        """Return the rows ``start`` to ``stop - 1``."""
        part = slice(start, stop)
        return Draws(
            self.first + start,
            self.epoch[part],
            self.position[part],
            self.window[part],
            self.last[part],
        )


class Order:
    """Which chip every sample of a run is.

    Args:
        shapes: the tiles. Those smaller than a chip are left out and counted in ``too_small``.
        config: seed and sizes.

    Raises:
        SourceError: every tile is smaller than the chip.
    """

    def __init__(self, shapes: Shapes, config: OrderConfig) -> None:
        self.config = config
        fits = np.minimum(shapes.height, shapes.width) >= config.chip
        self.too_small = int((~fits).sum())
        if not fits.any():
            raise SourceError(_nothing_fits(shapes, config.chip))
        self._tiles = np.flatnonzero(fits)
        pixels = (shapes.height * shapes.width)[fits]
        # One byte more per pixel for its validity.
        self.source_bytes = int((pixels * (shapes.pixel_bytes[fits] + 1)).sum())
        self.resident = self.source_bytes <= config.budget_bytes
        """True where the whole source is kept: every tile is then one super-window."""
        self._down, self._across = axes(
            shapes,
            fits,
            chip=config.chip,
            super_window=config.super_window,
            whole=self.resident or shapes.chips is not None,
        )
        per_tile = self._down.count * self._across.count
        self._start = np.concatenate([[0], np.cumsum(per_tile)])
        self.windows = int(self._start[-1])
        """Super-windows of the source."""
        if shapes.chips is None:
            self._chips = self._chips_of_windows(per_tile, shapes.weight[fits])
        else:
            self._chips = shapes.chips[fits] * shapes.weight[fits]
        self._one_chip = shapes.chips is not None and not self.resident
        self.samples_per_epoch = max(1, round(float(self._chips.sum())))
        self.depth = self.windows if self.resident else min(self.windows, self._affordable())
        """Super-windows that are mixed with each other at any time."""
        lane = seeds.permuted(np.arange(self.windows), self.windows, config.seed, "lane")
        self._lane = (lane * _LANES // self.windows).astype(np.int8)
        self._epochs: OrderedDict[int, _Epoch] = OrderedDict()

    def step(self, step: int) -> Draws:
        """Return the samples of the global batch of a step."""
        return self.samples(step * self.config.batch, self.config.batch)

    def of_step(self, _step: int, first: int, count: int) -> Draws:
        """Return the samples of a step that has ``count`` from global sample number ``first`` on."""
        return self.samples(first, count)

    def samples(self, first: int, count: int) -> Draws:
        """Return ``count`` samples from global sample number ``first`` on, lane by lane."""
        stop = first + count
        parts = []
        number = first
        while number < stop:
            epoch, offset = divmod(number, self.samples_per_epoch)
            part = self._epoch(epoch).samples(offset, stop - number)
            parts.append(part)
            number += len(part[0])
        epoch_, position, window, last = (np.concatenate(c) for c in zip(*parts, strict=True))
        # Stable: inside a lane samples stay in the order of the mixture.
        rows = np.argsort(self._lane[window], kind="stable")
        return Draws(first, epoch_[rows], position[rows], window[rows], last[rows] != 0)

    def place(self, epoch: int, window: int) -> tuple[int, Window]:
        """Return the tile's number and the place of a super-window in it, in one epoch.

        Of a tile that gives one chip and is not kept only this chip is decoded.
        Inner borders move from epoch to epoch by whole blocks: a chip cannot lie across a border,
        so borders that stayed would leave the pixels beside them unseen for ever.
        """
        row = int(np.searchsorted(self._start, window, side="right")) - 1
        tile, local = int(self._tiles[row]), window - int(self._start[row])
        down, across = divmod(local, int(self._across.count[row]))
        if self._one_chip:
            height, width = int(self._down.length[row]), int(self._across.length[row])
            top, left = _corner(self.config, height, width, "square", epoch, tile)
            return tile, Window(top, left, self.config.chip, self.config.chip)
        key = (self.config.seed, "borders", epoch, tile)
        top, bottom = self._down.span(row, down, (*key, "down"))
        left, right = self._across.span(row, across, (*key, "across"))
        return tile, Window(top, left, bottom - top, right - left)

    def replacement(self, epoch: int, position: int, attempt: int) -> int:
        """Return the super-window to use where that of a visit is dead; ``attempt`` from 1."""
        key = (self.config.seed, "replacement", epoch, position, attempt)
        return seeds.integer(*key) % self.windows

    def corner(self, sample: int, attempt: int, height: int, width: int) -> tuple[int, int]:
        """Return top and left of a sample's chip in a super-window of height x width pixels."""
        return corner(self.config, sample, attempt, height, width)

    def pick(self, sample: int, among: int) -> int:
        """Return one of ``range(among)``, for a sample whose drawn places were all too empty."""
        return pick(self.config, sample, among)

    def keeps(self, _window: int) -> bool:
        """Whether a super-window is kept once it is decoded."""
        return self.resident

    def lanes(self, window: Ints) -> Ints:
        """Return the lanes of super-windows, in whose order the samples of a step lie."""
        return self._lane[window].astype(np.int64)

    def _epoch(self, number: int) -> "_Epoch":
        found = self._epochs.get(number)
        if found is None:
            total = self.samples_per_epoch
            found = _Epoch(number, self._chips, total, self.depth, self.config.seed)
            self._epochs[number] = found
            if len(self._epochs) > 2:
                self._epochs.popitem(last=False)
        return found

    def _chips_of_windows(self, per_tile: Ints, weight: Floats) -> Floats:
        """Return how many chips an epoch cuts from each super-window, on average."""
        tile = np.repeat(np.arange(len(per_tile)), per_tile)
        local = np.arange(self.windows) - self._start[tile]
        across = self._across.count[tile]
        area = self._down.extent(tile, local // across) * self._across.extent(tile, local % across)
        config = self.config
        chips = np.rint(area / config.chip**2)
        if not self.resident:
            most = config.chips_per_window * np.maximum(area / config.super_window**2, 1.0)
            chips = np.minimum(chips, np.floor(most))
        return np.asarray(np.maximum(chips, 1) * weight[tile], dtype=np.float64)

    def _affordable(self) -> int:
        """Super-windows of mean size that fit the memory; fewer than four would not mix at all."""
        return max(4, self.config.budget_bytes * self.windows // self.source_bytes)


class _Epoch:
    """One epoch: its permutation of super-windows, and when each of their chips has its turn.

    A visit at position ``p`` gives its chips ``i = 0 .. k-1`` at the times ``p + i * depth / k``.
    Times are cut into chunks of ``depth``: a chunk holds early chips of its own visits and late
    chips of the visits of the chunk before, in the order of their times, jittered by less than
    the distance of two chips.
    """

    def __init__(self, number: int, chips: Floats, total: int, depth: int, seed: int) -> None:
        self._number, self._depth, self._seed = number, depth, seed
        windows = len(chips)
        key = (seed, "epoch", number)
        window = seeds.permuted(np.arange(windows), windows, *key)
        whole = _rounded(chips[window], total, seeds.rng(seed, "share", number).random())
        # A window whose share is below one chip is visited in some epochs only.
        self._window, self._chips = window[whole > 0], whole[whole > 0]
        windows = len(self._chips)
        offset = np.arange(windows) % depth
        # How many i have offset + i * depth / k < depth: those of the visit's own chunk.
        self._early = -((offset - depth) * self._chips // depth)
        starts = np.arange(0, windows, depth)
        early = np.add.reduceat(self._early, starts)
        late = np.add.reduceat(self._chips - self._early, starts)
        self._first = np.concatenate([[0], np.cumsum(np.append(early, 0) + np.append(0, late))])
        self._chunks: OrderedDict[int, tuple[Ints, NDArray[np.bool_]]] = OrderedDict()

    def samples(self, offset: int, most: int) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
        """Return epoch, position, window, last of up to ``most`` samples from ``offset`` on."""
        number = int(np.searchsorted(self._first, offset, side="right")) - 1
        position, last = self._chunk(number)
        start = offset - int(self._first[number])
        position, last = position[start : start + most], last[start : start + most]
        return np.full(len(position), self._number), position, self._window[position], last

    def _chunk(self, number: int) -> tuple[Ints, NDArray[np.bool_]]:
        found = self._chunks.get(number)
        if found is None:
            late, early = self._visits(number - 1), self._visits(number)
            parts = [part[:, part[3] == is_early] for part, is_early in ((late, 0), (early, 1))]
            position, time, last, _ = np.concatenate(parts, axis=1)
            turn = np.argsort(time, kind="stable")
            found = position[turn].astype(np.int64), last[turn] != 0
            self._chunks[number] = found
            if len(self._chunks) > 2:
                self._chunks.popitem(last=False)
        return found

    def _visits(self, chunk: int) -> NDArray[np.float64]:
        """Return rows (position, time, is the visit's last chip, is early) of a chunk's visits."""
        start = max(chunk, 0) * self._depth
        stop = min((chunk + 1) * self._depth, len(self._chips))
        chips = self._chips[start:stop]
        total = int(chips.sum())
        visit = np.repeat(np.arange(len(chips)), chips)
        index = np.arange(total) - np.repeat(np.cumsum(chips) - chips, chips)
        jitter = seeds.rng(self._seed, "turn", self._number, chunk).random(total)
        time = visit + (index + jitter) * (self._depth / chips[visit])
        early = index < self._early[start:stop][visit]
        return np.stack([visit + start, time + start, index == chips[visit] - 1, early])


def corner(
    config: OrderConfig, sample: int, attempt: int, height: int, width: int
) -> tuple[int, int]:
    """Return top and left of a sample's chip in a super-window of height x width pixels."""
    return _corner(config, height, width, "chip", sample, attempt)


def _corner(config: OrderConfig, height: int, width: int, *key: seeds.Key) -> tuple[int, int]:
    drawn = seeds.integer(config.seed, *key)
    high, low = drawn >> 32, drawn & 0xFFFFFFFF
    chip = config.chip
    return high * (height - chip + 1) >> 32, low * (width - chip + 1) >> 32


def pick(config: OrderConfig, sample: int, among: int) -> int:
    """Return one of ``range(among)``, for a sample whose drawn places were all too empty."""
    return seeds.integer(config.seed, "pick", sample) % among


def _rounded(chips: Floats, total: int, start: float) -> Ints:
    """Round to whole numbers that sum to ``total``, each up or down.

    Systematic sampling (Madow 1949): whole numbers are counted along the running sum from a drawn
    ``start`` in [0, 1), so that on average over starts nothing is rounded.
    """
    if (chips == np.rint(chips)).all():
        return chips.astype(np.int64)
    running = np.cumsum(chips)
    steps = np.floor(running * (total / running[-1]) + start).astype(np.int64)
    steps[-1] = total
    whole: Ints = np.diff(steps, prepend=0)
    return whole


def _nothing_fits(shapes: Shapes, chip: int) -> str:
    if not len(shapes.height):
        return "The source has no readable tile, so there is nothing to cut chips from."
    largest = int(np.argmax(np.minimum(shapes.height, shapes.width)))
    height, width = int(shapes.height[largest]), int(shapes.width[largest])
    return (
        f"The chip of {chip} x {chip} px is larger than every tile: the largest of "
        f"{len(shapes.height)} has {height} x {width} px (height x width). "
        f"Choose a smaller one, such as --set data.chip={min(height, width)}."
    )
