"""The pixels of a raster as rows from top to bottom, read once and ahead of their use."""

import itertools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Shaped

from geodino.geo.validity import is_all
from geodino.geo.windows import Window
from geodino.infer.chips import Pixels, Raster

Wanted = Callable[[Window], Bool[np.ndarray, "h w"]]
"""Tells which pixels of a window are to be predicted."""

_ROWS = 256
"""Least rows that are read at a time."""

_COLUMNS = 2048
"""About how many columns one thread reads at a time."""

_TALL = 2048
"""Blocks higher than this are read in parts: the memory for whole ones would not be bounded."""


def read_at_once(block: tuple[int, int]) -> tuple[int, int]:
    """Return how many rows and columns one thread reads at a time, for blocks of a size."""
    high, wide = block
    rows = 2 * _ROWS if high > _TALL else -(-_ROWS // high) * high
    return rows, -(-_COLUMNS // wide) * wide


@dataclass(frozen=True, slots=True)
class _Part:
    """Some columns of some rows, as read."""

    pixels: Shaped[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"]
    used: Bool[np.ndarray, "h w"]
    is_used: bool
    """Whether all of them are."""


class Feed:
    """Reads the rows of a window with threads, every stored block once, one chip of rows ahead.

    Rows are asked for first, then taken as often as needed, until rows further down are asked for.
    What lies beyond the raster's edge is invalid.

    Args:
        raster: what is read.
        window: the pixels that will be asked for; it may reach over the right and lower edge.
        threads: do the reading.
        wanted: which pixels are to be predicted; None is all. Others are seen, but not predicted.
        keep: rows that stay above the first one asked for last.
    """

    def __init__(
        self,
        raster: Raster,
        window: Window,
        *,
        threads: Executor,
        wanted: Wanted | None = None,
        keep: int = 0,
    ) -> None:
        self._raster = raster
        self._window = window
        self._threads = threads
        self._wanted = wanted
        self._keep = keep
        self._step, self._across = read_at_once(raster.block)
        self._right = min(window.right, raster.grid.width)
        self._bottom = min(window.bottom, raster.grid.height)
        self._reads: dict[int, list[Future[_Part]]] = {}
        self._none: Shaped[np.ndarray, "c 0 0"] = np.zeros((0, 0, 0), dtype=np.uint8)

    def pixels(self, top: int, stop: int) -> Pixels:
        """Return rows ``top`` to ``stop - 1``: stored values, and which of them may be used."""
        parts = self._rows(top, stop)
        if parts:
            self._none = parts[0][1].pixels[:, :0, :0]
        size = stop - top, self._window.width
        is_inside = stop <= self._bottom and self._window.right == self._right
        made = np.empty if is_inside else np.zeros
        pixels = made((len(self._none), *size), dtype=self._none.dtype)
        valid = made(size, dtype=bool)
        for (rows, columns, cut), part in parts:
            pixels[:, rows, columns] = part.pixels[:, cut]
            valid[rows, columns] = part.valid[cut]
        return pixels, valid

    def used(self, top: int, stop: int) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of some rows are valid and wanted."""
        found = np.zeros((stop - top, self._window.width), dtype=bool)
        for (rows, columns, cut), part in self._rows(top, stop):
            found[rows, columns] = part.used[cut]
        return found

    def used_columns(self, top: int, stop: int) -> Bool[np.ndarray, "w"]:
        """Return the columns that hold a valid, wanted pixel in some rows."""
        found = np.zeros(self._window.width, dtype=bool)
        for (_, columns, cut), part in self._rows(top, stop):
            # Columns are slow to look through, and in most parts each pixel is used.
            found[columns] |= part.is_used or part.used[cut].any(axis=0)
        return found

    def ask(self, top: int, stop: int) -> None:
        """Begin to read rows and as many after them; forget those above ``top`` less ``keep``."""
        for number in [n for n in self._reads if (n + 1) * self._step <= top - self._keep]:
            del self._reads[number]
        end = min(self._bottom, 2 * stop - top)
        for number in range((top - min(top, self._keep)) // self._step, -(-end // self._step)):
            if number not in self._reads:
                self._reads[number] = [
                    self._threads.submit(self._read, part) for part in self._parts(number)
                ]

    def _parts(self, number: int) -> list[Window]:
        top = number * self._step
        height = min(self._step, self._raster.grid.height - top)
        edges = [self._window.left]
        while edges[-1] < self._right:
            edges.append(min((edges[-1] // self._across + 1) * self._across, self._right))
        return [
            Window(top, left, height, right - left) for left, right in itertools.pairwise(edges)
        ]

    def _read(self, window: Window) -> _Part:
        pixels, valid = self._raster.read(window)
        used = valid if self._wanted is None else valid & self._wanted(window)
        return _Part(pixels, valid, used, is_all(used))

    def _rows(self, top: int, stop: int) -> list[tuple[tuple[slice, slice, slice], _Part]]:
        """Return the parts of some rows: where they belong, and which of their rows are asked for."""
        found, covered = [], 0
        for number, reads in self._reads.items():
            first = number * self._step
            low, high = max(top, first), min(stop, first + self._step, self._bottom)
            if low >= high:
                continue
            left = 0
            for read in reads:
                part = read.result()
                columns = slice(left, left + part.valid.shape[1])
                place = slice(low - top, high - top), columns, slice(low - first, high - first)
                found.append((place, part))
                left = columns.stop
            covered += high - low
        if covered != max(0, min(stop, self._bottom) - top):
            raise ValueError(f"rows {top} to {stop - 1} were not asked for, or are forgotten")
        return found
