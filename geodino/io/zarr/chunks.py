"""Where the bytes of a chunk lie in a store: an object of its own, or a part of a shard."""

import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from geodino.errors import SourceError
from geodino.io.zarr.array import StoredArray
from geodino.io.zarr.codecs import DAMAGE
from geodino.io.zarr.open import OpenStore, Part

_TABLES = 4096
"""Tables of shards kept: one of 64 chunks takes a kilobyte."""

_NEVER = np.uint64(2**64 - 1)
"""Offset and length, in the table of a shard, of a chunk that was never written."""

Chunk = tuple[int, ...]
Table = NDArray[np.unsignedinteger]


class Chunks:
    """Fetches the stored bytes of chunks, from many threads.

    Args:
        store: where from.
    """

    def __init__(self, store: OpenStore) -> None:
        self.store = store
        self._tables: OrderedDict[str, Table | None] = OrderedDict()
        self._lock = threading.Lock()

    def fetch(self, array: StoredArray, chunks: Sequence[Chunk]) -> list[bytes | None]:
        """Return the stored bytes of chunks of an array; None for those never written.

        Raises:
            SourceError: the store cannot be reached, or a shard is damaged.
        """
        parts = self._parts(array, chunks)
        found = iter(self.store.fetch([part for part in parts if part is not None]))
        return [None if part is None else next(found) for part in parts]

    def absent(self, array: StoredArray, chunks: Sequence[Chunk]) -> int:
        """Count the chunks that were never written; looks at each object, decodes none.

        Raises:
            SourceError: the store cannot be reached, or a shard is damaged.
        """
        if array.shards is not None:
            return self._parts(array, chunks).count(None)
        keys = (array.split(chunk)[0] for chunk in chunks)
        return sum(self.store.size(key) is None for key in keys)

    def _parts(self, array: StoredArray, chunks: Sequence[Chunk]) -> list[Part | None]:
        """Return where the bytes lie; None for chunks that their shard does not hold."""
        places = [array.split(chunk) for chunk in chunks]
        if array.shards is None:
            return [Part(key) for key, _ in places]
        tables = self._tables_of(array, list(dict.fromkeys(key for key, _ in places)))
        parts: list[Part | None] = []
        for key, inner in places:
            table = tables[key]
            entry = None if table is None else table[inner]
            if entry is None or (entry == _NEVER).all():
                parts.append(None)
            else:
                parts.append(Part(key, int(entry[0]), int(entry[1])))
        return parts

    def _tables_of(self, array: StoredArray, keys: Sequence[str]) -> dict[str, Table | None]:
        """Return (offset, bytes) of every chunk of some shards; None for shards never written."""
        with self._lock:
            known = {key: self._tables[key] for key in keys if key in self._tables}
        if shards := array.shards:
            n = shards.index_bytes
            part = (-n, None) if shards.at_end else (0, n)
            new = [key for key in keys if key not in known]
            for key, data in zip(
                new, self.store.fetch([Part(key, *part) for key in new]), strict=True
            ):
                try:
                    known[key] = None if data is None else shards.index.decode(data)
                except DAMAGE as error:
                    raise SourceError(
                        f"{array.name} is damaged: the table of its shard {key} cannot be read "
                        f"({error}). Copy the store again."
                    ) from error
        with self._lock:
            self._tables.update(known)
            while len(self._tables) > _TABLES:
                self._tables.popitem(last=False)
        return known
