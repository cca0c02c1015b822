"""Areas from a vector file, one of interest or many, as pixels of a raster."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from rasterio.features import geometry_mask

from geodino.errors import SourceError
from geodino.geo.align import positions
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.vector import read_vector


def read_area(path: str | Path, *, option: str) -> Any:
    """Return the geometries of a vector file as a GeoDataFrame with a CRS.

    Args:
        path: GeoParquet, or any vector file that pyogrio opens.
        option: what named it, for messages.

    Raises:
        SourceError: there is none, it cannot be read, or has no CRS or geometry.
    """
    if Path(path).is_dir():
        raise SourceError(f"{option}: {path} is a folder. Name a vector file.")
    if not Path(path).is_file():
        raise SourceError(f"{option}: {path} does not exist. Name a vector file.")
    if not Path(path).stat().st_size:
        raise SourceError(f"{option}: {path} is empty. Name a vector file with areas.")
    frame = read_vector(path, called=f"{option}: {path}", what="a vector file")
    if frame.empty or frame.geometry.isna().all():
        raise SourceError(f"{option}: {path} holds no geometry.")
    return frame


@dataclass(frozen=True, slots=True)
class Area:
    """An area on the grid of a raster. Safe to ask from threads.

    Args:
        outline: in pixels: columns, then rows. Never prepared: GEOS allows threads to read one
            geometry, but not to use one prepared geometry.
    """

    outline: shapely.Geometry

    @classmethod
    def on(cls, path: str | Path, grid: Grid, *, option: str = "--aoi") -> "Area":
        """Read an area and bring it to a raster's grid.

        Raises:
            SourceError: the file cannot be used or holds no valid polygon, or the raster has no
                CRS.
        """
        frame = read_area(path, option=option)
        if grid.crs is None:
            raise SourceError(
                f"{option}: the raster has no CRS, so where {path} lies on it is not known. Give "
                "the raster its CRS (gdal_edit -a_srs), or leave the area out."
            )
        shapes = frame.geometry.dropna().to_crs(grid.crs)
        if not shapes.is_valid.all():
            row = shapes.index[~shapes.is_valid][0]
            raise SourceError(
                f"{option}: the geometry in row {row} of {path} crosses itself in the raster's CRS "
                f"({_short(grid.crs)}). Repair it (geopandas: frame.make_valid()), or cut off what "
                "lies far from the raster."
            )
        outline = shapes.union_all()
        if not outline.area > 0:
            raise SourceError(f"{option}: {path} holds no polygon. Points and lines have no area.")
        a, b, c, d, e, f = (~grid.transform)[:6]
        return cls(shapely.affinity.affine_transform(outline, [a, b, d, e, c, f]))

    def touches(self, window: Window) -> bool:
        """Return whether any of a window lies in the area."""
        box = shapely.box(window.left, window.top, window.right, window.bottom)
        return bool(self.outline.intersects(box))

    def holds(self, places: Float[np.ndarray, "n 2"]) -> Bool[np.ndarray, " n"]:
        """Return which places, columns and rows of pixels, lie in the area or on its edge."""
        held: Bool[np.ndarray, n] = shapely.intersects_xy(self.outline, places)
        return held

    def inside(self, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return the pixels of a window whose centre lies in the area."""
        box = shapely.box(window.left, window.top, window.right, window.bottom)
        part = self.outline.intersection(box)
        shape = window.height, window.width
        polygons = [p for p in getattr(part, "geoms", [part]) if p.area > 0]
        if not polygons:
            return np.zeros(shape, dtype=bool)
        place = Affine.translation(window.left, window.top)
        mask: Bool[np.ndarray, "h w"] = geometry_mask(polygons, shape, place, invert=True)
        return mask


def _short(crs: str) -> str:
    """Return the code or the name of a CRS; its WKT fills a page."""
    return crs if len(crs) < 32 else CRS.from_user_input(crs).name


_EDGE_POINTS = 33
"""Points along each edge of a window: edges straight in one CRS are curved in another."""


@dataclass(frozen=True, kw_only=True)
class Polygons:
    """Many polygons, of which a window meets few: they stay in their own CRS until one does."""

    shapes: NDArray[np.object_]
    crs: str

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.shapes)

    def inside(self, grid: Grid, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return the pixels of a window whose centre lies in one of them.

        Args:
            grid: the pixels' grid; it needs a CRS.
            window: rows and columns of it.
        """
        t = np.linspace(0.0, 1.0, _EDGE_POINTS)[:-1]
        column = np.concatenate([t, np.ones_like(t), 1 - t, np.zeros_like(t)]) * window.width
        row = np.concatenate([np.zeros_like(t), t, np.ones_like(t), 1 - t]) * window.height
        plane = Grid(self.crs, Affine.identity(), 1, 1)
        edge = positions(grid, plane, column + window.left, row + window.top)
        outline = shapely.Polygon(np.column_stack(edge))
        shape = window.height, window.width
        near = self._tree.query(outline, predicate="intersects")
        if not near.size:
            return np.zeros(shape, dtype=bool)
        to_grid = Transformer.from_crs(self.crs, grid.crs, always_xy=True)
        met = shapely.transform(self.shapes[near], to_grid.transform, interleaved=False)
        place = grid.transform @ Affine.translation(window.left, window.top)
        mask: Bool[np.ndarray, "h w"] = geometry_mask(list(met), shape, place, invert=True)
        return mask
