"""Streaming statistics against numpy on everything at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.metrics.moments import FLOAT_ERROR, Moments, ValueCounts

values = st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50)


@given(parts=st.lists(values, min_size=1, max_size=6))
def test_merged_moments_are_those_of_everything_at_once(parts):
    merged = Moments.empty(1)
    for part in parts:
        merged = merged.merge(Moments.of([np.array(part, dtype=np.float32)]))
    whole = np.concatenate([np.array(part) for part in parts])
    assert merged.count[0] == whole.size
    np.testing.assert_allclose(merged.mean[0], whole.mean(), rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(merged.std[0], whole.std(), rtol=1e-6, atol=1e-4)
    assert (merged.low[0], merged.high[0]) == (whole.min(), whole.max())


def test_a_small_spread_far_from_zero_is_not_lost():
    # The textbook trap of summing squares: mean 1e9, standard deviation 1.
    values = 1e9 + np.array([-1.0, 1.0] * 500)
    merged = Moments.of([values[:300]]).merge(Moments.of([values[300:]]))
    assert merged.std[0] == pytest.approx(1.0, rel=1e-9)


def test_nothing_merged_with_something_is_that_thing():
    some = Moments.of([np.array([1.0, 3.0]), np.array([])])
    merged = Moments.empty(2).merge(some).merge(Moments.empty(2))
    assert merged.count.tolist() == [2, 0]
    assert merged.mean.tolist() == [2.0, 0.0]
    assert merged.m2.tolist() == [2.0, 0.0]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@given(data=st.data())
@settings(max_examples=30)
def test_small_integers_are_counted_exactly(dtype, data):
    limits = np.iinfo(dtype)
    numbers = data.draw(st.lists(st.integers(limits.min, limits.max), min_size=1, max_size=80))
    array = np.array(numbers, dtype=dtype)
    counts = ValueCounts(dtype, 1)
    other = ValueCounts(dtype, 1)
    counts.add(0, array[: len(array) // 2])
    other.add(0, array[len(array) // 2 :])
    counts.merge(other)
    moments = counts.moments()
    assert moments.count[0] == array.size
    assert (moments.low[0], moments.high[0]) == (array.min(), array.max())
    np.testing.assert_allclose(moments.mean[0], array.mean(dtype=np.float64), rtol=1e-12)
    np.testing.assert_allclose(moments.std[0], array.std(dtype=np.float64), rtol=1e-9, atol=1e-9)
    q = (0.0, 0.01, 0.5, 0.9, 1.0)
    truth = np.quantile(array.astype(np.float64), q)
    np.testing.assert_allclose(counts.quantiles(*q)[:, 0], truth, rtol=1e-12)


def test_large_parts_are_counted_like_small_ones():
    array = np.random.default_rng(0).integers(0, 65536, 50_000).astype(np.uint16)
    whole, pieces = ValueCounts("uint16", 1), ValueCounts("uint16", 1)
    whole.add(0, array)
    for part in np.split(array, 50):
        pieces.add(0, part)
    np.testing.assert_array_equal(whole.counts, pieces.counts)
    np.testing.assert_array_equal(whole.counts[0], np.bincount(array, minlength=65536))


@given(numbers=st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=80))
def test_percentiles_of_floats_are_within_the_stated_error(numbers):
    array = np.array(numbers, dtype=np.float32)
    counts = ValueCounts("float32", 1)
    counts.add(0, array)
    # The order statistic itself, without interpolation between two far values.
    truth = np.sort(array).astype(np.float64)
    found = counts.quantiles(*(np.arange(array.size) / max(array.size - 1, 1)).tolist())[:, 0]
    # Ranks such as 7 / 10 * 10 are not always whole; denormal numbers share a bin with 0.
    slack = 1e-12 * np.ptp(truth) + 1e-34
    assert (np.abs(found - truth) <= FLOAT_ERROR * np.abs(truth) + slack).all()


def test_whole_numbers_stored_as_floats_have_exact_percentiles():
    array = np.arange(-2048, 2049, dtype=np.float32)
    counts = ValueCounts("float64", 1)
    counts.add(0, array.astype(np.float64))
    assert counts.quantiles(0.0, 0.25, 0.5, 1.0)[:, 0].tolist() == [-2048, -1024, 0, 2048]


def test_an_empty_band_has_no_percentile_and_bins_have_no_exact_moments():
    counts = ValueCounts("float32", 2)
    counts.add(0, np.ones(3, dtype=np.float32))
    assert counts.quantiles(0.5)[0, 0] == 1
    assert np.isnan(counts.quantiles(0.5)[0, 1])
    with pytest.raises(ValueError, match="float32 is counted in bins"):
        counts.moments()
