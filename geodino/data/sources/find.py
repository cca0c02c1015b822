"""From what a user calls a source to the list of its files, in an order that never changes."""

import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path, PurePosixPath

from geodino.errors import SourceError
from geodino.io.remote import store_errors, store_of
from geodino.io.zarr.key import find_key

RASTERS = (".tif", ".tiff", ".jp2", ".jpg", ".jpeg", ".png")
"""Endings looked for in folders. A file that is named itself may have any that GDAL reads."""

STORES = (".zarr", ".zarr.zip")
"""Endings of zarr stores."""

SHARDS = ".tar"
"""Ending of WebDataset shards: uncompressed archives of pictures."""

INDEX = ".parquet"

WORLD = "world:"
"""Prefix of generated sources."""


@dataclass(frozen=True, slots=True)
class Found:
    """The files of a source."""

    root: str
    """The folder that all of them lie in."""

    files: tuple[str, ...]
    """Rasters and zarr stores, absolute paths or URLs, sorted; a picture in a shard is
    ``/vsitar/SHARD/NAME``, as GDAL opens it."""


def find(src: str | Path) -> Found:
    """Return the rasters and zarr stores of a source.

    A source is a folder (searched with all folders below it, links followed), a glob pattern, a
    file, a shard, a store, or the URL of one of them. Hidden files and folders and files that are
    not rasters by their ending (tables, ``.msk``, ``.ovr``, ``.aux.xml``) are left out.

    Raises:
        SourceError: nothing is there, or nothing in it is a raster.
    """
    text = str(src).removeprefix("file://")
    key = find_key(text)
    if key is not None and not Path(text).exists() and (key.arrays or is_remote(text)):
        whole = str(key)
        return Found(whole.rsplit("/", 1)[0], (whole,))
    if is_remote(text):
        return _remote(text)
    path = Path(text).expanduser().absolute()
    if path.is_dir() and path.suffix not in STORES:
        files = sorted(_rasters_below(path), key=lambda p: p.relative_to(path).parts)
        if not files:
            raise SourceError(
                f"{text} holds no raster: no file below it ends in "
                f"{', '.join((*RASTERS, *STORES, SHARDS))}. Name another folder, or a file or pattern."
            )
        return Found(str(path), tuple(_opened(files)))
    if path.exists():
        return Found(str(path.parent), tuple(_opened([path])))
    if has_magic(text):
        # Unlike Path.glob, this leaves hidden folders alone.
        matches = map(Path, glob(str(path), recursive=True))  # noqa: PTH207
        files = sorted({p for p in matches if _is_raster(p)}, key=lambda p: p.parts)
        if not files:
            raise SourceError(
                f"The pattern {text} matches no raster ({', '.join((*RASTERS, *STORES, SHARDS))}). "
                "Quote it, so that the shell leaves it alone, and check it with ls."
            )
        return Found(_common([str(file.parent) for file in files]), tuple(_opened(files)))
    raise SourceError(f"{text} does not exist. Name a folder, a file or a pattern of rasters.")


def absolute(src: str) -> str:
    """Return what a source is called from any folder: an address as it is, a path absolute."""
    return src if is_remote(src) or src.startswith(WORLD) else os.path.abspath(src)  # noqa: PTH100  (a glob is no Path)


def is_remote(path: str) -> bool:
    """Whether a path is fetched over a network, or is a virtual path of GDAL's."""
    return "://" in path or path.startswith("/vsi")


def _common(folders: list[str]) -> str:
    return folders[0] if len(folders) == 1 else os.path.commonpath(folders)


def _rasters_below(root: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_refuse):
        stat = Path(folder).stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a link back to a folder above
            subfolders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        visible = sorted(n for n in subfolders if not n.startswith((".", "__MACOSX")))
        yield from (Path(folder, n) for n in visible if n.endswith(STORES))
        subfolders[:] = [n for n in visible if not n.endswith(STORES)]
        yield from (path for name in names if _is_raster(path := Path(folder, name)))


