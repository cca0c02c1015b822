"""A zarr store: an array for the maps that are parts of one grid, and a picture of each."""

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from geodino import files
from geodino.data.loader import default_threads
from geodino.geo.windows import Window
from geodino.infer.preview import Preview
from geodino.infer.quantise import NODATA
from geodino.infer.tokens import FEATURES, PICTURE, picture_layer
from geodino.io.cog.assemble import assemble
from geodino.io.cog.blocks import stored_rows
from geodino.io.cog.layout import Layout
from geodino.io.cog.parts import PartsWriter
from geodino.io.metadata import Point
from geodino.io.zarr.write import ZarrMap, ZarrWriter
from geodino.runs.embed.about import store_attributes, tags_of_map
from geodino.runs.embed.fit import Fit
from geodino.runs.embed.job import Work
from geodino.runs.embed.plan import Array
from geodino.runs.embed.storage import scales_of
from geodino.runs.mapping.about import Parts, committed_of
from geodino.runs.mapping.maps import JOB_TAG, Map

Colours = UInt8[np.ndarray, "3 h w"]


def write_store(work: Work, maps: Sequence[Map], arrays: Sequence[Array], fit: Fit) -> None:
    """Write all arrays and pictures from the parts of maps.

    Raises:
        RunError: supertiles are missing, or the disk is full or cannot be written.
    """
    job = work.job
    attributes = {**store_attributes(work, maps), JOB_TAG: maps[0].identity}
    with ZarrWriter(job.out, attributes=attributes) as store:
        for planned in arrays:
            with _no_colours(planned, job.out.parent) as colours:
                array = _added(work, store, planned, maps, fit)
                made: list[tuple[Map, Parts]] = []
                places = zip(planned.mosaic.rasters, planned.mosaic.places, strict=True)
                for raster, place in places:
                    one = maps[raster]
                    if one.numbers:
                        _fill(array, one, place, job.dtype, colours)
                    made.append((one, committed_of(one) if one.numbers else {}))
                tags = tags_of_map(work, made, fit.loss)
                array.finish(attributes=tags)
                if colours is not None and planned.picture is not None:
                    point = made[0][0].source.area_or_point
                    _write_picture(planned, colours, fit.preview, tags, point)
        store.finish()


def _fill(array: ZarrMap, one: Map, place: Window, dtype: str, colours: Colours | None) -> None:
    """Lay a map into an array, and its colours into a picture, from its row and column on."""
    for layer in one.layers:
        rows = stored_rows(
            one.parts,
            layer,
            layout=one.layout,
            key=one.parts_key,
            allow=one.outside,
            threads=default_threads(),
        )
        for window, values in rows:
            top, left = window.top + place.top, window.left + place.left
            if layer.name == FEATURES:
                array.write(top, left, values.astype(dtype, copy=False))
            elif colours is not None:
                colours[:, top : top + window.height, left : left + window.width] = values
        array.flush()


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
        across=first.layout.side,
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
