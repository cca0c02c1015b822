"""One value, one meaning: shifts of integers, physical values, decibel; and what is refused."""

import math

import numpy as np
import pytest
import rasterio
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scene_support import index_of, numbers, read_all, write

from geodino.data.recoding import Recoding
from geodino.errors import BandError

FILLS = {
    "uint16": (0, 1, 65535),
    "int16": (0, -9999, 32767),
    "float32": (0.0, -9999.0, np.nan),
    # The last is a nodata value that overflows on the way to 32 bits.
    "float64": (0.0, np.inf, -1.797e308),
}


def shift(dtype, *bias):
    return Recoding(dtype=dtype, gain=(1.0,) * len(bias), bias=tuple(float(b) for b in bias))


def pixels_of(dtype, seed, bands=2):
    limits = np.iinfo(dtype)
    rng = np.random.default_rng(seed)
    return rng.integers(limits.min, limits.max, (bands, 4, 5), dtype=dtype, endpoint=True)


@given(
    dtype=st.sampled_from(["uint8", "int8", "uint16", "int16", "uint32", "int32"]),
    bias=st.tuples(st.integers(-3000, 3000), st.integers(-3000, 3000)),
    seed=st.integers(0, 1000),
)
def test_integers_are_shifted_band_by_band_and_never_wrap(dtype, bias, seed):
    pixels = pixels_of(dtype, seed)
    valid = np.ones(pixels.shape, bool)
    got, kept = shift(dtype, *bias)(pixels, valid)
    limits = np.iinfo(dtype)
    for band, add, found in zip(pixels, bias, got, strict=True):
        expected = [min(max(int(v) + add, limits.min), limits.max) for v in band.ravel()]
        assert found.ravel().tolist() == expected
    assert got.dtype == np.dtype(dtype)
    assert kept.all()


def test_a_thousand_more_is_exactly_a_thousand_more():
    pixels = np.array([[[0, 1, 64535, 64536, 65535]]], np.uint16)
    got, _ = shift("uint16", 1000)(pixels, np.ones(pixels.shape, bool))
    assert got.ravel().tolist() == [1000, 1001, 65535, 65535, 65535]


@given(
    gain=st.floats(1e-6, 1e3), bias=st.floats(-1e3, 1e3), seed=st.integers(0, 1000),
    decibel=st.booleans(),
)  # fmt: skip
def test_physical_values_are_gain_times_stored_plus_bias(gain, bias, seed, decibel):
    pixels = pixels_of("int16", seed, bands=1)
    recoding = Recoding(dtype="float32", gain=(gain,), bias=(bias,), decibel=decibel)
    got, kept = recoding(pixels, np.ones(pixels.shape, bool))
    assert got.dtype == np.float32
    for stored, value, is_kept in zip(pixels.ravel(), got.ravel(), kept.ravel(), strict=True):
        physical = gain * float(stored) + bias
        if not decibel:
            assert value == np.float32(physical)
            assert is_kept
        else:
            assert is_kept == (physical > 0)
            if is_kept and physical > 1e-30:
                assert value == pytest.approx(10 * math.log10(physical), abs=1e-4)


def test_decibel_of_what_is_not_positive_is_invalid():
    power = np.array([[[10.0, 1.0, 0.001, 0.0, -1.0]]], np.float32)
    in_db = Recoding(dtype="float32", gain=(1.0,), bias=(0.0,), decibel=True)
    got, kept = in_db(power, np.array([[[True, True, True, True, True]]]))
    assert got[0, 0, :3].tolist() == pytest.approx([10, 0, -30])
    assert kept.ravel().tolist() == [True, True, True, False, False]
    assert np.isfinite(got).all()


@given(
    dtype=st.sampled_from(sorted(FILLS)), decibel=st.booleans(), seed=st.integers(0, 1000),
    same_mask=st.booleans(),
)  # fmt: skip
def test_values_under_invalid_pixels_reach_no_valid_one(dtype, decibel, seed, same_mask):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(1, 250, (2, 4, 5)).astype(dtype)
    mask = rng.random((2, 4, 5)) < 0.6
    valid = np.broadcast_to(mask[:1], mask.shape) if same_mask else mask
    before = valid.copy()
    if decibel or dtype.startswith("float"):
        recoding = Recoding(dtype="float32", gain=(2.0, 3.0), bias=(1.0, -50.0), decibel=decibel)
    else:
        recoding = shift(dtype, 1000, 0)
    found = set()
    for fill in FILLS[dtype]:
        got, kept = recoding(np.where(valid, pixels, pixels.dtype.type(fill)), valid)
        found.add((np.where(kept, got, 0).tobytes(), kept.tobytes()))
    assert len(found) == 1
    # The mask that was given may be shared: it is not written to.
    np.testing.assert_array_equal(valid, before)


