"""Where the tiles of a map lie, in which spool, and how they are copied from there."""

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from geodino.errors import RunError
from geodino.io.cog.journal import FRAME, Run
from geodino.io.cog.layout import Layer, Layout


class TileIndex:
    """Spool, place and size of every tile of a layer, level by level."""

    def __init__(self, layer: Layer, layout: Layout) -> None:
        self._layout = layout
        self._planes = layer.planes
        shapes = [(layer.planes, *layout.tiles(level)) for level in range(layout.levels + 1)]
        self.sizes = [np.zeros(shape, dtype=np.uint32) for shape in shapes]
        """Compressed bytes ``[plane, row, column]`` of each level; 0: not stored."""
        self._starts = [np.zeros(shape, dtype=np.int64) for shape in shapes]
        self._files = [np.zeros(shape, dtype=np.uint16) for shape in shapes]
        self._spools: dict[Path, int] = {}
        self._opened: list[int] = []

    def spool(self, path: Path) -> int:
        """Return the number of a spool, a new one where it was not heard of."""
        return self._spools.setdefault(path, len(self._spools))

    def add(self, number: int, runs: Sequence[Run], spool: int) -> None:
        """Take in the tiles of a supertile."""
        for run in runs:
            row, column = self._layout.corner(number, run.level)
            sizes = np.array(run.sizes, dtype=np.int64).reshape(self._planes, -1)
            self.put(run.level, (0, row + run.row, column), sizes, run.start, spool)

    def put(
        self, level: int, at: tuple[int, int, int], sizes: NDArray[np.int64], start: int, spool: int
    ) -> None:
        """Take in tiles ``[planes, columns]`` that lie one behind another from ``start`` on."""
        taken = np.where(sizes > 0, sizes + FRAME, 0)
        starts = start + (np.cumsum(taken) - taken.ravel()).reshape(taken.shape)
        plane, row, column = at
        planes, columns = sizes.shape
        place = slice(plane, plane + planes), row, slice(column, column + columns)
        self.sizes[level][place] = sizes
        self._starts[level][place] = starts
        self._files[level][place] = spool

    def open(self, stack: ExitStack) -> None:
        """Open all spools, until ``stack`` is left."""
        for path in self._spools:
            handle = stack.enter_context(path.open("rb", buffering=0))
            self._opened.append(handle.fileno())

    def lend(self, handle: IO[bytes]) -> int:
        """Let tiles be read from one more file, that the caller opened; return its number."""
        self._opened.append(handle.fileno())
        return self.spool(Path("overviews"))

    def read(self, level: int, plane: int, row: int, column: int) -> bytes:
        """Return a compressed tile; nothing where it is not stored. Threads may read at once."""
        at = level, plane, row, column
        size = int(self.sizes[level][at[1:]])
        return self._extent(at, size + FRAME)[4 : 4 + size] if size else b""

    def copied(self, level: int) -> Iterator[bytes]:
        """Yield the tiles of a level in the order of the file, with what stands around each.

        Tiles that lie one behind another in a spool come as one.
        """
        for plane in range(self._planes):
            for row in range(self.sizes[level].shape[1]):
                sizes = self.sizes[level][plane, row].astype(np.int64)
                columns = np.flatnonzero(sizes)
                if columns.size == 0:
                    continue
                starts = self._starts[level][plane, row, columns]
                files = self._files[level][plane, row, columns]
                ends = starts + sizes[columns] + FRAME
                apart = (starts[1:] != ends[:-1]) | (files[1:] != files[:-1])
                for group in np.split(np.arange(columns.size), np.flatnonzero(apart) + 1):
                    length = int(ends[group[-1]] - starts[group[0]])
                    yield self._extent((level, plane, row, int(columns[group[0]])), length)

    def _extent(self, at: tuple[int, int, int, int], length: int) -> bytes:
        level, place = at[0], at[1:]
        start, file = int(self._starts[level][place]), int(self._files[level][place])
        data = b""
        while len(data) < length:  # the system may give less than it is asked for
            more = os.pread(self._opened[file], length - len(data), start + len(data))
            if not more:
                break
            data += more
        if len(data) < length or int.from_bytes(data[:4], "little") != self.sizes[level][place]:
            raise RunError(
                f"{list(self._spools)[file]} is damaged: no tile of {self.sizes[level][place]:,} bytes "
                f"stands at byte {start:,}. Remove its folder and repeat the job."
            )
        return data
