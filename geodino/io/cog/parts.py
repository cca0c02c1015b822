"""Writing ``FILE.parts``: compressed tiles in a spool, finished supertiles in a journal."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from geodino import files
from geodino.geo.grid import Grid
from geodino.io.cog.journal import Committed, JournalWriter, LayerPart, Run, frame
from geodino.io.cog.layout import Layer, Layout
from geodino.io.cog.measure import moments_of
from geodino.io.cog.reduce import Pyramid
from geodino.io.cog.tiles import TileCodec
from geodino.metrics.moments import Moments


def parts_folder(path: Path) -> Path:
    """Return the folder beside ``path`` where its parts lie: ``FILE.parts``."""
    return path.with_name(f"{path.name}.parts")


def job_head(layout: Layout, layers: Sequence[Layer]) -> dict[str, Any]:
    """Return what the parts of a map must agree on for the sake of the file."""
    return {
        "grid": grid_head(layout.grid),
        "layout": {"block": layout.block, "side": layout.side, "levels": layout.levels},
        "layers": {layer.name: _stored_as(layer) for layer in layers},
    }


def grid_head(grid: Grid) -> dict[str, Any]:
    """Return a grid as JSON."""
    return {
        "crs": grid.crs,
        "transform": list(grid.transform[:6]),
        "height": grid.height,
        "width": grid.width,
    }


def _stored_as(layer: Layer) -> dict[str, Any]:
    """Return what the stored tiles and statistics of a layer depend on."""
    names = ("count", "dtype", "nodata", "resampling", "interleave", "compression", "level")
    return {name: getattr(layer, name) for name in (*names, "predictor", "statistics")}


class PartsWriter:
    """Takes the pixels of supertiles and keeps compressed tiles; a context manager.

    Each shard writes two files of its own, ``1-of-4.tiles`` and ``1-of-4.jsonl``, and only ever
    adds to them: killing the process at any moment costs the supertiles not committed yet, and
    opening the folder again goes on from there, with any number of shards.

    Args:
        folder: made where it is missing.
        layout: how the map is cut.
        layers: what is stored; each becomes a file.
        key: what the pixels depend on (sources, model, options), as JSON; grid, layout and layers
            are added to it.
        shard: number from 1, and how many there are.
        threads: that compress; the caller's thread makes overviews and waits for them.

    Raises:
        RunError: the folder holds parts of another job, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        layout: Layout,
        layers: Sequence[Layer],
        key: Mapping[str, Any],
        shard: tuple[int, int] = (1, 1),
        threads: int = 2,
    ) -> None:
        self.layout = layout
        self.layers = tuple(layers)
        head = {**job_head(layout, layers), "key": dict(key)}
        self._journal = JournalWriter(folder, head=head, shard=shard)
        with files.writing(folder):
            self._spool = _Spool(self._journal.spool)
        self._lock = Lock()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="tiles")

    @property
    def committed(self) -> Mapping[int, Committed]:
        """Finished supertiles by number: those of all shards when opened, and this one's since."""
        return self._journal.committed

    def open_supertile(self, number: int) -> "SupertileWriter":
        """Begin a supertile.

        Several may be open at once, in threads of their own if wanted; one that is left without
        commit leaves no trace but bytes that nobody reads.
        """
        return SupertileWriter(self, number)

    def _encode(self, codec: TileCodec, tiles: Iterable[NDArray[Any]]) -> list[Future[bytes]]:
        return [self._pool.submit(codec.encode, tile) for tile in tiles]

    def _note(self, number: int, digest: str, facts: Mapping[str, Any], parts: Any) -> None:
        with self._lock:
            self._spool.flush()
            self._journal.note(number, digest, facts, parts)

    def close(self) -> None:
        """Let go of the files and threads; what was committed stays."""
        self._pool.shutdown(cancel_futures=True)
        self._spool.close()

    def __enter__(self) -> "PartsWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class SupertileWriter:
    """Takes the rows of blocks of one supertile, from the top; made by ``open_supertile``."""

    def __init__(self, parts: PartsWriter, number: int) -> None:
        self._parts = parts
        self._number = number
        self._rows = 0
        layout = parts.layout
        size = layout.window(number).height, layout.window(number).width
        self._layers = {layer.name: _LayerWriter(layer, layout, size) for layer in parts.layers}

    def write(self, block_row: int, values: Mapping[str, Shaped[np.ndarray, "c h w"]]) -> None:
        """Compress and spool one row of blocks, and the rows of overviews it completes.

        The arrays may be changed once this returns.

        Args:
            block_row: counted from 0 in the supertile; rows come in order.
            values: of each layer by name, as they are stored, of the pixels of
                ``Layout.block_window``; nodata where there is nothing.

        Raises:
            ValueError: a row out of order, or values of another shape or type.
            RunError: the disk is full or cannot be written.
        """
        window = self._parts.layout.block_window(self._number, block_row)
        if block_row != self._rows or values.keys() != self._layers.keys():
            raise ValueError(
                f"supertile {self._number} waits for row {self._rows} of {list(self._layers)}, "
                f"not for row {block_row} of {list(values)}"
            )
        for name, layer in self._layers.items():
            layer.check(values[name], (window.height, window.width))
            layer.write(block_row, values[name], self._parts._encode, self._parts._spool)
        self._rows += 1

    def commit(self, digest: str, **facts: Any) -> None:
        """Note the supertile as finished, after its tiles are safe on the disk.

        Args:
            digest: of what the supertile was made from or of its pixels; one that is committed
                twice (by two shards) must have the same.
            facts: to be remembered with it; JSON.

        Raises:
            ValueError: rows are missing.
            RunError: the disk is full or cannot be written.
        """
        rows = self._parts.layout.block_rows(self._number)
        if self._rows != rows:
            raise ValueError(f"supertile {self._number} has {self._rows} of {rows} rows")
        parts = {name: layer.part() for name, layer in self._layers.items()}
        self._parts._note(self._number, digest, facts, parts)

    @property
    def held(self) -> int:
        """Bytes of the half-filled rows of overviews, all that is kept between two rows."""
        return sum(layer.held for layer in self._layers.values())


