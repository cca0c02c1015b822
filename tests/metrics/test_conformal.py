"""Intervals of heights: quantiles by hand, sites that count the same, coverage kept on new sites."""

import json
import math

import numpy as np
import pytest
from pydantic import ValidationError

from geodino import seeds
from geodino.errors import RecipeError, RunError
from geodino.metrics.conformal import (
    HeightSite,
    IntervalConfig,
    QuantileIntervals,
    QuantileSite,
    ResidualIntervals,
    fit_quantile_intervals,
    fit_residual_intervals,
    min_sites,
)
from geodino.metrics.coverage import IntervalSite, coverage_report

HALF = IntervalConfig(coverage=0.5, min_pixels_per_site=1)


def quantile_site(name, outside, *, low=4.0, high=6.0):
    """Predicted 4 to 6 m everywhere; the truth lies ``outside`` metres above."""
    outside = np.array(outside, dtype=float)
    return QuantileSite(
        name=name,
        lower_m=np.full(outside.shape, low),
        upper_m=np.full(outside.shape, high),
        true_m=high + outside,
        valid=np.ones(outside.shape, dtype=bool),
    )


def height_site(name, predicted, errors):
    predicted, errors = np.array(predicted, dtype=float), np.array(errors, dtype=float)
    return HeightSite(
        name=name,
        predicted_m=predicted,
        true_m=predicted + errors,
        valid=np.ones(predicted.shape, dtype=bool),
    )


def stand(seed, i, pixels=300):
    """A site with an error of its own, and errors that grow with height."""
    r = seeds.rng(seed, "stand", i)
    true = r.uniform(0, 40, pixels)
    spread = 0.5 + 0.1 * true
    predicted = np.maximum(true + spread * (r.normal() + 0.5 * r.normal(size=pixels)), 0.0)
    valid = r.random(pixels) > 0.1
    return HeightSite(name=f"stand {i}", predicted_m=predicted, true_m=true, valid=valid)


# Quantiles


def test_three_sites_of_one_pixel_by_hand():
    # Scores 1, 2, 3, each a third of the weight; 50 % of 3 sites asks for .5 * 4 / 3 = 2/3: score 2.
    sites = [quantile_site(str(s), [s]) for s in (3.0, 1.0, 2.0)]
    got = fit_quantile_intervals(sites, config=HALF, seed=0)
    assert (got.margin_m, got.sites, got.pixels) == (2.0, 3, 3)
    low, high = got.interval(np.array([4.0, 1.0]), np.array([6.0, 2.0]))
    assert low.tolist() == [2.0, 0.0]
    assert high.tolist() == [8.0, 4.0]


def test_a_site_of_many_pixels_counts_as_much_as_one_of_few():
    # Half of 1002 pixels miss by 1 m or less; two of three sites miss by 5 m.
    sites = [
        quantile_site("large", [1.0] * 1000),
        quantile_site("small", [5.0]),
        quantile_site("tiny", [5.0]),
    ]
    assert fit_quantile_intervals(sites, config=HALF, seed=0).margin_m == 5.0


def test_quantiles_too_far_apart_are_moved_together_but_never_cross():
    # The truth lies 2 m inside the upper end (4 m inside the lower one): the margin is -2.
    sites = [quantile_site(str(i), [-2.0], low=0.0) for i in range(3)]
    got = fit_quantile_intervals(sites, config=HALF, seed=0)
    assert got.margin_m == -2.0
    low, high = got.interval(np.array([0.0, 5.0, np.nan]), np.array([6.0, 6.0, 7.0]))
    np.testing.assert_array_equal(low, [2.0, 5.5, np.nan])
    np.testing.assert_array_equal(high[:2], [4.0, 5.5])


@pytest.mark.parametrize(("coverage", "sites"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19)])
def test_the_least_number_of_sites_of_a_coverage(coverage, sites):
    assert min_sites(coverage) == sites
    # With as many, the corrected share is all of the weight: the interval holds every score.
    found = fit_quantile_intervals(
        [quantile_site(str(i), [i, i / 2]) for i in range(sites)],
        config=IntervalConfig(coverage=coverage, min_pixels_per_site=1),
        seed=0,
    )
    assert found.margin_m == sites - 1


# Residuals


