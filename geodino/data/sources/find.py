"""From what a user calls a source to the list of its files, in an order that never changes."""

import os
import re
import tarfile
from collections.abc import Iterable, Iterator
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

_BRACES = re.compile(r"\{(?:(?P<first>\d+)\.\.(?P<last>\d+)|(?P<list>[^{}]*,[^{}]*))\}")
_MOST_NAMES = 100_000


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

    A source is a folder (searched with all folders below it, links followed), a pattern (glob and
    braces), a file, a shard, a store, or the URL of one of them. Hidden files and folders and
    files that are not rasters by their ending (tables, ``.msk``, ``.ovr``, ``.aux.xml``) are left
    out.

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
    root, files = local_files(text, RASTERS)
    return Found(root, tuple(_opened(files)))


def local_files(src: str, endings: tuple[str, ...]) -> tuple[str, list[Path]]:
    """Return the folder that the files of a source lie in, and these, shards as they are.

    Args:
        src: a folder, a file, or a pattern; ``{000..099}`` and ``{a,b}`` in it are written out.
        endings: of the files that count, beside zarr stores and shards.

    Raises:
        SourceError: nothing is there, or no file ends so.
    """
    known = ", ".join((*endings, *STORES, SHARDS))
    names = [src] if Path(src).exists() else written_out(src)
    if len(names) > 1:
        parts = [local_files(name, endings) for name in names]
        files = sorted({file for _, found in parts for file in found}, key=lambda p: p.parts)
        return _common([root for root, _ in parts]), files
    path = Path(names[0]).expanduser().absolute()
    if path.is_dir() and path.suffix not in STORES:
        found = _files_below(path, endings)
        files = sorted(found, key=lambda p: p.relative_to(path).parts)
        if not files:
            raise SourceError(
                f"{src} holds no raster: no file below it ends in {known}. Name another folder, or "
                "a file or pattern."
            )
        return str(path), files
    if path.exists():
        return str(path.parent), [path]
    if has_magic(src):
        # Unlike Path.glob, this leaves hidden folders alone.
        matches = map(Path, glob(str(path), recursive=True))  # noqa: PTH207
        files = sorted({p for p in matches if _counts(p, endings)}, key=lambda p: p.parts)
        if not files:
            raise SourceError(
                f"The pattern {src} matches no raster ({known}). "
                "Quote it, so that the shell leaves it alone, and check it with ls."
            )
        return _common([str(file.parent) for file in files]), files
    raise SourceError(f"{src} does not exist. Name a folder, a file or a pattern of rasters.")


def written_out(pattern: str) -> list[str]:
    """Return the names that braces stand for: ``{08..10}`` counts, ``{a,b}`` lists."""
    found = _BRACES.search(pattern)
    if found is None:
        return [pattern]
    before, after = pattern[: found.start()], pattern[found.end() :]
    if found["first"] is None:
        parts = found["list"].split(",")
    else:
        first, last = found["first"], found["last"]
        numbers = range(min(int(first), int(last)), max(int(first), int(last)) + 1)
        if len(numbers) > _MOST_NAMES:
            raise SourceError(f"{pattern} stands for {len(numbers)} names: name their folder.")
        parts = [str(n).zfill(len(first)) for n in numbers]
    return [name for part in parts for name in written_out(f"{before}{part}{after}")]


def absolute(src: str) -> str:
    """Return what a source is called from any folder: an address as it is, a path absolute."""
    return src if is_remote(src) or src.startswith(WORLD) else os.path.abspath(src)  # noqa: PTH100  (a glob is no Path)


def is_remote(path: str) -> bool:
    """Whether a path is fetched over a network, or is a virtual path of GDAL's."""
    return "://" in path or path.startswith("/vsi")


def _common(folders: list[str]) -> str:
    return folders[0] if len(folders) == 1 else os.path.commonpath(folders)


def _files_below(root: Path, endings: tuple[str, ...]) -> Iterator[Path]:
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
        yield from (path for name in names if _counts(path := Path(folder, name), endings))


def _refuse(error: OSError) -> None:
    raise SourceError(
        f"The folder {error.filename} cannot be searched: {error.strerror}. Mend its permissions, "
        "or name the folders to use."
    ) from error


def _counts(path: Path, endings: tuple[str, ...]) -> bool:
    name = path.name.lower()
    if name.startswith("."):
        return False
    return name.endswith(STORES) or (name.endswith((*endings, SHARDS)) and not path.is_dir())


def _opened(files: Iterable[Path]) -> Iterator[str]:
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
