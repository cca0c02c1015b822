"""Reading pixels: handles that stay open, and windows with their validity.

Every format but zarr goes through GDAL, JPEG and PNG included; a raster of a zarr store is named
``STORE#ARRAY`` (see :mod:`geodino.io.zarr.key`), a photograph that is to be seen as people see it
``image:FILE`` (see :mod:`geodino.io.image_key`). Arrays are (bands, height, width); masks are True
where a pixel may be used. Band numbers are GDAL's: the first is 1.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Shaped
from rasterio.env import get_gdal_config, set_gdal_config
from rasterio.errors import RasterioError
from rasterio.windows import Window as GdalWindow

from geodino.errors import SourceError
from geodino.geo.validity import ReadRule, can_hold, differs, finite
from geodino.geo.windows import Window
from geodino.io.image_key import find_image
from geodino.io.images import describe_image, read_image
from geodino.io.metadata import (
    MaskKind,
    RasterInfo,
    alpha_band,
    cause,
    describe_file,
    mask_kind,
    open_raster,
)
from geodino.io.remote import RUN_BYTES, RemoteError, ask, forget, is_far, patiently
from geodino.io.zarr.key import find_key
from geodino.io.zarr.pool import StorePool
from geodino.io.zarr.read import StoreRaster
from geodino.io.zarr.store import describe_raster

__all__ = ["HandlePool", "RasterInfo", "describe", "read"]

_CACHE_BYTES = 64 << 20

_RUN = "GDAL_MAX_RAW_BLOCK_CACHE_SIZE"
_RUN_OF_GDAL = 10 << 20


class _Caches:
    """Sizes GDAL's caches for reading every block once, until the last of its holders ends.

    They belong to the process: a small block cache, and room for a long run of a far file.
    """

    _lock: ClassVar[threading.Lock] = threading.Lock()
    _holders: ClassVar[set[int]] = set()
    _before: ClassVar[dict[str, int]] = {}

    def __init__(self) -> None:
        with self._lock:
            if not self._holders:
                self._before["GDAL_CACHEMAX"] = get_gdal_config("GDAL_CACHEMAX")
                set_gdal_config("GDAL_CACHEMAX", _CACHE_BYTES)
                if get_gdal_config(_RUN) in (None, _RUN_OF_GDAL):  # else it is the user's
                    self._before[_RUN] = _RUN_OF_GDAL
                    set_gdal_config(_RUN, RUN_BYTES)
            self._holders.add(id(self))

    def end(self) -> None:
        with self._lock:
            if id(self) in self._holders:
                self._holders.remove(id(self))
                while self._before and not self._holders:
                    set_gdal_config(*self._before.popitem())


class HandlePool:
    """Open rasters, kept per thread and dropped least recently used first.

    GDAL datasets must not be shared by threads, and opening one costs about a millisecond, so
    every thread keeps its own; zarr stores are shared. Use as a context manager, or call :meth:`close` when the threads
    that read are done.

    While a pool is open, GDAL's block cache (one for the process) is small: a super-window is
    decoded once, so a large cache only holds blocks that nobody asks for again.

    Args:
        max_open: most files a thread keeps open.
    """

    def __init__(self, max_open: int = 64) -> None:
        self.max_open = max_open
        self._local = threading.local()
        self._all: list[OrderedDict[str, _Handle | StoreRaster]] = []
        self._stores = StorePool(max_open)
        self._lock = threading.Lock()
        self._caches = _Caches()

    def get(self, path: str | Path) -> "_Handle | StoreRaster":
        """Return this thread's handle of ``path``, opening it if needed.

        Raises:
            SourceError: the file or store vanished or cannot be opened.
        """
        handles = self._handles()
        name = str(path)
        handle = handles.get(name)
        if handle is None:
            key = find_key(name)
            handle = _Handle.open(name) if key is None else self._stores.open(key)
            handles[name] = handle
            if len(handles) > self.max_open:
                _, oldest = handles.popitem(last=False)
                oldest.close()
        else:
            handles.move_to_end(name)
        return handle

    def drop(self, path: str | Path) -> None:
        """Close this thread's handle of ``path``, so that the next one is new."""
        handle = self._handles().pop(str(path), None)
        if handle is not None:
            handle.close()

    def store_raster(self, path: str | Path) -> StoreRaster | None:
        """Return a raster of a zarr store, to ask for what only those have; None for a file.

        Raises:
            SourceError: the store vanished, or has no such raster.
        """
        if find_key(path) is None:
            return None
        handle = self.get(path)
        return handle if isinstance(handle, StoreRaster) else None

    def _handles(self) -> "OrderedDict[str, _Handle | StoreRaster]":
        handles: OrderedDict[str, _Handle | StoreRaster] | None = getattr(
            self._local, "handles", None
        )
        if handles is None:
            handles = self._local.handles = OrderedDict()
            with self._lock:
                self._all.append(handles)
        return handles

    def close(self) -> None:
        """Close the handles of all threads; none of them may be reading."""
        with self._lock:
            for handles in self._all:
                while handles:
                    handles.popitem()[1].close()
            self._stores.close()
            self._caches.end()

    def __enter__(self) -> "HandlePool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def describe(path: str | Path) -> RasterInfo:
    """Read the metadata of a raster and check that the file is complete.

    Args:
        path: a file, a raster of a zarr store, a zarr store that holds only one, or a photograph.

    Raises:
        SourceError: in one sentence, why it cannot be used: missing, empty, cut off, not a
            raster, palette colours, complex values, or bands of several types.
    """
    image = find_image(str(path))
    if image is not None:
        return describe_image(image)
    return describe_file(path) if find_key(path) is None else describe_raster(path)