def test_the_scale_rises_with_height_and_sites_count_the_same():
    # Two sites for the scale: at 1 m errors of 1 and 3 (mean 2), at 12 m of 1, at 30 m of 4. The dip
    # at 12 m is pooled with the bin before: (2 * w + 1 * w) / 2w with equal weights, 1.5.
    config = IntervalConfig(coverage=0.5, scale_share=0.67, min_pixels_per_site=1)
    twins = [height_site(n, [1, 1, 12, 12, 30, 30], [1, 3, 1, -1, 4, -4]) for n in "abc"]
    got = fit_residual_intervals(twins, config=config, seed=0)
    assert got.sites == 1
    assert got.height_m == pytest.approx((1.0, 12.0, 30.0))
    assert got.scale_m == pytest.approx((1.5, 1.5, 4.0))
    # One site left, 50 %: its largest score, 3 / 1.5.
    assert got.factor == pytest.approx(2.0)
    low, high = got.interval(np.array([0.0, 12.0, 21.0, 50.0]))
    np.testing.assert_allclose(low, [0.0, 9.0, 21 - 5.5, 42.0])
    np.testing.assert_allclose(high, [3.0, 15.0, 21 + 5.5, 58.0])


def test_no_height_is_known_better_than_the_least_scale():
    sites = [height_site(str(i), [5.0, 20.0], [0.0, 0.0]) for i in range(3)]
    got = fit_residual_intervals(sites, config=HALF, seed=0)
    assert set(got.scale_m) == {HALF.min_scale_m}
    assert got.factor == 0.0


def test_the_scale_owes_nothing_to_the_sites_that_calibrate():
    config = IntervalConfig()
    sites = [stand(1, i) for i in range(20)]
    want = fit_residual_intervals(sites, config=config, seed=0)
    assert want.sites == 14
    names = seeds.rng(0, "sites of the scale").permutation(sorted(s.name for s in sites))[:6]
    moved = [
        s
        if s.name in names
        else HeightSite(
            name=s.name, predicted_m=s.predicted_m, true_m=s.true_m + 1.0, valid=s.valid
        )
        for s in sites
    ]
    got = fit_residual_intervals(moved, config=config, seed=0)
    assert got.scale_m == want.scale_m
    assert got.factor != want.factor


# Promises


def test_new_sites_are_covered_as_promised_and_pixels_alone_would_promise_too_much():
    # 9 sites at 90 %, as few as it takes: 300 times, one new site each.
    config = IntervalConfig(min_pixels_per_site=1)
    kept, naive = [], []
    for trial in range(300):
        r = seeds.rng(trial, "promise")
        scores = [r.normal() + 0.3 * r.normal(size=40) for _ in range(10)]
        sites = [quantile_site(str(i), s) for i, s in enumerate(scores[:9])]
        margin = fit_quantile_intervals(sites, config=config, seed=0).margin_m
        kept.append((scores[9] <= margin).mean())
        naive.append((scores[9] <= np.quantile(np.concatenate(scores[:9]), 0.9)).mean())
    assert np.mean(kept) > 0.9 - 2 * np.std(kept) / math.sqrt(300)
    assert np.mean(naive) < np.mean(kept)


def test_residual_intervals_cover_new_stands_and_widen_with_height():
    config = IntervalConfig()
    fitted = fit_residual_intervals([stand(2, i) for i in range(60)], config=config, seed=0)
    report = []
    for i in range(100, 200):
        site = stand(2, i)
        low, high = fitted.interval(site.predicted_m)
        report.append(
            IntervalSite(
                name=site.name,
                predicted_m=site.predicted_m,
                lower_m=low,
                upper_m=high,
                true_m=site.true_m,
                valid=site.valid,
            )
        )
    found = coverage_report(report)
    assert 0.85 < found.coverage < 0.97
    widths = [c.width_m for c in found.classes]
    assert widths == sorted(widths)
    assert all(c.coverage > 0.8 for c in found.classes)
    assert found.worst_site.coverage == min(s.coverage for s in found.sites)


@pytest.mark.parametrize("rubbish", [math.nan, -3.4e38, 1e30, math.inf])
def test_what_lies_under_an_invalid_pixel_changes_no_bit(rubbish):
    sites = [stand(3, i) for i in range(14)]
    dirty = [
        HeightSite(
            name=s.name,
            predicted_m=np.where(s.valid, s.predicted_m, rubbish),
            true_m=np.where(s.valid, s.true_m, rubbish),
            valid=s.valid,
        )
        for s in sites
    ]
    config = IntervalConfig(pixels_per_site=150)
    want = fit_residual_intervals(sites, config=config, seed=0)
    assert fit_residual_intervals(dirty, config=config, seed=0) == want
    assert want.pixels == want.sites * 150


def test_the_order_of_the_sites_does_not_matter():
    sites = [stand(4, i) for i in range(14)]
    want = fit_residual_intervals(sites, config=IntervalConfig(), seed=0)
    got = fit_residual_intervals(sites[::-1], config=IntervalConfig(), seed=0)
    assert got.factor == want.factor
    assert got.scale_m == pytest.approx(want.scale_m, rel=1e-12)


