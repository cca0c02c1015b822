"""The arithmetic of validity, by hand."""

import numpy as np
import pytest

from geodino.geo.validity import (
    ReadRule,
    can_hold,
    combine,
    differs,
    finite,
    nodata_counts,
    share_at_extremes,
)


def test_all_needs_every_band_and_any_needs_one():
    valid = np.array([[[True, True, False]], [[True, False, False]]])
    np.testing.assert_array_equal(combine(valid, "all"), [[True, False, False]])
    np.testing.assert_array_equal(combine(valid, "any"), [[True, True, False]])


def test_a_mask_shared_by_the_bands_is_not_joined_again():
    shared = np.array([[True, False]])
    joined = combine(np.broadcast_to(shared, (3, 1, 2)), "all")
    assert np.shares_memory(joined, shared)


def test_nodata_that_the_type_cannot_hold_marks_nothing():
    pixels = np.array([0, 241, 255], dtype=np.uint8)
    for nodata in (-9999.0, 256.0, 0.5, float("nan"), None):
        assert differs(pixels, nodata).all()
    assert not can_hold(pixels.dtype, -9999.0)
    np.testing.assert_array_equal(differs(pixels, 255.0), [True, True, False])


def test_a_decimal_nodata_tag_is_rounded_to_the_pixels_precision():
    # -3.4e38 is not a 32-bit float; the file holds the nearest one.
    pixels = np.array([-3.4e38, 1.5], dtype=np.float32)
    np.testing.assert_array_equal(differs(pixels, -3.3999999521443642e38), [False, True])
    np.testing.assert_array_equal(differs(pixels, -3.4e38), [False, True])


def test_what_a_32_bit_float_cannot_hold_is_not_finite():
    assert finite(np.array([1, 2], dtype=np.uint16)) is None
    assert finite(np.array([1.0, 2.0])) is None
    found = finite(np.array([np.nan, np.inf, -1.8e308, 7.0]))
    np.testing.assert_array_equal(found, [False, False, False, True])


def test_a_mask_sits_at_its_extremes_and_an_image_does_not():
    assert share_at_extremes(np.array([0, 255, 255, 0])) == 1.0
    assert share_at_extremes(np.full(5, 200)) == 1.0
    assert share_at_extremes(np.arange(200)) == pytest.approx(2 / 200)


def test_nodata_is_counted_in_any_and_in_all_bands():
    # Pixel 1: all three bands 255. Pixel 2: one band. Pixel 3: none.
    pixels = np.array([[[255, 255, 1]], [[255, 2, 3]], [[255, 4, 5]]], dtype=np.uint8)
    assert nodata_counts(pixels, (255.0,) * 3).tolist() == [2, 1]


def test_a_rule_tells_in_words_what_it_believes_and_survives_json():
    rule = ReadRule(alpha="band", nodata=-9999.0, reasons=("because",))
    assert rule.text == "GDAL's mask, nodata -9999.0, no alpha band, finite values"
    assert ReadRule.model_validate_json(rule.model_dump_json()) == rule
    assert "the nodata tag, a band tagged alpha" in ReadRule().text
