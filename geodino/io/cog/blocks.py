"""The pixels that the parts of a map hold, decoded: for files that are no GeoTIFF."""

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodino import files
from geodino.geo.windows import Window
from geodino.io.cog.index import TileIndex
from geodino.io.cog.journal import read_parts, refuse_missing
from geodino.io.cog.layout import Layer, Layout
from geodino.io.cog.parts import job_head
from geodino.io.cog.tiles import TileCodec

_AT_ONCE = 64 << 20
"""Bytes that are decoded at a time, if a row of blocks of one supertile is not more."""


def stored_rows(
    folder: Path,
    layer: Layer,
    *,
    layout: Layout,
    key: Mapping[str, Any],
    allow: Collection[int] = (),
    threads: int = 2,
) -> Iterator[tuple[Window, NDArray[Any]]]:
    """Yield a layer's rows of blocks, some whole supertiles wide; the folder is left as it is.

    They come from top to bottom, and only then those to their right; memory holds one of them at a
    time. Where no supertile was wanted nothing comes; elsewhere all pixels do.

    Args:
        folder: the parts, of any number of shards.
        layer: one of those the parts were written with.
        layout: as the parts were written with.
        key: what the pixels must depend on, as given to the writer.
        allow: supertiles that may be missing: outside the area of interest.
        threads: that decode.

    Raises:
        RunError: a supertile is missing, or the parts are of another job or damaged.
    """
    index, found = TileIndex(layer, layout), set()
    for one, parts in read_parts(folder, job_head(layout, [layer]) | {"key": dict(key)}):
        index.add(one.number, parts[layer.name].runs, index.spool(one.spool))
        found.add(one.number)
    refuse_missing(folder, found, set(range(len(layout))) - set(allow))
    wide = max(1, _AT_ONCE // (layer.pixel_bytes * layout.block * layout.side))
    with ExitStack() as stack:
        stack.enter_context(files.writing(folder))
        index.open(stack)
        pool = stack.enter_context(ThreadPoolExecutor(threads, thread_name_prefix="tiles"))
        for first in range(0, layout.columns, wide):
            stop = min(first + wide, layout.columns)
            for row in range(layout.rows):
                numbers = range(row * layout.columns + first, row * layout.columns + stop)
                if found.isdisjoint(numbers):
                    continue
                for inner in range(layout.block_rows(numbers[0])):
                    left = layout.block_window(numbers[0], inner)
                    right = layout.block_window(numbers[-1], inner).right
                    window = Window(left.top, left.left, left.height, right - left.left)
                    yield window, _decoded(index, layer, layout, window, pool)


def _decoded(
    index: TileIndex, layer: Layer, layout: Layout, window: Window, pool: ThreadPoolExecutor
) -> NDArray[Any]:
    """Decode a row of blocks."""
    codec, block = TileCodec.of(layer, layout.block), layout.block
    row, first = window.top // block, window.left // block
    stop = -(-window.right // block)
    values = np.empty((layer.count, window.height, window.width), dtype=layer.dtype)

    def decode(plane: int, column: int) -> None:
        tile = codec.decode(index.read(0, plane, row, column))
        left = (column - first) * block
        bands = slice(plane * codec.samples, (plane + 1) * codec.samples)
        width = min(block, window.width - left)
        values[bands, :, left : left + width] = tile[:, : window.height, :width]

    places = [(plane, column) for plane in range(layer.planes) for column in range(first, stop)]
    list(pool.map(lambda place: decode(*place), places))
    return values
