"""A cheap hash of what a source holds: it changes when a file is rewritten."""

import hashlib
import os
from pathlib import Path

from geodino.errors import SourceError
from geodino.io.zarr_key import find_key
from geodino.io.zarr_pool import StorePool

_SAMPLED = 1 << 16
"""Bytes hashed at the start, the middle and the end of a file."""

_IN_SHARD = "/vsitar/"


def is_virtual(path: str) -> bool:
    """Whether a path is no file of this machine's, or one inside another."""
    return "://" in path or path.startswith("/vsi")


def content_sample(path: str) -> tuple[int, str]:
    """Return the size in bytes and a SHA-256 of samples of a raster's content.

    Of a local file the first, middle and last 64 KiB are hashed, all of it where it is no longer;
    of a picture in a shard the shard; of a raster of a zarr store its metadata and some chunks; of
    a remote file what the server says of its version.

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
    if path.startswith(_IN_SHARD):
        shard, _, _ = path.removeprefix(_IN_SHARD).partition(".tar/")
        return _of_file(Path(f"{shard}.tar"))
    return _of_url(path) if is_virtual(path) else _of_file(Path(path))


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
    """Hash the size and the version tag that a server gives; a listing, not a download."""
    if url.startswith("/vsi"):
        return 0, hashlib.sha256(url.encode()).hexdigest()
    import fsspec

    try:
        system, name = fsspec.core.url_to_fs(url)
        about = system.info(name)
    except (ImportError, OSError) as error:
        raise SourceError(f"{url} cannot be reached ({error}). Check the address.") from error
    tags = [str(about.get(key, "")) for key in ("ETag", "etag", "LastModified", "mtime", "md5")]
    size = int(about.get("size") or 0)
    return size, hashlib.sha256("\0".join([str(size), *tags]).encode()).hexdigest()
