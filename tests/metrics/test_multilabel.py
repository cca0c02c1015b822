import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score
from torchmetrics.classification import MultilabelAveragePrecision, MultilabelF1Score

from geodino import seeds
from geodino.metrics.multilabel import (
    average_precision,
    class_average_precisions,
    macro_f1,
    macro_map,
    micro_f1,
    micro_map,
)


def test_f1_by_hand():
    # Class 0: found 1, missed 1 -> 2 / 3. Class 1: found 1, wrong 1 -> 2 / 3. Class 2: in neither.
    # Together: found 2, wrong 1, missed 1 -> 4 / 6.
    labels = np.array([[1, 0, 0], [1, 1, 0]], dtype=bool)
    said = np.array([[1, 1, 0], [0, 1, 0]], dtype=bool)
    assert micro_f1(labels, said) == pytest.approx(2 / 3)
    assert macro_f1(labels, said) == pytest.approx(2 / 3)


def test_average_precision_by_hand():
    # Ranked: right, wrong, right. Precision at the two right ones: 1 and 2/3; mean 5/6.
    got = average_precision(np.array([True, True, False]), np.array([0.9, 0.1, 0.5]))
    assert got == pytest.approx(5 / 6)


def test_equal_scores_are_one_threshold_whatever_their_order():
    labels = np.array([True, False, True, False])
    assert average_precision(labels, np.full(4, 0.5)) == pytest.approx(0.5)
    assert average_precision(labels[::-1].copy(), np.full(4, 0.5)) == pytest.approx(0.5)


@given(seed=st.integers(0, 10_000), levels=st.sampled_from([3, 1000]))
@settings(max_examples=6)
def test_scores_are_scikit_learns_and_torchmetrics(seed, levels):
    r = seeds.rng(seed, "labels")
    labels = r.random((40, 4)) < 0.4
    labels[0] = True
    scores = r.integers(0, levels, (40, 4)) / levels
    said = scores >= 0.5
    given_ = torch.from_numpy(scores), torch.from_numpy(labels.astype(int))
    for average, f1, precision in (
        ("micro", micro_f1, micro_map),
        ("macro", macro_f1, macro_map),
    ):
        expected = f1_score(labels, said, average=average, zero_division=0.0)
        assert f1(labels, said) == pytest.approx(expected)
        peer = MultilabelF1Score(4, average=average, threshold=0.4999)
        assert f1(labels, said) == pytest.approx(float(peer(*given_)), abs=1e-6)
        expected = average_precision_score(labels, scores, average=average)
        assert precision(labels, scores) == pytest.approx(expected)
        peer = MultilabelAveragePrecision(4, average=average)
        assert precision(labels, scores) == pytest.approx(float(peer(*given_)), abs=1e-6)


def test_a_class_that_no_image_has_is_left_out():
    labels = np.array([[True, False], [False, False]])
    scores = np.array([[0.9, 0.2], [0.1, 0.3]])
    np.testing.assert_allclose(class_average_precisions(labels, scores), [1.0, np.nan])
    assert macro_map(labels, scores) == 1.0
    assert np.isnan(micro_map(np.zeros((2, 2), dtype=bool), scores))
