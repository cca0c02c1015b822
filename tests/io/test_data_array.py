"""DataArrays as rasters, and features as DataArrays."""

import numpy as np
import pytest
import rioxarray
import xarray as xr
from affine import Affine
from tests_support import textured, write_tile

from geodino.errors import BandError, SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.data_array import feature_array, open_array


def array(values, **coords):
    height, width = values.shape[-2:]
    made = xr.DataArray(
        values,
        dims=("band", "y", "x"),
        coords={"y": 100.0 - np.arange(height), "x": 10.0 + np.arange(width), **coords},
    )
    return made.rio.write_crs("EPSG:32618")


def coordinates(height=6, width=8, dtype="uint16"):
    return np.stack(np.mgrid[0:height, 0:width]).astype(dtype)


def test_a_window_lands_where_it_should():
    opened = open_array(array(coordinates()))
    pixels, valid = opened.read(Window(2, 3, 3, 4))
    np.testing.assert_array_equal(pixels, coordinates()[:, 2:5, 3:7])
    assert valid.all()
    assert opened.grid.crs == "EPSG:32618"
    assert opened.grid.transform @ (0, 0) == (9.5, 100.5)


def test_dimensions_may_come_in_any_order_and_have_other_names():
    turned = array(coordinates()).transpose("y", "x", "band").rename(band="wavelength")
    pixels, _ = open_array(turned).read(Window(0, 0, 6, 8))
    np.testing.assert_array_equal(pixels, coordinates())


def test_a_part_of_an_array_lies_where_its_pixels_lie(tmp_path):
    whole = rioxarray.open_rasterio(write_tile(tmp_path / "a.tif", textured(0)))
    stored = open_array(whole).grid.transform
    assert stored == whole.rio.transform()
    part = open_array(whole.isel(x=slice(10, 40), y=slice(20, 50))).grid.transform
    assert part.almost_equals(stored @ Affine.translation(10, 20), 1e-6)


def test_a_flat_array_has_one_band():
    flat = array(coordinates())[0].drop_vars("band", errors="ignore")
    opened = open_array(flat)
    assert [band.name for band in opened.bands] == ["band_1"]
    assert opened.read(Window(0, 0, 6, 8))[0].shape == (1, 6, 8)


def test_a_stack_of_dates_is_refused_in_words():
    stack = xr.concat([array(coordinates())] * 2, dim="time")
    with pytest.raises(SourceError, match=r"time, band, y, x.*isel\(time=0\)"):
        open_array(stack)


def test_bands_are_named_by_their_coordinate_or_by_long_name():
    named = array(coordinates(), band=["red", "B08"])
    assert [(b.name, b.common_name) for b in open_array(named).bands] == [
        ("red", "red"), ("B08", None),
    ]  # fmt: skip
    described = array(coordinates()).assign_attrs(long_name=("green", "nir"))
    assert [b.name for b in open_array(described).bands] == ["green", "nir"]
    assert [b.name for b in open_array(array(coordinates(), band=[1, 2])).bands] == [
        "band_1", "band_2",
    ]  # fmt: skip


def test_bands_are_chosen_by_name_or_number():
    named = array(coordinates(), band=["red", "nir"])
    for choose in (("nir", "red"), (2, 1)):
        opened = open_array(named, choose=choose)
        assert [b.name for b in opened.bands] == ["nir", "red"]
        np.testing.assert_array_equal(opened.read(Window(0, 0, 6, 8))[0], coordinates()[::-1])
    with pytest.raises(BandError, match=r"no band 'nirr'\. Did you mean 'nir'\?"):
        open_array(named, choose=("nirr",))
    with pytest.raises(BandError, match="no band 3"):
        open_array(named, choose=(3,))


def test_nan_infinity_and_nodata_are_invalid():
    values = coordinates(dtype="float32") + 1
    values[0, 0, 0], values[1, 0, 1], values[0, 0, 2] = np.nan, np.inf, -9999
    made = array(values).rio.write_nodata(-9999)
    _, valid = open_array(made).read(Window(0, 0, 6, 8))
    assert list(valid[0, :4]) == [False, False, False, True]
    pixels, valid = open_array(made, valid="any", fill=(7.0, 8.0)).read(Window(0, 0, 6, 8))
    assert valid.all()
    assert (pixels[0, 0, 0], pixels[1, 0, 1], pixels[0, 0, 2]) == (7.0, 8.0, 7.0)


def test_the_stored_type_is_that_of_the_file_where_the_values_are(tmp_path):
    path = write_tile(tmp_path / "a.tif", textured(0), nodata=255)
    plain, masked = (rioxarray.open_rasterio(path, masked=m) for m in (False, True))
    assert masked.dtype == np.float32
    assert open_array(plain).dtype == open_array(masked).dtype == "uint8"
    scaled = masked.copy()
    scaled.encoding |= {"scale_factor": 0.1}
    assert open_array(scaled).dtype == "float32"


def test_features_know_where_they_lie():
    place = Affine(9.6, 0, 500_000, 0, -9.6, 4_500_000)
    values = coordinates(4, 5).astype(np.float32)
    made = feature_array(values, Grid("EPSG:32618", place, width=5, height=4), attributes={"a": 1})
    assert made.name == "embedding"
    assert made.rio.crs == "EPSG:32618"
    assert made.rio.transform() == place
    assert made.x.values[0] == 500_004.8
    assert made.attrs["a"] == 1
    assert np.isnan(made.rio.nodata)


@pytest.mark.parametrize(
    ("made", "match"),
    [
        (coordinates(), r"Found ndarray, expected .*xarray\.DataArray"),
        (array(coordinates()).to_dataset("band"), r"Found Dataset.*to_dataarray"),
        (array(coordinates())[:, :0], r"has no pixel \(.*y 0"),
        (array(coordinates())[:, [0, 1, 2, 5]], "y is not evenly spaced"),
        (array(coordinates())[:, :, [0, 1, 6, 7]], "x is not evenly spaced"),
    ],
)
def test_what_is_no_raster_is_one_sentence(made, match):
    with pytest.raises(SourceError, match=match):
        open_array(made)
