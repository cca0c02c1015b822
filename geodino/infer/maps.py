"""Which rasters make one map: those whose patches lie on one grid and do not overlap."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine

from geodino.geo.grid import Grid

_TOLERANCE = 1e-3
"""How far the corner of a raster may lie from a corner of the grid, in patches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mosaic:
    """One grid of patches and the rasters that lie on it."""

    grid: Grid
    """One pixel per patch."""

    rasters: tuple[int, ...]
    """Numbers of the rasters."""

    places: tuple[tuple[int, int], ...]
    """First row and column of each of them on the grid."""


def joined_maps(grids: Sequence[Grid]) -> list[Mosaic]:
    """Join the patch grids of each CRS to one map if they are parts of one grid, side by side.

    Two that overlap (two dates of one place) or are shifted by part of a patch stay apart, and
    with them all of their CRS: which one should win would be a guess.

    Args:
        grids: one per raster, one pixel per patch.
    """
    by_crs: dict[str | None, list[int]] = {}
    for number, grid in enumerate(grids):
        by_crs.setdefault(grid.crs, []).append(number)
    maps: list[Mosaic] = []
    for crs, numbers in by_crs.items():
        places = _places([grids[i] for i in numbers]) if crs is not None else None
        if places is None or len(numbers) == 1:
            maps += [Mosaic(grid=grids[i], rasters=(i,), places=((0, 0),)) for i in numbers]
        else:
            maps.append(_union([grids[i] for i in numbers], numbers, places))
    return maps


def _places(grids: Sequence[Grid]) -> list[tuple[int, int]] | None:
    """Return row and column of each grid on the first one, or None where they do not fit."""
    first = grids[0].transform
    places = []
    for grid in grids:
        t = grid.transform
        if not np.allclose(
            [t.a, t.b, t.d, t.e], [first.a, first.b, first.d, first.e], rtol=1e-9, atol=0
        ):
            return None
        column, row = ~first @ (t.c, t.f)
        if max(abs(column - round(column)), abs(row - round(row))) > _TOLERANCE:
            return None
        places.append((round(row), round(column)))
    boxes = [
        shapely.box(column, row, column + grid.width, row + grid.height)
        for (row, column), grid in zip(places, grids, strict=True)
    ]
    overlap = sum(box.area for box in boxes) - shapely.union_all(boxes).area
    return None if overlap > 0.5 else places


def _union(
    grids: Sequence[Grid], numbers: Sequence[int], places: Sequence[tuple[int, int]]
) -> Mosaic:
    top, left = (min(place[axis] for place in places) for axis in (0, 1))
    bottom = max(row + grid.height for (row, _), grid in zip(places, grids, strict=True))
    right = max(column + grid.width for (_, column), grid in zip(places, grids, strict=True))
    transform = grids[0].transform @ Affine.translation(left, top)
    return Mosaic(
        grid=Grid(grids[0].crs, transform, width=right - left, height=bottom - top),
        rasters=tuple(numbers),
        places=tuple((row - top, column - left) for row, column in places),
    )
