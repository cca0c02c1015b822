"""Values, validity and fill of a source, from a bounded and seeded choice of its windows."""

import math
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.config import DataConfig
from geodino.data.parallel import in_order
from geodino.data.tiles import Part, Tile, TileIndex, read_tile
from geodino.errors import SourceError
from geodino.geo.validity import combine
from geodino.geo.windows import Tiling, Window, super_windows
from geodino.io.raster import HandlePool
from geodino.metrics.moments import Moments, ValueCounts

MAX_PIXELS = 2**24
"""Pixels read at most, unless asked otherwise: 17 million, 256 tiles of 256 x 256."""

MAX_BANDS = 32
"""Bands read at most, evenly spaced: counting the values of one takes up to 4 MiB."""

SOLID = 8
"""Side of a block that counts as fill where it has one value in all bands, pixels."""

_SIDE = 512
"""Side of a window, pixels: smaller than in training, so that more places are seen."""

_WINDOW_BYTES = 16 << 20
"""Size of a decoded window at most."""

_BLOCK_BYTES = 64 << 20
"""Size at most where a window is one huge block, which would be decoded for each part of it."""

_DECODED = 8
"""Pixels decoded at most, for each that may be read: where blocks are larger still, less is read."""

_SAMPLE = 4096
"""Values of a window looked at where an estimate will do."""


