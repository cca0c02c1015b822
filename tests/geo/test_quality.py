"""Quality layers: every encoding against a loop, every known table against its documents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.errors import BandError
from geodino.geo.quality import QUALITY, QualityClasses, usable

laws = settings(max_examples=60)
sides = st.integers(1, 6)
seeds = st.integers(0, 10_000)


def is_usable(pixel, encoding, numbers):
    """The definition, for one pixel: its value, or its bands in the order of the numbers."""
    if encoding == "bands":
        return all(value == 0 for value in pixel)
    if encoding == "values":
        return pixel not in numbers
    return not any(pixel >> bit & 1 for bit in numbers)


@laws
@given(h=sides, w=sides, seed=seeds, numbers=st.sets(st.integers(0, 12)), bits=st.booleans())
def test_values_and_bits_are_looked_up_pixel_by_pixel(h, w, seed, numbers, bits):
    rng = np.random.default_rng(seed)
    layer = rng.integers(0, 2**13 if bits else 13, (1, h, w)).astype(np.uint16)
    encoding = "bits" if bits else "values"
    expected = [[is_usable(int(v), encoding, numbers) for v in row] for row in layer[0]]
    np.testing.assert_array_equal(usable(layer, encoding, sorted(numbers)), expected)


@laws
@given(h=sides, w=sides, seed=seeds, count=st.integers(1, 4))
def test_a_pixel_is_masked_where_any_of_the_bands_read_is_set(h, w, seed, count):
    layer = np.random.default_rng(seed).integers(0, 3, (count, h, w)).astype(np.uint8)
    expected = [[is_usable(layer[:, i, j], "bands", ()) for j in range(w)] for i in range(h)]
    np.testing.assert_array_equal(usable(layer, "bands", range(1, count + 1)), expected)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint32"])
def test_the_stored_type_does_not_matter(dtype):
    layer = np.array([[[0, 1, 2, 3, 8, 127]]], dtype=dtype)
    assert usable(layer, "bits", (0, 3)).tolist() == [[True, False, True, False, False, False]]
    assert usable(layer, "values", (0, 3)).tolist() == [[False, True, True, False, True, True]]


def test_the_same_flag_twice_is_that_flag():
    # A sum of 2 ** 1 and 2 ** 1 would be the flag of bit 2.
    layer = np.array([[[0b010, 0b100]]], dtype=np.uint8)
    assert usable(layer, "bits", (1, 1)).tolist() == [[False, True]]


def test_no_masked_class_masks_nothing():
    layer = np.arange(12, dtype=np.uint8).reshape(1, 3, 4)
    assert usable(layer, "values", ()).all()
    assert usable(layer, "bits", ()).all()


# The tables, by the numbers of the providers' documents


def masked(layer, value, *names):
    classes = QUALITY[layer]
    numbers = classes.numbers(names, source="q.tif")
    return not usable(np.array([[[value]]]), classes.encoding, numbers).item()


def test_scene_classification_of_sentinel_2_runs_from_0_to_11():
    scl = QUALITY["scl"]
    assert scl.encoding == "values"
    assert sorted(scl.classes.values()) == list(range(12))
    # Level-2A algorithm: 3 cloud shadows, 4 vegetation, 8 and 9 clouds, 10 thin cirrus, 11 snow.
    assert masked("scl", 3, "cloud_shadow")
    assert masked("scl", 9, "cloud_medium", "cloud_high")
    assert masked("scl", 10, "thin_cirrus")
    assert masked("scl", 11, "snow")
    assert not masked("scl", 4, "no_data", "cloud_shadow", "cloud_medium", "cloud_high", "snow")


def test_landsats_pixel_quality_as_the_product_guide_reads_it():
    # Product guide, table of pixel values: 1 fill, 21824 clear with low confidences set, 22280
    # high confidence cloud, 23888 cloud shadow, 30048 snow, 54596 cirrus, 21826 dilated cloud over
    # land, 21952 water.
    all_but_clear = ("fill", "dilated_cloud", "cirrus", "cloud", "cloud_shadow", "snow")
    assert masked("landsat-qa-pixel", 1, "fill")
    assert not masked("landsat-qa-pixel", 21824, *all_but_clear)
    assert masked("landsat-qa-pixel", 22280, "cloud")
    assert masked("landsat-qa-pixel", 23888, "cloud_shadow")
    assert masked("landsat-qa-pixel", 30048, "snow")
    assert masked("landsat-qa-pixel", 54596, "cirrus")
    assert masked("landsat-qa-pixel", 21826, "dilated_cloud")
    assert masked("landsat-qa-pixel", 21952, "water")
    assert not masked("landsat-qa-pixel", 21952, *all_but_clear)


def test_landsats_collection_1_quality_as_its_document_reads_it():
    # Landsat 8 values: 1 fill, 2720 clear with all confidences low, 2800 cloud with high
    # confidence, 2976 cloud shadow with high confidence, 3744 snow, 6816 cirrus.
    everything = ("fill", "cloud", "cloud_shadow", "snow", "cirrus")
    assert masked("landsat-c1-bqa", 1, "fill")
    assert not masked("landsat-c1-bqa", 2720, *everything)
    assert masked("landsat-c1-bqa", 2800, "cloud")
    assert masked("landsat-c1-bqa", 2976, "cloud_shadow")
    assert masked("landsat-c1-bqa", 3744, "snow")
    assert masked("landsat-c1-bqa", 6816, "cirrus")


def test_fmask_of_hls_has_cloud_at_bit_1_and_its_fill_is_everything():
    # User guide: bits 6-7 are the aerosol level (64 low, 192 high), 255 is fill.
    clouds = ("cloud", "adjacent_to_cloud", "cloud_shadow")
    assert masked("hls-fmask", 0b10, "cloud")
    assert masked("hls-fmask", 0b100, "adjacent_to_cloud")
    assert masked("hls-fmask", 0b1000, "cloud_shadow")
    assert masked("hls-fmask", 0b10000, "snow")
    assert masked("hls-fmask", 0b100000, "water")
    assert not masked("hls-fmask", 64, *clouds)
    assert not masked("hls-fmask", 192, *clouds)
    assert masked("hls-fmask", 255, *clouds)


def test_planets_usable_data_mask_counts_bands_from_1():
    udm2 = QUALITY["udm2"]
    assert udm2.encoding == "bands"
    # 1 clear, 2 snow, 3 shadow, 4 light and 5 heavy haze, 6 cloud, 7 confidence, 8 unusable.
    assert udm2.numbers(("cloud", "cloud_shadow", "unusable"), source="q.tif") == (6, 3, 8)
    assert 7 not in udm2.classes.values()


# Names


def test_an_unknown_class_is_refused_with_the_nearest_name():
    with pytest.raises(BandError) as error:
        QUALITY["landsat-qa-pixel"].numbers(("fill", "cloud_shadows"), source="x_QA_PIXEL.TIF")
    assert str(error.value) == (
        "The quality layer of x_QA_PIXEL.TIF has no class 'cloud_shadows'. Did you mean "
        "'cloud_shadow'? It has: fill, dilated_cloud, cirrus, cloud, cloud_shadow, snow, clear, "
        "water. Change data.mask."
    )


def test_classes_of_ones_own_are_spelled_out():
    own = QualityClasses(encoding="values", classes={"smoke": 7})
    assert own.numbers(("smoke",), source="q.tif") == (7,)
    assert own.numbers((), source="q.tif") == ()
