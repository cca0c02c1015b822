"""Which rasters make one map, and what their pixels are as one raster."""

import numpy as np
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.infer.chips import Raster
from geodino.infer.maps import Mosaic, joined_maps, merged


def grid(row, column, height=4, width=5, *, crs="EPSG:32618", step=10.0):
    corner = Affine.translation(500_000 + column * step, 4_500_000 - row * step)
    return Grid(crs, corner @ Affine.scale(step, -step), width=width, height=height)


def test_neighbours_on_one_grid_make_one_map():
    (found,) = joined_maps([grid(0, 5), grid(4, 0), grid(0, 0)])
    assert found.rasters == (0, 1, 2)
    assert found.places == (Window(0, 5, 4, 5), Window(4, 0, 4, 5), Window(0, 0, 4, 5))
    assert (found.grid.height, found.grid.width) == (8, 10)
    assert found.grid.transform == grid(0, 0).transform


@given(st.lists(st.tuples(st.integers(-3, 3), st.integers(-3, 3)), min_size=1, unique=True))
def test_every_raster_lies_in_its_map_where_it_lies_on_the_earth(corners):
    grids = [grid(4 * r, 5 * c) for r, c in corners]
    (found,) = joined_maps(grids)
    whole = Window(0, 0, found.grid.height, found.grid.width)
    for number, place in zip(found.rasters, found.places, strict=True):
        np.testing.assert_allclose(
            found.grid.transform @ (place.left, place.top), grids[number].transform @ (0, 0)
        )
        assert whole.contains(place)


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


def test_two_that_overlap_are_named_and_touching_is_no_overlap():
    beside = [grid(0, 0), grid(4, 0), grid(0, 5)]
    assert Mosaic.of(beside).overlapping is None
    assert Mosaic.of([*beside, grid(7, 4)]).overlapping == (1, 3)


def test_the_corner_of_the_whole_is_to_the_last_bit_that_of_the_raster_in_it():
    step = 0.6  # of which no multiple is exact
    corner, east = grid(0, 0, step=step), grid(0, 5, step=step)
    assert Mosaic.of([east, corner]).grid.transform == corner.transform


corners = st.tuples(st.integers(0, 6), st.integers(0, 7))


@st.composite
def laid_rasters(draw):
    """Rasters of 4 x 5 px with holes, and where each lies; what lies in a hole is not looked at."""
    random = np.random.default_rng(draw(st.integers(0, 99)))
    rasters, places = [], []
    for row, column in draw(st.lists(corners, min_size=1, max_size=5)):
        pixels = random.integers(1, 200, (2, 4, 5)).astype(np.uint8)
        valid = random.random((4, 5)) < draw(st.sampled_from([0.0, 0.6, 1.0]))
        rasters.append((pixels, valid))
        places.append(Window(row, column, 4, 5))
    return rasters, places


def as_raster(pixels, valid):
    def read(window):
        assert window.top >= 0
        assert window.left >= 0
        assert window.bottom <= 4
        assert window.right <= 5
        pixels.flags.writeable = valid.flags.writeable = False
        return pixels[:, *window.slices], valid[window.slices]

    return Raster(name="r", grid=grid(0, 0), read=read, block=(2, 3))


def first_valid(rasters, places, row, column):
    """The definition, for one pixel; slow and obviously right."""
    for (pixels, valid), place in zip(rasters, places, strict=True):
        if place.contains(Window(row, column, 1, 1)):
            y, x = row - place.top, column - place.left
            if valid[y, x]:
                return pixels[:, y, x]
    return None


@given(laid_rasters(), corners, st.integers(1, 5), st.integers(1, 6))
def test_a_pixel_is_that_of_the_first_raster_in_which_it_is_valid(laid, corner, height, width):
    rasters, places = laid
    whole = merged(
        [as_raster(*raster) for raster in rasters], places, grid=grid(0, 0, 12, 14),
        name="all", bands=2, dtype="uint8",
    )  # fmt: skip
    window = Window(*corner, height, width)
    pixels, valid = whole.read(window)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (2, height, width)
    for y in range(height):
        for x in range(width):
            expected = first_valid(rasters, places, window.top + y, window.left + x)
            assert valid[y, x] == (expected is not None)
            if expected is not None:
                np.testing.assert_array_equal(pixels[:, y, x], expected)
    if valid.any():
        assert whole.may_hold(window)
