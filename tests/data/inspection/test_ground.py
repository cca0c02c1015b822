"""How often ground is covered: counted by hand, and across CRSs."""

import numpy as np
import pytest
import shapely
from affine import Affine

from geodino.data.inspection.ground import cover
from geodino.geo.grid import Grid
from geodino.geo.outlines import outlines

# 4,096 points: two standard deviations of a share are at most 1.6 %.
NEAR = {"abs": 0.025}


def tile(column, row=0, *, side=100, crs="EPSG:32632"):
    return Grid(
        crs, Affine(10, 0, 500_000 + 1000 * column, 0, -10, 5_000_000 - 1000 * row), side, side
    )


def test_tiles_side_by_side_cover_nothing_twice():
    twice, mean, placed = cover([tile(i, j) for i in range(10) for j in range(3)])
    assert (twice, placed) == (0.0, 30)
    assert mean == pytest.approx(1.0)


def test_a_tile_shifted_by_half_covers_a_third_of_the_ground_twice():
    # Two squares of area 1 that share a half: ground 1.5, twice 0.5, cover 2 / 1.5.
    twice, mean, _ = cover([tile(0), tile(0.5)])
    assert twice == pytest.approx(1 / 3, **NEAR)
    assert mean == pytest.approx(4 / 3, **NEAR)


def test_dates_of_one_grid_count_each():
    twice, mean, placed = cover([tile(0)] * 5 + [tile(7)])
    # Half of the ground is covered five times, half once.
    assert twice == pytest.approx(0.5, **NEAR)
    assert mean == pytest.approx(3.0, abs=0.1)
    assert placed == 6


def test_overlaps_across_coordinate_systems_count():
    here = tile(0)
    low_x, low_y, high_x, high_y = here.footprint_wgs84().bounds
    degrees = Affine((high_x - low_x) / 50, 0, low_x, 0, (low_y - high_y) / 50, high_y)
    twice, _, _ = cover([here, Grid("EPSG:4326", degrees, 50, 50)])
    assert twice > 0.95


def test_tiles_without_a_place_count_for_nothing():
    lost = Grid(None, Affine.scale(2), 9, 9)
    assert cover([lost, Grid("EPSG:4326", Affine.identity(), 9, 9)]) == (None, None, 0)
    assert cover([lost, tile(0)])[2] == 1


def test_outlines_agree_with_footprints_on_both_sides_of_the_antimeridian():
    grids = [
        tile(0),
        tile(3, side=1000),
        Grid("EPSG:32660", Affine(100, 0, 700_000, 0, -100, 5_000_000), 2000, 2000),
        Grid("EPSG:32601", Affine(10, 0, 500_000, 0, -10, 5_000_000), 50, 50),
        Grid("EPSG:3995", Affine(1000, 0, -500_000, 0, -1000, 500_000), 1000, 1000),
    ]
    for outline, grid in zip(outlines(grids), grids, strict=True):
        exact = grid.footprint_wgs84()
        apart = shapely.area(shapely.symmetric_difference(outline, exact))
        assert apart < 0.002 * exact.area


def test_the_estimate_is_the_same_every_time():
    grids = [tile(x) for x in np.linspace(0, 3, 20)]
    assert cover(grids) == cover(grids)
