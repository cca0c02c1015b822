"""Pixel windows, and tilings of a raster that respect the blocks it is stored in."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """A rectangle of pixels; rows before columns, half-open: ``[top, top + height)``."""

    top: int
    left: int
    height: int
    width: int

    @property
    def bottom(self) -> int:
        """First row below the window."""
        return self.top + self.height

    @property
    def right(self) -> int:
        """First column right of the window."""
        return self.left + self.width

    @property
    def area(self) -> int:
        """Number of pixels."""
        return self.height * self.width

    @property
    def slices(self) -> tuple[slice, slice]:
        """Row and column slices, to cut the window out of an array ``[..., height, width]``."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    @property
    def corner(self) -> "Window":
        """The first pixel."""
        return Window(self.top, self.left, min(self.height, 1), min(self.width, 1))

    def contains(self, other: "Window") -> bool:
        """Whether every pixel of ``other`` lies inside."""
        return (
            self.top <= other.top
            and self.left <= other.left
            and other.bottom <= self.bottom
            and other.right <= self.right
        )

    def inside(self, outer: "Window") -> "Window":
        """Return the same pixels counted from the corner of ``outer``."""
        return Window(self.top - outer.top, self.left - outer.left, self.height, self.width)


def bounding(windows: Sequence[Window]) -> Window:
    """Return the smallest window that contains all of some windows, at least one."""
    top, left = min(one.top for one in windows), min(one.left for one in windows)
    bottom, right = max(one.bottom for one in windows), max(one.right for one in windows)
    return Window(top, left, bottom - top, right - left)


@dataclass(frozen=True, slots=True)
class Tiling:
    """Windows between row edges and column edges, numbered row by row."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]

    def __len__(self) -> int:
        return (len(self.rows) - 1) * (len(self.columns) - 1)

    def __getitem__(self, number: int) -> Window:
        if not 0 <= number < len(self):
            raise IndexError(number)
        i, j = divmod(number, len(self.columns) - 1)
        top, left = self.rows[i], self.columns[j]
        return Window(top, left, self.rows[i + 1] - top, self.columns[j + 1] - left)

    def __iter__(self) -> Iterator[Window]:
        return (self[number] for number in range(len(self)))


def super_windows(
    height: int, width: int, *, block: tuple[int, int], size: int, least: int = 1
) -> Tiling:
    """Cut a raster into block-aligned windows of about ``size`` pixels a side.

    Every pixel belongs to exactly one window, and inner edges lie on block edges, so each block
    is decoded once. Windows of one axis differ by at most one block, except that none is
    shorter than ``least`` where the raster itself is not (small last windows would otherwise
    hold no chip).

    Args:
        height: rows of the raster.
        width: columns of the raster.
        block: (rows, columns) of a stored block.
        size: wanted side of a window, pixels.
        least: shortest useful side, pixels: the side of a chip.
    """
    return Tiling(
        rows=_edges(height, block=block[0], size=size, least=least),
        columns=_edges(width, block=block[1], size=size, least=least),
    )


def _edges(length: int, *, block: int, size: int, least: int) -> tuple[int, ...]:
    # A strip as long as the raster cannot be cut on its edges without holding all of it: there
    # the memory bound wins, and the blocks are decoded more than once.
    step = block if block <= 2 * size else 1
    blocks = -(-length // step)
    per_window = max(1, round(max(size, least) / step))
    count = -(-blocks // per_window)
    edges = [min(length, (blocks * i // count) * step) for i in range(count)] + [length]
    # The last block of a raster is often cut short; its window may then be of no use alone.
    while len(edges) > 2 and min(b - a for a, b in pairwise(edges)) < least:
        shortest = min(range(len(edges) - 1), key=lambda i: edges[i + 1] - edges[i])
        del edges[shortest if shortest == len(edges) - 2 else shortest + 1]
    return tuple(edges)
