"""Curves of heights: the arithmetic, the laws, and what little data may change."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from geodino.errors import RunError
from geodino.metrics.conformal import HeightSite
from geodino.metrics.recalibration import (
    IDENTITY,
    HeightBins,
    HeightCurve,
    RecalibrationConfig,
    choose_curve,
    height_bins,
)
from geodino.models.height_curve import CurveModule

BENT = HeightCurve(predicted_m=(0.0, 2.0, 10.0), height_m=(0.5, 1.0, 17.0), slope_above=1.5)


@st.composite
def curves(draw):
    steps = draw(st.lists(st.tuples(st.floats(0.1, 9), st.floats(0, 9)), max_size=6))
    x = np.cumsum([0.0, *(step for step, _ in steps)]).round(3).tolist()
    y = np.cumsum([draw(st.floats(0, 3)), *(rise for _, rise in steps)]).round(3).tolist()
    return HeightCurve(
        predicted_m=tuple(x), height_m=tuple(y), slope_above=draw(st.floats(0.5, 2.0))
    )


heights = st.lists(st.floats(0, 90, width=32), min_size=1, max_size=30).map(sorted)


def site(name, predicted, true):
    p, t = np.asarray(predicted, float), np.asarray(true, float)
    return HeightSite(name=name, predicted_m=p, true_m=t, valid=np.ones(p.shape, bool))


def test_a_curve_is_interpolated_by_hand():
    # 0.5 + 1/2 * 0.5; the knot itself; 1 + 4 * 2; beyond 10 m with 1.5 a metre; below 0 as 0.
    at = np.array([1.0, 2.0, 6.0, 12.0, -1.0])
    np.testing.assert_allclose(BENT.apply(at), [0.75, 1.0, 9.0, 20.0, 0.5])
    assert np.isnan(BENT.apply(np.array([np.nan]))[0])


@given(values=heights)
def test_the_identity_changes_no_bit(values):
    at = np.array(values, dtype=np.float32)
    np.testing.assert_array_equal(IDENTITY.apply(at), at)
    on_device = CurveModule(IDENTITY)(torch.from_numpy(at))
    np.testing.assert_array_equal(on_device.numpy(), at)
    assert IDENTITY.is_identity
    assert IDENTITY.after(BENT) == BENT.after(IDENTITY) == BENT


@given(curve=curves(), values=heights)
def test_a_curve_never_falls_is_never_below_the_ground_and_never_flat_at_its_end(curve, values):
    got = curve.apply(np.array(values, dtype=np.float64))
    assert (got >= 0).all()
    assert (np.diff(got) >= -1e-9).all()
    last = curve.predicted_m[-1]
    far = curve.apply(np.array([last + 1, last + 2]))
    assert far[1] - far[0] >= 0.5 - 1e-9


@given(curve=curves(), values=heights)
def test_the_device_gives_what_numpy_gives(curve, values):
    at = np.array(values, dtype=np.float32)
    got = CurveModule(curve)(torch.from_numpy(at))
    np.testing.assert_allclose(got.numpy(), curve.apply(at.astype(float)), rtol=1e-5, atol=2e-5)


@given(first=curves(), second=curves(), values=heights)
def test_two_curves_in_one_do_what_both_do_in_turn(first, second, values):
    at = np.array(values, dtype=np.float64)
    both = second.apply(first.apply(at))
    # Knots are kept to a tenth of a millimetre, and slopes may be large between close ones.
    np.testing.assert_allclose(second.after(first).apply(at), both, rtol=5e-3, atol=5e-2)


def test_an_offset_shrinks_as_if_other_sites_had_none():
    # Labels of one site say 6 m where 4 m are predicted; one site more says 4 m: 5 m. At 0 m the
    # same metre is added; with as good as no prior the offset is 2 m.
    bins = HeightBins(
        predicted_m=np.array([4.0]), true_m=np.array([6.0]), pixels=np.array([100]),
        sites=np.array([1.0]),
    )  # fmt: skip
    half = bins.curve(1.0)
    assert half.predicted_m == (0.0, 4.0)
    assert half.height_m == (1.0, 5.0)
    assert half.slope_above == 1.0
    assert bins.curve(0.0).height_m == (2.0, 6.0)


def test_knots_that_would_fall_become_one_height_and_the_end_rises_on():
    # 8 and 6 m in bins of as many labels: both 7 m. From 2 m (the last knot below half of 5) to 5 m
    # it rises 5 m, 1.67 a metre.
    bins = HeightBins(
        predicted_m=np.array([2.0, 4.0, 5.0]), true_m=np.array([2.0, 8.0, 6.0]),
        pixels=np.array([50, 50, 50]), sites=np.array([3.0, 3.0, 3.0]),
    )  # fmt: skip
    curve = bins.curve(0.0)
    assert curve.height_m == (0.0, 2.0, 7.0, 7.0)
    assert curve.slope_above == pytest.approx(5 / 3, abs=1e-4)


def test_bins_count_sites_not_pixels():
    # 300 and 100 pixels of two sites are worth 400^2 / (300^2 + 100^2) = 1.6 sites.
    config = RecalibrationConfig(knots=2, min_pixels=400)
    sites = [site("a", np.full(300, 3.0), np.full(300, 5.0)), site("b", [3.0] * 100, [-1.0] * 100)]
    bins = height_bins(sites, config)
    np.testing.assert_allclose(bins.sites, [1.6])
    np.testing.assert_allclose(bins.true_m, [5.0])
    mean = height_bins(sites, config.model_copy(update={"centre": "mean"}))
    np.testing.assert_allclose(mean.true_m, [3.75])  # a truth below the ground counts as 0 m


@given(count=st.integers(1, 400), knots=st.integers(2, 30), seed=st.integers(0, 99))
def test_bins_are_bounded_hold_every_pixel_and_rise(count, knots, seed):
    generator = np.random.default_rng(seed)
    predicted = generator.gamma(1.0, 6.0, count).round(1)
    config = RecalibrationConfig(knots=knots, min_pixels=20)
    bins = height_bins([site("a", predicted, predicted)], config)
    assert int(bins.pixels.sum()) == count
    assert len(bins.pixels) <= knots
    assert len(bins.pixels) == 1 or bins.pixels.min() >= 20
    assert (np.diff(bins.predicted_m) > 0).all()


def test_the_best_on_held_out_ground_is_taken_and_no_change_where_none_is_better():
    generator = np.random.default_rng(0)
    config = RecalibrationConfig()
    parts = [generator.gamma(1.0, 6.0, 900) for _ in range(4)]
    wrong = [site(str(i), p, 0.5 * p + 3) for i, p in enumerate(parts)]
    right = [site(str(i), p, p) for i, p in enumerate(parts)]
    bins = height_bins(wrong[:3], config)
    chosen = choose_curve(bins, wrong[3:], config)
    assert chosen.prior_sites == 0.1
    assert chosen.errors_m["0.1"] < 0.15 < 2 < chosen.errors_m["as it is"]
    none = choose_curve(bins, right[3:], config)
    assert none.prior_sites is None
    assert none.curve.is_identity
    with pytest.raises(RunError, match="no label on the ground for validation"):
        choose_curve(bins, [], config)
    with pytest.raises(RunError, match="no label to set heights right with"):
        height_bins([], config)
