"""Pixels of one raster of a zarr store: windows, chunks never written, samples for fingerprints."""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from geodino.errors import BandError, SourceError
from geodino.geo.windows import Window
from geodino.io.zarr.array import Piece, StoredArray
from geodino.io.zarr.chunks import Chunks
from geodino.io.zarr.codecs import DAMAGE
from geodino.io.zarr.key import metadata_keys
from geodino.io.zarr.open import Part

_AT_ONCE = 64
"""Chunks fetched together at most: enough to hide the latency of a remote store."""

_AT_ONCE_BYTES = 64 << 20
"""Bytes that the chunks fetched together may take, decoded."""

_SAMPLED_FILES = 64
"""Chunk files of a raster whose content is sampled."""

_SAMPLED = 1 << 14
"""Bytes hashed at the start, the middle and the end of such a file."""


class StoreRaster:
    """One raster of a store: the bands of one date. Safe to read from many threads.

    Args:
        path: its name, for messages.
        arrays: what holds its bands, all on one grid and of one type.
        time: index of the date; None where the arrays have no time axis.
        nodata: value of invalid pixels, per band.
        chunks: what fetches the chunks.
    """

    def __init__(
        self,
        path: str,
        arrays: Sequence[StoredArray],
        *,
        time: int | None,
        nodata: tuple[float | None, ...],
        chunks: Chunks,
    ) -> None:
        self.path = path
        self.nodata = nodata
        self.dtype = arrays[0].dtype
        self.window = Window(0, 0, arrays[0].height, arrays[0].width)
        """All of its pixels."""
        self._arrays = tuple(arrays)
        self._time = time
        self._chunks = chunks
        self._bands = [(array, band) for array in arrays for band in range(array.bands)]

    @property
    def count(self) -> int:
        """Bands."""
        return len(self._bands)

    def read(
        self, window: Window, *, bands: Sequence[int]
    ) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "c h w"] | None]:
        """Read a window, decoding each chunk once.

        Args:
            window: which pixels.
            bands: band numbers, the first is 1, in the wanted order.

        Returns:
            Pixels as stored, and where they were ever written: False where no chunk is in the
            store, None if all are there. Pixels never written hold the array's fill value.

        Raises:
            SourceError: naming array, rows and columns, if a chunk is damaged.
            BandError: a band that the raster does not have.
            ValueError: the window reaches out of the raster.
        """
        if not self.window.contains(window):
            height, width = self.window.height, self.window.width
            raise ValueError(f"{window} reaches out of {self.path} ({height} x {width})")
        pixels = np.empty((len(bands), window.height, window.width), dtype=self.dtype)
        gaps: list[tuple[int, tuple[slice, slice]]] = []
        for array, wanted in self._by_array(bands):
            pieces = array.pieces(window, wanted, time=self._time)
            at_once = min(_AT_ONCE, max(1, _AT_ONCE_BYTES // array.codec.nbytes))
            while batch := list(islice(pieces, at_once)):
                found = self._chunks.fetch(array, [piece.chunk for piece in batch])
                for piece, data in zip(batch, found, strict=True):
                    if data is not None:
                        _place(pixels, array, piece, data, window)
                        continue
                    for band, _ in piece.bands:
                        pixels[band][piece.target] = array.fill
                        gaps.append((band, piece.target))
        if not gaps:
            return pixels, None
        written = np.ones(pixels.shape, dtype=bool)
        for band, target in gaps:
            written[band][target] = False
        return pixels, written

    def close(self) -> None:
        """Do nothing: what is open belongs to the store, which other threads read."""

    def absent_chunks(self) -> tuple[int, int] | None:
        """Return how many chunks of this raster were never written, and how many it has.

        None where the store is remote: asking for each chunk costs a request.
        """
        if not self._chunks.store.local:
            return None
        absent = total = 0
        for array, pieces in self._all_pieces():
            chunks = [piece.chunk for piece in pieces]
            absent += self._chunks.absent(array, chunks)
            total += len(chunks)
        return absent, total

    def content_sample(self) -> tuple[int, str]:
        """Return the bytes of the chunks, and a SHA-256 that changes when they are rewritten.

        Hashed are the metadata, the name and size of every object that holds a chunk, and the
        beginning, the middle and the end (16 KiB each) of at most 64 of them, evenly spaced. Of
        a remote store only the metadata are hashed, and the size is 0: asking for the size of
        each chunk costs a request.
        """
        digest = hashlib.sha256()
        store = self._chunks.store
        documents = metadata_keys([array.path for array in self._arrays])
        for key, data in zip(documents, store.fetch([Part(key) for key in documents]), strict=True):
            if data is not None:
                digest.update(f"{key}\0{len(data)}\n".encode() + data)
        if not store.local:
            return 0, digest.hexdigest()
        sizes = {key: size for key in self._objects() if (size := store.size(key)) is not None}
        for key, size in sizes.items():
            digest.update(f"{key}\0{size}\n".encode())
        step = -(-len(sizes) // _SAMPLED_FILES) or 1
        for key in list(sizes)[::step]:
            starts = {0, max(0, (sizes[key] - _SAMPLED) // 2), max(0, sizes[key] - _SAMPLED)}
            for data in store.fetch([Part(key, start, _SAMPLED) for start in sorted(starts)]):
                digest.update(data or b"")
        return sum(sizes.values()), digest.hexdigest()

    def _objects(self) -> list[str]:
        """Return the keys of the stored objects (chunks, or shards of them), sorted."""
        keys = {
            array.split(piece.chunk)[0] for array, pieces in self._all_pieces() for piece in pieces
        }
        return sorted(keys)

    def _all_pieces(self) -> Iterator[tuple[StoredArray, Iterator[Piece]]]:
        for array, wanted in self._by_array(range(1, self.count + 1)):
            yield array, array.pieces(self.window, wanted, time=self._time)

    def _by_array(
        self, bands: Sequence[int]
    ) -> Iterator[tuple[StoredArray, list[tuple[int, int]]]]:
        """Yield each array with the wanted bands it holds: (band of the window, band of it)."""
        for number in bands:
            if not 1 <= number <= self.count:
                raise BandError(
                    f"{self.path} has {self.count} band(s), but band {number} was asked for. "
                    f"Choose from 1 to {self.count}."
                )
        chosen = [self._bands[number - 1] for number in bands]
        for array in self._arrays:
            wanted = [(i, band) for i, (holder, band) in enumerate(chosen) if holder is array]
            if wanted:
                yield array, wanted


def _place(
    pixels: NDArray[np.generic], array: StoredArray, piece: Piece, data: bytes, window: Window
) -> None:
    """Decode a chunk into its place in the window."""
    try:
        images = array.images(data, piece)
    except DAMAGE as error:
        rows, columns = piece.target
        raise SourceError(
            f"{array.name} is damaged: its pixels in rows {window.top + rows.start} to "
            f"{window.top + rows.stop - 1}, columns {window.left + columns.start} to "
            f"{window.left + columns.stop - 1}, cannot be decoded ({error}; chunk "
            f"{array.split(piece.chunk)[0]}). Copy the store again, or remove it."
        ) from error
    for target, source in piece.bands:
        pixels[target][piece.target] = images[source][piece.source]