# What is found for a source


def two(tmp_path, *descriptions, dtype="uint16"):
    """Write one single-band file a description (scale, offset, unit); their pixels are the same."""
    for name, of in zip("abcd", descriptions, strict=False):
        write(tmp_path / f"{name}.tif", numbers(start=40, dtype=dtype), **of)
    return tmp_path


def physical(index, tile):
    pixels, valid = read_all(index, tile)
    band = index.bands[0]
    return np.where(valid, pixels[0] * np.float64(band.scale) + band.offset, np.nan)


STORED = numbers(start=40).astype(float)


@settings(max_examples=12)
@given(
    offsets=st.lists(st.sampled_from([-0.2, -0.1, 0.0, 0.05, 0.1]), min_size=2, max_size=3),
    scale=st.sampled_from([0.0001, 0.001, -0.001]),
)
@example(offsets=[0.0, -0.1], scale=-0.001)
def test_whatever_the_offsets_a_value_means_what_its_file_said(tmp_path_factory, offsets, scale):
    folder = two(
        tmp_path_factory.mktemp("offsets"),
        *({"scale": scale, "offset": o, "unit": "reflectance"} for o in offsets),
    )
    index = index_of(folder)
    assert index.dtype == "uint16"
    for tile, offset in enumerate(offsets):
        np.testing.assert_allclose(physical(index, tile), STORED * scale + offset, atol=1e-9)
        recoding = index.tiles[tile].recoding
        assert recoding is None or min(recoding.bias) >= 0


def test_offsets_that_are_no_whole_step_apart_are_read_as_physical_values(tmp_path):
    both = ({"scale": 0.3, "offset": 0.0, "unit": "K"}, {"scale": 0.3, "offset": 0.1, "unit": "K"})
    index = index_of(two(tmp_path, *both))
    assert index.dtype == "float32"
    assert [(b.scale, b.offset, b.unit) for b in index.bands] == [(1.0, 0.0, "K")]
    assert "scale or offset differ between files" in index.notes[0]
    for tile, offset in enumerate((0.0, 0.1)):
        np.testing.assert_allclose(physical(index, tile), STORED * 0.3 + offset, rtol=1e-6)


def test_shifts_that_their_type_has_no_room_for_are_read_as_physical_values(tmp_path):
    # 100 more in 8 bits would put every number above 155 on 255.
    both = ({"scale": 0.01, "unit": "m"}, {"scale": 0.01, "offset": -1.0, "unit": "m"})
    index = index_of(two(tmp_path, *both, dtype="uint8"))
    assert index.dtype == "float32"
    np.testing.assert_allclose(physical(index, 1), STORED * 0.01 - 1.0, rtol=1e-5, atol=1e-6)


def test_offsets_that_differ_in_the_last_decimals_are_one(tmp_path):
    both = ({"scale": 0.0001, "offset": o, "unit": "reflectance"} for o in (-0.1, -0.1 + 1e-12))
    index = index_of(two(tmp_path, *both))
    assert [tile.recoding for tile in index.tiles] == [None, None]
    assert index.notes == ()


def test_floats_of_several_offsets_are_read_as_physical_values(tmp_path):
    index = index_of(two(tmp_path, {}, {"offset": 5.0}, dtype="float32"))
    assert index.dtype == "float32"
    np.testing.assert_allclose(physical(index, 1), STORED + 5.0)


def test_the_bands_of_one_tile_are_shifted_each_by_its_own(tmp_path):
    pixels = np.stack([numbers(), numbers(start=500)])
    write(tmp_path / "a.tif", pixels, scale=0.001, offset=0.0)
    path = write(tmp_path / "b.tif", pixels, scale=0.001, offset=0.0)
    with rasterio.open(path, "r+") as out:
        out.offsets = (0.0, -0.2)
    index = index_of(tmp_path)
    assert [b.offset for b in index.bands] == [0.0, -0.2]
    got = read_all(index, 0)[0]
    assert (got - pixels)[:, 0, 0].tolist() == [0, 200]
    np.testing.assert_array_equal(read_all(index, 1)[0], pixels)


# Units


def test_two_units_of_one_band_are_refused(tmp_path):
    two(tmp_path, {"unit": "K"}, {"unit": "m"})
    with pytest.raises(BandError) as error:
        index_of(tmp_path)
    assert str(error.value) == (
        f"Band band_1 is in K in {tmp_path}/a.tif, but in m in {tmp_path}/b.tif. Convert one of "
        "them, or name files of one kind."
    )


