"""Grids that should be one and are not: in what they differ, and the command that mends it."""

import shlex
from pathlib import Path

from pyproj import CRS

from geodino.geo.grid import Grid
from geodino.runs.sources import Source

_CODE = 32
"""Characters of a CRS that fit in a command; a longer one is WKT."""


def same_crs(one: str | None, other: str | None) -> bool:
    """Whether two CRSs are one, however they are written."""
    if one is None or other is None or one == other:
        return one == other
    return CRS.from_user_input(one).equals(CRS.from_user_input(other), ignore_axis_order=True)


def called(crs: str | None) -> str:
    """Return what to call a CRS in a message."""
    if crs is None:
        return "no CRS"
    return crs if len(crs) < _CODE else str(CRS.from_user_input(crs).name)


def cure(odd: Source, like: Source, target: Grid | None) -> str:
    """Say how a raster comes to the grid of another.

    Args:
        odd: the raster.
        like: the other.
        target: the pixels of that grid which it should have; None where it has no place there.
    """
    if odd.raster.grid.crs is None or like.raster.grid.crs is None:
        return "give both their CRS and transform (gdal_edit -a_srs -a_ullr), or cut them alike"
    if target is None or target.crs is None or target.transform.b or target.transform.d:
        return "warp both to one upright grid with gdalwarp"
    west, north = target.transform @ (0, 0)
    east, south = target.transform @ (target.width, target.height)
    edges = min(west, east), min(south, north), max(west, east), max(south, north)
    path = Path(odd.path)
    srs = (
        target.crs
        if len(target.crs) < _CODE
        else f'"$(gdalsrsinfo -o wkt2 --single-line {shlex.quote(like.path)})"'
    )
    size = str(target.width), str(target.height)
    words = ["-te", *(f"{edge:.12g}" for edge in edges), "-ts", *size]
    files = shlex.join([odd.path, str(path.with_name(f"{path.stem}.aligned.tif"))])
    return f"run `gdalwarp -t_srs {srs} {' '.join(words)} -r bilinear -dstalpha {files}` first"
