"""Open zarr stores, shared by the threads that read them."""

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from geodino.io.zarr.chunks import Chunks
from geodino.io.zarr.key import StoreKey
from geodino.io.zarr.open import OpenStore
from geodino.io.zarr.read import StoreRaster
from geodino.io.zarr.store import open_raster


@dataclass(frozen=True, slots=True)
class _Shared:
    store: OpenStore
    chunks: Chunks
    rasters: dict[StoreKey, StoreRaster] = field(default_factory=dict)


class StorePool:
    """Stores opened once for all threads, forgotten least recently opened first.

    Args:
        max_open: most stores kept.
    """

    def __init__(self, max_open: int) -> None:
        self._max_open = max_open
        self._stores: OrderedDict[str, _Shared] = OrderedDict()
        self._lock = threading.Lock()

    def open(self, key: StoreKey) -> StoreRaster:
        """Return a raster of a store; any thread may read it.

        Raises:
            SourceError: the store vanished, or has no such raster.
        """
        with self._lock:
            shared = self._stores.get(key.store)
            if shared is None:
                store = OpenStore(key.store)
                shared = self._stores[key.store] = _Shared(store, Chunks(store))
                if len(self._stores) > self._max_open:
                    # Not closed: a thread may be reading it. A folder has nothing open anyway.
                    self._stores.popitem(last=False)
            self._stores.move_to_end(key.store)
            if key not in shared.rasters:
                shared.rasters[key] = open_raster(shared.store, shared.chunks, key)
            return shared.rasters[key]

    def close(self) -> None:
        """Close all stores; no thread may be reading."""
        with self._lock:
            while self._stores:
                self._stores.popitem()[1].store.close()
