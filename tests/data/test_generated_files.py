"""Every format is written, and read back by rasterio, GDAL's product drivers, xarray and zarr."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import xarray
import zarr
from rasterio.enums import ColorInterp, MaskFlags

from geodino.data.generated.landsat import write_landsat
from geodino.data.generated.safe import mean_of_blocks, most_frequent, write_safe
from geodino.data.generated.tiff import HOME, Placement, write_geotiff, write_layer
from geodino.data.generated.truth import (
    write_buildings,
    write_changes,
    write_classes,
    write_heights,
    write_trees,
)
from geodino.data.generated.zarr import write_zarr
from geodino.errors import SourceError
from geodino.io.raster import describe
from geodino.world.buildings import KINDS
from geodino.world.masks import collar, masked
from geodino.world.quality import qa_pixel, scene_classification
from geodino.world.scene import changed, scene

SIDE = 90


@pytest.fixture(scope="module")
def village():
    return scene(0, height=300, width=300, top=-600, left=-700)


@pytest.fixture(scope="module")
def s2():
    whole = scene(3, height=SIDE, width=SIDE, sensor="s2", clouds=0.3, date="2023-07-14")
    return masked(whole, collar(1, height=SIDE, width=SIDE), fill=0)


def test_a_geotiff_has_the_pixels_the_place_and_the_meaning(tmp_path, s2):
    path = write_geotiff(tmp_path / "deep" / "s2.tif", s2)
    with rasterio.open(path) as got:
        np.testing.assert_array_equal(got.read(), s2.pixels)
        assert got.crs == "EPSG:32632"
        assert got.transform[:6] == (10.0, 0.0, 430_020.0, 0.0, -10.0, 5_850_000.0)
        assert got.nodatavals == (0,) * 12
        assert got.descriptions[3] == "B04"
        assert got.scales == (1e-4,) * 12
        assert got.offsets == (-0.1,) * 12
        assert got.block_shapes[0] == (256, 256)
        # No true pixel is 0, so nodata marks what is missing and nothing else.
        np.testing.assert_array_equal(got.dataset_mask() > 0, s2.valid)
    assert describe(path).datetime == "2023-07-14T10:30:00"
    assert [p.name for p in path.parent.iterdir()] == ["s2.tif"]


def test_windows_of_one_world_lie_beside_each_other_on_the_map(tmp_path):
    left = write_geotiff(tmp_path / "a.tif", scene(1, height=8, width=7))
    right = write_geotiff(tmp_path / "b.tif", scene(1, height=8, width=7, top=-5, left=7))
    with rasterio.open(left) as a, rasterio.open(right) as b:
        assert a.bounds.right == pytest.approx(b.bounds.left, abs=1e-6)
        assert b.bounds.top == pytest.approx(a.bounds.top + 5 * 0.6, abs=1e-6)
        # Without a row of nines: 7 * 0.6 is 4.199999999999999 in floating point.
        assert b.transform.c == 430_024.2


@pytest.mark.parametrize("missing", ["nodata", "mask", "alpha", "unmarked"])
def test_each_way_of_marking_what_is_missing(tmp_path, village, missing):
    valid = collar(2, height=300, width=300)
    path = write_geotiff(
        tmp_path / "a.tif", masked(village, valid, fill=0), missing=missing, nodata=0.0
    )
    with rasterio.open(path) as got:
        flags, mask = got.mask_flag_enums[0], got.dataset_mask() > 0
        np.testing.assert_array_equal(got.read([1, 2, 3])[:, valid], village.pixels[:, valid])
        assert got.colorinterp[:3] == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
        if missing == "unmarked":
            assert flags == [MaskFlags.all_valid]
            return
        assert MaskFlags[{"mask": "per_dataset"}.get(missing, missing)] in flags
        # The darkest pixels of a picture may be 0, and nodata hides them, too.
        assert not mask[~valid].any()
        assert mask[valid].mean() > (0.999 if missing == "nodata" else 0.9999999)
        assert got.count == (4 if missing == "alpha" else 3)
    assert not list(tmp_path.glob("*.msk"))


@pytest.mark.parametrize("missing", ["nodata", "mask", "alpha"])
def test_values_under_missing_pixels_change_no_mask(tmp_path, village, missing):
    valid = collar(2, height=300, width=300)
    masks = []
    for fill in (0, 255):
        made = masked(village, valid, fill=fill)
        path = write_geotiff(tmp_path / f"{fill}.tif", made, missing=missing, nodata=float(fill))
        with rasterio.open(path) as got:
            masks.append(got.dataset_mask()[~valid])
    np.testing.assert_array_equal(*masks)
    assert (masks[0] == 0).all()


def test_truth_layers_are_exact_and_absent_where_pixels_are(tmp_path, village):
    valid = collar(4, height=300, width=300)
    cut = masked(village, valid, fill=0)
    with rasterio.open(write_classes(tmp_path / "c.tif", cut)) as got:
        np.testing.assert_array_equal(got.read(1)[valid], village.classes[valid])
        assert (got.read(1)[~valid] == 255).all()
        assert got.nodata == 255
    with rasterio.open(write_heights(tmp_path / "h.tif", cut)) as got:
        np.testing.assert_array_equal(got.read(1)[valid], village.height_m[valid])
        assert np.isnan(got.read(1)[~valid]).all()
        assert np.isnan(got.nodata)
        assert (got.units, got.descriptions) == (("m",), ("height",))
        # Bare ground is 0 m, which is not nodata.
        assert (got.read_masks(1)[valid] == 255).all()


def test_buildings_come_back_from_their_coordinates_to_the_pixel(tmp_path, village):
    path = write_buildings(tmp_path / "b.geojson", village)
    assert json.loads(path.read_text())["crs"]["properties"]["name"].endswith("32632")
    got = geopandas.read_file(path)
    back = ~HOME.transform(village.frame)
    bounds = got.geometry.bounds
    corners = [
        np.array([back @ xy for xy in zip(bounds[x], bounds[y], strict=True)])
        for x, y in (("minx", "maxy"), ("maxx", "miny"))
    ]
    np.testing.assert_allclose(np.hstack(corners), village.buildings.boxes, atol=1e-4)
    np.testing.assert_array_equal(got[["x0", "y0", "x1", "y1"]], village.buildings.boxes)
    assert got["class"].tolist() == [KINDS[kind] for kind in village.buildings.kind]
    assert len(got) > 3


def test_trees_come_back_with_their_places_and_measures(tmp_path, village):
    got = geopandas.read_file(write_trees(tmp_path / "t.geojson", village))
    transform = HOME.transform(village.frame)
    places = np.array([transform @ tuple(xy) for xy in village.trees.xy])
    np.testing.assert_allclose(np.column_stack([got.geometry.x, got.geometry.y]), places, atol=1e-5)
    np.testing.assert_allclose(got["height_m"], village.trees.height_m, rtol=1e-6)
    assert ((got["class"] == "conifer") == village.trees.conifer).all()


def test_a_scene_without_things_has_files_without_things(tmp_path, s2):
    for write in (write_buildings, write_trees):
        got = geopandas.read_file(write(tmp_path / f"{write.__name__}.geojson", s2))
        assert len(got) == 0


def test_changes_between_two_dates(tmp_path):
    before, after = (
        scene(5, height=120, width=120, sensor="s2", date=f"{y}-07-01") for y in (2018, 2026)
    )
    with rasterio.open(write_changes(tmp_path / "c.tif", before, after)) as got:
        np.testing.assert_array_equal(got.read(1) == 1, changed(before, after))
        assert set(np.unique(got.read(1))) == {0, 1}


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_cube_is_read_by_xarray_and_zarr(tmp_path, s2, zarr_format):
    later = scene(3, height=SIDE, width=SIDE, sensor="s2", date="2023-09-01")
    path = write_zarr(tmp_path / "c.zarr", [s2, later], zarr_format=zarr_format)
    with xarray.open_zarr(path, decode_coords="all") as got:
        image = got["image"]
        assert image.dims == ("time", "band", "y", "x")
        assert image["band"].values.tolist() == [band.name for band in s2.sensor.bands]
        assert image["time"].values.astype("datetime64[D]").astype(str).tolist() == [
            "2023-07-14", "2023-09-01",
        ]  # fmt: skip
        # Centres of the first pixel.
        assert (float(image.x[0]), float(image.y[0])) == (430_025.0, 5_849_995.0)
        assert image.rio.crs == "EPSG:32632"
        assert image.rio.transform()[:6] == HOME.transform(s2.frame)[:6]
        values = image.values
        assert np.isnan(values[0][:, ~s2.valid]).all()
        np.testing.assert_allclose(
            values[0][:, s2.valid], s2.pixels[:, s2.valid] * 1e-4 - 0.1, rtol=1e-6
        )
    store = zarr.open_group(path, mode="r")
    assert store.metadata.zarr_format == zarr_format
    np.testing.assert_array_equal(store["image"][:], np.stack([s2.pixels, later.pixels]))
    assert store["image"].attrs["grid_mapping"] == "spatial_ref"
    assert not list(tmp_path.glob(".*"))


def test_a_single_scene_may_go_without_a_time_axis_and_a_radar_without_a_scale(tmp_path):
    radar = scene(3, height=20, width=30, sensor="s1")
    with xarray.open_zarr(write_zarr(tmp_path / "a.zarr", [radar], time=False)) as got:
        assert got["image"].dims == ("band", "y", "x")
        np.testing.assert_array_equal(got["image"].values, radar.pixels)
        assert "scale_factor" not in got["image"].encoding


def test_scenes_that_make_no_cube_are_refused(tmp_path, s2):
    other = scene(4, height=SIDE, width=SIDE, sensor="s2")
    for scenes, time, message in (
        ([], True, "at least one scene"),
        ([s2, s2], False, "2 scenes need a time axis"),
        ([s2, other], True, "not of 2: write a store for each"),
    ):
        with pytest.raises(SourceError, match=message):
            write_zarr(tmp_path / "x.zarr", scenes, time=time)


def test_means_of_blocks_are_exact_over_valid_pixels():
    pixels = np.array([[1, 2, 9, 9], [2, 2, 9, 9], [5, 8, 0, 4], [0, 0, 4, 5]], dtype=np.uint16)
    valid = np.ones((4, 4), dtype=bool)
    valid[:2, 2:] = False
    valid[3, :2] = False
    # 7/4 = 1.75 -> 2; none; 13/2 = 6.5 -> 7; 13/4 = 3.25 -> 3.
    means, some = mean_of_blocks(pixels, valid, 2)
    assert means.tolist() == [[2, 0], [7, 3]]
    assert some.tolist() == [[True, False], [True, True]]
    pixels[~valid] = 65_535
    np.testing.assert_array_equal(mean_of_blocks(pixels, valid, 2)[0], means)


def test_the_most_frequent_class_wins_and_the_smaller_of_two():
    classes = np.array([[4, 4, 9, 3], [5, 6, 3, 9]], dtype=np.uint8)
    assert most_frequent(classes, 2).tolist() == [[4, 3]]


@pytest.mark.parametrize(("baseline", "added"), [("05.09", 1000), ("02.14", 0)])
def test_a_sentinel_product_is_one_for_gdals_own_driver(tmp_path, s2, baseline, added):
    product = write_safe(tmp_path, s2, baseline=baseline)
    number = baseline.replace(".", "")
    assert product.name.startswith(f"S2A_MSIL2A_20230714T102031_N{number}_R065_T32UMD_")
    with rasterio.open(product / "MTD_MSIL2A.xml") as got:
        assert got.driver == "SENTINEL2"
        assert got.tags()["PROCESSING_BASELINE"] == baseline
        assert got.tags()["BOA_QUANTIFICATION_VALUE"] == "10000"
        parts = [name for name in got.subdatasets if "TCI" not in name]
    names = [band.name for band in s2.sensor.bands]
    for name, side in zip(parts, (1, 2, 6), strict=True):
        with rasterio.open(name) as got:
            assert got.transform[:6] == (
                10.0 * side,
                0.0,
                430_020.0,
                0.0,
                -10.0 * side,
                5_850_000.0,
            )
            assert got.crs == "EPSG:32632"
            for index, description in enumerate(got.descriptions, start=1):
                own = description.split(",")[0]
                full = own if len(own) == 3 else own.replace("B", "B0")
                if full in names:
                    stored = s2.pixels[names.index(full)].astype(int) - 1000 + added
                    stored = np.maximum(stored, 1).astype(np.uint16)
                    want, valid = mean_of_blocks(stored, s2.valid, side)
                    np.testing.assert_array_equal(got.read(index), np.where(valid, want, 0))
                elif own == "SCL" and side == 2:
                    want = most_frequent(scene_classification(s2), 2)
                    np.testing.assert_array_equal(got.read(index), want)


def test_only_new_baselines_name_an_offset(tmp_path, s2):
    old, new = (write_safe(tmp_path, s2, baseline=b) for b in ("02.14", "05.09"))
    text = (new / "MTD_MSIL2A.xml").read_text()
    assert text.count('">-1000</BOA_ADD_OFFSET>') == 13
    assert "BOA_ADD_OFFSET" not in (old / "MTD_MSIL2A.xml").read_text()
    file = "GRANULE/*/IMG_DATA/R10m/T32UMD_20230714T102031_B02_10m.jp2"
    assert len(list(new.glob(file))) == 1
    assert sum(1 for _ in new.rglob("*.jp2")) == 13
    assert sum(1 for p in new.rglob("*") if p.is_file()) == 15


def test_a_landsat_product_has_its_names_and_its_scale_in_the_metadata(tmp_path):
    whole = scene(3, height=64, width=64, sensor="landsat", clouds=0.4)
    taken = masked(whole, collar(5, height=64, width=64), fill=0)
    product = write_landsat(tmp_path, taken)
    name = "LC08_L2SP_193027_20230701_20230710_02_T1"
    assert product.name == name
    metadata = json.loads((product / f"{name}_MTL.json").read_text())["LANDSAT_METADATA_FILE"]
    scaling = metadata["LEVEL2_SURFACE_REFLECTANCE_PARAMETERS"]
    assert scaling["REFLECTANCE_MULT_BAND_2"] == "2.75e-05"
    assert float(scaling["REFLECTANCE_ADD_BAND_2"]) == -0.2
    assert metadata["IMAGE_ATTRIBUTES"]["DATE_ACQUIRED"] == "2023-07-01"
    for number, band in enumerate(taken.pixels, start=1):
        file = metadata["PRODUCT_CONTENTS"][f"FILE_NAME_BAND_{number}"]
        assert file == f"{name}_SR_B{number}.TIF"
        with rasterio.open(product / file) as got:
            np.testing.assert_array_equal(got.read(1), band)
            assert (got.nodata, got.dtypes[0], got.res) == (0, "uint16", (30.0, 30.0))
            # The sun is east of south; scale and offset are not in the files.
            assert (got.scales, got.offsets) == ((1.0,), (0.0,))
    with rasterio.open(product / f"{name}_QA_PIXEL.TIF") as got:
        np.testing.assert_array_equal(got.read(1), qa_pixel(taken))
        assert got.nodata == 1
    assert 90 < float(metadata["IMAGE_ATTRIBUTES"]["SUN_AZIMUTH"]) < 180
    assert 50 < float(metadata["IMAGE_ATTRIBUTES"]["SUN_ELEVATION"]) < 65


def test_products_of_other_sensors_and_sizes_are_refused(tmp_path, village):
    with pytest.raises(SourceError, match="of 's2', not 'rgb'"):
        write_safe(tmp_path, village)
    with pytest.raises(SourceError, match="of 'landsat', not 'rgb'"):
        write_landsat(tmp_path, village)
    with pytest.raises(SourceError, match=r"multiples of 6 pixels of 10 m.*not 90 x 92"):
        write_safe(tmp_path, scene(3, height=90, width=92, sensor="s2"))
    assert not list(tmp_path.iterdir())


def test_a_layer_may_lie_anywhere(tmp_path, village):
    far = Placement(crs="EPSG:32719", east_m=300_000.0, north_m=7_000_000.0)
    path = write_layer(tmp_path / "x.tif", village.classes, village, far, name="class")
    with rasterio.open(path) as got:
        assert got.crs == "EPSG:32719"
        assert got.bounds.left == 300_000 - 700 * 0.6
