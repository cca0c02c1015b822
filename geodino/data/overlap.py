"""Ground that several tiles cover is not sampled more often than other ground."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import shapely

from geodino.data.tiles import Tile
from geodino.geo.outlines import outlines

_TOUCH = 1e-3
"""Overlaps below this share of a tile are rounding at shared edges."""


def weigh(tiles: Sequence[Tile]) -> list[Tile]:
    r"""Return the tiles with ``weight``: the mean over its footprint of one over the cover.

    .. math:: w_i = \frac{1}{A_i} \int_{T_i} \frac{1}{n(x)} \, dx

    where ``n(x)`` counts the tiles that cover the point ``x``. Approximated pair by pair:
    :math:`w_i \approx 1 / (1 + \sum_{j \ne i} |T_i \cap T_j| / A_i)`, exact where tiles coincide
    or do not overlap. Areas are taken in degrees: within a tile their ratio is that on the ground.
    Tiles without a place on the Earth weigh 1.
    """
    counts = Counter(tile.grid for tile in tiles)
    grids = list(counts)
    shapes = outlines(grids)
    placed = np.flatnonzero(shapely.area(shapes) > 0)  # NaN for None, which is not
    times = np.array([counts[grids[i]] for i in placed], dtype=np.float64)
    polygons = shapes[placed]
    tree = shapely.STRtree(polygons)
    one, other = tree.query(polygons, predicate="intersects")
    one, other = one[one != other], other[one != other]
    shared = shapely.area(shapely.intersection(polygons[one], polygons[other]))
    share = shared / np.maximum(shapely.area(polygons)[one], np.finfo(float).tiny)
    others = np.where(share > _TOUCH, share, 0) * times[other]
    cover = times + np.bincount(one, weights=others, minlength=len(placed))
    weights = {grids[i]: float(1 / n) for i, n in zip(placed, cover, strict=True)}
    return [
        tile
        if weights.get(tile.grid, 1.0) == tile.weight
        else replace(tile, weight=weights.get(tile.grid, 1.0))
        for tile in tiles
    ]