def read(
    pool: HandlePool,
    path: str | Path,
    window: Window | None = None,
    *,
    bands: Sequence[int] | None = None,
    rule: ReadRule,
) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "c h w"]]:
    """Read a window of a raster, decoding each block once.

    Args:
        pool: where open handles are kept.
        path: the raster: a file, or ``STORE#ARRAY`` of a zarr store.
        window: which pixels; None reads all of them.
        bands: band numbers, the first is 1, in the wanted order; None reads all data bands.
        rule: what of the file's tags is believed.

    Returns:
        Pixels as stored, and where each band of them may be used. The masks may be a read-only
        view shared by the bands (see :func:`geodino.geo.validity.combine`).

    In a zarr store, pixels of chunks that were never written are invalid; they read as the fill
    value of the array, and are believed where ``rule`` ignores nodata.

    Raises:
        SourceError: naming the file, if it vanished, a block of it is damaged, or its server
            does not hand it out, also when asked again.
        BandError: a band that the raster of a zarr store does not have.
    """
    if not is_far(str(path)):
        return _read(pool, path, window, bands, rule)
    return patiently(
        lambda: _read(pool, path, window, bands, rule), before_again=lambda: forget(str(path))
    )


def _read(
    pool: HandlePool,
    path: str | Path,
    window: Window | None,
    bands: Sequence[int] | None,
    rule: ReadRule,
) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "c h w"]]:
    image = find_image(str(path))
    if image is not None:
        pixels, opaque = read_image(image, window)
        pixels = pixels if bands is None else pixels[[band - 1 for band in bands]]
        return pixels, np.broadcast_to(opaque, pixels.shape)
    handle = pool.get(path)
    if isinstance(handle, StoreRaster):
        return _read_store(handle, window, bands, rule)
    dataset = handle.dataset
    alpha = handle.alpha if rule.alpha == "mask" else None
    if bands is None:
        bands = [i for i in range(1, dataset.count + 1) if i != alpha]
    where = None if window is None else _gdal_window(window)
    # The alpha band comes with the others: in pixel-interleaved files it is decoded anyway.
    wanted = [*bands, alpha] if alpha is not None and alpha not in bands else list(bands)
    try:
        pixels = dataset.read(wanted, window=where)
        mask = _stored_mask(handle, bands, where, rule)
    except RasterioError as error:
        pool.drop(path)
        raise _unreadable(str(path), window, cause(error)) from error
    if window is not None and pixels.shape[1:] != (window.height, window.width):
        raise ValueError(f"{window} reaches out of {path} ({dataset.height} x {dataset.width})")
    shared = None if alpha is None else pixels[wanted.index(alpha)] > 0
    pixels = pixels[: len(bands)]
    if mask is not None and mask.ndim == 2:
        shared = mask if shared is None else shared & mask
        mask = None
    tags = None if handle.mask != "none" else [handle.nodata[i - 1] for i in bands]
    mask = _tested(pixels, mask, tags, rule)
    if mask is None:
        return pixels, np.broadcast_to(True if shared is None else shared, pixels.shape)
    return pixels, mask if shared is None else mask & shared


