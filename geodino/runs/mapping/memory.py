"""How wide a region may be for what memory is allowed."""

import os
from dataclasses import dataclass
from pathlib import Path

from geodino.errors import RunError
from geodino.infer.render import Rendering

_STATUS = Path("/proc/self/status")
_SLACK = 96 << 20
"""For GDAL's block cache and what allocators keep."""


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
    pixel = bands * itemsize + 2  # and the two masks
    side, stride = cover.rows.side, cover.rows.stride
    read = 4 * side * pixel  # a row of chips in use, one ahead, whole blocks around, one as a copy
    strip = 3 * (side // stride) * rendering.predictor.channels * 4
    stored = sum(layer.pixel_bytes for layer in rendering.product.layers)
    blocks = 3 * layout.block * (stored + rendering.predictor.channels * 4)
    per_column = read * stride + strip + blocks
    if rendering.regrid is not None:
        rows, columns = rendering.regrid.down
        source = int(side * rows.step) * 4 * pixel
        per_column = int(per_column / columns.step) + source + blocks
    halo = cover.group * side * (read + strip)
    return Need(fixed=halo + _SLACK, per_column=per_column)


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
