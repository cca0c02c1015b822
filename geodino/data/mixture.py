"""Many sources in one order: which source every sample of a run comes from, without state.

Each source keeps an :class:`~geodino.data.order.Order` of its own and gives its samples in that
order, none left out. A step is *mixed*: each of its samples comes from a source drawn by weight;
or *homogeneous*: all of its samples come from one source. Both choices are laid out ahead in
blocks that hold every kind exactly as often as its share says, so that how many samples a source
gave before any step is counted, not remembered: any step can be computed first.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.cuts import Shapes, shapes_of
from geodino.data.order import Draws, Ints, Order, OrderConfig, corner, pick
from geodino.data.tiles import TileIndex
from geodino.errors import SourceError
from geodino.geo.windows import Window

STEPS = 1_000
"""Steps of a block: shares of homogeneous steps are multiples of one thousandth."""

SAMPLES = 100_000
"""Samples of a block: shares of sources are multiples of one hundred-thousandth."""

_MIXED = 0

Span = Callable[[int], tuple[int, int]]
"""Step -> number of its first sample, and how many it has."""


@dataclass(frozen=True, slots=True)
class Part:
    """A source in a mixture."""

    order: Order
    """The samples of the source, drawn with a seed of its own."""

    tiles: Ints
    """Numbers of its tiles in the index of the mixture, in the order of ``order``'s tiles."""

    weight: float
    """Share of the samples of mixed steps, relative to the other parts."""

    homogeneous: bool = False
    """Whether homogeneous steps may be of this source."""


