"""Values on the grid of another raster: against loops over pixels, across CRSs, cut in any way."""

import math
from functools import lru_cache

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from geodino.geo.align import aligned, is_finer, onto, positions, source_window
from geodino.geo.grid import Grid
from geodino.geo.windows import Window

# Near the border of zones 31 and 32 (6 degrees east), at 45 degrees north.
UTM31, UTM32, LONLAT = "EPSG:32631", "EPSG:32632", "EPSG:4326"
LON, LAT = 6.0, 45.0


@lru_cache
def way(source, target):
    return Transformer.from_crs(source, target, always_xy=True)


def grid(crs=UTM32, *, pixel_m=1.0, height=12, width=12, east_m=0.0, north_m=0.0, turn=0.0):
    """A grid whose first corner lies ``east_m``, ``north_m`` from the common place."""
    x, y = way(LONLAT, crs).transform(LON, LAT)
    step = (pixel_m, -pixel_m)
    if crs == LONLAT:
        per_m = 1 / 111_132.0
        x, y = x + east_m * per_m / math.cos(math.radians(LAT)), y + north_m * per_m
        step = (pixel_m * per_m / math.cos(math.radians(LAT)), -pixel_m * per_m)
    else:
        x, y = round(x) + east_m, round(y) + north_m
    place = Affine.translation(x, y) * Affine.rotation(turn) * Affine.scale(*step)
    return Grid(crs, place, width, height)


def whole(of):
    return Window(0, 0, of.height, of.width)


def brought(values, valid, source, target, window=None, statistic="max"):
    return aligned(
        lambda part: (values[part.slices], valid[part.slices]),
        source=source,
        target=target,
        window=window or whole(target),
        statistic=statistic,
    )


def slow(values, valid, source, target, statistic):
    """The definition, one pixel at a time."""

    def place(of, on, row, column):
        x, y = of.transform * (column + 0.5, row + 0.5)
        if of.crs != on.crs:
            x, y = way(of.crs, on.crs).transform(x, y)
        column, row = ~on.transform * (x, y)
        return math.floor(row + 5e-7), math.floor(column + 5e-7)

    held = {}
    for row in range(source.height):
        for column in range(source.width):
            held.setdefault(place(source, target, row, column), []).append((row, column))
    out = np.zeros((target.height, target.width), np.float32)
    kept = np.zeros(out.shape, dtype=bool)
    for row in range(target.height):
        for column in range(target.width):
            at = place(target, source, row, column)
            if not (0 <= at[0] < source.height and 0 <= at[1] < source.width):
                continue
            pixels = held.get((row, column), []) if is_finer(source, target) else []
            pixels = pixels or [at]
            good = [float(values[p]) for p in pixels if valid[p]]
            if good and 2 * len(good) >= len(pixels):
                how = {
                    "max": max,
                    "mean": lambda v: sum(v) / len(v),
                    "p95": lambda v: np.percentile(v, 95),
                }[statistic]
                out[row, column], kept[row, column] = how(good), True
    return out, kept


GRIDS = [
    pytest.param(grid(pixel_m=0.5, height=30, width=30), grid(pixel_m=2.0), id="finer"),
    pytest.param(
        grid(pixel_m=1.0, height=20, width=20),
        grid(pixel_m=2.0, east_m=0.5, north_m=-0.5),
        id="finer, half a pixel off",
    ),
    pytest.param(grid(pixel_m=3.0, east_m=-1.5), grid(pixel_m=1.0), id="coarser"),
    pytest.param(grid(), grid(east_m=0.5, north_m=-0.5), id="equal, half a pixel off"),
    pytest.param(
        grid(UTM31, pixel_m=0.7, height=40, width=40, east_m=-5, north_m=5),
        grid(UTM32, pixel_m=2.0),
        id="finer, another zone",
    ),
    pytest.param(grid(UTM31, east_m=-4, north_m=4), grid(UTM32), id="equal, another zone"),
    pytest.param(grid(UTM31, pixel_m=5.0, north_m=20), grid(UTM32), id="coarser, another zone"),
    pytest.param(
        grid(LONLAT, pixel_m=0.6, height=40, width=40, east_m=-2, north_m=2),
        grid(UTM32, pixel_m=2.0),
        id="finer, in degrees",
    ),
    pytest.param(grid(UTM31), grid(LONLAT, pixel_m=1.5), id="onto degrees"),
    pytest.param(
        grid(pixel_m=0.8, height=30, width=30, turn=20.0), grid(pixel_m=1.0), id="turned, holes"
    ),
]


@pytest.mark.parametrize("statistic", ["max", "mean", "p95"])
@pytest.mark.parametrize(("source", "target"), GRIDS)
def test_it_equals_the_definition_pixel_by_pixel(source, target, statistic):
    rng = np.random.default_rng(0)
    values = rng.uniform(0, 40, (source.height, source.width))
    valid = rng.random(values.shape) > 0.4
    got, kept = brought(values, valid, source, target, statistic=statistic)
    expected, known = slow(values, valid, source, target, statistic)
    np.testing.assert_array_equal(kept, known)
    assert kept.any()
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_four_pixels_become_one_by_each_statistic():
    # Pixels of 1 m in two of 2 m: [1 2 3 4] and [10, nothing, nothing, 30].
    values = np.array([[1.0, 2.0, 10.0, np.nan], [3.0, 4.0, np.nan, 30.0]])
    valid = np.isfinite(values)
    source, target = grid(height=2, width=4), grid(pixel_m=2.0, height=1, width=2)
    for statistic, expected in (("max", [4, 30]), ("mean", [2.5, 20]), ("p95", [3.85, 29])):
        got, kept = brought(values, valid, source, target, statistic=statistic)
        assert kept.all()
        np.testing.assert_allclose(got[0], expected, rtol=1e-6)
    valid[1, 3] = False  # one of four is less than half
    got, kept = brought(values, valid, source, target)
    assert kept.tolist() == [[True, False]]
    assert got.tolist() == [[4.0, 0.0]]


