"""An area of interest from a vector file, as pixels of a raster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from jaxtyping import Bool
from pyproj import CRS
from rasterio.features import geometry_mask

from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window


def read_area(path: str | Path, *, option: str) -> Any:
    """Return the geometries of a vector file as a GeoDataFrame with a CRS.

    Args:
        path: any vector file that pyogrio opens.
        option: what named it, for messages.

    Raises:
        SourceError: there is none, it cannot be read, or has no CRS or geometry.
    """
    import geopandas
    from pyogrio.errors import DataLayerError, DataSourceError

    if Path(path).is_dir():
        raise SourceError(f"{option}: {path} is a folder. Name a vector file.")
    if not Path(path).is_file():
        raise SourceError(f"{option}: {path} does not exist. Name a vector file.")
    if not Path(path).stat().st_size:
        raise SourceError(f"{option}: {path} is empty. Name a vector file with areas.")
    try:
        frame = geopandas.read_file(path)
    except (DataSourceError, DataLayerError, ValueError) as error:
        why = str(error).partition(";")[0].rstrip(".")  # what follows is GDAL's advice
        raise SourceError(f"{option}: {path} cannot be read as a vector file ({why}).") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise SourceError(f"{option}: {path} is a table without geometries. Name a vector file.")
    if frame.crs is None:
        raise SourceError(f"{option}: {path} has no CRS. Declare it in the file.")
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
