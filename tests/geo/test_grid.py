"""Ground sampling distance and footprints against distances known on paper."""

import pytest
from affine import Affine
from shapely import box

from geodino.geo.grid import Grid


def test_a_degree_at_the_equator_is_111_km_and_its_half_at_60_degrees():
    # WGS 84: one degree of longitude is 111.320 km at the equator; at 60 N about half; one degree
    # of latitude is 110.57 km at the equator and 111.41 km at 60 N.
    at_equator = Grid("EPSG:4326", Affine(1, 0, 0, 0, -1, 0.5), 1, 1).gsd_m
    assert at_equator == pytest.approx((111_320, 110_574), rel=1e-4)
    at_60 = Grid("EPSG:4326", Affine(1, 0, 0, 0, -1, 60.5), 1, 1).gsd_m
    assert at_60 == pytest.approx((55_800, 111_412), rel=1e-3)


def test_utm_pixels_are_their_nominal_size_within_the_scale_factor_of_the_zone():
    # On the central meridian a UTM metre is 1 / 0.9996 metres on the ground.
    gsd = Grid("EPSG:32618", Affine(0.6, 0, 500_000 - 30, 0, -0.6, 4_500_000), 100, 100).gsd_m
    assert gsd == pytest.approx((0.6 / 0.9996, 0.6 / 0.9996), rel=1e-4)


def test_a_rotated_grid_keeps_its_gsd():
    rotated = Affine.translation(500_000, 4_500_000) @ Affine.rotation(30) @ Affine.scale(10, -10)
    assert Grid("EPSG:32618", rotated, 64, 64).gsd_m == pytest.approx((10.004, 10.004), rel=1e-4)


def test_an_inverted_latitude_axis_gives_positive_lengths_and_a_valid_footprint():
    grid = Grid("EPSG:4326", Affine(0.5, 0, -180, 0, 0.5, -90), 720, 360)
    assert min(grid.gsd_m) > 55_000
    assert grid.footprint_wgs84().equals(box(-180, -90, 180, 90))


@pytest.mark.parametrize(
    "grid",
    [
        Grid(None, Affine(10, 0, 0, 0, -10, 0), 8, 8),
        Grid("EPSG:4326", Affine.identity(), 8, 8),
        Grid('LOCAL_CS["unknown",UNIT["metre",1]]', Affine(1, 0, 5, 0, -1, 5), 8, 8),
    ],
    ids=["no CRS", "identity transform", "engineering CRS"],
)
def test_a_grid_without_a_place_has_neither_gsd_nor_footprint(grid):
    assert grid.gsd_m is None
    assert grid.footprint_wgs84() is None


def test_a_footprint_across_the_antimeridian_is_two_parts():
    # 10 degrees wide from 175 E to 175 W.
    footprint = Grid("EPSG:4326", Affine(1, 0, 175, 0, -1, 5), 10, 10).footprint_wgs84()
    assert footprint.geom_type == "MultiPolygon"
    assert footprint.area == pytest.approx(100)
    assert footprint.equals(box(175, -5, 180, 5) | box(-180, -5, -175, 5))


def test_a_footprint_around_the_pole_reaches_it():
    polar = Grid("EPSG:3413", Affine(100_000, 0, -1e6, 0, -100_000, 1e6), 20, 20)
    west, south, east, north = polar.footprint_wgs84().bounds
    assert (west, east, north) == (-180, 180, 90)
    assert 76 < south < 82


def test_a_utm_footprint_is_where_the_zone_is():
    # Zone 18 N: the easting of 500 km is 75 W.
    footprint = Grid("EPSG:32618", Affine(10, 0, 500_000, 0, -10, 4_500_000), 10, 10)
    lon, lat = footprint.footprint_wgs84().centroid.coords[0]
    assert lon == pytest.approx(-75, abs=1e-3)
    assert lat == pytest.approx(40.65, abs=0.01)


def test_real_odd_geometries_are_placed(shared_data):
    from geodino.io.raster import describe

    scenes = shared_data / "scenes"
    dateline = describe(scenes / "rio_tiler/cog_dateline.tif").grid.footprint_wgs84()
    assert dateline.geom_type == "MultiPolygon"
    assert dateline.bounds[0] == -180
    assert dateline.bounds[2] == 180
    assert describe(scenes / "rasterio/rotated.tif").grid.gsd_m is None
    assert describe(scenes / "rio_tiler/inverted_lat.tif").grid.gsd_m[0] > 0
