"""Scores of heights: tiny maps by hand, merging, masks that leak nothing, intervals over sites."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.numpy import load_file

from geodino import seeds
from geodino.errors import RunError
from geodino.metrics.height import HeightProtocol, HeightSums
from geodino.metrics.height_floors import (
    GreennessSums,
    HeightByGreenness,
    MeanHeight,
    excess_green,
    ndvi,
)
from geodino.metrics.height_maps import (
    block_means,
    block_r2,
    block_side_px,
    edge_errors,
    open_canopy_valid,
    sobel_magnitude,
)
from geodino.metrics.height_sites import site_differences, site_intervals

SMALL = HeightProtocol(block_px=2, trim_px=0, block_m=1.0)


def everywhere(maps):
    return np.ones(maps.shape, dtype=bool)


def sums(predicted, true, valid=None, *, protocol=SMALL, gsd_m=0.5):
    predicted, true = np.array(predicted, dtype=float), np.array(true, dtype=float)
    mask = everywhere(true) if valid is None else np.array(valid, dtype=bool)
    return HeightSums.of(predicted, true, mask, gsd_m=gsd_m, protocol=protocol)


def forest(*key, shape=(40, 50)):
    """Heights up to 45 m with bare ground, a prediction off by some metres, and a holed mask."""
    r = seeds.rng(0, "forest", *key)
    true = np.maximum(r.uniform(-15, 45, shape), 0.0)
    predicted = np.maximum(true + r.normal(1.0, 4.0, shape), 0.0)
    return predicted, true, r.random(shape) > 0.1


# By hand


def test_four_pixels_by_hand():
    # Errors 1, -2, 3, 0 at truths 0, 4, 10, 30: MAE 6/4, bias 2/4, squares 14. Mean truth 11;
    # squared differences 121 + 49 + 1 + 361 = 532. nMAE: (1 + 2/5 + 3/11 + 0) / 4.
    got = sums([[1, 2], [13, 30]], [[0, 4], [10, 30]]).scores()
    assert got.pixels == 4
    assert got.mae_m == 1.5
    assert got.rmse_m == pytest.approx(math.sqrt(14 / 4))
    assert got.bias_predicted_minus_true_m == 0.5
    assert got.bias_true_minus_predicted_m == -0.5
    assert got.r2 == pytest.approx(1 - 14 / 532)
    assert got.nmae == pytest.approx((1 + 0.4 + 3 / 11) / 4)
    assert got.nmae_above_tree_m == pytest.approx((0.4 + 3 / 11) / 3)


def test_tree_cover_counts_2_metres_as_a_tree_and_its_nmae_does_not():
    # Truth: trees at 2 and 5; predicted: trees at 5 (true 1) and 3 (true 5). Both: 1, either: 3.
    got = sums([[1.9, 5.0], [0.0, 3.0]], [[2.0, 1.0], [0.0, 5.0]]).scores()
    assert got.tree_cover_iou == pytest.approx(1 / 3)
    assert got.nmae_above_tree_m == pytest.approx(2 / 6)


def test_a_lower_edge_belongs_to_its_class_and_the_last_class_is_open():
    rules = HeightProtocol(class_edges_m=(0.0, 2.0, 10.0), block_px=2)
    assert rules.class_names == ("0-2m", "2-10m", "10m+")
    got = sums([[1, 5], [8, 95]], [[0, 2], [10, 100]], protocol=rules).scores()
    rows = [(c.pixels, c.mae_m, c.bias_predicted_minus_true_m) for c in got.classes]
    assert rows == [(1, 1.0, 1.0), (1, 3.0, 3.0), (2, 3.5, -3.5)]


def test_the_default_classes_are_those_of_the_published_tables():
    names = HeightProtocol().class_names
    assert names[:3] == ("0-2m", "2-5m", "5-10m")
    assert names[-2:] == ("30-40m", "40m+")


def test_a_truth_below_the_ground_counts_as_the_ground_unless_told_otherwise():
    got = sums([[1.0]], [[-2.0]]).scores()
    assert (got.mae_m, got.classes[0].pixels) == (1.0, 1)
    kept = sums([[1.0]], [[-2.0]], protocol=HeightProtocol(clip_truth=False)).scores()
    assert (kept.mae_m, kept.classes[0].pixels) == (3.0, 0)


def test_block_r2_of_two_blocks_by_hand():
    # Means of truth 1 and 5, of the prediction 2 and 5: 1 - 1 / 8, however wrong single pixels are.
    true = np.array([[0.0, 2.0, 5.0, 5.0], [2.0, 0.0, 5.0, 5.0]])
    predicted = np.array([[8.0, 0.0, 0.0, 20.0], [0.0, 0.0, 0.0, 0.0]])
    got = block_r2(predicted, true, everywhere(true), block_px=2, trim_px=0)
    assert got == 1 - 1 / 8
    whole = sums(predicted, true, gsd_m=0.5).scores()
    assert (whole.block_r2_px, whole.block_r2_m) == (1 - 1 / 8, 1 - 1 / 8)


def test_a_tile_of_256_pixels_has_25_blocks_that_begin_at_row_and_column_3():
    # Every pixel stores its row: block means are 3 + 24.5, 53 + 24.5, ...
    rows = np.repeat(np.arange(256.0)[:, None], 256, axis=1)
    means, same = block_means(rows, rows, everywhere(rows))
    np.testing.assert_allclose(means, np.repeat(27.5 + 50 * np.arange(5), 5))
    np.testing.assert_array_equal(means, same)
    columns, _ = block_means(rows.T.copy(), rows, everywhere(rows))
    np.testing.assert_allclose(columns, np.tile(27.5 + 50 * np.arange(5), 5))


def test_blocks_of_maps_do_not_mix_and_are_pooled():
    true = np.stack([np.full((4, 4), h) for h in (1.0, 3.0)])
    got = block_means(true + 1, true, everywhere(true), block_px=4, trim_px=0)
    np.testing.assert_array_equal(got, [[2.0, 4.0], [1.0, 3.0]])


def test_a_block_is_the_mean_of_its_valid_pixels_and_needs_half_of_them():
    true = np.array([[1.0, 3.0, 7.0, 8.0], [99.0, 99.0, 9.0, 9.0]])
    valid = np.array([[True, True, True, False], [False, False, False, False]])
    means, _ = block_means(true, true, valid, block_px=2, trim_px=0)
    np.testing.assert_array_equal(means, [2.0])
    means, _ = block_means(true, true, valid, block_px=2, trim_px=0, valid_share=0.25)
    np.testing.assert_array_equal(means, [2.0, 7.0])


@pytest.mark.parametrize(("gsd", "side"), [(0.6, 50), (0.2, 150), (1.5, 20), (10.0, 3), (60.0, 1)])
def test_a_block_of_30_metres_in_pixels(gsd, side):
    assert block_side_px(30.0, gsd_m=gsd) == side


def test_sobel_gives_the_slope_of_a_plane_in_metres_per_pixel():
    rows, columns = np.mgrid[0:5, 0:6].astype(float)
    np.testing.assert_allclose(sobel_magnitude(3 * columns + 4 * rows), np.full((3, 4), 5.0))


def test_edge_errors_of_a_smeared_edge_by_hand():
    # A wall of 8 m between columns 1 and 2: slope (8 * 4) / 8 = 4 m per pixel on both sides. A flat
    # prediction misses 4 at each of the two pixels that have all neighbours.
    wall = np.array([[0.0, 0.0, 8.0, 8.0]] * 3)
    np.testing.assert_array_equal(
        edge_errors(np.zeros_like(wall), wall, everywhere(wall)), [4.0, 4.0]
    )
    valid = everywhere(wall)
    valid[0, 0] = False
    np.testing.assert_array_equal(edge_errors(np.zeros_like(wall), wall, valid), [4.0])
    assert sums(np.zeros_like(wall), wall).scores().edge_error_m_per_px == 4.0


def test_open_canopy_scores_valid_vegetation_below_60_metres():
    true = np.array([[10.0, 60.0, 5.0, np.nan]])
    vegetation = np.array([[True, True, False, True]])
    valid = np.array([[True, True, True, False]])
    got = open_canopy_valid(true, vegetation, valid)
    np.testing.assert_array_equal(got, [[True, False, False, False]])


# Undefined and refused


def test_what_is_undefined_is_nan_not_a_number_someone_might_believe():
    none = sums([[1.0]], [[1.0]], [[False]]).scores()
    assert none.pixels == 0
    for name in ("mae_m", "rmse_m", "r2", "block_r2_px", "edge_error_m_per_px", "tree_cover_iou"):
        assert math.isnan(getattr(none, name))
    constant = sums(np.full((4, 4), 3.1), np.full((4, 4), 3.3)).scores()
    assert math.isnan(constant.r2)
    assert math.isnan(constant.block_r2_px)
    assert math.isnan(block_r2(np.zeros((2, 2)), np.zeros((2, 2)), np.zeros((2, 2), dtype=bool)))


def test_a_valid_pixel_without_a_height_is_an_error():
    with pytest.raises(ValueError, match="1 of 2 valid pixels have no predicted height"):
        sums([[math.nan, 1.0]], [[1.0, 1.0]])
    with pytest.raises(ValueError, match="no true height"):
        sums([[1.0]], [[math.inf]])


def test_class_edges_must_rise():
    with pytest.raises(ValidationError, match="must rise"):
        HeightProtocol(class_edges_m=(0.0, 5.0, 5.0))


def test_sums_of_different_protocols_are_not_merged():
    one = sums([[1.0]], [[1.0]])
    with pytest.raises(ValueError, match="different protocols"):
        one.merge(sums([[1.0]], [[1.0]], protocol=HeightProtocol()))


# Laws


@pytest.mark.parametrize("rubbish", [math.nan, -3.4e38, 1e30, math.inf, -9999.0, 65535.0])
def test_what_lies_under_an_invalid_pixel_changes_no_bit(rubbish):
    predicted, true, valid = forest("rubbish")
    for dtype in (np.float32, np.float64):
        dirty = [np.where(valid, m, rubbish).astype(dtype) for m in (predicted, true)]
        want = [m.astype(dtype) for m in (predicted, true)]
        got = HeightSums.of(*dirty, valid, gsd_m=0.5, protocol=SMALL)
        clean = HeightSums.of(*want, valid, gsd_m=0.5, protocol=SMALL)
        for name, value in clean.totals.items():
            assert value.dtype == np.float64
            np.testing.assert_array_equal(got.totals[name], value, err_msg=name)


@settings(max_examples=20)
@given(seed=st.integers(0, 1000), tiles=st.integers(1, 5))
def test_merged_tiles_score_as_all_of_them_at_once(seed, tiles):
    maps = [forest(seed, i, shape=(9, 12)) for i in range(tiles)]
    parts = [HeightSums.of(*m, gsd_m=0.5, protocol=SMALL) for m in maps]
    merged = parts[-1]
    for part in parts[:-1]:
        merged = merged.merge(part)
    whole = HeightSums.of(
        *(np.stack([m[i] for m in maps]) for i in range(3)), gsd_m=0.5, protocol=SMALL
    )
    for name, value in whole.named().items():
        assert merged.named()[name] == pytest.approx(value, rel=1e-9, nan_ok=True), name


def test_scores_are_those_of_plain_numpy_on_everything():
    predicted, true, valid = forest("plain")
    got = HeightSums.of(predicted, true, valid, gsd_m=0.5, protocol=SMALL).scores()
    p, t = predicted[valid], true[valid]
    assert got.mae_m == pytest.approx(np.abs(p - t).mean())
    assert got.rmse_m == pytest.approx(np.sqrt(np.square(p - t).mean()))
    assert got.r2 == pytest.approx(1 - np.square(p - t).sum() / np.square(t - t.mean()).sum())
    means = [
        [
            np.mean(m[r : r + 2, c : c + 2][valid[r : r + 2, c : c + 2]])
            for r in range(0, 40, 2)
            for c in range(0, 50, 2)
            if valid[r : r + 2, c : c + 2].sum() >= 2
        ]
        for m in (predicted, true)
    ]
    bp, bt = (np.array(m) for m in means)
    want = 1 - np.square(bp - bt).sum() / np.square(bt - bt.mean()).sum()
    assert got.block_r2_px == pytest.approx(want)
    assert block_r2(predicted, true, valid, block_px=2, trim_px=0) == pytest.approx(want)
    for low, high, row in zip((0, 2, 5), (2, 5, 10), got.classes, strict=False):
        inside = (t >= low) & (t < high)
        assert row.pixels == inside.sum()
        assert row.mae_m == pytest.approx(np.abs(p - t)[inside].mean())


def test_flat_names_hold_every_score():
    named = sums([[1, 2], [13, 30]], [[0, 4], [10, 30]]).named()
    assert named["mae_m"] == 1.5
    assert named["class/2-5m/mae_m"] == 2.0
    assert named["class/2-5m/bias_predicted_minus_true_m"] == -2.0
    assert math.isnan(named["class/40m+/mae_m"])


# Sites


def sites(count, *, off=0.0, spread=2.0):
    """Sites whose errors are all alike within and differ between: what pixels cannot show."""
    r = seeds.rng(0, "site errors")
    out = {}
    for i in range(count):
        true = seeds.rng(0, "site", i).uniform(0, 30, (8, 8))
        error = r.normal(0.0, spread) + off
        out[f"site {i:02}"] = sums(true + error + 50, true + 50)
    return out


def test_an_interval_over_sites_is_that_of_the_mean_of_their_errors():
    # 40 sites of one error each, standard deviation 2: the standard error is 2 / sqrt(40) = .32,
    # eight times that of their 2560 pixels.
    found = site_intervals(sites(40), seed=0, resamples=2000)["bias_predicted_minus_true_m"]
    errors = np.array([s.scores().bias_predicted_minus_true_m for s in sites(40).values()])
    half = 1.96 * errors.std() / math.sqrt(40)
    assert found.value == pytest.approx(errors.mean())
    assert found.low == pytest.approx(errors.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(errors.mean() + half, abs=0.15 * half)


def test_the_interval_depends_on_the_seed_only_not_on_the_order_of_sites():
    some = sites(6)
    backwards = dict(reversed(some.items()))
    want = site_intervals(some, seed=3, resamples=50)
    for name, got in site_intervals(backwards, seed=3, resamples=50).items():
        for end in ("value", "low", "high"):
            assert getattr(got, end) == pytest.approx(getattr(want[name], end), nan_ok=True)
    assert site_intervals(some, seed=4, resamples=50)["mae_m"] != want["mae_m"]


def test_every_score_of_all_sites_together_has_an_interval():
    some = sites(5)
    merged, *rest = some.values()
    for part in rest:
        merged = merged.merge(part)
    found = site_intervals(some, seed=0, resamples=30)
    for name, value in merged.named().items():
        assert found[name].value == pytest.approx(value, nan_ok=True)
        if not math.isnan(value):
            assert found[name].low <= found[name].high


def test_a_class_of_one_site_is_scored_where_a_resample_has_it():
    some = {"low": sums([[1.0]], [[0.0]]), "tall": sums([[52.0]], [[50.0]])}
    found = site_intervals(some, seed=0, resamples=200)
    assert (found["class/40m+/mae_m"].low, found["class/40m+/mae_m"].high) == (2.0, 2.0)
    assert math.isnan(found["class/5-10m/mae_m"].low)


def test_paired_sites_see_what_separate_intervals_hide():
    # The second model is .3 m further off on every site, among differences of 2 m between sites.
    first, second = sites(12), sites(12, off=0.3)
    gap = site_differences(second, first, seed=0)["bias_predicted_minus_true_m"]
    assert gap.value == pytest.approx(0.3)
    assert (gap.low, gap.high) == (pytest.approx(0.3), pytest.approx(0.3))
    a, b = (site_intervals(s, seed=0)["bias_predicted_minus_true_m"] for s in (first, second))
    assert a.high > b.low


def test_one_site_has_no_interval_and_unlike_sites_no_difference():
    one = {"only": sums([[1.0]], [[2.0]])}
    with pytest.raises(RunError, match="at least 2, found 1"):
        site_intervals(one, seed=0)
    two = one | {"other": sums([[1.0]], [[2.0]])}
    with pytest.raises(RunError, match="'other'"):
        site_differences(two, one, seed=0)
    masked = one | {"other": sums([[1.0]], [[2.0]], [[False]])}
    with pytest.raises(RunError, match="'other' has 1 scored pixels for one model and 0"):
        site_differences(two, masked, seed=0)
    mixed = one | {"other": sums([[1.0]], [[2.0]], protocol=HeightProtocol())}
    with pytest.raises(RunError, match="different protocols"):
        site_intervals(mixed, seed=0)


# Floors


def test_greenness_by_hand():
    red, green, blue = (np.array(v) for v in ([10.0, 0.0, 0.0], [20.0, 5.0, 0.0], [10.0, 0.0, 0.0]))
    np.testing.assert_allclose(excess_green(red, green, blue), [0.5, 2.0, 0.0])
    np.testing.assert_allclose(ndvi(red, green), [1 / 3, 1.0, 0.0])


def test_the_floors_of_four_pixels_by_hand():
    # Green pixels (.5) are 10 and 20 m high, brown ones (-.5) 0 and 2 m; a fifth is invalid.
    true = np.array([10.0, 20.0, 0.0, 2.0, np.nan])
    greenness = np.array([0.5, 0.5, -0.5, -0.5, np.inf])
    valid = np.array([True, True, True, True, False])
    fitted = GreennessSums.of(true, greenness, valid)
    assert fitted.mean_height() == MeanHeight(mean_m=8.0)
    assert fitted.mean_height().predict((2, 3)).tolist() == [[8.0] * 3] * 2
    by_green = fitted.height_by_greenness()
    assert isinstance(by_green, HeightByGreenness)
    # Greenness never seen has the overall mean; unknown greenness has no height.
    got = by_green.predict(np.array([0.5, -0.5, 0.1, np.nan]))
    np.testing.assert_array_equal(got, [15.0, 1.0, 8.0, np.nan])


def test_floors_fitted_on_parts_are_those_of_the_whole():
    r = seeds.rng(0, "greens")
    greenness, true = r.uniform(-1, 2, 500), r.uniform(0, 30, 500)
    valid = r.random(500) > 0.2
    whole = GreennessSums.of(true, greenness, valid).height_by_greenness()
    parts = [
        GreennessSums.of(true[s], greenness[s], valid[s]) for s in (slice(200), slice(200, None))
    ]
    merged = parts[0].merge(parts[1]).height_by_greenness()
    np.testing.assert_allclose(merged.height_m, whole.height_m)


def test_floors_need_pixels_and_numbers():
    empty = GreennessSums.of(np.zeros(2), np.zeros(2), np.zeros(2, dtype=bool))
    with pytest.raises(ValueError, match="no valid training pixel"):
        empty.height_by_greenness()
    with pytest.raises(ValueError, match="have no greenness"):
        GreennessSums.of(np.zeros(1), np.full(1, np.nan), np.ones(1, dtype=bool))


# Reference numbers


def test_the_reference_mae_and_rmse(shared_golden):
    golden = load_file(shared_golden / "depth_losses_metrics.safetensors")
    want = json.loads((shared_golden / "depth_losses_metrics.json").read_text())["metrics"]
    maps = (golden[k] for k in ("in.pred", "in.gt", "in.valid"))
    got = HeightSums.of(*maps, gsd_m=1.0, protocol=SMALL).scores()
    assert got.mae_m == pytest.approx(want["mae"], rel=1e-6)
    assert got.rmse_m == pytest.approx(want["rmse"], rel=1e-6)
