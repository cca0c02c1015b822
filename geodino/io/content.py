"""A cheap hash of what a source holds: it changes when a file is rewritten."""

import hashlib
import os
from pathlib import Path

from rasterio.errors import RasterioError

from geodino.errors import SourceError
from geodino.io.image_key import find_image
from geodino.io.remote import first_bytes, is_far, told_of
from geodino.io.zarr.key import find_key
from geodino.io.zarr.pool import StorePool

_SAMPLED = 1 << 16
"""Bytes hashed at the start, the middle and the end of a file."""

SHARD = "/vsitar/"
"""Prefix of pictures in a shard: ``/vsitar/SHARD/NAME``."""


def is_virtual(path: str) -> bool:
    """Whether a path is no file of this machine's, or one inside another."""
    return "://" in path or path.startswith("/vsi")


def file_of(path: str) -> str:
    """Return the file that holds a raster: itself, or the shard that a picture lies in."""
    image = find_image(path)
    if image is not None:
        return image.file
    if not path.startswith(SHARD):
        return path
    inside = path.removeprefix(SHARD)
    if is_virtual(inside):
        return path
    return str(next((p for p in Path(inside).parents if p.is_file()), inside))


def content_sample(path: str) -> tuple[int, str]:
    """Return the size in bytes and a SHA-256 of samples of a raster's content.

    Of a local file the first, middle and last 64 KiB are hashed, all of it where it is no longer
    than 192 KiB; of a picture in a shard the shard; of a raster of a zarr store its metadata and
    some chunks; of a far file what its server tells of its version, or its first 64 KiB where it
    tells none.

    Raises:
        SourceError: it is not there any more.
    """
    key = find_key(path)
    if key is not None:
        stores = StorePool(1)
        try:
            return stores.open(key).content_sample()
        finally:
            stores.close()
    holder = file_of(path)
    return _of_url(holder) if is_virtual(holder) else _of_file(Path(holder))


def _of_file(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            if size <= 3 * _SAMPLED:
                starts, length = [0], size
            else:
                starts, length = [0, (size - _SAMPLED) // 2, size - _SAMPLED], _SAMPLED
            for start in starts:
                handle.seek(start)
                digest.update(handle.read(length))
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read any more ({error.strerror}). Restore it, or build the index "
            "again."
        ) from error
    return size, digest.hexdigest()


def _of_url(url: str) -> tuple[int, str]:
    """Hash what a server tells of a version; where it tells none, the start of the file."""
    if not is_far(url):
        return 0, hashlib.sha256(url.encode()).hexdigest()
    told = told_of(url)
    if told.version or told.mtime_ns:
        state = f"{told.size}\0{told.mtime_ns}\0{told.version}".encode()
    else:
        try:
            state = first_bytes(url, min(told.size or _SAMPLED, _SAMPLED))
        except RasterioError:
            # Shorter than a header, or no file: its address is all there is to tell.
            state = url.encode()
    return told.size, hashlib.sha256(state).hexdigest()