@dataclass(slots=True)
class Fill:
    """One value that fills blocks of ``SOLID x SOLID`` pixels in all bands at once."""

    value: float
    blocks: int = 0
    at_edge: int = 0
    """Of these, blocks at the edge of their raster."""

    tiles: int = 0
    """Tiles it occurs in."""

    first: int = -1
    """The first of these tiles."""

    last: int = -1
    """The last of these tiles."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Values:
    """What was read. Per-band values follow ``positions``."""

    positions: tuple[int, ...]
    """Bands that were read: places in ``TileIndex.bands``."""

    counts: ValueCounts
    """How often each valid value occurs."""

    moments: Moments
    """Mean, variance and extremes of valid values."""

    pixels_read: int
    valid: NDArray[np.int64]
    """Valid pixels of each band, then those valid in all, then those valid in any."""

    tile_shares: tuple[float | None, ...]
    """Share of valid pixels of each tile; None for tiles not read."""

    fills: tuple[Fill, ...]
    """Values of solid blocks, the most frequent first."""

    floors: tuple[float, ...]
    """Of each window of whole 16-bit numbers: the smallest 1st percentile of its bands, of the
    values above 0."""

    is_whole: bool
    """Whether all values looked at are whole numbers."""

    bad: dict[str, str] = field(default_factory=dict)
    """Tiles whose pixels could not be read, with the reason."""


@dataclass(frozen=True, slots=True)
class _Part:
    """What one window contributes."""

    tile: int
    pixels: int = 0
    valid: NDArray[np.int64] | None = None
    moments: Moments | None = None
    fill: Sequence[tuple[float, int, int]] = ()
    floor: float | None = None
    is_whole: bool = True
    error: str = ""


def look(
    index: TileIndex,
    config: DataConfig,
    *,
    pixels: int,
    threads: int,
    progress: Callable[[int, int], None] | None = None,
) -> Values:
    """Read windows of a source and count what they hold.

    All windows are read where they have at most ``pixels`` pixels; else a choice by
    ``config.statistics.seed``. The result does not depend on the number of threads.

    Args:
        index: the tiles.
        config: how bands are joined (``valid``), ``statistics.seed``.
        pixels: how many to read at most, about.
        threads: windows read at once.
        progress: told (windows done, windows in all) after each window.
    """
    work = _Work(index, config, pixels)
    bands = len(work.positions)
    valid = np.zeros(bands + 2, dtype=np.int64)
    per_tile = np.zeros((len(index.tiles), 2), dtype=np.int64)
    moments = Moments.empty(bands)
    fills: dict[float, Fill] = {}
    floors: list[float] = []
    bad: dict[str, str] = {}
    is_whole = True
    with (
        HandlePool(config.max_open) as pool,
        closing(
            in_order(lambda w: work.part(pool, int(w)), work.windows, threads=threads)
        ) as parts,
    ):
        for done, part in enumerate(parts, start=1):
            if part.valid is None:
                bad.setdefault(index.tiles[part.tile].path, part.error)
            else:
                valid += part.valid
                per_tile[part.tile] += (
                    part.valid[bands if config.valid == "all" else bands + 1],
                    part.pixels,
                )
                moments = moments if part.moments is None else moments.merge(part.moments)
                is_whole &= part.is_whole
                floors += [] if part.floor is None else [part.floor]
                _add(fills, part)
            if progress is not None:
                progress(done, len(work.windows))
    return Values(
        positions=work.positions,
        counts=work.counts,
        moments=work.counts.moments() if work.counts.is_exact else moments,
        pixels_read=int(per_tile[:, 1].sum()),
        valid=valid,
        tile_shares=tuple(float(used / n) if n else None for used, n in per_tile),
        fills=tuple(sorted(fills.values(), key=lambda fill: (-fill.blocks, fill.value))),
        floors=tuple(floors),
        is_whole=is_whole,
        bad=bad,
    )


def solid_blocks(
    pixels: Shaped[np.ndarray, "c h w"],
    valid: Bool[np.ndarray, "h w"],
    *,
    window: Window,
    height: int,
    width: int,
) -> list[tuple[float, int, int]]:
    """Find blocks of ``SOLID x SOLID`` valid pixels that hold one value in all bands.

    Args:
        pixels: a window of a raster.
        valid: where it may be used; other pixels belong to no block.
        window: where it lies.
        height: rows of the raster.
        width: columns of the raster.

    Returns:
        (value, number of blocks, number of those at the edge of the raster), value by value.
    """
    rows, columns = (n // SOLID for n in pixels.shape[1:])
    if not rows or not columns:
        return []
    corner = pixels[0, ::SOLID, ::SOLID][:rows, :columns]
    # Corners first: few blocks pass, and only those are looked at whole.
    hopeful = valid[::SOLID, ::SOLID][:rows, :columns].copy()
    last = SOLID - 1
    for band in pixels:
        for down, right in ((0, 0), (0, last), (last, 0), (last, last)):
            hopeful &= band[down::SOLID, right::SOLID][:rows, :columns] == corner
    row, column = np.nonzero(hopeful)
    if not row.size:
        return []
    whole = (slice(rows * SOLID), slice(columns * SOLID))
    shape = (-1, rows, SOLID, columns, SOLID)
    blocks = pixels[:, *whole].reshape(shape)[:, row, :, column, :]
    usable = valid[whole].reshape(shape)[0, row, :, column, :].all(axis=(1, 2))
    values = corner[row, column]
    solid = usable & (blocks == values[:, None, None, None]).all(axis=(1, 2, 3))
    top, left = window.top + row * SOLID, window.left + column * SOLID
    edge = (top == 0) | (left == 0)
    edge |= (top + 2 * SOLID > height) | (left + 2 * SOLID > width)
    found, which = np.unique(values[solid], return_inverse=True)
    counts = np.bincount(which, minlength=found.size)
    at_edge = np.bincount(which, weights=edge[solid], minlength=found.size)
    return [(float(v), int(n), int(e)) for v, n, e in zip(found, counts, at_edge, strict=True)]


class _Work:
    """The windows to read, and what is counted in them."""

    def __init__(self, index: TileIndex, config: DataConfig, pixels: int) -> None:
        self._config = config
        self._rule = index.rule
        count = len(index.bands)
        self.positions = tuple(
            int(i) for i in np.unique(np.linspace(0, count - 1, min(count, MAX_BANDS)).round())
        )
        self._tiles = (
            index.tiles
            if len(self.positions) == count
            else tuple(_narrowed(tile, self.positions) for tile in index.tiles)
        )
        dtype = np.dtype(index.dtype)
        pixel_bytes = len(self.positions) * dtype.itemsize
        side = min(_SIDE, math.isqrt(_WINDOW_BYTES // pixel_bytes))
        most = _BLOCK_BYTES // pixel_bytes
        self._tilings = [_tiling(tile, side, most) for tile in index.tiles]
        self._starts = np.concatenate([[0], np.cumsum([len(t) for t in self._tilings])])
        self.windows = self._chosen(index.pixels, pixels)
        self.counts = ValueCounts(index.dtype, len(self.positions))
        self._lock = threading.Lock()

    def _chosen(self, there: int, wanted: int) -> NDArray[np.int64]:
        """Return the numbers of the windows to read, ascending: one drawn of each run of them.

        Windows lie tile by tile, so the choice is spread over the tiles.
        """
        total = int(self._starts[-1])
        decoded = sum(map(_decoded, self._tiles, self._tilings))
        part = min(wanted / there, _DECODED * wanted / decoded)
        if part >= 1:
            return np.arange(total)
        count = max(1, int(total * part))
        edges = np.arange(count + 1) * total // count
        places = seeds.rng(self._config.statistics.seed, "inspection").random(count)
        drawn: NDArray[np.int64] = edges[:-1] + (places * np.diff(edges)).astype(np.int64)
        return drawn

    def part(self, pool: HandlePool, number: int) -> _Part:
        """Read and count one window; runs in a thread."""
        at = int(np.searchsorted(self._starts, number, side="right")) - 1
        tile = self._tiles[at]
        window = self._tilings[at][number - int(self._starts[at])]
        try:
            pixels, valid = read_tile(pool, tile, window, self._rule)
        except SourceError as error:
            return _Part(at, error=str(error))
        every, some = combine(valid, "all"), combine(valid, "any")
        if valid.strides[0] == 0:  # one mask shared by all bands is counted once
            found = [int(np.count_nonzero(every))] * (len(valid) + 2)
        else:
            found = [int(np.count_nonzero(v)) for v in (*valid, every, some)]
        if found[-2] == window.area:
            values = [band.ravel() for band in pixels]
        else:
            # The choice drops invalid values before any arithmetic could see them.
            is_all = self._config.valid == "all"
            pairs = zip(pixels, valid, strict=True)
            values = [band[every if is_all else own] for band, own in pairs]
        with self._lock:  # the counters are large, and counting holds the interpreter anyway
            for band, of_band in enumerate(values):
                self.counts.add(band, of_band)
        fill = solid_blocks(pixels, every, window=window, height=tile.height, width=tile.width)
        return _Part(
            at,
            window.area,
            np.array(found, dtype=np.int64),
            None if self.counts.is_exact else Moments.of(values),
            fill,
            _floor(values),
            pixels.dtype.kind != "f" or all(_is_whole(v) for v in values),
        )


def _add(fills: dict[float, Fill], part: _Part) -> None:
    for value, blocks, at_edge in part.fill:
        fill = fills.setdefault(value, Fill(value, first=part.tile))
        fill.blocks += blocks
        fill.at_edge += at_edge
        fill.tiles += fill.last != part.tile  # windows come tile by tile
        fill.last = part.tile


def _decoded(tile: Tile, tiling: Tiling) -> int:
    """Return how many pixels are decoded when all windows of a tile are read."""
    area = tile.height * tile.width
    block = min(tile.block[0], tile.height) * min(tile.block[1], tile.width)
    return max(area, block * len(tiling))


def _tiling(tile: Tile, side: int, most: int) -> Tiling:
    """Cut a tile into windows: of whole rows where it is stored in strips, else nearly square.

    Windows have about ``side**2`` pixels, or up to ``most`` where a strip has as many.
    """
    rows, columns = tile.block
    if columns < tile.width or tile.width <= 2 * side:
        return super_windows(tile.height, tile.width, block=tile.block, size=side)
    wanted = max(1, side * side // tile.width)
    if rows > 2 * wanted:
        step = max(wanted, min(rows, most // tile.width))
    else:
        step = max(1, wanted // rows) * rows
    return Tiling((*range(0, tile.height, step), tile.height), (0, tile.width))


def _narrowed(tile: Tile, positions: Sequence[int]) -> Tile:
    """Return a tile of which only some bands are read."""
    wanted, first = set(positions), 0
    parts = []
    for part in tile.parts:
        own = [b for i, b in enumerate(part.bands, start=first) if i in wanted]
        first += len(part.bands)
        parts += [Part(part.info, tuple(own))] if own else []
    recoding = tile.recoding
    if recoding is not None:
        recoding = replace(
            recoding,
            gain=tuple(recoding.gain[i] for i in positions),
            bias=tuple(recoding.bias[i] for i in positions),
        )
    return replace(tile, parts=tuple(parts), recoding=recoding)


def _floor(values: Sequence[NDArray[Any]]) -> float | None:
    """Return the smallest 1st percentile of the bands, of some of their values above 0."""
    if values[0].dtype.kind not in "iu" or values[0].dtype.itemsize != 2:
        return None
    found = []
    for band in values:
        some = band[:: max(1, band.size // _SAMPLE)]
        some = some[some > 0]
        if some.size:
            found.append(float(np.percentile(some, 1)))
    return min(found, default=None)


def _is_whole(values: NDArray[Any]) -> bool:
    some = values[:: max(1, values.size // _SAMPLE)]
    return bool((some == np.rint(some)).all())