class _LayerWriter:
    """One layer of one supertile."""

    def __init__(self, layer: Layer, layout: Layout, size: tuple[int, int]) -> None:
        self._layer = layer
        self._codec = TileCodec.of(layer, layout.block)
        self._pyramid = Pyramid(layer, block=layout.block, size=size, levels=layout.inner)
        self._runs: list[Run] = []
        self._moments = Moments.empty(layer.count)

    def check(self, values: NDArray[Any], size: tuple[int, int]) -> None:
        """Refuse values of another shape or type.

        Raises:
            ValueError: they differ.
        """
        shape = (self._layer.count, *size)
        if values.shape != shape or values.dtype != self._layer.dtype:
            raise ValueError(
                f"layer {self._layer.name!r} takes {self._layer.dtype} of shape {shape}, not "
                f"{values.dtype} of {values.shape}"
            )

    def write(
        self,
        row: int,
        values: NDArray[Any],
        encode: Callable[[TileCodec, Iterable[NDArray[Any]]], list[Future[bytes]]],
        spool: "_Spool",
    ) -> None:
        """Encode in the pool; reduce and measure here meanwhile."""
        waiting = [(0, row, encode(self._codec, tiles_of(values, self._codec)))]
        for level, small_row, small in self._pyramid.push(values):
            tiles = tiles_of(small, self._codec)
            waiting.append((level, small_row, encode(self._codec, tiles)))
        if self._layer.statistics:
            found = moments_of(values, nodata=self._layer.nodata)
            self._moments = self._moments.merge(found)
        for level, small_row, futures in waiting:
            tiles_done = [future.result() for future in futures]
            sizes = tuple(map(len, tiles_done))
            start = spool.add(b"".join(map(frame, tiles_done)))
            self._runs.append(Run(level=level, row=small_row, start=start, sizes=sizes))

    def part(self) -> LayerPart:
        """Return what the journal is told."""
        moments = self._moments if self._layer.statistics else None
        return LayerPart(runs=tuple(self._runs), moments=moments)

    @property
    def held(self) -> int:
        return self._pyramid.held


def tiles_of(
    values: Shaped[np.ndarray, "c h w"], codec: TileCodec
) -> Iterator[Shaped[np.ndarray, "s h w2"]]:
    """Yield the tiles of one row of blocks, plane by plane, then by columns."""
    for band in range(0, values.shape[0], codec.samples):
        for left in range(0, values.shape[2], codec.block):
            yield values[band : band + codec.samples, :, left : left + codec.block]


class _Spool:
    """A file that only grows; several threads may add to it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = path.open("ab", buffering=0)
        self._lock = Lock()

    def add(self, data: bytes) -> int:
        """Append and return where it begins."""
        with self._lock, files.writing(self.path):
            start = self._file.seek(0, os.SEEK_END)
            left = memoryview(data)
            while left:  # the system may take less than it is given, as on a disk nearly full
                left = left[self._file.write(left) :]
            return start

    def flush(self) -> None:
        """Wait until the disk has it all."""
        with files.writing(self.path):
            os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
