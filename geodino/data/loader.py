"""From an order of samples to batches: threads decode super-windows once and cut chips from them.

GDAL and numpy release the interpreter's lock while they decode and copy, so threads suffice and
nothing is ever sent between processes. Batches come in the order of their steps, whatever thread
finished first, and depend on (seed, step) alone.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int32, Shaped
from numpy.typing import NDArray

from geodino.data.batch import Batch
from geodino.data.dates import Companions
from geodino.data.mixture import Mixture
from geodino.data.order import Draws, Order
from geodino.data.parallel import thread_count
from geodino.errors import SourceError
from geodino.geo.windows import Window

ReadWindow = Callable[[int, Window], tuple[NDArray[Any], NDArray[np.bool_]]]
"""(tile number, window) -> (stored pixels [c h w], valid [h w]); SourceError if unreadable."""

PlanOf = Callable[[int, int, NDArray[np.bool_]], Any]
"""(step, first global sample number, valid [b h w]) -> what becomes ``Batch.plan``."""

TRIES = 8
"""Places drawn for a chip before the best-covered one is looked for."""

_STEPS = 8
"""Places per chip edge that are looked at where drawing places did not help."""

REPLACEMENTS = 32
"""Super-windows tried in the place of a dead one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoaderConfig:
    """How batches are made, beside their order."""

    min_valid: float
    """Share of valid pixels a chip should have, 0 to 1."""
    threads: int
    """Threads that decode."""
    prefetch: int
    """Batches made ahead."""
    strict: bool = False
    """Whether an unreadable file ends the run, instead of being reported and replaced."""
    pin_memory: bool = False
    """Page-locked batches, which copy to a CUDA device without waiting."""


@dataclass(slots=True)
class Counts:
    """What a loader did so far; read it at any time."""

    decoded: int = 0
    """Super-windows decoded."""
    dead: int = 0
    """Super-windows without a valid pixel, replaced by others."""
    unreadable: int = 0
    """Super-windows that could not be read, replaced by others."""
    wait_s: float = 0.0
    """Seconds the consumer waited for batches."""
    bad_tiles: dict[int, str] = field(default_factory=dict)
    """Tile number -> why it could not be read."""


