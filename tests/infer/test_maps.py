"""Which rasters make one map."""

import numpy as np
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.geo.grid import Grid
from geodino.infer.maps import joined_maps


def grid(row, column, height=4, width=5, *, crs="EPSG:32618", step=10.0):
    corner = Affine.translation(500_000 + column * step, 4_500_000 - row * step)
    return Grid(crs, corner @ Affine.scale(step, -step), width=width, height=height)


def test_neighbours_on_one_grid_make_one_map():
    (found,) = joined_maps([grid(0, 5), grid(4, 0), grid(0, 0)])
    assert found.rasters == (0, 1, 2)
    assert found.places == ((0, 5), (4, 0), (0, 0))
    assert (found.grid.height, found.grid.width) == (8, 10)
    assert found.grid.transform == grid(0, 0).transform


@settings(deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, unique=True))
def test_every_raster_lies_in_its_map_where_it_lies_on_the_earth(corners):
    grids = [grid(4 * r, 5 * c) for r, c in corners]
    (found,) = joined_maps(grids)
    for number, (row, column) in zip(found.rasters, found.places, strict=True):
        np.testing.assert_allclose(
            found.grid.transform @ (column, row), grids[number].transform @ (0, 0)
        )
        assert 0 <= row <= found.grid.height - 4
        assert 0 <= column <= found.grid.width - 5


def test_two_dates_of_one_place_stay_apart():
    assert len(joined_maps([grid(0, 0), grid(0, 0)])) == 2
    assert len(joined_maps([grid(0, 0), grid(3, 4)])) == 2


def test_half_a_patch_or_another_step_keeps_rasters_apart():
    assert len(joined_maps([grid(0, 0), grid(0.5, 5)])) == 2
    assert len(joined_maps([grid(0, 0), grid(0, 5, step=10.01)])) == 2


def test_each_zone_has_its_own_maps():
    maps = joined_maps([grid(0, 0), grid(0, 0, crs="EPSG:32617"), grid(0, 5)])
    assert [found.rasters for found in maps] == [(0, 2), (1,)]


def test_pictures_without_a_place_are_never_joined():
    maps = joined_maps([grid(0, 0, crs=None), grid(0, 5, crs=None)])
    assert [found.rasters for found in maps] == [(0,), (1,)]
