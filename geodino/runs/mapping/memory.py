"""How wide a region may be for what memory is allowed."""

import os
from dataclasses import dataclass
from pathlib import Path

from geodino.data.loader import default_threads
from geodino.errors import RunError
from geodino.infer.feed import read_at_once
from geodino.infer.ground import RESAMPLED
from geodino.infer.render import Rendering

_STATUS = Path("/proc/self/status")
_SLACK = 96 << 20
"""For GDAL's block cache and what allocators keep."""

_RESAMPLING = 6 * 8
"""Bytes per band of a pixel that is being resampled: float64, six times."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes a region takes.

    Args:
        fixed: whatever its width.
        per_column: for each column of the map.
    """

    fixed: int
    per_column: int


def used_memory() -> int:
    """Return the most bytes this process has held so far; 0 where the system does not tell."""
    if not _STATUS.exists():
        return 0
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


def default_limit() -> int:
    """Return half of the machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def need(rendering: Rendering, *, bands: int, itemsize: int) -> Need:
    """Return what rendering takes beside the model: rows of pixels, of chips, and of blocks."""
    cover, layout = rendering.cover, rendering.layout
    side, stride = cover.rows.side, cover.rows.stride
    channels = 4 * rendering.predictor.channels
    stored = sum(layer.pixel_bytes for layer in rendering.product.layers)
    block = rendering.raster.block
    pixel = bands * itemsize + 2  # and the two masks
    rows, columns = read_at_once(block)
    parts = rows * columns * pixel
    down = across = 1.0
    if rendering.regrid is not None:
        down, across = (axis.step for axis in rendering.regrid.down)
        block = max(1, round(block[0] / down)), max(1, round(block[1] / across))
        rows, columns = read_at_once(block)
        parts = int(rows * columns * max(1.0, down * across)) * pixel
        parts += _RESAMPLING * RESAMPLED * bands
    # Of pixels a row of chips and one ahead are held in whole reads, and three copies: one for
    # the model, one being stored, one about to be. Of values a row of chips four times.
    chips = (_held(2 * side, rows) + 3 * side) * pixel * stride + 4 * (side // stride) * channels
    # Rows of blocks with their overviews and tiles, and the rows that are put into them.
    strip = int(side * down / stride)
    per_column = int(chips / across) + (2 * layout.block + 2 * strip) * stored
    if rendering.regrid is not None:
        per_column += (6 * side + 5 * strip) * channels  # values on their way to the map's grid
        per_column += (_held(2 * strip, read_at_once(rendering.raster.block)[0]) + 3 * strip) * 2
    if rendering.raster.parts:
        parts *= 2  # the rasters of a mosaic are read one at a time, and put into one window
    halo = cover.group * cover.columns.side * chips
    return Need(fixed=halo + default_threads() * parts + _SLACK, per_column=per_column)


def _held(rows: int, at_once: int) -> int:
    """Return the rows of the whole reads that some rows lie in, wherever they begin."""
    return (-(-rows // at_once) + 1) * at_once


def columns_for(limit: int, rendering: Rendering, found: Need, *, before: int) -> int:
    """Return how many supertiles side by side fit in ``limit`` bytes.

    Args:
        limit: bytes the process may hold.
        rendering: whose layout tells how wide a supertile is.
        found: what a region takes.
        before: bytes held already, with the model and one batch computed.

    Raises:
        RunError: not even one fits; it says how much would.
    """
    layout = rendering.layout
    width = min(layout.side, layout.grid.width)
    one = width * found.per_column
    room = limit - before - found.fixed
    if room < one:
        least = (before + found.fixed + one) / 2**20
        raise RunError(
            f"--max-memory {limit / 2**20:,.0f} MiB is too little: {before / 2**20:,.0f} MiB are in "
            f"use with the model loaded, and {least:,.0f} MiB are needed in all. Allow more, or "
            "choose smaller chips (--chip) or batches (--batch)."
        )
    return max(1, room // one)