@dataclass(slots=True)
class _SuperWindow:
    """A decoded super-window, its dates below each other; ``valid`` None: every pixel is valid."""

    tile: int
    place: Window
    pixels: Shaped[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"] | None
    ground: Bool[np.ndarray, "h1 w1"] | None
    """Where a chip may be placed: ``valid`` of one date; pixels valid at all dates of several."""
    sums: Int32[np.ndarray, "h2 w2"] | None = None
    """Valid pixels above and left of each corner; made only where drawing places did not help."""


_Entry = _SuperWindow | Future[_SuperWindow]


class Loader(AbstractContextManager["Loader"]):
    """Makes the batches of one rank, from any step on.

    Args:
        order: which chip every sample is.
        read_window: reads pixels and validity of a window of a tile; called from many threads.
        config: threads, prefetch and what to do with gaps.
        rank: which consecutive share of every global batch is made.
        world: into how many shares the global batch is cut.
        plan_of: draws what else a step needs, from the validity of its chips; called in the
            background, possibly for several steps at once.
        span: the number of a step's first sample, and how many samples its global batch has; None
            for steps of ``order.config.batch``.
        companions: which further tiles are read at the window of a tile (see
            :mod:`geodino.data.dates`); their chips lie below its own in ``Batch.pixels``.
        on_bad: told once for each unreadable tile: its number and the reason. Must not raise.

    Use it as a context manager, or ``close()`` it; threads of an abandoned loader end by
    themselves after the work they have.
    """

    def __init__(
        self,
        order: Order | Mixture,
        read_window: ReadWindow,
        config: LoaderConfig,
        *,
        rank: int = 0,
        world: int = 1,
        plan_of: PlanOf | None = None,
        span: Callable[[int], tuple[int, int]] | None = None,
        companions: Companions | None = None,
        on_bad: Callable[[int, str], None] | None = None,
    ) -> None:
        self.order = order
        self.config = config
        self.counts = Counts()
        self._rank, self._world = rank, world
        self._span = span or self._equal_span
        self._read_window = read_window
        self._plan_of = plan_of
        self._companions = companions
        self._on_bad = on_bad
        # Of a source that fits into memory: super-windows decoded, or being decoded now.
        self._kept: dict[int, Future[_SuperWindow | None]] = {}
        self._lock = threading.Lock()
        self._decoders = ThreadPoolExecutor(config.threads, thread_name_prefix="geodino-decode")
        # Batches are put together by threads of their own: they wait for those that decode.
        self._makers = ThreadPoolExecutor(
            min(2, config.prefetch), thread_name_prefix="geodino-batch"
        )

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all threads; work that has not begun is dropped."""
        for pool in (self._makers, self._decoders):
            pool.shutdown(wait=False, cancel_futures=True)
        for pool in (self._makers, self._decoders):
            pool.shutdown(wait=True)
        self._kept.clear()

    def batches(self, step: int = 0, stop: int | None = None) -> Iterator[Batch]:
        """Yield the batches of the steps from ``step`` on, up to before ``stop`` or for ever.

        Raises:
            SourceError: an unreadable file with ``strict``, or no usable pixel could be found.
        """
        waiting: deque[Future[Batch]] = deque()
        entries: dict[tuple[int, int], _Entry] = {}
        try:
            while True:
                while len(waiting) < self.config.prefetch and (stop is None or step < stop):
                    waiting.append(self._schedule(step, entries))
                    step += 1
                if not waiting:
                    return
                began = time.perf_counter()
                batch = waiting.popleft().result()
                self.counts.wait_s += time.perf_counter() - began
                yield batch
        finally:
            for future in waiting:
                future.cancel()
            for entry in entries.values():
                if isinstance(entry, Future):
                    entry.cancel()

    def _schedule(self, step: int, entries: dict[tuple[int, int], _Entry]) -> Future[Batch]:
        """Start the work of a step; ``entries`` holds the super-windows that later steps share."""
        first, count = self._span(step)
        if count % self._world:
            raise ValueError(f"a batch of {count} cannot be cut into {self._world} shares")
        draws, share = self.order.of_step(step, first, count), count // self._world
        mine = draws.rows(self._rank * share, (self._rank + 1) * share)
        visits = list(zip(mine.epoch.tolist(), mine.position.tolist(), strict=True))
        for visit, window in zip(visits, mine.window.tolist(), strict=True):
            if visit not in entries:
                kept = self._kept.get(window)
                ready = kept.result() if kept is not None and kept.done() else None
                entries[visit] = ready or self._decoders.submit(self._visit, *visit, window)
        used = [entries[visit] for visit in visits]
        # The batch keeps what it uses; a visit whose last chip has been handed out ends here.
        ended = zip(
            draws.epoch[draws.last].tolist(), draws.position[draws.last].tolist(), strict=True
        )
        for visit in ended:
            entries.pop(visit, None)
        return self._makers.submit(self._make, step, mine, used)

    def _equal_span(self, step: int) -> tuple[int, int]:
        batch = self.order.config.batch
        return step * batch, batch

    def _make(self, step: int, draws: Draws, used: list[_Entry]) -> Batch:
        """Cut the chips of a batch; runs in the background."""
        done = [e.result() if isinstance(e, Future) else e for e in used]
        chip, pin = self.order.config.chip, self.config.pin_memory
        bands, dates = done[0].pixels.shape[0], self._dates(done[0])
        dtype = torch.from_numpy(np.empty(0, dtype=done[0].pixels.dtype)).dtype
        rows = dates * chip
        pixels = torch.empty((len(done), bands, rows, chip), dtype=dtype, pin_memory=pin)
        valid = torch.empty((len(done), rows, chip), dtype=torch.bool, pin_memory=pin)
        # numpy copies in this thread alone; torch would wake the threads that training uses.
        pixels_out, valid_out = pixels.numpy(), valid.numpy()
        source = []
        for row, of in enumerate(done):
            top, left = self._corner(of, draws.first + row)
            across = slice(left, left + chip)
            for date in range(dates):
                start = date * of.place.height + top
                down, to = slice(start, start + chip), slice(date * chip, (date + 1) * chip)
                pixels_out[row, :, to] = of.pixels[:, down, across]
                valid_out[row, to] = True if of.valid is None else of.valid[down, across]
            source.append((of.tile, Window(of.place.top + top, of.place.left + left, chip, chip)))
        plan = None if self._plan_of is None else self._plan_of(step, draws.first, valid_out)
        return Batch(
            step=step,
            first=draws.first,
            pixels=pixels,
            valid=valid,
            source=tuple(source),
            plan=plan,
        )

    def _corner(self, of: _SuperWindow, sample: int) -> tuple[int, int]:
        """Return top and left of a sample's chip, with enough valid pixels where there are any."""
        order, chip = self.order, self.order.config.chip
        height, width = of.place.height, of.place.width
        if of.ground is None:
            return order.corner(sample, 0, height, width)
        # At least one: a chip without a valid pixel teaches nothing, whatever is asked.
        enough = max(1.0, self.config.min_valid * chip * chip)
        for attempt in range(TRIES):
            top, left = order.corner(sample, attempt, height, width)
            if np.count_nonzero(of.ground[top : top + chip, left : left + chip]) >= enough:
                return top, left
        # What is valid is a small part: look where, on a grid of places that misses no pixel.
        if of.sums is None:
            of.sums = _sum_table(of.ground)
        tops, lefts = (_grid(size - chip, chip // _STEPS) for size in (height, width))
        counts = _counts(of.sums, tops[:, None], lefts[None, :], chip)
        good = np.flatnonzero(counts >= min(enough, counts.max()))
        down, across = divmod(int(good[order.pick(sample, len(good))]), len(lefts))
        return int(tops[down]), int(lefts[across])

    def _visit(self, epoch: int, position: int, window: int) -> _SuperWindow:
        """Decode the super-window of a visit, or the first usable one of its replacements."""
        reason = ""
        for attempt in range(REPLACEMENTS + 1):
            if attempt:
                window = self.order.replacement(epoch, position, attempt)
            tile, place = self.order.place(epoch, window)
            if self.order.keeps(window):
                found = self._decode_once(window, tile, place)
            else:
                found = self._decode(tile, place, epoch)
            if found is not None:
                return found
        with self._lock:
            bad = dict(self.counts.bad_tiles)
        if bad:
            reason = f" {len(bad)} tiles could not be read; the first: {next(iter(bad.values()))}"
        raise SourceError(
            f"No usable pixel was found: {REPLACEMENTS + 1} parts of tiles, drawn one after the "
            f"other, hold none that is valid.{reason} Look at the source with `geodino inspect`; "
            "a wrong nodata tag or alpha band can be overruled by data.nodata and data.alpha."
        )

    def _decode_once(self, window: int, tile: int, place: Window) -> _SuperWindow | None:
        """Decode what is kept from then on; a thread that comes too early waits for the first."""
        mine: Future[_SuperWindow | None] = Future()
        kept = self._kept.setdefault(window, mine)
        if kept is mine:
            try:
                mine.set_result(self._decode(tile, place, 0))
            except BaseException as error:
                mine.set_exception(error)
                raise
        return kept.result()

    def _read(self, tile: int, place: Window) -> tuple[NDArray[Any], NDArray[np.bool_]] | None:
        try:
            return self._read_window(tile, place)
        except SourceError as error:
            if self.config.strict:
                raise
            self._report(tile, str(error))
            return None

    def _decode(self, tile: int, place: Window, epoch: int) -> _SuperWindow | None:
        """Read a super-window with invalid pixels at 0; None where nothing in it can be used."""
        others = () if self._companions is None else self._companions(epoch, tile)
        found = [self._read(number, place) for number in (tile, *others)]
        read = [part for part in found if part is not None]
        if len(read) < len(found):
            return None
        if others:
            pixels = np.concatenate([part[0] for part in read], axis=1)
            valid = np.concatenate([part[1] for part in read])
        else:
            pixels, valid = read[0]
        whole = bool(valid.flat[0]) if valid.strides == (0, 0) else bool(valid.all())
        if not whole:
            if not valid.any():
                with self._lock:
                    self.counts.dead += 1
                return None
            valid = np.ascontiguousarray(valid)
            pixels = np.require(pixels, requirements=["C", "W"])
            np.copyto(pixels, 0, where=~valid)
        if pixels.dtype == np.float64:
            pixels = pixels.astype(np.float32)
        with self._lock:
            self.counts.decoded += 1
        ground = None if whole else _ground(valid, 1 + len(others))
        return _SuperWindow(tile, place, pixels, None if whole else valid, ground)

    @staticmethod
    def _dates(of: _SuperWindow) -> int:
        return int(of.pixels.shape[1] // of.place.height)

    def _report(self, tile: int, reason: str) -> None:
        with self._lock:
            self.counts.unreadable += 1
            known = tile in self.counts.bad_tiles
            self.counts.bad_tiles.setdefault(tile, reason)
        if self._on_bad is not None and not known:
            self._on_bad(tile, reason)


def _ground(valid: Bool[np.ndarray, "h w"], dates: int) -> Bool[np.ndarray, "h1 w1"]:
    """Where chips may be placed: pixels valid at all dates, or at any where there is none."""
    if dates == 1:
        return valid
    by_date = valid.reshape(dates, -1, valid.shape[1])
    common: NDArray[np.bool_] = np.logical_and.reduce(by_date, axis=0)
    some: NDArray[np.bool_] = np.logical_or.reduce(by_date, axis=0)
    return common if common.any() else some


def _sum_table(valid: Bool[np.ndarray, "h w"]) -> Int32[np.ndarray, "h1 w1"]:
    sums = np.zeros((valid.shape[0] + 1, valid.shape[1] + 1), dtype=np.int32)
    np.cumsum(valid, axis=0, dtype=np.int32, out=sums[1:, 1:])
    np.cumsum(sums[1:, 1:], axis=1, out=sums[1:, 1:])
    return sums


def _counts(
    sums: Int32[np.ndarray, "h1 w1"], top: NDArray[np.int64], left: NDArray[np.int64], size: int
) -> NDArray[np.int32]:
    """Count the valid pixels of squares by their corners (Crow 1984, "Summed-area tables")."""
    bottom, right = top + size, left + size
    counts: NDArray[np.int32] = (
        sums[bottom, right] - sums[top, right] - sums[bottom, left] + sums[top, left]
    )
    return counts


def _grid(last: int, step: int) -> NDArray[np.int64]:
    """Return 0, step, 2 step, ... and ``last``."""
    return np.append(np.arange(0, last, max(step, 1)), last)


def default_threads() -> int:
    """Return how many threads decode local files where nothing is said."""
    return thread_count("auto")
