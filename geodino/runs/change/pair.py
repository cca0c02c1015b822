"""Two rasters of one ground as one source; rasters on different grids are refused."""

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pyproj import CRS

from geodino.errors import SourceError
from geodino.geo.contract import InputContract
from geodino.geo.grid import Grid
from geodino.infer.change import stacked
from geodino.io.raster import HandlePool
from geodino.runs.sources import Meeting, Source, open_sources

_MOST_APART = 0.5
"""Pixels that the grids of two dates may be apart at a corner."""

_TOLD = 0.01
"""Pixels apart from which on it is said."""

_CODE = 32
"""Characters of a CRS that fit in a command; a longer one is WKT."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Both dates."""

    before: Source
    after: Source
    source: Source
    """The two stacked."""

    notes: tuple[str, ...]
    """Decisions on how files are read, as sentences."""


def open_pair(
    rasters: Sequence[str],
    contract: InputContract,
    how: Meeting,
    *,
    pool: HandlePool,
    overrides: Sequence[str] = (),
) -> Pair:
    """Open both dates, and check each against the model and the later against the earlier.

    Args:
        rasters: the earlier and the later date, one raster each.
        contract: of the model.
        how: what the user says about it.
        pool: where open files are kept.
        overrides: ``data.KEY=VALUE``, how files are read.

    Raises:
        SourceError: a raster cannot be read, a path names several, or the grids differ.
        BandError: a band that was asked for is not there.
        ContractError: a raster is not what the model was trained on.
    """
    dates: list[Source] = []
    notes: list[str] = []
    for path in rasters:
        found = open_sources([path], contract, how, pool=pool, overrides=overrides, strict=True)
        if len(found.sources) > 1:
            raise SourceError(
                f"{path} holds {len(found.sources)} rasters, but change is between two: name one "
                "raster for each date, or mosaic them first (gdalbuildvrt)."
            )
        dates.append(found.sources[0])
        notes += found.notes
    before, after = dates
    apart = pixels_apart(before, after)
    if apart > _TOLD:
        notes.append(f"the two grids lie {apart:.2f} px apart, which is taken as one grid")
    source = Source(
        path=f"The pair {before.path}, {after.path}",
        name=f"{before.name}_{after.name}",
        raster=stacked(before.raster, after.raster),
        files=(*before.files, *after.files),
        area_or_point=before.area_or_point,
    )
    return Pair(before=before, after=after, source=source, notes=tuple(dict.fromkeys(notes)))


def pixels_apart(before: Source, after: Source) -> float:
    """Return how far the grids of two dates are apart at their worst corner, pixels.

    Raises:
        SourceError: more than half a pixel, or another size or CRS; it tells how to bring the
            later date to the grid of the earlier. Nothing is reprojected here.
    """
    one, other = before.raster.grid, after.raster.grid
    if not _same_crs(one.crs, other.crs):
        found = f"in {_called(other.crs)}, not in {_called(one.crs)}"
    elif (one.width, one.height) != (other.width, other.height):
        found = f"{other.width} x {other.height} pixels, not {one.width} x {one.height}"
    else:
        apart = _corners_apart(one, other)
        if apart <= _MOST_APART:
            return apart
        found = f"{apart:,.1f} pixels away at a corner"
    raise SourceError(
        f"{after.path} does not lie on the grid of {before.path}: it is {found}; "
        f"{_cure(before, after)}."
    )


def _corners_apart(one: Grid, other: Grid) -> float:
    to_pixels = ~one.transform
    corners = [(x, y) for x in (0, one.width) for y in (0, one.height)]
    return max(math.dist(to_pixels @ (other.transform @ corner), corner) for corner in corners)


def _same_crs(one: str | None, other: str | None) -> bool:
    if one is None or other is None or one == other:
        return one == other
    return CRS.from_user_input(one).equals(CRS.from_user_input(other), ignore_axis_order=True)


def _called(crs: str | None) -> str:
    if crs is None:
        return "no CRS"
    return crs if len(crs) < _CODE else str(CRS.from_user_input(crs).name)


def _cure(before: Source, after: Source) -> str:
    """Say how the later date comes to the grid of the earlier one."""
    grid, other = before.raster.grid, after.raster.grid
    if grid.crs is None or other.crs is None:
        return "give both their CRS and transform (gdal_edit -a_srs -a_ullr), or cut them alike"
    if grid.transform.b or grid.transform.d:
        return "warp both dates to one upright grid with gdalwarp"
    west, north = grid.transform @ (0, 0)
    east, south = grid.transform @ (grid.width, grid.height)
    edges = min(west, east), min(south, north), max(west, east), max(south, north)
    path = Path(after.path)
    srs = (
        grid.crs
        if len(grid.crs) < _CODE
        else f'"$(gdalsrsinfo -o wkt2 --single-line {shlex.quote(before.path)})"'
    )
    words = ["-te", *(f"{edge:.12g}" for edge in edges), "-ts", str(grid.width), str(grid.height)]
    files = shlex.join([after.path, str(path.with_name(f"{path.stem}.aligned.tif"))])
    return f"run `gdalwarp -t_srs {srs} {' '.join(words)} -r bilinear -dstalpha {files}` first"
