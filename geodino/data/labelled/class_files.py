"""Files that hold a class per pixel: masks beside images and class rasters; palettes and colours."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from geodino.data.labelled.classes import ClassTable, as_colours
from geodino.data.labelled.sets import IGNORED
from geodino.data.parallel import in_order
from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.metadata import crs_name, open_raster
from geodino.io.raster import HandlePool, read
from geodino.io.whole import missing

CLASSES_TAG = "GEODINO_CLASSES"
"""Tag of maps of classes: a JSON list of the names by number."""

_LOOKED_AT, _SIDE, _NAMED = 8, 512, 30
"""Files, pixels of a side, and values in the hint on what files hold."""

_AS_STORED = ReadRule(alpha="band", nodata="ignore")


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassFile:
    """What the header of a file of classes says."""

    path: str
    grid: Grid
    count: int
    """Bands."""

    dtype: str
    nodata: float | None
    palette: tuple[tuple[int, int, int], ...]
    """Colour of each stored number; empty without a palette."""

    names: tuple[str, ...]
    """Names of the classes by stored number, where the file says them."""


def class_files(paths: Sequence[str], *, threads: int) -> list[ClassFile]:
    """Read the headers of files of classes, in order.

    Raises:
        SourceError: a file is missing, cut off, or no raster of numbers.
    """
    return list(in_order(class_file, paths, threads=threads))


def class_file(path: str) -> ClassFile:
    """Read the header of a file of classes; see ``class_files``."""
    local = Path(path)
    lack = missing(local) if local.is_file() else None
    if lack:
        raise SourceError(f"{path} cannot be read: {lack}. Copy it again, or remove it.")
    with open_raster(path) as dataset:
        if dataset.dtypes[0].startswith("complex"):
            raise SourceError(f"{path} stores complex values, which are no classes.")
        wkt = dataset.crs.to_wkt() if dataset.crs else None
        return ClassFile(
            path=path,
            grid=Grid(
                crs=crs_name(wkt) if wkt else None,
                transform=dataset.transform,
                width=dataset.width,
                height=dataset.height,
            ),
            count=dataset.count,
            dtype=dataset.dtypes[0],
            nodata=dataset.nodata,
            palette=_palette(dataset),
            names=_names(dataset, local),
        )


def read_classes(
    pool: HandlePool, file: ClassFile, table: ClassTable, window: Window
) -> UInt8[np.ndarray, "h w"]:
    """Return the class of each pixel of a window of a file, ``IGNORED`` where it does not count.

    Raises:
        SourceError: the file is damaged, or holds what is no class.
    """
    if table.are_colours:
        values = _coloured(pool, file, window)
        return table.numbers(values, source=file.path)
    if file.count > 1:
        raise SourceError(
            f"{file.path} has {file.count} bands where classes need one. If its pixels are coloured, "
            "declare colours: labels: {classes: {water: '#0000ff', ...}}."
        )
    pixels, _ = read(pool, file.path, window, bands=[1], rule=_AS_STORED)
    nodata = file.nodata
    if pixels.dtype.kind == "f":
        pixels = _whole(pixels, file)
        nodata = None if nodata is None or not np.isfinite(nodata) else nodata
    return table.numbers(pixels[0].astype(np.int64), ignored=nodata, source=file.path)


def _whole(pixels: Any, file: ClassFile) -> Any:
    """Floats as whole numbers; those that are not finite are ignored."""
    known = np.where(np.isfinite(pixels), pixels, IGNORED)
    if (known != np.rint(known)).any():
        raise SourceError(
            f"{file.path} stores {file.dtype} numbers that are not whole: they are no classes."
        )
    return known


def _coloured(pool: HandlePool, file: ClassFile, window: Window) -> Int64[np.ndarray, "h w"]:
    if file.palette:
        pixels, _ = read(pool, file.path, window, bands=[1], rule=_AS_STORED)
        table = np.array(file.palette, dtype=np.uint8)
        known = as_colours(table.T[:, None])[0]
        return np.asarray(known[np.minimum(pixels[0], len(known) - 1)])
    if file.count < 3 or file.dtype != "uint8":
        raise SourceError(
            f"{file.path} has {file.count} band(s) of {file.dtype} and no palette, but labels.classes "
            "declares colours: declare the stored numbers instead."
        )
    pixels, _ = read(pool, file.path, window, bands=[1, 2, 3], rule=_AS_STORED)
    return as_colours(pixels)


def _palette(dataset: Any) -> tuple[tuple[int, int, int], ...]:
    if "palette" not in (color.name for color in dataset.colorinterp[:1]):
        return ()
    colours = dataset.colormap(1)
    return tuple((c[0], c[1], c[2]) for _, c in sorted(colours.items()))


def _names(dataset: Any, path: Path) -> tuple[str, ...]:
    """The names a file or the ``.aux.xml`` beside it gives its numbers."""
    said = dataset.tags().get(CLASSES_TAG)
    if said:
        try:
            names = json.loads(said)
        except json.JSONDecodeError as error:
            raise SourceError(
                f"{path}: its tag {CLASSES_TAG} is no JSON list ({error})."
            ) from error
        return tuple(str(name) for name in names)
    beside = path.with_name(path.name + ".aux.xml")
    if not beside.is_file():
        return ()
    try:
        root = ET.fromstring(beside.read_text(encoding="utf-8"))  # noqa: S314  (a local file)
    except (ET.ParseError, UnicodeDecodeError) as error:
        raise SourceError(f"{beside} cannot be read as XML ({error}). Remove it.") from error
    return tuple(item.text or "" for item in root.iterfind("PAMRasterBand/CategoryNames/Category"))


def values_in_words(files: Sequence[ClassFile]) -> str:
    """Say which values some of the files hold, so that a user can declare what they mean.

    A look at a few files, each thinned to some hundred pixels a side: rare values may be missed.
    Empty where they hold no single band of whole numbers.
    """
    looked = [f for f in files if f.count == 1 and np.dtype(f.dtype).kind in "iu"][:_LOOKED_AT]
    if not looked:
        return ""
    found: set[int] = set()
    for file in looked:
        with open_raster(file.path) as dataset:
            size = min(dataset.height, _SIDE), min(dataset.width, _SIDE)
            found |= set(np.unique(dataset.read(1, out_shape=size)).tolist())
    values = ", ".join(map(str, sorted(found)[:_NAMED])) + (" ..." if len(found) > _NAMED else "")
    return f"{len(looked)} of the {len(files)} hold the values {values}"


def named_values(files: Sequence[ClassFile]) -> dict[str, int] | None:
    """Return the names that all files give their numbers; None where one names none or others."""
    found = {file.names for file in files}
    if len(found) != 1 or not (names := found.pop()):
        return None
    return {name: number for number, name in enumerate(names) if name}