def _refuse(error: OSError) -> None:
    raise SourceError(
        f"The folder {error.filename} cannot be searched: {error.strerror}. Mend its permissions, "
        "or name the folders to use."
    ) from error


def _is_raster(path: Path) -> bool:
    name = path.name.lower()
    if name.startswith("."):
        return False
    return name.endswith(STORES) or (name.endswith((*RASTERS, SHARDS)) and not path.is_dir())


def _opened(files: list[Path]) -> Iterator[str]:
    """Put the pictures of shards in the place of the shards."""
    for file in files:
        if file.suffix.lower() == SHARDS and file.is_file():
            yield from _in_shard(file)
        else:
            yield str(file)


def _in_shard(shard: Path) -> list[str]:
    try:
        with tarfile.open(shard, "r:") as archive:
            # GDAL knows "./a.png", as `tar -cf x.tar .` writes it, as "a.png".
            names = sorted(str(PurePosixPath(m.name)) for m in archive if m.isfile())
    except (tarfile.TarError, OSError) as error:
        raise SourceError(
            f"{shard} cannot be read as an uncompressed tar archive ({error}). Unpack it, or write "
            "it again without compression: single pictures of a compressed one cannot be reached."
        ) from error
    pictures = [n for n in names if PurePosixPath(n).suffix.lower() in RASTERS]
    if not pictures:
        raise SourceError(
            f"{shard} holds no picture: none of its {len(names)} files ends in {', '.join(RASTERS)}."
        )
    return [f"/vsitar/{shard}/{name}" for name in pictures]


def _remote(url: str) -> Found:
    """Return one named file, or list a folder or a pattern with the package for its protocol."""
    path = url.partition("?")[0]
    # In an address of the web a ? begins the query; patterns there use * and [ alone.
    is_web = url.startswith(("http://", "https://"))
    is_pattern = has_magic(path) if is_web else has_magic(url)
    if not is_pattern and not path.endswith("/"):
        return Found(path.rsplit("/", 1)[0], (url,))
    if url.startswith("/vsi"):
        raise SourceError(f"{url} is a pattern of GDAL's virtual files; name the files one by one.")
    if is_web:
        raise SourceError(
            f"{url} cannot be listed: HTTP knows no folders. Name the files themselves, a STAC "
            "item collection whose assets they are, a tile index (.parquet), or the bucket behind "
            "it (s3://, gs://, az://)."
        )
    names = _listed(url)
    files = sorted(n for n in names if n.lower().endswith((*RASTERS, *STORES)))
    if not files:
        raise SourceError(
            f"{url} holds no raster: none of {len(names)} names ends in "
            f"{', '.join((*RASTERS, *STORES))}."
        )
    root = url[: min(url.find(c) for c in "*?[" if c in url)] if has_magic(url) else url
    return Found(root.rsplit("/", 1)[0], tuple(files))


def _listed(url: str) -> list[str]:
    """Return the addresses below a folder, or those that a pattern matches."""
    protocol = url.partition("://")[0]
    try:
        system, pattern = store_of(url)
        below = f"{pattern.rstrip('/')}/**" if url.endswith("/") else pattern
        return [system.unstrip_protocol(name) for name in system.glob(below)]
    except ImportError as error:
        raise SourceError(
            f"{url} cannot be listed: that needs a package. {error}, e.g. with `pip install`; or "
            "name the files themselves, a STAC item collection or a tile index (.parquet)."
        ) from error
    except ValueError as error:
        raise SourceError(
            f"{url} cannot be listed: {protocol}:// is not known ({error}). s3://, gs:// and az:// "
            "are."
        ) from error
    except store_errors(OSError, NotImplementedError) as error:
        raise SourceError(
            f"{url} cannot be listed: {str(error) or type(error).__name__}. Check the address and your "
            "credentials, or name the files themselves, a STAC item collection or a tile index."
        ) from error
