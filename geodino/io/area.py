"""An area of interest from a vector file, as pixels of a raster."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from jaxtyping import Bool
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
    from pyogrio.errors import DataSourceError

    if not Path(path).is_file():
        raise SourceError(f"{option}: {path} does not exist. Name a vector file.")
    try:
        frame = geopandas.read_file(path)
    except (DataSourceError, ValueError) as error:
        raise SourceError(f"{option}: {path} cannot be read as a vector file ({error}).") from error
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
            SourceError: the file cannot be used, or the raster has no CRS.
        """
        frame = read_area(path, option=option)
        if grid.crs is None:
            raise SourceError(
                f"{option}: the raster has no CRS, so where {path} lies on it is not known. Give "
                "the raster its CRS (gdal_edit -a_srs), or leave the area out."
            )
        outline = frame.to_crs(grid.crs).union_all()
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
