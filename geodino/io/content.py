"""A cheap hash of what a source holds: it changes when a file is rewritten."""

import hashlib
import os
from pathlib import Path

from geodino.errors import SourceError

_SAMPLED = 1 << 16
"""Bytes hashed at the start, the middle and the end of a file."""

SHARD = "/vsitar/"
"""Prefix of pictures in a shard: ``/vsitar/SHARD/NAME``."""


def is_virtual(path: str) -> bool:
    """Whether a path is no file of this machine's, or one inside another."""
    return "://" in path or path.startswith("/vsi")


def file_of(path: str) -> str:
    """Return the file that holds a raster: itself, or the shard that a picture lies in."""
    if not path.startswith(SHARD):
        return path
    inside = path.removeprefix(SHARD)
    if is_virtual(inside):
        return path
    return str(next((p for p in Path(inside).parents if p.is_file()), inside))


def content_sample(path: str) -> tuple[int, str]:
    """Return the size in bytes and a SHA-256 of samples of a raster's content.

    Of a local file the first, middle and last 64 KiB are hashed, all of it where it is no longer
    than 192 KiB; of a picture in a shard the shard; of a remote file what the server says of its
    version.

    Raises:
        SourceError: it is not there any more.
    """
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
