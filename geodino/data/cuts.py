"""How tiles are cut into super-windows: parts that suit the blocks of a file and hold whole chips."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.fit import fitted_size
from geodino.data.tiles import Tile, TileIndex

_WIDEST = 4
"""A super-window may be this many times longer than asked where the file's blocks demand it."""

_LONGEST_RUN = 16
"""The same for the columns of far tiles: a block is fetched whole, so none of it is left unused."""

_DECODED_WHOLE = frozenset({"JPEG", "PNG", "WEBP", "GIF"})

Ints = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Shapes:
    """Sizes of all tiles, one row a tile, in pixels."""

    height: Ints
    width: Ints
    block_height: Ints
    """Rows that decode together; the tile's height where the whole file does."""
    block_width: Ints
    pixel_bytes: Ints
    """Bytes of one decoded pixel in all bands."""
    weight: NDArray[np.float64]
    """Share of the chips of its area that a tile gives; below 1 where others cover its ground."""
    far: NDArray[np.bool_] | None = None
    """True for tiles behind a network; None where none is."""
    chips: Ints | None = None
    """1 for each tile that gives one chip an epoch and is not divided; None: all give as many as
    their area holds."""


def shapes_of(index: TileIndex, *, chip: int | None = None) -> Shapes:
    """Return the sizes of the tiles of an index, in its order, as samples of ``chip`` see them.

    A photograph is as large as it is once fitted to the chip (:mod:`geodino.data.fit`).

    Raises:
        ValueError: the tiles are photographs, and no chip is given.
    """
    are_images = any(tile.is_image for tile in index.tiles)
    if are_images and chip is None:
        raise ValueError("the size of a fitted photograph depends on the chip")
    rows = [(t.height, t.width, *_block(t)) for t in index.tiles]
    if are_images and chip is not None:
        rows = [2 * fitted_size(t.height, t.width, chip) for t in index.tiles]
    height, width, block_height, block_width = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    dtype = np.dtype(index.dtype)
    # 64-bit floats are kept as 32-bit ones.
    stored = 4 if dtype == np.float64 else dtype.itemsize
    return Shapes(
        height=height,
        width=width,
        block_height=block_height,
        block_width=block_width,
        pixel_bytes=np.full(len(rows), len(index.bands) * stored),
        weight=np.array([t.weight for t in index.tiles]),
        # The chunks of a zarr store are objects of their own, whatever lies beside them.
        far=np.array([t.is_far and t.base.driver != "Zarr" for t in index.tiles]),
        chips=np.ones(len(rows), dtype=np.int64) if are_images else None,
    )


def _block(tile: Tile) -> tuple[int, int]:
    """Return what decodes together: GDAL reports rows for formats that only decode from the top."""
    base = tile.base
    return (tile.height, tile.width) if base.driver in _DECODED_WHOLE else base.block


@dataclass(frozen=True, slots=True)
class Axis:
    """How one axis of every tile is cut: ``count`` parts of ``step``, the last of another size."""

    length: Ints
    step: Ints
    unit: Ints
    """Borders lie on multiples of this."""
    count: Ints
    chip: int

    def extent(self, tile: Ints, part: Ints) -> Ints:
        """Return the size of parts before borders are moved."""
        inner = (self.count[tile] - 1) * self.step[tile]
        is_last = part == self.count[tile] - 1
        return np.where(is_last, self.length[tile] - inner, self.step[tile])

    def replaced(self, where: NDArray[np.bool_], by: "Axis") -> "Axis":
        """Return the cuts of ``by`` for some tiles, and these for the others."""
        step, unit, count = (
            np.where(where, getattr(by, name), getattr(self, name))
            for name in ("step", "unit", "count")
        )
        return Axis(self.length, step, unit, count, self.chip)

    def span(self, tile: int, part: int, key: tuple[int | str, ...]) -> tuple[int, int]:
        """Return start and stop of a part, its borders moved together by the key's draw."""
        length, step = int(self.length[tile]), int(self.step[tile])
        unit, count = int(self.unit[tile]), int(self.count[tile])
        if count == 1:
            return 0, length
        rest = length - (count - 1) * step
        back = min(step - self.chip, step // 2) // unit
        forth = min(rest - self.chip, step // 2) // unit
        moved = (seeds.integer(*key) % (back + forth + 1) - back) * unit
        start = part * step + moved if part else 0
        stop = (part + 1) * step + moved if part < count - 1 else length
        return start, stop


def axes(
    shapes: Shapes, fits: NDArray[np.bool_], *, chip: int, super_window: int, whole: bool
) -> tuple[Axis, Axis]:
    """Choose the cuts of all tiles along the rows (first) and the columns (second)."""
    height, width = shapes.height[fits], shapes.width[fits]
    wanted = np.full(len(height), super_window, dtype=np.int64)
    if whole:
        one = np.ones_like(height)
        return (
            Axis(height, height, one, one, chip),
            Axis(width, width, one, one, chip),
        )
    block_height, block_width = shapes.block_height[fits], shapes.block_width[fits]
    most = _WIDEST * super_window
    across = _axis(width, block_width, wanted, chip, most)
    # Wide strips: fewer rows, for about the same number of pixels.
    rows = np.where(across.step > wanted, wanted**2 // across.step, wanted)
    down = _axis(height, block_height, rows, chip, most)
    # What GDAL decodes from the top only is fetched whole, whatever its shape.
    far = (shapes.far[fits] if shapes.far is not None else False) & (block_height < height)
    if not far.any():
        return down, across
    # Blocks follow each other along a row, and from a row to the next only where it is whole: the
    # fewest rows that hold a chip are fetched by the fewest requests, one a row and band sequence.
    few = _axis(height, block_height, np.full_like(wanted, chip), chip, most)
    long = _axis(width, block_width, wanted**2 // few.step, chip, _LONGEST_RUN * super_window)
    rows = np.where(long.count == 1, wanted**2 // long.step, few.step)
    run = _axis(height, block_height, rows, chip, most)
    return down.replaced(far, run), across.replaced(far, long)


def _axis(length: Ints, block: Ints, wanted: Ints, chip: int, most: int) -> Axis:
    wanted = np.maximum(wanted, chip)
    unit = np.where(block <= np.minimum(most, length), block, 1)
    blocks = np.maximum(np.rint(wanted / unit).astype(np.int64), -(-chip // unit))
    step = np.minimum(blocks * unit, length)
    # Blocks as long as the tile decode whole anyway, so as much of them is used as memory allows.
    step = np.where(block >= np.minimum(length, most), np.minimum(length, most), step)
    count = np.maximum(np.rint(length / step).astype(np.int64), 1)
    count -= (count > 1) & (length - (count - 1) * step < chip)
    return Axis(length, step, unit, count, chip)
