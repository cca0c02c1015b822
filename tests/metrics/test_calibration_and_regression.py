import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torchmetrics.classification import MulticlassCalibrationError

from geodino import seeds
from geodino.metrics.calibration import calibration_errors, fitted_temperature, tempered
from geodino.metrics.regression import error_sums, number_sums, regression_scores


def test_two_bins_by_hand():
    # Below 1/2: said 0.2 and 0.4 (mean 0.3), right 1 of 2: gap 0.2. Above: said 0.9, right: 0.1.
    got = calibration_errors(np.array([0.2, 0.4, 0.9]), np.array([False, True, True]), bins=2)
    assert got.ece == pytest.approx((2 * 0.2 + 0.1) / 3)
    assert got.rms_ce == pytest.approx(np.sqrt((2 * 0.04 + 0.01) / 3))
    assert got.mce == pytest.approx(0.2)


@pytest.mark.parametrize("bins", [6, 15])
def test_calibration_errors_are_torchmetrics(bins):
    r = seeds.rng(0, "calibration")
    powers = np.exp(2 * r.normal(size=(300, 4)))
    probabilities, truth = powers / powers.sum(axis=1, keepdims=True), r.integers(0, 4, 300)
    got = calibration_errors(
        probabilities.max(axis=1), probabilities.argmax(axis=1) == truth, bins=bins
    )
    for norm, value in (("l1", got.ece), ("l2", got.rms_ce), ("max", got.mce)):
        peer = MulticlassCalibrationError(4, n_bins=bins, norm=norm)
        expected = float(peer(torch.from_numpy(probabilities), torch.from_numpy(truth)))
        assert value == pytest.approx(expected, abs=1e-5)


def test_certainty_falls_into_the_last_bin_and_nothing_gives_nothing():
    assert calibration_errors(np.ones(3), np.ones(3, dtype=bool)).ece == 0.0
    assert np.isnan(calibration_errors(np.zeros(0), np.zeros(0, dtype=bool)).ece)


@given(st.floats(0.3, 3.0))
def test_a_classifier_made_sharper_needs_a_temperature_as_much_higher(sharper):
    r = seeds.rng(0, "temperature")
    powers = np.exp(r.normal(size=(200, 3)))
    said = powers / powers.sum(axis=1, keepdims=True)
    truth = np.array([r.choice(3, p=row) for row in said])
    best = fitted_temperature(said, truth)
    assert fitted_temperature(tempered(said, 1 / sharper), truth) == pytest.approx(
        best * sharper, rel=1e-3
    )
    # No other temperature makes the truth more probable.
    rows = np.arange(len(truth))
    likely = [np.log(tempered(said, t)[rows, truth]).mean() for t in (best, 0.9 * best, 1.1 * best)]
    assert likely[0] >= max(likely[1:])
    np.testing.assert_allclose(tempered(said, 1.0), said)
    assert (tempered(said, best).argmax(axis=1) == said.argmax(axis=1)).all()


def test_errors_by_hand_and_by_scikit_learn():
    true, said = np.array([1.0, 2.0, 6.0]), np.array([2.0, 2.0, 3.0])
    got = regression_scores(number_sums(said, true).sum(axis=0))
    assert float(got["bias"]) == pytest.approx(-2 / 3)
    assert float(got["mae"]) == pytest.approx(mean_absolute_error(true, said))
    assert float(got["rmse"]) == pytest.approx(root_mean_squared_error(true, said))
    assert float(got["r2"]) == pytest.approx(r2_score(true, said))


def test_unknown_pixels_change_nothing_and_images_add_up():
    r = seeds.rng(0, "numbers")
    true, said = r.normal(size=(2, 3, 3)), r.normal(size=(2, 3, 3))
    true[0, 0, 0] = np.nan
    sums = np.stack([error_sums(p, t) for p, t in zip(said, true, strict=True)])
    known = np.isfinite(true)
    got = regression_scores(sums.sum(axis=0))
    assert float(got["r2"]) == pytest.approx(r2_score(true[known], said[known]))
    with pytest.raises(ValueError, match="not finite"):
        error_sums(np.array([np.nan]), np.array([1.0]))


def test_a_constant_truth_and_an_empty_image_have_no_score():
    assert np.isnan(regression_scores(number_sums(np.array([1.0, 2.0]), np.ones(2)).sum(0))["r2"])
    assert np.isnan(regression_scores(np.zeros(6))["rmse"])
