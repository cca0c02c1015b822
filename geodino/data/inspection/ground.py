"""How often ground is covered, and by pictures of which dates."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
import shapely
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.inspection.found import Ground
from geodino.data.tiles import Tile
from geodino.geo.grid import Grid
from geodino.geo.outlines import outlines

POINTS = 4096
"""Points of the ground at which tiles are counted: shares are known to 1.6 % (two sigma)."""


def ground(tiles: Sequence[Tile], copies: Iterable[Sequence[str]]) -> Ground:
    """Measure how often ground is covered.

    Args:
        tiles: of all kinds.
        copies: sets of files with the same content, which are told elsewhere.
    """
    twice, mean, placed = cover([tile.grid for tile in tiles])
    original = {path: paths[0] for paths in copies for path in paths}
    dates: dict[Grid, dict[str | None, dict[str, str]]] = defaultdict(lambda: defaultdict(dict))
    for tile in tiles:
        if tile.gsd_m is not None:
            same = original.get(tile.files[0], tile.files[0])
            dates[tile.grid][tile.datetime].setdefault(same, tile.path)
    return Ground(
        placed=placed,
        covered_twice=twice,
        mean_cover=mean,
        places_revisited=sum(len(of_grid) > 1 for of_grid in dates.values()),
        same_date=tuple(
            tuple(paths.values())
            for of_grid in dates.values()
            for when, paths in of_grid.items()
            if when is not None and len(paths) > 1
        ),
    )


def cover(grids: Sequence[Grid]) -> tuple[float | None, float | None, int]:
    r"""Estimate how often ground is covered, from points drawn on it.

    Points are drawn evenly on all tiles, so ground that ``n`` tiles cover is hit ``n`` times too
    often and every hit counts ``1 / n`` (and by the cosine of its latitude, as points are drawn
    evenly in degrees):

    .. math:: \text{share covered twice} \approx
        \frac{\sum_p [n_p > 1] / n_p}{\sum_p 1 / n_p}, \qquad
        \text{mean cover} \approx \frac{P}{\sum_p 1 / n_p}

    Returns:
        The share of the ground that more than one grid covers, the mean number of grids over a
        point of it (both None where no grid has a place), and the number of grids with a place.
    """
    counts = Counter(grids)
    unique = list(counts)
    shapes = outlines(unique)
    is_placed = shapely.area(shapes) > 0  # NaN for None, which is not
    if not is_placed.any():
        return None, None, 0
    polygons = shapes[is_placed]
    times = np.array([counts[g] for g, p in zip(unique, is_placed, strict=True) if p])
    points = _points(polygons, times)
    tree = shapely.STRtree(polygons)
    point, polygon = tree.query(points, predicate="intersects")
    over = np.bincount(point, weights=times[polygon], minlength=len(points))
    # A point on the very edge may be missed by rounding; it lies on the tile it was drawn from.
    share = np.cos(np.radians(shapely.get_y(points))) / np.maximum(over, 1)
    everywhere = float(share.sum())
    twice = float(share[over > 1].sum()) / everywhere
    mean = float((share * np.maximum(over, 1)).sum()) / everywhere
    return twice, mean, int(times.sum())


def _points(polygons: NDArray[np.object_], times: NDArray[np.int64]) -> NDArray[np.object_]:
    """Draw points evenly on polygons, each as often as it occurs."""
    generator = seeds.rng("ground", len(polygons))
    low_x, low_y, high_x, high_y = shapely.bounds(polygons).T
    boxes = (high_x - low_x) * (high_y - low_y) * times
    chances = np.cumsum(boxes) / boxes.sum()
    kept: list[NDArray[np.object_]] = []
    while sum(map(len, kept)) < POINTS:
        # Drawn in bounding boxes; those outside the polygon itself are drawn again.
        drawn = np.searchsorted(chances[:-1], generator.random(POINTS))
        x = low_x[drawn] + generator.random(POINTS) * (high_x - low_x)[drawn]
        y = low_y[drawn] + generator.random(POINTS) * (high_y - low_y)[drawn]
        kept.append(shapely.points(x, y)[shapely.contains_xy(polygons[drawn], x, y)])
    return np.concatenate(kept)[:POINTS]