class Mixture:
    """Which chip every sample of a run is, where there are many sources; see :class:`Order`.

    Args:
        parts: the sources, all with the same chip.
        config: seed, batch and chip of the run.
        homogeneous: share of the steps whose whole batch comes from one source; that source is
            drawn by its weight among those that allow it.
        span: number of the first sample of a step, and how many samples it has, a function of the
            step alone; None: every step has ``config.batch``.
        origin: step and sample from which on samples are counted. Before it, every source is taken
            to have given its share.

    Raises:
        ValueError: homogeneous steps are asked for and no part allows them.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        config: OrderConfig,
        *,
        homogeneous: float = 0.0,
        span: Span | None = None,
        origin: tuple[int, int] = (0, 0),
    ) -> None:
        weights = np.array([part.weight for part in parts], dtype=np.float64)
        pure = weights * [part.homogeneous for part in parts]
        if homogeneous > 0 and not pure.any():
            raise ValueError("homogeneous steps need a source that allows them")
        self.parts = tuple(parts)
        self.config = config
        self.too_small = sum(part.order.too_small for part in parts)
        self.source_bytes = sum(part.order.source_bytes for part in parts)
        steps = [1.0 - homogeneous, *(homogeneous * pure / max(float(pure.sum()), 1e-300))]
        self._steps = Blocks(steps, STEPS, (config.seed, "mixture", "steps"))
        self._samples = Blocks(list(weights), SAMPLES, (config.seed, "mixture", "samples"))
        self.shares: tuple[float, ...] = tuple(
            float(self._steps.shares[_MIXED] * mixed + alone)
            for mixed, alone in zip(self._samples.shares, self._steps.shares[1:], strict=True)
        )
        """Share of all samples of a run that each part gives."""
        self._windows = np.cumsum([0, *(part.order.windows for part in parts)])
        self._span, self._origin = span, origin
        self._given = None if span is None else _Given(self._steps, len(steps), span, origin[0])
        self._offsets = np.array([int(origin[1] * share) for share in self.shares], dtype=np.int64)
        """Samples that each part is taken to have given before the origin."""

    @property
    def samples_per_epoch(self) -> int:
        """Samples after which every part gave all of its chips at least once, on average."""
        needed = [
            part.order.samples_per_epoch / share
            for part, share in zip(self.parts, self.shares, strict=True)
            if share > 0
        ]
        return max(1, round(max(needed)))

    def homogeneous(self, step: int) -> int | None:
        """Return the part that all samples of a step come from; None for a mixed step."""
        kind = self._steps.at(step)
        return None if kind == _MIXED else kind - 1

    def step(self, step: int) -> Draws:
        """Return the samples of the global batch of a step."""
        batch = self.config.batch
        first, count = (step * batch, batch) if self._span is None else self._span(step)
        return self.of_step(step, first, count)

    def of_step(self, step: int, first: int, count: int) -> Draws:
        """Return the samples of a step, ``count`` from global sample number ``first`` on.

        Both must be what ``span`` says of the step.
        """
        before = self._before(step)
        mixed, alone = int(before[_MIXED]), before[1:]
        given = self._offsets + alone + self._samples.counts(mixed)
        only = self.homogeneous(step)
        if only is None:
            wanted = self._samples.counts(mixed + count) - self._samples.counts(mixed)
        else:
            wanted = np.bincount([only], weights=[count], minlength=len(self.parts))
        drawn = [
            (number, part.order.samples(int(start), int(some)))
            for number, (part, start, some) in enumerate(
                zip(self.parts, given, wanted, strict=True)
            )
            if some
        ]
        return self._joined(first, drawn)

    def place(self, epoch: int, window: int) -> tuple[int, Window]:
        """Return the tile's number and the place of a super-window in it; see :class:`Order`."""
        part, epoch, window = self._local(epoch, window)
        tile, place = part.order.place(epoch, window)
        return int(part.tiles[tile]), place

    def replacement(self, epoch: int, position: int, attempt: int) -> int:
        """Return the super-window, of the same part, to use where that of a visit is dead."""
        number = epoch % len(self.parts)
        found = self.parts[number].order.replacement(epoch // len(self.parts), position, attempt)
        return int(self._windows[number]) + found

    def keeps(self, window: int) -> bool:
        """Whether a super-window is kept once it is decoded."""
        number = int(np.searchsorted(self._windows, window, side="right")) - 1
        return self.parts[number].order.resident

    def corner(self, sample: int, attempt: int, height: int, width: int) -> tuple[int, int]:
        """Return top and left of a sample's chip in a super-window of height x width pixels."""
        return corner(self.config, sample, attempt, height, width)

    def pick(self, sample: int, among: int) -> int:
        """Return one of ``range(among)``, for a sample whose drawn places were all too empty."""
        return pick(self.config, sample, among)

    def _local(self, epoch: int, window: int) -> tuple[Part, int, int]:
        number = epoch % len(self.parts)
        return self.parts[number], epoch // len(self.parts), window - int(self._windows[number])

    def _before(self, step: int) -> Ints:
        """Return the samples of the steps from the origin on, by kind: mixed, then of each part."""
        if self._given is not None:
            return self._given.before(step)
        return (self._steps.counts(step) - self._steps.counts(self._origin[0])) * self.config.batch

    def _joined(self, first: int, drawn: Sequence[tuple[int, Draws]]) -> Draws:
        """Lay the samples of several parts lane by lane; visits and windows get global numbers."""
        parts = len(self.parts)
        lane = np.concatenate([self.parts[n].order.lanes(d.window) for n, d in drawn])
        # Stable: inside a lane parts follow each other, and samples of a part stay in its order.
        rows = np.argsort(lane, kind="stable")
        return Draws(
            first,
            np.concatenate([d.epoch * parts + n for n, d in drawn])[rows],
            np.concatenate([d.position for _, d in drawn])[rows],
            np.concatenate([d.window + self._windows[n] for n, d in drawn])[rows],
            np.concatenate([d.last for _, d in drawn])[rows],
        )


def mixture_of(
    index: TileIndex,
    config: OrderConfig,
    *,
    span: Span | None = None,
    origin: tuple[int, int] = (0, 0),
) -> Mixture:
    """Build the order of samples over the members of a mix.

    Memory goes to small sources first, so that those are kept whole that can be. Every source
    draws with a seed made of its name: another source beside it does not change its samples.

    Args:
        index: with members.
        config: of the run.
        span: see :class:`Mixture`.
        origin: likewise.

    Raises:
        SourceError: every tile of a member is smaller than the chip.
    """
    sources = np.array([tile.source for tile in index.tiles])
    shapes = [shapes_of(index.part(m.name), chip=config.chip) for m in index.members]
    parts = []
    for member, of, budget in zip(
        index.members, shapes, _budgets(shapes, config.budget_bytes), strict=True
    ):
        seed = seeds.integer(config.seed, "source", member.name) >> 1
        try:
            order = Order(of, replace(config, seed=seed, budget_bytes=budget))
        except SourceError as error:
            raise SourceError(f"Source {member.name} of the mix: {error}") from error
        tiles = np.flatnonzero(sources == member.name)
        parts.append(Part(order, tiles, member.weight, member.homogeneous))
    return Mixture(parts, config, homogeneous=index.homogeneous, span=span, origin=origin)


def _budgets(shapes: Sequence[Shapes], budget: int) -> list[int]:
    """Share memory out: what a source needs, or an equal part of what smaller ones left."""
    needs = [int((s.height * s.width * (s.pixel_bytes + 1)).sum()) for s in shapes]
    out = [0] * len(needs)
    for done, number in enumerate(sorted(range(len(needs)), key=needs.__getitem__)):
        out[number] = min(needs[number], budget // (len(needs) - done))
        budget -= out[number]
    return out


class Blocks:
    """An endless sequence of kinds in which every block holds each kind equally often.

    Inside a block the items of a kind are spread evenly and jittered by less than their distance,
    so any stretch of the sequence holds kinds nearly by their shares.

    Args:
        shares: of each kind, in any unit; rounded to whole items of a block, and at least one
            where a share is above zero.
        size: items of a block.
        key: of the jitter.
    """

    def __init__(self, shares: Sequence[float], size: int, key: tuple[seeds.Key, ...]) -> None:
        self._size, self._key = size, key
        self._counts = _whole(np.asarray(shares, dtype=np.float64), size)
        self.shares = self._counts / size
        """Of each kind, after rounding; they sum to 1."""
        self._block = lru_cache(maxsize=3)(self._laid_out)

    def at(self, number: int) -> int:
        """Return the kind of an item."""
        block, offset = divmod(number, self._size)
        return int(self._block(block)[0][offset])

    def counts(self, number: int) -> Ints:
        """Return how many items of each kind come before an item."""
        block, offset = divmod(number, self._size)
        return np.asarray(block * self._counts + self._block(block)[1][offset], dtype=np.int64)

    def _laid_out(self, block: int) -> tuple[Ints, NDArray[np.int32]]:
        """Return the kinds of a block, and how many of each come before each of its items."""
        kinds = np.repeat(np.arange(len(self._counts)), self._counts)
        index = np.arange(self._size) - (np.cumsum(self._counts) - self._counts)[kinds]
        jitter = seeds.rng(*self._key, block).random(self._size)
        turn = np.argsort((index + jitter) / self._counts[kinds], kind="stable")
        kinds = kinds[turn]
        before = np.zeros((self._size + 1, len(self._counts)), dtype=np.int32)
        before[np.arange(1, self._size + 1), kinds] = 1
        return kinds, np.cumsum(before, axis=0, dtype=np.int32)


class _Given:
    """Samples by kind of step where steps differ in size: running sums, block by block."""

    def __init__(self, steps: Blocks, kinds: int, span: Span, origin: int) -> None:
        self._steps, self._kinds, self._span, self._origin = steps, kinds, span, origin
        self._starts = [np.zeros(kinds, dtype=np.int64)]
        self._within = lru_cache(maxsize=2)(self._summed)

    def before(self, step: int) -> Ints:
        """Return the samples that the steps from the origin on gave, by kind of step."""
        block, offset = divmod(step - self._origin, STEPS)
        while len(self._starts) <= block:
            self._starts.append(self._starts[-1] + self._within(len(self._starts) - 1)[-1])
        within: Ints = self._within(block)[offset]
        return self._starts[block] + within

    def _summed(self, block: int) -> Ints:
        first = self._origin + block * STEPS
        steps = range(first, first + STEPS)
        sums = np.zeros((STEPS + 1, self._kinds), dtype=np.int64)
        kinds = [self._steps.at(step) for step in steps]
        sums[np.arange(1, STEPS + 1), kinds] = [self._span(step)[1] for step in steps]
        return np.asarray(np.cumsum(sums, axis=0), dtype=np.int64)


def _whole(shares: NDArray[np.float64], total: int) -> Ints:
    """Round shares to whole numbers that sum to ``total``, by largest remainders."""
    exact = shares * (total / shares.sum())
    whole = np.where(shares > 0, np.maximum(np.floor(exact), 1), 0).astype(np.int64)
    rest = exact - whole
    for _ in range(abs(total - int(whole.sum()))):
        change = 1 if whole.sum() < total else -1
        # Of what must be taken away, most goes where most is too much; no kind vanishes.
        able = rest if change > 0 else np.where(whole > 1, -rest, -np.inf)
        at = int(np.argmax(np.where(shares > 0, able, -np.inf)))
        whole[at] += change
        rest[at] -= change
    return whole