def test_float32_rasters_stay_float32():
    fitted = ResidualIntervals(
        coverage=0.9, sites=9, pixels=9, height_m=(1.0, 9.0), scale_m=(1.0, 2.0), factor=1.5
    )
    ends = fitted.interval(np.array([[5.0, np.nan]], dtype=np.float32))
    assert all(e.dtype == np.float32 for e in ends)
    np.testing.assert_array_equal(ends[0], [[2.75, np.nan]])


# On disk, and refused


def test_fitted_intervals_come_back_from_json_as_they_were():
    fitted = fit_residual_intervals(
        [stand(5, i) for i in range(14)], config=IntervalConfig(), seed=0
    )
    text = fitted.model_dump_json()
    assert ResidualIntervals.model_validate_json(text) == fitted
    assert ResidualIntervals.parse(json.loads(text), source="intervals.json") == fitted
    with pytest.raises(ValidationError, match="frozen"):
        fitted.factor = 1.0
    with pytest.raises(RecipeError, match="kind"):
        QuantileIntervals.parse(json.loads(text), source="intervals.json")
    values = json.loads(text) | {"scale_m": [2.0, 1.0], "height_m": [1.0, 2.0]}
    with pytest.raises(RecipeError, match="never fall"):
        ResidualIntervals.parse(values, source="intervals.json")


def test_too_few_sites_are_refused_with_what_they_would_allow():
    sites = [quantile_site(str(i), [1.0]) for i in range(8)]
    config = IntervalConfig(min_pixels_per_site=1)
    with pytest.raises(RunError, match=r"need at least 9 calibration sites, found 8.* of 88%"):
        fit_quantile_intervals(sites, config=config, seed=0)
    allowed = IntervalConfig(coverage=0.88, min_pixels_per_site=1)
    assert fit_quantile_intervals(sites, config=allowed, seed=0).sites == 8
    with pytest.raises(RunError, match="sites besides 1 for the scale of errors, found 8"):
        fit_residual_intervals([stand(6, i) for i in range(9)], config=config, seed=0)
    with pytest.raises(RunError, match="found 0: add labelled sites"):
        fit_quantile_intervals([], config=config, seed=0)


def test_scarce_sites_go_to_the_calibration_first():
    got = fit_residual_intervals([stand(7, i) for i in range(10)], config=IntervalConfig(), seed=0)
    assert got.sites == 9


def test_small_sites_and_names_that_come_twice_are_refused():
    config = IntervalConfig(coverage=0.5, min_pixels_per_site=3)
    with pytest.raises(RunError, match="site 'b' has 2 valid pixels, at least 3"):
        fit_quantile_intervals(
            [quantile_site("a", [1.0] * 3), quantile_site("b", [1.0] * 2)], config=config, seed=0
        )
    with pytest.raises(RunError, match="'a' comes twice"):
        fit_quantile_intervals([quantile_site("a", [1.0])] * 2, config=HALF, seed=0)
    with pytest.raises(ValueError, match="1 of 1 valid pixels have no true height at a"):
        fit_quantile_intervals([quantile_site("a", [math.nan])], config=HALF, seed=0)


# Coverage


def test_the_coverage_of_two_sites_by_hand():
    # Site a: 1 of 2 inside; site b: all 4, one of them on the end, one below the ground.
    a = IntervalSite(
        name="a",
        predicted_m=np.array([1.0, 12.0]),
        lower_m=np.array([0.0, 10.0]),
        upper_m=np.array([2.0, 14.0]),
        true_m=np.array([3.0, 12.0]),
        valid=np.array([True, True]),
    )
    b = IntervalSite(
        name="b",
        predicted_m=np.full(5, 1.0),
        lower_m=np.zeros(5),
        upper_m=np.full(5, 3.0),
        true_m=np.array([1.0, 3.0, -0.2, 0.0, np.nan]),
        valid=np.array([True, True, True, True, False]),
    )
    got = coverage_report([a, b], class_edges_m=(0.0, 10.0))
    assert got.coverage == 0.75
    assert got.width_m == 3.0
    assert [(s.name, s.pixels, s.coverage) for s in got.sites] == [("a", 2, 0.5), ("b", 4, 1.0)]
    classes = [(c.name, c.pixels, c.coverage, c.width_m) for c in got.classes]
    assert classes == [("0-10m", 5, 0.8, 14 / 5), ("10m+", 1, 1.0, 4.0)]
    assert got.worst_site.name == "a"
    with pytest.raises(ValueError, match="no site"):
        coverage_report([])
