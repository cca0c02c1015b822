"""How wide a region may be for what memory is allowed."""

import os
from dataclasses import dataclass
from pathlib import Path

from geodino.data.loader import default_threads
from geodino.errors import RunError
from geodino.infer.chips import Raster
from geodino.infer.cover import Cover
from geodino.infer.feed import read_at_once
from geodino.infer.ground import RESAMPLED, Regrid
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
        per_part: for each part side by side.
    """

    fixed: int
    per_part: int


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
    pixel = bands * itemsize + 2  # and the two masks
    rows, reading = _reads(rendering.raster, rendering.regrid, pixel=pixel, bands=bands)
    down = across = 1.0
    if rendering.regrid is not None:
        down, across = (axis.step for axis in rendering.regrid.down)
    # Of pixels a row of chips and one ahead are held in whole reads, and three copies: one for
    # the model, one being stored, one about to be. Of values a row of chips four times.
    chips = (_held(2 * side, rows) + 3 * side) * pixel * stride + 4 * (side // stride) * channels
    # Rows of blocks with their overviews and tiles, and the rows that are put into them.
    strip = int(side * down / stride)
    per_column = int(chips / across) + (2 * layout.block + 2 * strip) * stored
    if rendering.regrid is not None:
        per_column += (6 * side + 5 * strip) * channels  # values on their way to the map's grid
        per_column += (_held(2 * strip, read_at_once(rendering.raster.block)[0]) + 3 * strip) * 2
    halo = cover.group * cover.columns.side * chips
    width = min(layout.side, layout.grid.width)
    return Need(fixed=halo + reading + _SLACK, per_part=width * per_column)


def need_of_chips(
    raster: Raster, regrid: Regrid | None, cover: Cover, *, bands: int, itemsize: int
) -> Need:
    """Return what chips of which nothing but their boxes is kept take beside the model.

    Args:
        raster: the pixels, not yet resampled.
        regrid: the model's grid, where it is not the raster's.
        cover: how chips cover that grid; a part is a group of them.
        bands: that are read.
        itemsize: bytes per value.
    """
    pixel = bands * itemsize + 2
    side, columns = cover.rows.side, cover.columns
    rows, reading = _reads(raster, regrid, pixel=pixel, bands=bands)
    # A row of chips and one ahead are held in whole reads, and two copies; a batch also as floats.
    column = (_held(2 * side, rows) + 2 * side) * pixel
    batch = cover.group * side * columns.side * (pixel + 4 * bands)
    return Need(
        fixed=reading + batch + columns.overlap * column + _SLACK,
        per_part=cover.group * (columns.chip - columns.overlap) * column,
    )


def _reads(raster: Raster, regrid: Regrid | None, *, pixel: int, bands: int) -> tuple[int, int]:
    """Return the rows that are read at once, and the bytes of all that threads read at once.

    Args:
        raster: the pixels, not yet resampled.
        regrid: the model's grid, where it is not the raster's.
        pixel: bytes of one.
        bands: that are read.
    """
    rows, columns = read_at_once(raster.block)
    parts = rows * columns * pixel
    if regrid is not None:
        down, across = (axis.step for axis in regrid.down)
        block = max(1, round(raster.block[0] / down)), max(1, round(raster.block[1] / across))
        rows, columns = read_at_once(block)
        parts = int(rows * columns * max(1.0, down * across)) * pixel
        parts += _RESAMPLING * RESAMPLED * bands
    return rows, default_threads() * parts


def _held(rows: int, at_once: int) -> int:
    """Return the rows of the whole reads that some rows lie in, wherever they begin."""
    return (-(-rows // at_once) + 1) * at_once


def columns_for(limit: int, found: Need, *, before: int) -> int:
    """Return how many parts side by side fit in ``limit`` bytes.

    Args:
        limit: bytes the process may hold.
        found: what a region takes.
        before: bytes held already, with the model and one batch computed.

    Raises:
        RunError: not even one fits; it says how much would.
    """
    room = limit - before - found.fixed
    if room < found.per_part:
        least = (before + found.fixed + found.per_part) / 2**20
        raise RunError(
            f"--max-memory {limit / 2**20:,.0f} MiB is too little: {before / 2**20:,.0f} MiB are in "
            f"use with the model loaded, and {least:,.0f} MiB are needed in all. Allow more, or "
            "choose smaller chips (--chip) or batches (--batch)."
        )
    return max(1, room // found.per_part)
