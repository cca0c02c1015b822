"""Overviews: the slow definition, laws, and GDAL's own."""

import numpy as np
import pytest
import rasterio
from cog_support import layer_of, slow_halve
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.enums import Resampling

from geodino.io.cog.reduce import Pyramid, halve

NAN = float("nan")
laws = settings(max_examples=40)

DTYPES = ("uint8", "int8", "uint16", "int16", "float32")


@st.composite
def bands(draw):
    """Few different values, nodata among them, so that pairs and holes are frequent."""
    dtype = draw(st.sampled_from(DTYPES))
    shape = draw(st.tuples(st.integers(1, 2), st.integers(1, 9), st.integers(1, 9)))
    if dtype == "float32":
        element = st.sampled_from([0.0, 1.5, -7.25, 1e30, NAN, -9999.0])
        nodata = draw(st.sampled_from([NAN, -9999.0, None]))
    else:
        limits = np.iinfo(dtype)
        some = [limits.min, limits.max, limits.max - 1, 1, 2, 5, 100]
        element = st.sampled_from(some)
        nodata = draw(st.sampled_from([None, float(limits.min), float(limits.max)]))
    return draw(hnp.arrays(dtype, shape, elements=element)), nodata


@laws
@given(case=bands(), resampling=st.sampled_from(["average", "mode"]))
def test_every_pixel_is_what_the_definition_says(case, resampling):
    values, nodata = case
    expected = np.stack([slow_halve(band, nodata, resampling) for band in values])
    found = halve(values, nodata=nodata, resampling=resampling)
    assert found.dtype == values.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_large_bands_are_worked_on_in_pieces_that_fit_together():
    values = np.random.default_rng(0).integers(0, 9, (1, 259, 1027)).astype(np.uint8)
    for resampling in ("average", "mode"):
        found = halve(values, nodata=8.0, resampling=resampling)
        np.testing.assert_array_equal(found[0], slow_halve(values[0], 8.0, resampling))


@pytest.mark.parametrize("resampling", ["average", "mode"])
def test_bands_that_lie_together_in_memory_are_reduced_alike(resampling):
    values = np.random.default_rng(0).integers(0, 4, (21, 30, 3)).astype(np.int16)
    apart = np.moveaxis(values, 2, 0)
    np.testing.assert_array_equal(
        halve(apart, nodata=3.0, resampling=resampling),
        halve(apart.copy(), nodata=3.0, resampling=resampling),
    )


def test_means_of_integers_round_halves_to_even():
    # Sums 2, 6, 10 of four: 0.5 -> 0, 1.5 -> 2, 2.5 -> 2. A half below zero: -0.5 -> 0.
    values = np.array([[[0, 1, 1, 2, 2, 3, 0, -1], [0, 1, 1, 2, 2, 3, 0, -1]]], dtype=np.int16)
    found = halve(values, nodata=None, resampling="average")
    assert found[0, 0].tolist() == [0, 2, 2, 0]


def test_the_most_frequent_class_wins_and_of_equals_the_first():
    values = np.array([[[1, 2, 3, 1, 9, 9, 9, 4], [2, 2, 1, 3, 5, 9, 6, 9]]], dtype=np.uint8)
    # 2 three times; 3 and 1 twice each, 3 is read first; 5, the only one with data; 4 before 6.
    assert halve(values, nodata=9.0, resampling="mode")[0, 0].tolist() == [2, 3, 5, 4]


@pytest.mark.parametrize(("dtype", "beside"), [("int16", 1), ("float32", np.float32(1e-45))])
def test_a_mean_that_is_nodata_by_accident_moves_to_its_neighbour(dtype, beside):
    values = np.array([[[-3, 3], [-3, 3]]], dtype=dtype)
    assert halve(values, nodata=0.0, resampling="average")[0, 0, 0] == beside


@laws
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    levels=st.integers(1, 4),
    dtype=st.sampled_from(["uint8", "float32"]),
)
def test_a_pyramid_of_rows_equals_halving_the_whole(height, width, levels, dtype):
    values = np.random.default_rng(height).integers(0, 5, (2, height, width)).astype(dtype)
    layer = layer_of(values, nodata=0.0)
    pyramid = Pyramid(layer, block=16, size=(height, width), levels=levels)
    found: dict[int, list[np.ndarray]] = {}
    for top in range(0, height, 16):
        for level, row, small in pyramid.push(values[:, top : top + 16]):
            assert row == len(found.setdefault(level, []))
            found[level].append(small)
    assert pyramid.held == 0
    for level in range(1, levels + 1):
        values = halve(values, nodata=0.0, resampling="average")
        assert all(part.shape[1] == 16 for part in found[level][:-1])
        np.testing.assert_array_equal(np.concatenate(found[level], axis=1), values)


def test_gdal_averages_whole_maps_to_the_same_values(tmp_path):
    # Multiples of 16 survive two levels of means without rounding.
    values = (np.random.default_rng(1).integers(0, 99, (1, 256, 192)) * 16).astype(np.float32)
    path = tmp_path / "gdal.tif"
    options = {"driver": "GTiff", "width": 192, "height": 256, "count": 1, "dtype": "float32"}
    with rasterio.open(path, "w", **options) as target:
        target.write(values)
        target.build_overviews([2, 4], Resampling.average)
    for level in (0, 1):
        values = halve(values, nodata=NAN, resampling="average")
        with rasterio.open(path, overview_level=level) as found:
            np.testing.assert_array_equal(found.read(), values)
