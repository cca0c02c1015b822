import numpy as np
import pytest
from scipy.stats import trim_mean

from geodino import seeds
from geodino.metrics.intervals import (
    by_group,
    difference_of_sums,
    iqm,
    min_max_normalised,
    of_rows,
    of_sums,
    stratified_iqm,
)


def share(sums):
    return sums[:, 0] / sums[:, 1]


def hits(correct):
    return np.stack([correct, np.ones_like(correct)], axis=1)


def test_the_interval_of_a_share_is_the_binomial_one_by_sums_and_by_rows():
    # 400 images, 80 % right: standard error sqrt(.8 * .2 / 400) = 0.02.
    correct = (np.arange(400) % 5 > 0).astype(np.int64)
    got = of_sums(hits(correct), share, generator=seeds.rng(0, "b"), resamples=2000)
    rows = of_rows(
        400, lambda of: float(correct[of].mean()), generator=seeds.rng(1, "b"), resamples=2000
    )
    for found in (got, rows):
        assert found.value == pytest.approx(0.8)
        assert found.low == pytest.approx(0.8 - 1.96 * 0.02, abs=0.008)
        assert found.high == pytest.approx(0.8 + 1.96 * 0.02, abs=0.008)


def test_whole_sites_are_drawn_so_that_copies_do_not_narrow_the_interval():
    # 20 sites of 20 copies: the interval is that of 20 images, not of 400.
    sites = np.repeat(np.arange(20), 20)
    correct = (sites % 2).astype(np.int64)
    by_site = of_sums(hits(correct), share, generator=seeds.rng(0, "b"), clusters=sites)
    alone = of_sums(hits(np.arange(20) % 2), share, generator=seeds.rng(0, "b"))
    assert (by_site.low, by_site.high) == (alone.low, alone.high)
    by_row = of_rows(
        400,
        lambda of: float(correct[of].mean()),
        generator=seeds.rng(0, "b"),
        clusters=sites,
        resamples=1000,
    )
    assert by_row.low == pytest.approx(alone.low)


def test_a_paired_difference_sees_what_separate_intervals_hide():
    worse, better = (np.arange(400) < 200).astype(int), (np.arange(400) < 220).astype(int)
    got = difference_of_sums(hits(better), hits(worse), share, generator=seeds.rng(0, "b"))
    assert got.value == pytest.approx(0.05)
    assert got.low > 0.02
    same = difference_of_sums(hits(worse), hits(worse), share, generator=seeds.rng(0, "b"))
    assert (same.low, same.value, same.high) == (0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="different images"):
        difference_of_sums(hits(better), hits(worse)[1:], share, generator=seeds.rng(0, "b"))


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="nothing to score"):
        of_sums(np.zeros((0, 2)), share, generator=seeds.rng(0, "b"))


def test_groups_are_scored_alone_and_one_without_a_score_is_not_the_worst():
    correct = np.array([1.0, 1.0, 0.0, 1.0, np.nan])
    got = by_group(
        ["north", "north", "south", "south", "sea"], lambda of: float(correct[of].mean())
    )
    assert got.images == {"north": 2, "sea": 1, "south": 2}
    assert got.scores["south"] == 0.5
    assert got.worst == "south"
    errors = by_group(
        ["a", "b"], lambda of: float(np.array([1.0, 3.0])[of].mean()), higher_is_better=False
    )
    assert errors.worst == "b"
    assert by_group(["a"], lambda of: float("nan")).worst is None


def test_the_interquartile_mean_by_hand_and_by_scipy():
    # Of 8 values two are cut at each end: mean of 3, 4, 5, 6.
    assert float(iqm(np.array([100.0, 1, 2, 3, 4, 5, 6, -50]))) == pytest.approx(
        (2 + 3 + 4 + 5) / 4
    )
    values = seeds.rng(0, "iqm").normal(size=(3, 13))
    np.testing.assert_allclose(iqm(values), trim_mean(values, 0.25, axis=1))


def test_seeds_are_drawn_within_their_data_set():
    # Every data set has one value for all seeds: nothing to draw, no width.
    fixed = [np.full(3, value) for value in (0.1, 0.4, 0.6, 0.9)]
    got = stratified_iqm(fixed, generator=seeds.rng(0, "iqm"))
    assert (got.low, got.value, got.high) == pytest.approx((0.5, 0.5, 0.5))
    spread = [values + np.array([-0.1, 0.0, 0.1]) for values in fixed]
    got = stratified_iqm(spread, generator=seeds.rng(0, "iqm"))
    assert got.low < 0.5 < got.high
    with pytest.raises(ValueError, match="at least one score"):
        stratified_iqm([np.zeros(0)], generator=seeds.rng(0, "iqm"))


def test_scores_move_when_the_pool_grows_and_the_pool_is_told():
    table = {
        "small": {"eurosat": np.array([0.5]), "biomass": np.array([9.0])},
        "large": {"eurosat": np.array([0.7]), "biomass": np.array([5.0])},
    }
    got = min_max_normalised(table, errors=("biomass",))
    assert got.pool == ("small", "large")
    assert got.scores["large"] == {"eurosat": 1.0, "biomass": 1.0}
    assert got.scores["small"] == {"eurosat": 0.0, "biomass": 0.0}
    more = table | {"huge": {"eurosat": np.array([0.9]), "biomass": np.array([1.0])}}
    moved = min_max_normalised(more, errors=("biomass",))
    assert moved.scores["large"]["eurosat"] == pytest.approx(0.5)
    kept = min_max_normalised(more, pool=("small", "large"), errors=("biomass",))
    assert kept.scores["large"]["eurosat"] == pytest.approx(1.0)
    assert kept.scores["huge"]["eurosat"] == pytest.approx(2.0)


def test_a_pool_that_cannot_scale_is_an_error():
    table = {"a": {"x": np.array([0.5])}, "b": {"x": np.array([0.5])}}
    with pytest.raises(ValueError, match="nothing to scale by"):
        min_max_normalised(table)
    with pytest.raises(ValueError, match="without scores"):
        min_max_normalised(table, pool=("c",))
