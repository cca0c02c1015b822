"""Rasters on one grid: which of them lie on one, and their pixels as those of one raster."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from affine import Affine

from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.infer.chips import Pixels, Raster

_TOLERANCE = 1e-3
"""How far the corner of a raster may lie from a corner of the grid, in pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Mosaic:
    """One grid and the rasters that lie on it."""

    grid: Grid

    rasters: tuple[int, ...]
    """Numbers of the rasters."""

    places: tuple[Window, ...]
    """The pixels of the grid that each of them covers."""

    @classmethod
    def of(cls, grids: Sequence[Grid], numbers: Sequence[int] | None = None) -> "Mosaic | None":
        """Lay grids of one CRS on one; None where they are no parts of one grid.

        Args:
            grids: of the rasters.
            numbers: of the rasters; None counts from 0.
        """
        corners = _corners(grids)
        if corners is None:
            return None
        top, left = (min(corner[axis] for corner in corners) for axis in (0, 1))
        places = tuple(
            Window(row - top, column - left, grid.height, grid.width)
            for (row, column), grid in zip(corners, grids, strict=True)
        )
        return cls(
            grid=Grid(
                grids[0].crs,
                _transform(grids, places, shift=(left, top)),
                width=max(place.right for place in places),
                height=max(place.bottom for place in places),
            ),
            rasters=tuple(range(len(grids)) if numbers is None else numbers),
            places=places,
        )

    @property
    def overlapping(self) -> tuple[int, int] | None:
        """Two places, counted from 0, that share a pixel; None where there are none."""
        edges = np.array([(p.top, p.left, p.bottom, p.right) for p in self.places])
        for number, (top, left, bottom, right) in enumerate(edges):
            later = edges[number + 1 :]
            shared = (later[:, 0] < bottom) & (later[:, 2] > top)
            shared &= (later[:, 1] < right) & (later[:, 3] > left)
            if shared.any():
                return number, number + 1 + int(shared.argmax())
        return None


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
        found = None if crs is None else Mosaic.of([grids[i] for i in numbers], numbers)
        if found is not None and found.overlapping is None:
            maps.append(found)
        else:
            alone = (Mosaic.of([grids[i]], [i]) for i in numbers)
            maps += [one for one in alone if one is not None]
    return maps


def merged(
    rasters: Sequence[Raster],
    places: Sequence[Window],
    *,
    grid: Grid,
    name: str,
    bands: int,
    dtype: str,
) -> Raster:
    """Return rasters as one: a pixel is that of the first raster in which it is valid.

    Where none has a valid pixel there is none. A raster is read only where those before it leave
    pixels open.

    Args:
        rasters: the one that counts most first.
        places: the pixels of ``grid`` that each of them covers.
        grid: of the whole.
        name: see :class:`Raster`.
        bands: of every raster.
        dtype: stored type of every raster.
    """
    laid = list(zip(rasters, places, strict=True))

    def read(window: Window) -> Pixels:
        touched = [(raster, place, place.shared(window)) for raster, place in laid]
        parts = [(raster, place, part) for raster, place, part in touched if part is not None]
        if len(parts) == 1 and parts[0][2] == window:
            raster, place, _ = parts[0]
            return raster.read(window.inside(place))
        pixels = np.zeros((bands, window.height, window.width), dtype=dtype)
        valid = np.zeros((window.height, window.width), dtype=bool)
        for raster, place, part in parts:
            rows, columns = part.inside(window).slices
            known = valid[rows, columns]
            if known.all():
                continue
            more, usable = raster.read(part.inside(place))
            np.copyto(pixels[:, rows, columns], more, where=usable & ~known)
            known |= usable
        return pixels, valid

    high, wide = (max(raster.block[axis] for raster in rasters) for axis in (0, 1))
    return Raster(name=name, grid=grid, read=read, block=(high, wide), parts=tuple(places))


def _corners(grids: Sequence[Grid]) -> list[tuple[int, int]] | None:
    """Return row and column of each grid on the first one, or None where they do not fit."""
    first = grids[0].transform
    corners = []
    for grid in grids:
        t = grid.transform
        if not np.allclose(
            [t.a, t.b, t.d, t.e], [first.a, first.b, first.d, first.e], rtol=1e-9, atol=0
        ):
            return None
        column, row = ~first @ (t.c, t.f)
        if max(abs(column - round(column)), abs(row - round(row))) > _TOLERANCE:
            return None
        corners.append((round(row), round(column)))
    return corners


def _transform(
    grids: Sequence[Grid], places: Sequence[Window], *, shift: tuple[int, int]
) -> Affine:
    """Return the transform of the whole: to the last bit that of a raster at its first corner."""
    at_corner = (
        grid.transform for grid, p in zip(grids, places, strict=True) if not (p.top or p.left)
    )
    return next(at_corner, grids[0].transform @ Affine.translation(*shift))
