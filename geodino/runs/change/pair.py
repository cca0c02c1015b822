"""Two rasters of one ground as one source; rasters on different grids are refused."""

import math
from dataclasses import dataclass, replace

from geodino.errors import SourceError
from geodino.geo.contract import InputContract
from geodino.geo.grid import Grid
from geodino.infer.change import stacked
from geodino.io.raster import HandlePool
from geodino.runs.change.job import ChangeJob
from geodino.runs.mapping.grids import called, cure, same_crs
from geodino.runs.mapping.mosaic import as_mapped
from geodino.runs.sources import Source, open_sources

_MOST_APART = 0.5
"""Pixels that the grids of two dates may be apart at a corner."""

_TOLD = 0.01
"""Pixels apart from which on it is said."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pair:
    """Both dates."""

    before: Source
    after: Source
    source: Source
    """The two stacked, made of ``before`` and ``after``."""

    notes: tuple[str, ...]
    """Decisions on how files are read, as sentences."""


def open_pair(job: ChangeJob, contract: InputContract, *, pool: HandlePool) -> Pair:
    """Open both dates, and check each against the model and the later against the earlier.

    Args:
        job: names the earlier and the later date; several rasters of one become one.
        contract: of the model.
        pool: where open files are kept.

    Raises:
        RecipeError: rasters of a date overlap, and nothing says which of them counts.
        SourceError: a raster cannot be read, or the grids differ.
        BandError: a band that was asked for is not there.
        ContractError: a raster is not what the model was trained on.
    """
    dates: list[Source] = []
    notes: list[str] = []
    how = replace(job.how, gsd_m=job.gsd_m)
    for path in job.rasters:
        found = open_sources([path], contract, how, pool=pool, overrides=job.overrides, strict=True)
        dates += as_mapped(job, found)
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
        bands=(*before.bands, *after.bands),
        dtype=before.dtype,
        area_or_point=before.area_or_point,
        members=(before, after),
    )
    return Pair(before=before, after=after, source=source, notes=tuple(dict.fromkeys(notes)))


def pixels_apart(before: Source, after: Source) -> float:
    """Return how far the grids of two dates are apart at their worst corner, pixels.

    Raises:
        SourceError: more than half a pixel, or another size or CRS; it tells how to bring the
            later date to the grid of the earlier. Nothing is reprojected here.
    """
    one, other = before.raster.grid, after.raster.grid
    if not same_crs(one.crs, other.crs):
        found = f"in {called(other.crs)}, not in {called(one.crs)}"
    elif (one.width, one.height) != (other.width, other.height):
        found = f"{other.width} x {other.height} pixels, not {one.width} x {one.height}"
    else:
        apart = _corners_apart(one, other)
        if apart <= _MOST_APART:
            return apart
        found = f"{apart:,.1f} pixels away at a corner"
    raise SourceError(
        f"{after.path} does not lie on the grid of {before.path}: it is {found}; "
        f"{cure(after, before, one)}."
    )


def _corners_apart(one: Grid, other: Grid) -> float:
    to_pixels = ~one.transform
    corners = [(x, y) for x in (0, one.width) for y in (0, one.height)]
    return max(math.dist(to_pixels @ (other.transform @ corner), corner) for corner in corners)