def test_ground_zero_is_a_value():
    got, kept = brought(np.zeros((4, 4)), np.ones((4, 4), dtype=bool), grid(height=4, width=4),
                        grid(pixel_m=2.0, height=2, width=2))  # fmt: skip
    assert kept.all()
    assert (got == 0).all()


def test_a_pixel_whose_centre_lies_beyond_the_source_is_invalid():
    # The source ends at 4 m; centres of 2 m pixels that begin at 1 m lie at 2, 4 and 6 m. The edge
    # belongs to the pixel beyond it.
    values, valid = np.ones((4, 4)), np.ones((4, 4), dtype=bool)
    target = grid(pixel_m=2.0, height=1, width=3, east_m=1.0)
    assert brought(values, valid, grid(height=4, width=4), target)[1].tolist() == [
        [True, False, False]
    ]


def test_places_that_do_not_meet_have_nothing_to_read():
    far = grid(east_m=100_000.0)
    assert source_window(grid(), far, whole(far)) is None
    values, valid = brought(np.ones((12, 12)), np.ones((12, 12), dtype=bool), grid(), far)
    assert not valid.any()
    assert not values.any()


def test_a_grid_without_a_place_is_refused():
    nowhere = Grid(None, Affine.identity(), 4, 4)
    with pytest.raises(ValueError, match="without a CRS"):
        positions(grid(), nowhere, np.zeros(1), np.zeros(1))


def test_longitudes_meet_across_the_antimeridian():
    # 179.95 E in a raster that counts on to 180.1.
    one = Grid(LONLAT, Affine(0.01, 0, 179.9, 0, -0.01, 1), 20, 20)
    other = Grid("EPSG:32601", Affine(500, 0, 166_500, 0, -500, 100_000), 10, 10)
    column, _ = positions(other, one, np.array([5.0]), np.array([5.0]))
    assert 10 < column[0] < 14


def test_a_part_too_small_for_the_window_is_refused():
    with pytest.raises(ValueError, match="does not cover"):
        onto(
            np.ones((2, 2)), np.ones((2, 2), dtype=bool), read=Window(0, 0, 2, 2), source=grid(),
            target=grid(), window=whole(grid()), statistic="max",
        )  # fmt: skip


@settings(max_examples=40)
@given(data=st.data())
def test_a_window_has_the_same_bits_however_the_raster_is_cut(data):
    source, target = data.draw(st.sampled_from(GRIDS)).values
    statistic = data.draw(st.sampled_from(["max", "mean", "p95"]))
    rng = np.random.default_rng(data.draw(st.integers(0, 3)))
    values = rng.uniform(0, 40, (source.height, source.width))
    valid = rng.random(values.shape) > 0.3
    whole_values, whole_valid = brought(values, valid, source, target, statistic=statistic)
    top = data.draw(st.integers(0, target.height - 1))
    left = data.draw(st.integers(0, target.width - 1))
    window = Window(
        top, left, data.draw(st.integers(1, target.height - top)),
        data.draw(st.integers(1, target.width - left)),
    )  # fmt: skip
    got, kept = brought(values, valid, source, target, window, statistic)
    assert got.tobytes() == np.ascontiguousarray(whole_values[window.slices]).tobytes()
    np.testing.assert_array_equal(kept, whole_valid[window.slices])


@settings(max_examples=20)
@given(data=st.data())
def test_what_lies_under_invalid_pixels_changes_no_bit(data):
    source, target = data.draw(st.sampled_from(GRIDS)).values
    statistic = data.draw(st.sampled_from(["max", "mean", "p95"]))
    values = np.random.default_rng(0).uniform(0, 40, (source.height, source.width))
    valid = np.random.default_rng(1).random(values.shape) > 0.4
    first, kept = brought(values, valid, source, target, statistic=statistic)
    fill = data.draw(st.sampled_from([0.0, -9999.0, np.nan, -3.4e38, np.inf]))
    again, kept_again = brought(
        np.where(valid, values, fill), valid, source, target, statistic=statistic
    )
    assert first.tobytes() == again.tobytes()
    np.testing.assert_array_equal(kept, kept_again)


def test_a_window_that_needs_much_is_read_in_parts_with_the_same_bits(monkeypatch):
    source, target = grid(UTM31, pixel_m=0.5, height=60, width=60, east_m=-5, north_m=5), grid()
    values = np.random.default_rng(0).uniform(0, 40, (60, 60))
    valid = values > 10
    at_once = brought(values, valid, source, target, statistic="mean")
    monkeypatch.setattr("geodino.geo.align._MOST", 50)
    sizes = []

    def read(part):
        sizes.append(part.area)
        return values[part.slices], valid[part.slices]

    in_parts = aligned(read, source=source, target=target, window=whole(target), statistic="mean")
    assert len(sizes) > 20
    assert in_parts[0].tobytes() == at_once[0].tobytes()
    np.testing.assert_array_equal(in_parts[1], at_once[1])
