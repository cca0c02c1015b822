"""From what a user calls a source to the list of its files, in an order that never changes."""

import os
from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path

from geodino.errors import SourceError

RASTERS = (".tif", ".tiff", ".jp2", ".jpg", ".jpeg", ".png")
"""Endings looked for in folders. A file that is named itself may have any that GDAL reads."""

INDEX = ".parquet"


def find(src: str | Path) -> list[Path]:
    """Return the raster files of a source: absolute, sorted by path.

    A source is a folder (searched with all folders below it, links followed), a glob pattern, or
    a file. Hidden files and folders and files that are not rasters by their ending (tables,
    ``.msk``, ``.ovr``, ``.aux.xml``) are left out.

    Raises:
        SourceError: nothing is there, or nothing in it is a raster.
    """
    text = str(src)
    path = Path(text).expanduser().absolute()
    if path.is_dir():
        if path.suffix == ".zarr":
            raise SourceError(f"{text} is a zarr store; tiles are read from GeoTIFF, JPEG and PNG.")
        files = sorted(_rasters_below(path), key=lambda p: p.relative_to(path).parts)
        if not files:
            raise SourceError(
                f"{text} holds no raster: no file below it ends in {', '.join(RASTERS)}. "
                "Name another folder, or a file or pattern."
            )
        return files
    if path.exists():
        return [path]
    if has_magic(text):
        # Unlike Path.glob, this leaves hidden folders alone.
        matches = map(Path, glob(str(path), recursive=True))  # noqa: PTH207
        files = sorted({p for p in matches if _is_raster(p)}, key=lambda p: p.parts)
        if not files:
            raise SourceError(
                f"The pattern {text} matches no raster ({', '.join(RASTERS)}). "
                "Quote it, so that the shell leaves it alone, and check it with ls."
            )
        return files
    raise SourceError(f"{text} does not exist. Name a folder, a file or a pattern of rasters.")


def _rasters_below(root: Path) -> Iterator[Path]:
    seen: set[tuple[int, int]] = set()
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_refuse):
        stat = Path(folder).stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a link back to a folder above
            subfolders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        subfolders[:] = sorted(n for n in subfolders if not n.startswith((".", "__MACOSX")))
        yield from (path for name in names if _is_raster(path := Path(folder, name)))


def _refuse(error: OSError) -> None:
    raise SourceError(
        f"The folder {error.filename} cannot be searched: {error.strerror}. Mend its permissions, "
        "or name the folders to use."
    ) from error


def _is_raster(path: Path) -> bool:
    return path.suffix.lower() in RASTERS and not path.name.startswith(".") and not path.is_dir()