def test_a_file_that_does_not_say_its_unit_is_taken_to_have_that_of_the_others(tmp_path):
    for first, second in ((0, 1), (1, 0)):
        units = ({"unit": "K"}, {})
        index = index_of(two(tmp_path, units[first], units[second]))
        assert index.bands[0].unit == "K"
        assert [tile.recoding for tile in index.tiles] == [None, None]
        (note,) = index.notes
        assert "is not declared; it is taken to be K, as in other files" in note


def test_a_file_that_says_nothing_beside_one_that_scales_its_numbers_is_refused(tmp_path):
    # Is 3000 a reflectance of 0.3, or 3000? Nothing in the second file tells.
    two(tmp_path, {"scale": 0.0001, "offset": -0.1, "unit": "reflectance"}, {})
    with pytest.raises(BandError) as error:
        index_of(tmp_path)
    assert str(error.value) == (
        "band_1 in a.tif is reflectance as 0.0001 * stored + -0.1, but "
        f"{tmp_path}/b.tif says nothing of what it stores. Declare it for all files with "
        "data.scale and data.offset or a descriptor (data.dataset), or leave it out."
    )
    index = index_of(tmp_path, scale=0.0001, offset=-0.1)
    assert (index.bands[0].scale, index.bands[0].offset) == (0.0001, -0.1)


# Radar


POWER, DB = {"unit": "power"}, {"unit": "dB"}


def test_power_is_read_as_decibel_where_that_is_asked_for(tmp_path):
    two(tmp_path, POWER, POWER, dtype="float32")
    assert index_of(tmp_path).bands[0].unit == "power"
    index = index_of(tmp_path, decibel=True)
    assert [(b.unit, b.scale, b.offset) for b in index.bands] == [("dB", 1.0, 0.0)]
    np.testing.assert_allclose(read_all(index)[0][0], 10 * np.log10(STORED), rtol=1e-6)
    assert "power is read as 10 log10 (data.decibel)" in index.notes


def test_power_and_decibel_are_joined_where_that_is_asked_for(tmp_path):
    write(tmp_path / "a.tif", np.full((8, 8), 100.0, np.float32), unit="power")
    write(tmp_path / "b.tif", np.full((8, 8), 20.0, np.float32), unit="dB")
    with pytest.raises(BandError, match=r"data\.decibel: true reads both as decibel"):
        index_of(tmp_path)
    index = index_of(tmp_path, decibel=True)
    assert [read_all(index, tile)[0][0, 0, 0] for tile in (0, 1)] == [20.0, 20.0]


def test_scale_and_offset_come_before_the_logarithm(tmp_path):
    write(tmp_path / "a.tif", np.full((8, 8), 20, np.uint16), unit="power", scale=0.5, offset=90.0)
    assert read_all(index_of(tmp_path, decibel=True))[0][0, 0, 0] == 20.0


def test_decibel_is_left_as_it_is(tmp_path):
    index = index_of(two(tmp_path, DB, DB, dtype="float32"), decibel=True)
    assert [tile.recoding for tile in index.tiles] == [None, None]
    np.testing.assert_array_equal(read_all(index)[0][0], STORED)


def test_a_radar_file_that_does_not_say_its_unit_is_treated_like_the_others(tmp_path):
    index = index_of(two(tmp_path, {}, POWER, dtype="float32"), decibel=True)
    for tile in (0, 1):
        np.testing.assert_allclose(read_all(index, tile)[0][0], 10 * np.log10(STORED), rtol=1e-6)
    index = index_of(two(tmp_path, {}, DB, dtype="float32"), decibel=True)
    np.testing.assert_array_equal(read_all(index, 0)[0][0], STORED)


def test_a_radar_file_that_could_be_either_is_refused(tmp_path):
    two(tmp_path, POWER, DB, {}, dtype="float32")
    with pytest.raises(BandError, match=r"Declare the unit of band_1 in c\.tif, which is one or"):
        index_of(tmp_path, decibel=True)


@pytest.mark.parametrize(("of", "unit"), [({}, "unknown"), ({"unit": "reflectance"}, "reflecta")])
def test_decibel_of_what_is_no_radar_is_refused_and_never_ignored(tmp_path, of, unit):
    two(tmp_path, of)
    message = (
        rf"data\.decibel is for bands in power or dB, but the unit of band_1 in a\.tif is {unit}"
    )
    with pytest.raises(BandError, match=message):
        index_of(tmp_path, decibel=True)
