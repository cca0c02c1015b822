"""A zarr store: an array for the maps that are parts of one grid, and a picture of each."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from geodino import files
from geodino.data.loader import default_threads
from geodino.infer.preview import Preview
from geodino.infer.quantise import NODATA
from geodino.infer.render import Supertile
from geodino.infer.tokens import FEATURES, PICTURE, picture_layer
from geodino.io.cog.assemble import assemble
from geodino.io.cog.journal import Committed
from geodino.io.cog.layout import Layout
from geodino.io.cog.parts import PartsWriter
from geodino.io.metadata import Point
from geodino.io.zarr.write import ZarrMap, ZarrWriter
from geodino.runs.embed.about import store_attributes, tags_of_map
from geodino.runs.embed.fit import Fit
from geodino.runs.embed.job import Work
from geodino.runs.embed.plan import Array
from geodino.runs.embed.storage import in_type, scales_of
from geodino.runs.mapping.maps import Map
from geodino.runs.mapping.parts import Room, advancing
from geodino.runs.progress import JobProgress

Colours = UInt8[np.ndarray, "3 h w"]


def write_store(
    work: Work,
    maps: Sequence[Map],
    arrays: Sequence[Array],
    fit: Fit,
    threads: Executor,
    *,
    room: Room,
) -> int:
    """Write all arrays and pictures; return how many pixels of the rasters that took.

    Raises:
        SourceError: a block cannot be read.
        RunError: the disk is full, memory does not suffice, or a value is not finite.
    """
    job = work.job
    total = sum(one.pixels() for one in maps)
    with (
        ZarrWriter(job.out, attributes=store_attributes(work, maps)) as store,
        JobProgress("Mpx", total, quiet=job.quiet, unit=10**6) as progress,
    ):
        for planned in arrays:
            with _no_colours(planned, job.out.parent) as colours:
                array = _added(work, store, planned, maps, fit)
                made: list[tuple[Map, Mapping[int, Committed]]] = []
                places = zip(planned.mosaic.rasters, planned.mosaic.places, strict=True)
                for raster, place in places:
                    one = maps[raster]
                    sink = _StoreParts(one.layout, array, place, job.dtype, colours)
                    if one.numbers:
                        room.fitted(one).run(
                            sink,
                            one.numbers,
                            threads=threads,
                            advance=advancing(one, progress),
                            facts={},
                        )
                        sink.flush()
                    made.append((one, sink.committed))
                tags = tags_of_map(work, made, fit.loss)
                array.finish(attributes=tags)
                if colours is not None and planned.picture is not None:
                    point = made[0][0].source.area_or_point
                    _write_picture(planned, colours, fit.preview, tags, point)
        store.finish()
    return total


def _added(work: Work, store: ZarrWriter, planned: Array, maps: Sequence[Map], fit: Fit) -> ZarrMap:
    """Add an array to the store."""
    first = maps[planned.mosaic.rasters[0]]
    return store.add(
        planned.group,
        planned.mosaic.grid,
        bands=work.dim,
        dtype=work.job.dtype,
        nodata=float("nan") if fit.quantiser is None else float(NODATA),
        scales=scales_of(fit.quantiser),
        attributes={"long_name": "features", "AREA_OR_POINT": first.source.area_or_point},
        sharded=len(planned.mosaic.rasters) == 1,
    )


@contextmanager
def _no_colours(planned: Array, folder: Path) -> Iterator[Colours | None]:
    """Yield room for a picture on the disk, all of it nodata."""
    if planned.picture is None:
        yield None
        return
    grid = planned.mosaic.grid
    folder.mkdir(parents=True, exist_ok=True)
    with files.writing(planned.picture), tempfile.TemporaryFile(dir=folder) as handle:
        if hasattr(os, "posix_fallocate"):
            # Of a mapped file a disk that is full is told by the end of the process only.
            os.posix_fallocate(handle.fileno(), 0, 3 * grid.height * grid.width)
        yield np.memmap(handle, dtype=np.uint8, mode="w+", shape=(3, grid.height, grid.width))


def _write_picture(
    planned: Array,
    colours: Colours,
    preview: Preview | None,
    tags: Mapping[str, str],
    point: Point,
) -> None:
    """Write the colours of an array as a COG."""
    path, layer = planned.picture, picture_layer(preview)
    if path is None:
        raise ValueError("no picture was planned")
    layout = Layout.plan(planned.mosaic.grid, [layer])
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as name:
        folder = Path(name)
        with PartsWriter(
            folder, layout=layout, layers=[layer], key={}, threads=default_threads()
        ) as parts:
            for number in range(len(layout)):
                tile = parts.open_supertile(number)
                for row in range(layout.block_rows(number)):
                    rows, columns = layout.block_window(number, row).slices
                    tile.write(row, {PICTURE: np.asarray(colours[:, rows, columns])})
                tile.commit("")
        assemble(folder, path, layer, layout=layout, tags=tags, area_or_point=point)


class _StoreParts:
    """Lays supertiles into an array; those of one row of blocks are written together.

    Args:
        layout: of the map whose supertiles come.
        array: takes the features.
        place: row and column of the array where the map begins.
        dtype: type of the array.
        colours: takes the picture, where there is one.
    """

    def __init__(
        self,
        layout: Layout,
        array: ZarrMap,
        place: tuple[int, int],
        dtype: str,
        colours: Colours | None,
    ) -> None:
        self.layout = layout
        self.committed: dict[int, Committed] = {}
        self._array = array
        self._place = place
        self._dtype = dtype
        self._colours = colours
        self._waiting: list[Shaped[np.ndarray, "c h w"]] = []
        self._corner = (0, 0)

    def open_supertile(self, number: int) -> Supertile:
        """Begin a supertile."""
        return _StoreTile(self, number)

    def take(self, top: int, left: int, values: Mapping[str, Shaped[np.ndarray, "c h w"]]) -> None:
        """Take a row of blocks whose first pixel is this one of the map."""
        top, left = top + self._place[0], left + self._place[1]
        features = values[FEATURES]
        if (top, left) != (self._corner[0], self._corner[1] + self._width):
            self.flush()
            self._corner = top, left
        self._waiting.append(features.copy())  # they wait, and the caller uses its arrays again
        if self._colours is not None:
            height, width = features.shape[1:]
            self._colours[:, top : top + height, left : left + width] = values[PICTURE]

    def flush(self) -> None:
        """Hand over what still waits."""
        if self._waiting:
            rows = np.concatenate(self._waiting, axis=2)
            self._array.write(*self._corner, in_type(rows, self._dtype))
            self._waiting = []

    @property
    def _width(self) -> int:
        return sum(values.shape[2] for values in self._waiting)


class _StoreTile:
    """One supertile on its way into an array."""

    def __init__(self, parts: _StoreParts, number: int) -> None:
        self._parts = parts
        self._number = number

    def write(self, block_row: int, values: Mapping[str, Shaped[np.ndarray, "c h w"]]) -> None:
        """Take one row of blocks."""
        window = self._parts.layout.block_window(self._number, block_row)
        self._parts.take(window.top, window.left, values)

    def commit(self, digest: str, **facts: Any) -> None:
        """Remember what the supertile was made from."""
        self._parts.committed[self._number] = Committed(
            number=self._number, digest=digest, facts=facts, spool=Path()
        )
