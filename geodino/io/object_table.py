"""Objects found in rasters as a vector file: a row each, with its box on the ground."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from jaxtyping import Float
from numpy.typing import NDArray
from shapely.geometry.polygon import orient

from geodino.files import replacing
from geodino.geo.grid import Grid
from geodino.geo.outlines import outlines
from geodino.io.geoparquet import write_geoparquet

FORMATS = (".parquet", ".geojson")
"""Endings of the files that are written."""

WGS84 = "EPSG:4326"
"""CRS of GeoJSON, and of objects whose rasters have several."""

COLUMNS = {
    "class": "name of the class",
    "score": "how sure the model is of the class, 0 to 1",
    "raster": "the raster the object was found in",
    "x0": "left edge of the box, pixels of the raster",
    "y0": "upper edge of the box, pixels of the raster",
    "x1": "right edge of the box, pixels of the raster",
    "y1": "lower edge of the box, pixels of the raster",
    "geometry": "the box on the ground",
}
"""Columns of a table, and what they hold."""

_DIGITS = 8
"""Decimals of a degree in GeoJSON: a millimetre."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Objects:
    """What was found in a raster."""

    raster: str
    grid: Grid
    xyxy: Float[np.ndarray, "n 4"]
    """Left, top, right, bottom in pixels."""

    names: Sequence[str]
    """Class of each."""

    scores: Float[np.ndarray, " n"]

    def shapes(self, crs: str | None) -> NDArray[np.object_]:
        """Return the boxes on the ground, in the raster's CRS or in longitude and latitude."""
        if crs == self.grid.crs:
            x0, y0, x1, y1 = self.xyxy.T
            a, b, c, d, e, f = self.grid.transform[:6]
            column, row = np.stack([x0, x1, x1, x0], axis=1), np.stack([y0, y0, y1, y1], axis=1)
            corners = [a * column + b * row + c, d * column + e * row + f]
            found: NDArray[np.object_] = shapely.polygons(np.stack(corners, axis=-1))
            return found
        if crs != WGS84:
            raise ValueError(f"{self.raster} is in {self.grid.crs}, not in {crs}")
        whole = self.grid.transform
        return outlines(
            [
                Grid(
                    self.grid.crs,
                    whole @ Affine.translation(x0, y0) @ Affine.scale(x1 - x0, y1 - y0),
                    width=1,
                    height=1,
                )
                for x0, y0, x1, y1 in self.xyxy.tolist()
            ]
        )


def crs_of(grids: Sequence[Grid], path: Path) -> str | None:
    """Return the CRS of a table: that of all rasters, or WGS 84 for GeoJSON and several of them."""
    found = {grid.crs for grid in grids}
    return WGS84 if len(found) > 1 or path.suffix.lower() == ".geojson" else found.pop()


def write_objects(
    path: Path, found: Sequence[Objects], *, crs: str | None, record: Mapping[str, Any]
) -> None:
    """Write GeoParquet 1.1, or GeoJSON (RFC 7946), as the ending says; whole or absent.

    Without a row the table is valid all the same, with its columns and CRS.

    Args:
        path: where to.
        found: in each raster.
        crs: of the geometry, see :func:`crs_of`.
        record: what belongs to all rows, as JSON values: kept in the metadata of GeoParquet, and
            as the member ``geodino`` of GeoJSON.

    Raises:
        RunError: the disk is full, or the file cannot be written.
    """
    frame = object_frame(found, crs=crs)
    if path.suffix.lower() == ".parquet":
        write_geoparquet(path, frame, record=record)
        return
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(_geojson(frame, record))


def object_frame(found: Sequence[Objects], *, crs: str | None) -> Any:
    """Return the table as a GeoDataFrame; arguments as of :func:`write_objects`."""
    import geopandas
    import pandas as pd

    xyxy = np.concatenate([np.zeros((0, 4)), *(one.xyxy for one in found)])
    names = [name for one in found for name in one.names]
    rasters = [one.raster for one in found for _ in one.names]
    columns = {
        "class": pd.array(names, dtype="string"),
        "score": np.concatenate([np.zeros(0), *(one.scores for one in found)]),
        "raster": pd.array(rasters, dtype="string"),
        **{name: xyxy[:, i] for i, name in enumerate(("x0", "y0", "x1", "y1"))},
    }
    none = np.zeros(0, dtype=object)
    shapes = np.concatenate([none, *(one.shapes(crs) for one in found if len(one.xyxy))])
    return geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)


def _geojson(frame: Any, record: Mapping[str, Any]) -> Iterator[str]:
    """Yield a collection, a feature a line."""
    head = json.dumps({"type": "FeatureCollection", "geodino": dict(record)})
    yield f'{head[:-1]}, "features": ['
    columns = [name for name in COLUMNS if name != "geometry"]
    rows = zip(frame.geometry, *(frame[name].tolist() for name in columns), strict=True)
    for number, (shape, *values) in enumerate(rows):
        feature = {
            "type": "Feature",
            "properties": dict(zip(columns, values, strict=True)),
            "geometry": _geometry(shape),
        }
        yield f"{',' if number else ''}\n{json.dumps(feature, allow_nan=False)}"
    yield "\n]}\n"


def _geometry(shape: shapely.Geometry) -> dict[str, Any]:
    """Return a geometry whose rings go the way RFC 7946 asks for."""
    polygons = [orient(polygon) for polygon in getattr(shape, "geoms", [shape])]
    rings = [[np.round(shapely.get_coordinates(p), _DIGITS).tolist()] for p in polygons]
    if len(rings) == 1:
        return {"type": "Polygon", "coordinates": rings[0]}
    return {"type": "MultiPolygon", "coordinates": rings}
