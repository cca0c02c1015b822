"""Where the pixels of a raster lie on the Earth."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS, Geod, Transformer
from pyproj.exceptions import ProjError
from shapely import Geometry, MultiPolygon, Polygon, box, transform

_WGS84 = Geod(ellps="WGS84")
_EDGE_POINTS = 9
"""Points along each edge of a footprint: edges straight in UTM are curved in longitude."""


@dataclass(frozen=True, slots=True)
class Grid:
    """The georeference of a raster: CRS, affine transform, size.

    A grid has no place on the Earth without a CRS, under an identity transform, or in a local
    engineering system; ``gsd_m`` and ``footprint_wgs84()`` are None then.

    Args:
        crs: authority code (``EPSG:32618``) or WKT; None for a picture without a place.
        transform: from (column, row) of pixel corners to CRS coordinates.
        width: columns.
        height: rows.
    """

    crs: str | None
    transform: Affine
    width: int
    height: int

    @property
    def gsd_m(self) -> tuple[float, float] | None:
        """Ground length of one column step and one row step at the centre, metres (geodesic)."""
        to_wgs84 = self._to_wgs84()
        if to_wgs84 is None:
            return None
        x, y = self.width / 2, self.height / 2
        columns, rows = np.array([x - 0.5, x + 0.5, x, x]), np.array([y, y, y - 0.5, y + 0.5])
        lon, lat = self._lonlat(to_wgs84, columns, rows)
        if not (np.isfinite(lon).all() and np.isfinite(lat).all()):
            return None
        _, _, lengths = _WGS84.inv(lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]])
        return float(lengths[0]), float(lengths[1])

    def footprint_wgs84(self) -> Polygon | MultiPolygon | None:
        """Outline in longitude and latitude; split where it crosses the antimeridian.

        None where the grid has no place, or one that is not on the Earth.
        """
        to_wgs84 = self._to_wgs84()
        if to_wgs84 is None:
            return None
        t = np.linspace(0.0, 1.0, _EDGE_POINTS)[:-1]
        columns = np.concatenate([t, np.ones_like(t), 1 - t, np.zeros_like(t)]) * self.width
        rows = np.concatenate([np.zeros_like(t), t, np.ones_like(t), 1 - t]) * self.height
        lon, lat = self._lonlat(to_wgs84, columns, rows)
        if not (np.isfinite(lon).all() and np.isfinite(lat).all() and (np.abs(lat) <= 90).all()):
            return None
        steps = (np.diff(lon, append=lon[:1]) + 180.0) % 360.0 - 180.0
        if abs(steps.sum()) > 180.0:  # the outline goes round a pole
            low, high = (float(lat.min()), 90.0) if lat.mean() > 0 else (-90.0, float(lat.max()))
            return box(-180.0, low, 180.0, high)
        unrolled = lon[0] + np.concatenate([[0.0], np.cumsum(steps[:-1])])
        return _wrapped(Polygon(np.column_stack([unrolled, lat])))

    def _to_wgs84(self) -> Transformer | None:
        # An identity transform is the sign of a lost one.
        if self.crs is None or self.transform == Affine.identity():
            return None
        return _transformer(self.crs)

    def _lonlat(
        self, to_wgs84: Transformer, columns: NDArray[np.float64], rows: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        a, b, c, d, e, f = self.transform[:6]
        lon, lat = to_wgs84.transform(
            a * columns + b * rows + c, d * columns + e * rows + f, errcheck=False
        )
        return np.asarray(lon, dtype=np.float64), np.asarray(lat, dtype=np.float64)


def _wrapped(outline: Polygon) -> Polygon | MultiPolygon:
    """Bring an outline that leaves [-180, 180] back, in as many parts as it takes."""
    parts: list[Geometry] = []
    for turn in (-360.0, 0.0, 360.0):
        part = outline.intersection(box(turn - 180.0, -90.0, turn + 180.0, 90.0))
        if part.area > 0:
            parts.append(transform(part, lambda xy, turn=turn: xy - [turn, 0.0]))
    polygons = [p for part in parts for p in getattr(part, "geoms", [part])]
    return polygons[0] if len(polygons) == 1 else MultiPolygon(polygons)


@lru_cache(maxsize=512)
def _transformer(crs: str) -> Transformer | None:
    """Return the way to longitude and latitude; None for systems that no datum ties to the Earth.

    Building one takes milliseconds, so they are kept.
    """
    try:
        return Transformer.from_crs(CRS.from_user_input(crs), "OGC:CRS84", always_xy=True)
    except ProjError:
        return None