def _read_store(
    raster: StoreRaster, window: Window | None, bands: Sequence[int] | None, rule: ReadRule
) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "c h w"]]:
    bands = range(1, raster.count + 1) if bands is None else bands
    pixels, written = raster.read(window or raster.window, bands=bands)
    if rule.nodata == "ignore":
        written = None
    mask = _tested(pixels, written, [raster.nodata[i - 1] for i in bands], rule)
    return pixels, np.broadcast_to(True, pixels.shape) if mask is None else mask


@dataclass(frozen=True, slots=True)
class _Handle:
    """An open dataset with what reading asks of its metadata, asked once."""

    dataset: Any
    alpha: int | None
    mask: MaskKind
    nodata: tuple[float | None, ...]

    @classmethod
    def open(cls, name: str) -> "_Handle":
        dataset = open_raster(name)
        return cls(
            dataset,
            alpha=alpha_band([color.name for color in dataset.colorinterp]),
            mask=mask_kind(dataset),
            nodata=tuple(dataset.nodatavals),
        )

    def close(self) -> None:
        self.dataset.close()


def _stored_mask(
    handle: _Handle, bands: Sequence[int], where: GdalWindow | None, rule: ReadRule
) -> Any:
    """Read the mask beside the pixels: [h, w] where the bands share it, else [c, h, w]."""
    if handle.mask == "none" or (handle.mask == "nodata_values" and rule.nodata != "tag"):
        return None
    if handle.mask == "per_band":
        return handle.dataset.read_masks(list(bands), window=where) > 0
    return handle.dataset.read_masks(bands[0], window=where) > 0


def _tested(
    pixels: Shaped[np.ndarray, "c h w"],
    mask: Bool[np.ndarray, "c h w"] | None,
    tags: Sequence[float | None] | None,
    rule: ReadRule,
) -> Bool[np.ndarray, "c h w"] | None:
    """Add to a mask what the values themselves say; None where every pixel may be used.

    Args:
        pixels: as stored.
        mask: what is known already; None = everywhere.
        tags: nodata of each band; None where something stands above the tags.
        rule: what of the tags is believed.
    """
    for tested in (_nodata_mask(pixels, tags, rule), finite(pixels)):
        if tested is not None:
            mask = tested if mask is None else mask & tested
    return mask


def _nodata_mask(
    pixels: Shaped[np.ndarray, "c h w"], tags: Sequence[float | None] | None, rule: ReadRule
) -> Bool[np.ndarray, "c h w"] | None:
    """Compare with nodata in numpy: asking GDAL for its mask would decode the pixels again."""
    if isinstance(rule.nodata, str):
        # As in GDAL, a mask beside the pixels stands above the tag.
        if rule.nodata == "ignore" or tags is None:
            return None
        values = list(tags)
    else:
        values = [rule.nodata] * len(pixels)
    if not any(v is not None and can_hold(pixels.dtype, v) for v in values):
        return None
    if len(set(values)) == 1 and values[0] is not None:
        return differs(pixels, values[0])
    return np.stack([differs(band, value) for band, value in zip(pixels, values, strict=True)])


def _unreadable(path: str, window: Window | None, words: str) -> SourceError:
    """Say why pixels cannot be read; of a far file its server knows more than GDAL tells."""
    if not is_far(path):
        return SourceError(
            f"{path} is damaged: its pixels{_place(window)} cannot be decoded ({words}). "
            "Copy the file again, or remove it."
        )
    try:
        ask(path)
    except RemoteError as error:
        return error
    return RemoteError(
        f"{path} cannot be read: its pixels{_place(window)} did not arrive whole ({words}), though "
        "the server answers. The connection breaks, or the file is damaged: try again later, then "
        "copy the file here and look at it."
    )


def _gdal_window(window: Window) -> GdalWindow:
    return GdalWindow(window.left, window.top, window.width, window.height)


def _place(window: Window | None) -> str:
    if window is None:
        return ""
    return (
        f" in rows {window.top} to {window.bottom - 1}, "
        f"columns {window.left} to {window.right - 1},"
    )
