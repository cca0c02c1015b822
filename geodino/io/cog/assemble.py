"""From the parts of a map to its file: compressed tiles are copied, none is encoded twice."""

import tempfile
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from jaxtyping import Shaped

from geodino import files
from geodino.io.cog.index import TileIndex
from geodino.io.cog.journal import frame, read_parts, refuse_missing
from geodino.io.cog.layout import Layer, Layout
from geodino.io.cog.parts import job_head, tiles_of
from geodino.io.cog.reduce import Pyramid
from geodino.io.cog.template import described
from geodino.io.cog.tiff import container
from geodino.io.cog.tiles import TileCodec
from geodino.io.metadata import Point
from geodino.metrics.moments import Moments


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembled:
    """What came out."""

    moments: Moments | None
    """Of the valid pixels of each band; None where the layer takes none."""

    bytes: int
    """Size of the file."""


def assemble(
    folder: Path,
    path: Path,
    layer: Layer,
    *,
    layout: Layout,
    tags: Mapping[str, str] | None = None,
    area_or_point: Point = "Area",
    key: Mapping[str, Any] | None = None,
    allow: Collection[int] = (),
    threads: int = 2,
    big: bool | None = None,
) -> Assembled:
    """Write one layer as a cloud-optimised GeoTIFF; the folder is left as it is.

    The bytes of the file depend on the pixels and on what is said of them only: not on shards,
    on the order supertiles came in, or on interruptions.

    Args:
        folder: the parts, of any number of shards.
        path: the file; written beside it and renamed.
        layer: one of those the parts were written with; descriptions, units, scales, offsets and
            colours may differ from then, what is stored may not.
        layout: as the parts were written with.
        tags: of the file.
        area_or_point: what a pixel stands for, as in the source.
        key: what the pixels must depend on, as given to the writer; None takes the parts as they
            are, if the shards agree.
        allow: supertiles that may be missing: outside the area of interest; they are nodata.
        threads: that compress overviews.
        big: BigTIFF or not; None decides by size.

    Raises:
        RunError: a supertile is missing, the parts are of another job or damaged, or the file
            cannot be written.
    """
    head = job_head(layout, [layer]) | ({} if key is None else {"key": dict(key)})
    index, by_number = TileIndex(layer, layout), {}
    for one, parts in read_parts(folder, head):
        index.add(one.number, parts[layer.name].runs, index.spool(one.spool))
        by_number[one.number] = parts[layer.name].moments
    refuse_missing(folder, by_number, set(range(len(layout))) - set(allow))
    moments = _merged(layer, [by_number[number] for number in sorted(by_number)])
    fields = described(
        layer, layout.grid, tags=tags or {}, area_or_point=area_or_point, moments=moments
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        stack.enter_context(files.writing(path))
        index.open(stack)
        upper = stack.enter_context(tempfile.TemporaryFile(dir=path.parent))
        _make_upper(layer, layout, index, upper, threads)
        whole = container(layout, fields, index.sizes, big=big)
        with files.replacing(path) as temporary, temporary.open("wb") as target:
            target.write(whole.head)
            for level in reversed(range(layout.levels + 1)):
                target.writelines(index.copied(level))
    return Assembled(moments=moments, bytes=whole.size)


def _merged(layer: Layer, parts: Iterable[Moments | None]) -> Moments | None:
    """Merge in the order of the supertiles: floating sums would differ in another."""
    if not layer.statistics:
        return None
    moments = Moments.empty(layer.count)
    for part in parts:
        if part is not None:
            moments = moments.merge(part)
    return moments


def _make_upper(
    layer: Layer, layout: Layout, index: TileIndex, upper: IO[bytes], threads: int
) -> None:
    """Make the overviews that cross supertiles, from the highest level all supertiles have.

    Bands that lie apart are taken one after another, so that a thousand need no more memory.
    """
    base = layout.inner
    if base == layout.levels:
        return
    codec = TileCodec.of(layer, layout.block)
    end, spool = 0, index.lend(upper)
    with ThreadPoolExecutor(threads, thread_name_prefix="overviews") as pool:
        for plane in range(layer.planes):
            pyramid = Pyramid(
                layer,
                block=layout.block,
                size=layout.size(base),
                levels=layout.levels - base,
            )
            for row in range(layout.tiles(base)[0]):
                values = _row(layout, index, codec, plane, row, pool)
                for level, small_row, small in pyramid.push(values):
                    tiles = list(pool.map(codec.encode, tiles_of(small, codec)))
                    sizes = np.array([[len(tile) for tile in tiles]])
                    index.put(base + level, (plane, small_row, 0), sizes, end, spool)
                    end += upper.write(b"".join(map(frame, tiles)))
    upper.flush()


def _row(
    layout: Layout,
    index: TileIndex,
    codec: TileCodec,
    plane: int,
    row: int,
    pool: ThreadPoolExecutor,
) -> Shaped[np.ndarray, "c h w"]:
    """Decode one row of blocks of the highest level that all supertiles have."""
    height, width = layout.size(layout.inner)
    columns = layout.tiles(layout.inner)[1]
    height = min(layout.block, height - row * layout.block)
    values = np.empty((codec.samples, height, columns * layout.block), dtype=codec.dtype)

    def decode(column: int) -> None:
        tile = codec.decode(index.read(layout.inner, plane, row, column))
        left = column * layout.block
        values[:, :, left : left + layout.block] = tile[:, :height]

    list(pool.map(decode, range(columns)))
    return values[:, :, :width]
