"""The parts of maps: what is there already, and rendering what is left."""

import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace

import rasterio
import torch
from rasterio.errors import RasterioIOError

from geodino.data.loader import default_threads
from geodino.errors import RunError
from geodino.infer.render import Rendering
from geodino.io.cog.parts import PartsWriter
from geodino.io.zarr.write import attributes_of
from geodino.runs.mapping.job import MapJob
from geodino.runs.mapping.maps import JOB_TAG, Map, pixels_under, share
from geodino.runs.mapping.memory import columns_for, default_limit, need, used_memory
from geodino.runs.progress import JobProgress


def is_done(one: Map, job: MapJob) -> bool:
    """Whether a job that goes on finds this map whole, with all that lies beside it.

    Raises:
        RunError: a file is there that may not be replaced.
    """
    there = [path for path in (*one.files.values(), *one.beside) if path.exists()]
    if job.overwrite or not there:
        return False
    if job.goes_on:
        if one.path not in there and one.parts.exists():
            return False  # interrupted while it was joined
        if _made_by(one) == one.identity:
            return not one.parts.exists()
    raise RunError(
        f"{there[0]} exists: nothing was changed. Choose another --out, or add --overwrite."
    )


def _made_by(one: Map) -> str | None:
    """Return which job made the file or store where the map goes; None for another."""
    if one.path.is_dir():
        said = attributes_of(one.path).get(JOB_TAG)
        return said if isinstance(said, str) else None
    try:
        with rasterio.open(one.path) as there:
            made: str | None = there.tags().get(JOB_TAG)
    except RasterioIOError:
        return None
    return made


def check_parts(maps: Sequence[Map], job: MapJob) -> None:
    """Refuse to mix what an earlier job left with this one unasked.

    Raises:
        RunError: there are parts.
    """
    for one in maps:
        if job.overwrite:
            shutil.rmtree(one.parts, ignore_errors=True)
        elif one.parts.exists() and not job.goes_on:
            raise RunError(
                f"{one.parts} holds parts of this map from before: nothing was changed. Go on with "
                "--resume, or start again with --overwrite."
            )


class Room:
    """Makes renderings as wide as memory allows."""

    def __init__(self, job: MapJob) -> None:
        self._limit = default_limit() if job.max_memory is None else job.max_memory
        self._before = 0

    def warm_up(self, maps: Sequence[Map]) -> None:
        """Compute a batch, and note what the process has held by then.

        What is fitted before the maps may need more for a moment, and gives it back.
        """
        for one in maps:
            if one.numbers and not self._before:
                self._before = _warmed_up(one)

    def fitted(self, one: Map) -> Rendering:
        """Return the rendering of a map.

        Raises:
            RunError: not even one supertile fits.
        """
        self.warm_up([one])
        bands, itemsize = _stored(one)
        found = need(one.rendering, bands=bands, itemsize=itemsize)
        columns = columns_for(self._limit, one.rendering, found, before=self._before)
        return replace(one.rendering, columns=columns)


def render(maps: Sequence[Map], job: MapJob, threads: Executor, *, room: Room) -> int:
    """Render what is not committed yet; return how many pixels of the rasters that was.

    Args:
        maps: that are not whole.
        job: what was asked.
        threads: that read.
        room: what memory allows.

    Raises:
        SourceError: a block cannot be read; what was committed stays.
        RunError: the disk is full, memory does not suffice, a value is not finite, or a raster
            changed since the parts were begun.
    """
    shares = share(maps, job.shard or (1, 1))
    total = sum(one.pixels(numbers) for one, numbers in shares)
    with JobProgress("Mpx", total, quiet=job.quiet, unit=10**6) as progress:
        for one, numbers in shares:
            if not numbers:
                continue
            fitted = room.fitted(one)
            with PartsWriter(
                one.parts,
                layout=one.layout,
                layers=one.layers,
                key=one.parts_key,
                shard=job.shard or (1, 1),
                threads=default_threads(),
            ) as parts:
                _refuse_changed(one, parts, threads)
                left = [n for n in numbers if n not in parts.committed]
                progress.advance(one.pixels(numbers) - one.pixels(left))
                fitted.run(
                    parts,
                    left,
                    threads=threads,
                    advance=advancing(one, progress),
                    facts={"source": one.content},
                )
    return total


def advancing(one: Map, progress: JobProgress) -> Callable[[int], None]:
    """Return what counts pixels of the map as pixels of the raster."""
    return lambda count: progress.advance(count * one.stride**2)


def _stored(one: Map) -> tuple[int, int]:
    """Return bands and bytes per value of what is read."""
    first = pixels_under(one.layout.window(one.numbers[0]), one.stride)
    pixels, _ = one.rendering.raster.read(first.corner)
    return len(pixels), pixels.itemsize


def _warmed_up(one: Map) -> int:
    """Compute one batch of nothing; return the bytes the process holds then."""
    cover, predictor = one.rendering.cover, one.rendering.predictor
    bands, _ = _stored(one)
    shape = cover.group, bands, cover.rows.side, cover.columns.side
    predictor(
        torch.zeros(shape, device=predictor.device),
        torch.ones((shape[0], *shape[2:]), dtype=torch.bool, device=predictor.device),
    )
    return used_memory()


def _refuse_changed(one: Map, parts: PartsWriter, threads: Executor) -> None:
    """Look again at pixels of supertiles that were made from files written anew since.

    Raises:
        RunError: a pixel differs.
    """
    for number, committed in sorted(parts.committed.items()):
        if committed.facts["source"] == one.content:
            continue
        if one.rendering.digest(number, threads=threads) != committed.digest:
            window = pixels_under(one.layout.window(number), one.stride)
            raise RunError(
                f"{one.source.path} has changed since {one.parts} was begun: pixels in rows "
                f"{window.top} to {window.bottom - 1}, columns {window.left} to "
                f"{window.right - 1} differ. Restore the raster, or start again with --overwrite."
            )
