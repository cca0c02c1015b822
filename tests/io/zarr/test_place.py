"""Georeferencing of zarr arrays: the conventions in use, and which of two holds."""

from dataclasses import replace

import numpy as np
import pytest
import rioxarray  # noqa: F401  (the accessor .rio)
import xarray as xr
import zarr
from pyproj import CRS
from zarr_support import coordinate_image, write_array, write_coordinates

from geodino.errors import SourceError
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool, describe, read
from geodino.io.zarr.store import describe_store

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")

HEIGHT, WIDTH = 12, 20
IMAGE = coordinate_image(HEIGHT, WIDTH)
NORTH_UP = (10.0, 0.0, 500_000.0, 0.0, -10.0, 5_400_000.0)
UTM = CRS.from_epsg(32633)


def image(tmp_path, attributes=None, *, group=None, **options):
    """An array without any coordinates."""
    store = tmp_path / "c.zarr"
    write_array(store, "a", IMAGE, ("band", "y", "x"), attributes=attributes, **options)
    if group:
        zarr.open_group(store).update_attributes(group)
    return store


def place(store):
    found = describe_store(store)
    grid = found.rasters[0].grid
    return grid.crs, tuple(grid.transform[:6]), found.notes


WAYS = {
    "GeoZarr code": {"proj:code": "EPSG:32633", "spatial:transform": list(NORTH_UP)},
    "GeoZarr wkt2": {"proj:wkt2": UTM.to_wkt(), "spatial:transform": list(NORTH_UP)},
    "GeoZarr projjson": {"proj:projjson": UTM.to_json_dict(), "spatial:transform": list(NORTH_UP)},
    "STAC": {"proj:epsg": 32633, "proj:transform": [*NORTH_UP, 0, 0, 1]},
    "crs and transform": {"crs": "epsg:32633", "transform": list(NORTH_UP)},
    "epsg and transform": {"epsg": "32633", "transform": list(NORTH_UP)},
    "proj string": {"crs": "+init=epsg:32633", "transform": list(NORTH_UP)},
    "wkt and GeoTransform": {"crs_wkt": UTM.to_wkt("WKT1_GDAL"),
                             "GeoTransform": "500000 10 0 5400000 0 -10"},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:'\\+init=")
@pytest.mark.parametrize("attributes", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("where", ["array", "group"])
def test_attributes_of_the_array_or_its_group_place_it(tmp_path, attributes, where):
    on_array = attributes if where == "array" else None
    store = image(tmp_path, on_array, group=attributes if where == "group" else None)
    assert place(store) == ("EPSG:32633", NORTH_UP, ())


@pytest.mark.parametrize("attributes", [
    {"crs_wkt": UTM.to_wkt(), "GeoTransform": "500000 10 0 5400000 0 -10"},
    {"spatial_ref": UTM.to_wkt(), "GeoTransform": [500_000, 10, 0, 5_400_000, 0, -10]},
    {k: v for k, v in UTM.to_cf().items() if k != "crs_wkt"}
    | {"GeoTransform": "500000.0 10.0 0.0 5400000.0 0.0 -10.0"},
], ids=["crs_wkt", "spatial_ref", "CF parameters"])  # fmt: skip
@pytest.mark.parametrize("name", ["spatial_ref", "crs", "utm"])
def test_a_grid_mapping_variable_places_the_arrays_that_name_it(tmp_path, attributes, name):
    said = {"grid_mapping": f"{name}: x y"} if name == "utm" else {}
    store = image(tmp_path, said)
    write_array(store, name, np.array(0), (), attributes=attributes, chunks=())
    grid = describe(store).grid
    assert place(store)[1:] == (NORTH_UP, ())
    expected = replace(grid, crs="EPSG:32633").footprint_wgs84().bounds
    np.testing.assert_allclose(grid.footprint_wgs84().bounds, expected, atol=1e-9)


def test_coordinates_are_centres_of_pixels(tmp_path):
    store = image(tmp_path, {"crs": "EPSG:32633"})
    write_coordinates(store, HEIGHT, WIDTH)
    assert place(store) == ("EPSG:32633", NORTH_UP, ())


def test_a_picture_whose_rows_run_north_keeps_them_and_lands_where_it_should(tmp_path):
    # Rows counted from the south: row 0 covers northings 5_400_000 to 5_400_010.
    store = image(tmp_path, {"crs": "EPSG:32633"})
    write_coordinates(store, HEIGHT, WIDTH, down=False)
    info = describe(store)
    assert tuple(info.grid.transform[:6]) == (10, 0, 500_000, 0, 10, 5_400_000)
    with HandlePool() as pool:
        pixels, _ = read(pool, info.path, Window(3, 4, 1, 1), rule=ReadRule())
    assert pixels[:, 0, 0].tolist() == [3, 4]
    x, y = info.grid.transform @ (4.5, 3.5)
    ours = xr.open_zarr(store, consolidated=False)["a"].sel(x=x, y=y)
    assert ours.to_numpy().tolist() == [3, 4]


def test_longitudes_and_latitudes_with_cf_units_are_read_as_4326_and_it_is_said(tmp_path):
    store = tmp_path / "c.zarr"
    write_array(store, "a", IMAGE, ("band", "lat", "lon"))
    write_array(store, "lat", np.linspace(48, 47.89, HEIGHT), ("lat",),
                attributes={"units": "degrees_north"})  # fmt: skip
    write_array(store, "lon", np.linspace(11, 11.19, WIDTH), ("lon",),
                attributes={"units": "degrees_east"})  # fmt: skip
    crs, transform, (note,) = place(store)
    assert crs == "EPSG:4326"
    np.testing.assert_allclose(transform, (0.01, 0, 10.995, 0, -0.01, 48.005))
    assert "names no CRS; its coordinates, in degrees_north and degrees_east, are read as" in note


def test_longitudes_without_units_are_not_guessed(tmp_path):
    store = tmp_path / "c.zarr"
    write_array(store, "a", IMAGE, ("band", "lat", "lon"))
    write_array(store, "lat", np.linspace(48, 47.89, HEIGHT), ("lat",))
    write_array(store, "lon", np.linspace(11, 11.19, WIDTH), ("lon",))
    crs, _, (note,) = place(store)
    assert crs is None
    assert "c.zarr#a has no CRS: its pixels have no place." in note


def test_an_image_without_place_is_legal_and_said(tmp_path):
    crs, transform, (note,) = place(image(tmp_path))
    assert (crs, transform) == (None, (1, 0, 0, 0, 1, 0))
    assert "has no CRS and no transform or coordinates: its pixels have no place." in note
    assert describe(tmp_path / "c.zarr").grid.gsd_m is None


def test_32_bit_longitudes_of_10_m_are_even_enough(tmp_path):
    store = tmp_path / "c.zarr"
    write_array(store, "a", np.zeros((2, 4000), "u1"), ("y", "x"))
    write_array(store, "y", np.array([45.0, 44.9999], "f4"), ("y",))
    write_array(store, "x", (120 + 1e-4 * np.arange(4000)).astype("f4"), ("x",))
    _, transform, _ = place(store)
    assert transform[0] == pytest.approx(1e-4, rel=1e-4)


@pytest.mark.parametrize("broken", [
    [0, 10, 20, 35, 40, 50, 60, 70, 80, 90, 100, 110],
    [0.0] * 12,
    [0, 1, 2, np.nan, 4, 5, 6, 7, 8, 9, 10, 11],
], ids=["a jump", "all the same", "not a number"])  # fmt: skip
def test_uneven_coordinates_are_refused_in_words(tmp_path, broken):
    store = image(tmp_path, {"crs": "EPSG:32633"})
    write_coordinates(store, HEIGHT, WIDTH)
    zarr.open_array(store, path="y")[...] = broken
    with pytest.raises(SourceError, match=r"c\.zarr#a: its coordinate y is not evenly spaced"):
        describe_store(store)


def test_a_transform_left_behind_by_a_crop_gives_way_to_the_coordinates(tmp_path):
    cube = xr.DataArray(IMAGE, dims=("band", "y", "x"), name="a", coords={
        "y": 5_400_000 - 5 - 10.0 * np.arange(HEIGHT), "x": 500_005 + 10.0 * np.arange(WIDTH),
    }).rio.write_crs(32633).rio.write_transform()  # fmt: skip
    cube.to_dataset().to_zarr(tmp_path / "c.zarr")
    assert place(tmp_path / "c.zarr") == ("EPSG:32633", NORTH_UP, ())
    cube[:, 2:, 3:].to_dataset().to_zarr(tmp_path / "cut.zarr")
    crs, transform, (note,) = place(tmp_path / "cut.zarr")
    assert (crs, transform) == ("EPSG:32633", (10, 0, 500_030, 0, -10, 5_399_980))
    assert "its transform (10.0, 0.0, 500000.0" in note
    cube[:, ::2, ::2].to_dataset().to_zarr(tmp_path / "thin.zarr")
    assert place(tmp_path / "thin.zarr")[1] == (20, 0, 499_995, 0, -20, 5_400_005)


def test_coordinates_of_corners_are_known_by_the_transform_beside_them(tmp_path):
    store = image(tmp_path, {"transform": list(NORTH_UP)})
    write_array(store, "y", 5_400_000 - 10.0 * np.arange(HEIGHT), ("y",))
    write_array(store, "x", 500_000 + 10.0 * np.arange(WIDTH), ("x",))
    write_array(store, "epsg", np.array(32633), (), chunks=())
    crs, transform, (note,) = place(store)
    assert (crs, transform) == ("EPSG:32633", NORTH_UP)
    assert "those of pixel corners" in note


def test_a_grid_of_nodes_is_moved_by_half_a_pixel(tmp_path):
    store = image(tmp_path, {"spatial:transform": [1.0, 0, 0, 0, -1.0, 90.0],
                             "spatial:registration": "node", "proj:code": "EPSG:4326"})  # fmt: skip
    assert place(store)[1] == (1, 0, -0.5, 0, -1, 90.5)


def test_a_rotated_transform_holds_beside_coordinates_that_cannot_say_it(tmp_path):
    rotated = (8.0, 6.0, 500_000.0, 6.0, -8.0, 5_400_000.0)
    store = image(tmp_path, {"crs": "EPSG:32633", "transform": list(rotated)})
    write_coordinates(store, HEIGHT, WIDTH)
    assert place(store) == ("EPSG:32633", rotated, ())


def test_a_single_row_takes_its_height_from_the_transform_or_has_no_place(tmp_path):
    store = tmp_path / "c.zarr"
    write_array(store, "a", IMAGE[:, :1], ("band", "y", "x"), attributes={"crs": "EPSG:32633"})
    write_coordinates(store, 1, WIDTH)
    _, transform, notes = place(store)
    assert transform == (1, 0, 0, 0, 1, 0)
    assert "has a single row or column" in notes[0]
    zarr.open_array(store, path="a").update_attributes({"transform": list(NORTH_UP)})
    assert place(store) == ("EPSG:32633", NORTH_UP, ())


def test_levels_of_a_geozarr_pyramid_have_transforms_of_their_own(tmp_path):
    # As in GeoZarr's examples: the CRS stands in the group, the transform in the layout.
    store = tmp_path / "c.zarr"
    write_array(store, "r10m/a", IMAGE, ("band", "Y", "X"))
    write_array(store, "r20m/a", IMAGE[:, ::2, ::2], ("band", "Y", "X"))
    coarse = [20.0, 0.0, 500_000.0, 0.0, -20.0, 5_400_000.0]
    layout = [{"asset": "r10m", "spatial:transform": list(NORTH_UP)},
              {"asset": "r20m", "derived_from": "r10m", "spatial:transform": coarse}]  # fmt: skip
    zarr.open_group(store).update_attributes(
        {"multiscales": {"layout": layout}, "proj:code": "EPSG:32633"}
    )
    assert place(store) == ("EPSG:32633", NORTH_UP, ())
    assert place(f"{store}#r20m/a") == ("EPSG:32633", tuple(coarse), ())


@pytest.mark.parametrize(("attributes", "words"), [
    ({"crs": "EPSG:99999"}, r"its attribute crs names no known CRS \('EPSG:99999'\)"),
    ({"proj:projjson": {"type": "nonsense"}}, "its attribute proj:projjson names no known CRS"),
    ({"transform": [1, 2, 3]}, r"its attribute transform is no transform \('\[1, 2, 3\]'\)"),
    ({"GeoTransform": "a b c d e f"}, "its attribute GeoTransform is no transform"),
])  # fmt: skip
def test_attributes_that_cannot_be_understood_are_named(tmp_path, attributes, words):
    with pytest.raises(SourceError, match=words):
        describe_store(image(tmp_path, attributes))


def test_coordinates_in_a_group_above_hold_for_those_below(tmp_path):
    store = tmp_path / "c.zarr"
    write_array(store, "bands/a", IMAGE, ("band", "y", "x"), attributes={"crs": "EPSG:32633"})
    write_coordinates(store, HEIGHT, WIDTH)
    assert place(store) == ("EPSG:32633", NORTH_UP, ())


def test_a_damaged_coordinate_is_named(tmp_path):
    store = image(tmp_path)
    write_coordinates(store, HEIGHT, WIDTH)
    (store / "x/c/0").write_bytes(b"noise")
    with pytest.raises(SourceError, match=r"c\.zarr#a: its coordinate x cannot be read"):
        describe_store(store)
