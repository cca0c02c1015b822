"""Several rasters as one: on whose grid, and which of them counts where they overlap."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from affine import Affine

from geodino.errors import RecipeError, SourceError
from geodino.geo.align import covering
from geodino.geo.grid import Grid
from geodino.geo.regrid import Resampling, axes
from geodino.geo.windows import Window
from geodino.infer.ground import Regrid
from geodino.infer.maps import Mosaic, merged
from geodino.runs.mapping.grids import called, cure, same_crs
from geodino.runs.mapping.job import MapJob
from geodino.runs.sources import Source, Sources

_NAMED = 3
"""Rasters of a mosaic that a message names."""


def as_mapped(job: MapJob, found: Sources) -> tuple[Source, ...]:
    """Return what maps are made of: each raster, or all as one where one map is asked for.

    The grid is that of the raster named first, drawn on as far as the others reach.

    Raises:
        RecipeError: rasters overlap, and nothing says which of them counts.
        SourceError: they are no parts of one grid, differ in their bands, or have no dates to be
            ordered by.
    """
    if job.keeps_apart or len(found.sources) == 1:
        return found.sources
    first = found.sources[0]
    for source in found.sources:
        _refuse_placeless(source, job)
        _refuse_unlike(first, source, job)
    laid = [first, *(_laid(other, first, found.resampling, job) for other in found.sources[1:])]
    mosaic = Mosaic.of([source.raster.grid for source in laid])
    if mosaic is None:
        raise ValueError(f"rasters on the grid of {first.path} lie on no grid together")
    if job.mosaic is None and mosaic.overlapping is not None:
        pair = " and ".join(Path(laid[i].path).name for i in mosaic.overlapping)
        raise RecipeError(
            f"{job.out} holds one map, but {len(laid)} rasters were named, of which {pair} overlap. "
            "Say which counts there with --mosaic first, last, newest or oldest, or "
            f"{job.otherwise}."
        )
    order = _order(laid, job.mosaic)
    return (_as_one([laid[i] for i in order], [mosaic.places[i] for i in order], mosaic.grid),)


def counted(sources: Sequence[Source]) -> str:
    """Say how many rasters there are, and whether they are mapped as one."""
    origins = [origin for source in sources for origin in source.origins]
    if len(sources) == len(origins):
        return str(len(origins))
    return f"{len(origins)} as one, where they overlap first {Path(origins[0].path).name}"


def _as_one(sources: Sequence[Source], places: Sequence[Window], grid: Grid) -> Source:
    first = sources[0]
    names = ", ".join(source.path for source in sources[:_NAMED])
    more, times = len(sources) - _NAMED, {source.time for source in sources}
    path = f"The mosaic of {names}" + (f" and {more} more" if more > 0 else "")
    return Source(
        path=path,
        name="mosaic",
        raster=merged(
            [source.raster for source in sources],
            places,
            grid=grid,
            name=path,
            bands=len(first.bands),
            dtype=first.dtype,
        ),
        files=tuple(file for source in sources for file in source.files),
        bands=first.bands,
        dtype=first.dtype,
        time=times.pop() if len(times) == 1 else None,
        area_or_point=first.area_or_point,
        members=tuple(sources),
    )


def _order(sources: Sequence[Source], order: str | None) -> list[int]:
    """Return the numbers of the rasters, the one that counts most first; of one date as named.

    Raises:
        SourceError: one has no date.
    """
    numbers = list(range(len(sources)))
    if order in (None, "first"):
        return numbers
    if order == "last":
        return numbers[::-1]
    lack = [source.path for source in sources if source.time is None]
    if lack:
        more = f" (and {len(lack) - 1} more)" if len(lack) > 1 else ""
        raise SourceError(
            f"--mosaic {order}: {lack[0]}{more} does not say when it was taken. Name the rasters in "
            "the order in which they count, with --mosaic first."
        )
    return sorted(numbers, key=lambda i: sources[i].time or "", reverse=order == "newest")


def _refuse_placeless(source: Source, job: MapJob) -> None:
    grid = source.raster.grid
    if grid.crs is None or grid.transform == Affine.identity():
        raise SourceError(
            f"{source.path} has no place on the Earth, so nothing says where it lies beside the "
            "other rasters. Give it its CRS and transform (gdal_edit -a_srs -a_ullr), or "
            f"{job.otherwise}."
        )


def _refuse_unlike(first: Source, other: Source, job: MapJob) -> None:
    """Refuse to mix values that mean different things."""
    if other.dtype != first.dtype:
        raise SourceError(
            f"{other.path} stores {other.dtype}, {first.path} {first.dtype}: in one map the values "
            "would mean two things. Convert one of them (gdal_translate -ot), or "
            f"{job.otherwise}."
        )
    for one, band in zip(first.bands, other.bands, strict=True):
        is_other = not (
            job.how.bands or one.is_positional or band.is_positional or one.is_like(band)
        )
        if is_other or (one.unit, one.decoding) != (band.unit, band.decoding):
            raise SourceError(
                f"{other.path} has {band.name} ({band.decoding}, {band.unit}) where {first.path} "
                f"has {one.name} ({one.decoding}, {one.unit}): in one map the values would mean two "
                "things. Name the bands (--bands) or convert one of the files, or "
                f"{job.otherwise}."
            )


def _laid(other: Source, first: Source, how: Resampling | None, job: MapJob) -> Source:
    """Return a raster on the grid of the first one.

    Raises:
        SourceError: it does not lie there, and no method is declared that brings it there.
    """
    grid, own = other.raster.grid, first.raster.grid
    if same_crs(grid.crs, own.crs):
        grid = replace(grid, crs=own.crs)
        if Mosaic.of([own, grid]) is not None:
            return replace(other, raster=replace(other.raster, grid=grid))
    target = covering(grid, own)
    can_resample = target is not None and axes(grid, target) is not None
    if target is not None and how is not None and can_resample:
        regrid = Regrid(grid, target)
        return replace(other, raster=regrid.seen(replace(other.raster, grid=grid), how=how))
    ways = [cure(other, first, target)]
    if can_resample:
        ways.append("let it be resampled (--set data.resampling=bilinear)")
    raise SourceError(
        f"{other.path} does not lie on the grid of {first.path}: {_difference(grid, own)}; "
        f"{', '.join(ways)}, or {job.otherwise}."
    )


def _difference(grid: Grid, own: Grid) -> str:
    if grid.crs != own.crs:
        return f"it is in {called(grid.crs)}, not in {called(own.crs)}"
    a, b = grid.transform, own.transform
    if max(abs(a.a - b.a), abs(a.b - b.b), abs(a.d - b.d), abs(a.e - b.e)) > 1e-9 * abs(b.a):
        sides = ((abs(t.a + t.d * 1j), abs(t.b + t.e * 1j)) for t in (a, b))
        (wide, high), (own_wide, own_high) = sides
        sizes = f"{wide:g} x {high:g}", f"{own_wide:g} x {own_high:g}"
        ways = [] if sizes[0] == sizes[1] else ["its pixels are {}, not {}".format(*sizes)]
        if max(abs(a.b - b.b), abs(a.d - b.d)) > 1e-9 * abs(b.a):
            ways.append("it is turned against it")
        return " and ".join(ways) or "it is mirrored against it"
    column, row = ~b @ (a.c, a.f)
    return f"it begins {column % 1:.3g} columns and {row % 1:.3g} rows from a pixel's corner"
