"""Outlines of many grids at once, for questions of which tiles cover which."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import shapely
from jaxtyping import Float
from numpy.typing import NDArray
from pyproj import CRS, Transformer
from pyproj.exceptions import ProjError

from geodino.geo.grid import Grid

_CORNERS = np.array([(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1), (0.5, 1), (0, 1), (0, 0.5)])
"""Places on the outline of a raster, as parts of its width and height."""


def outlines(grids: Sequence[Grid]) -> NDArray[np.object_]:
    """Return outlines in longitude and latitude; None for grids without a place on the Earth.

    Eight points each, all grids of a CRS at once: for 100,000 tiles a thousand times faster than
    the exact footprints of :meth:`Grid.footprint_wgs84`, which is taken where the outline crosses
    the antimeridian or goes round a pole.
    """
    found = np.full(len(grids), None, dtype=object)
    by_crs: dict[str, list[int]] = defaultdict(list)
    for i, grid in enumerate(grids):
        if grid.crs is not None and not grid.transform.is_identity:
            by_crs[grid.crs].append(i)
    for crs, places in by_crs.items():
        corners = _corners(crs, [grids[i] for i in places])
        if corners is None:
            continue
        plain = np.isfinite(corners).all(axis=(1, 2)) & (np.ptp(corners[..., 0], axis=1) < 180)
        found[np.array(places)[plain]] = shapely.polygons(corners[plain])
        for i in np.array(places)[~plain]:
            found[i] = grids[i].footprint_wgs84()
    return found


def _corners(crs: str, grids: Sequence[Grid]) -> Float[np.ndarray, "n 8 2"] | None:
    try:
        to_wgs84 = Transformer.from_crs(CRS.from_user_input(crs), "OGC:CRS84", always_xy=True)
    except ProjError:
        return None
    terms = np.array([grid.transform[:6] for grid in grids])
    sizes = np.array([(grid.width, grid.height) for grid in grids])
    column, row = (sizes[:, None, :] * _CORNERS).transpose(2, 0, 1)
    a, b, c, d, e, f = terms.T[:, :, None]
    lon, lat = to_wgs84.transform(
        a * column + b * row + c, d * column + e * row + f, errcheck=False
    )
    return np.stack([lon, lat], axis=-1)
