import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix

from geodino import seeds
from geodino.metrics.classification import accuracy_difference, score


def scores(labels, predicted, classes, **options):
    return score(
        np.array(labels),
        np.array(predicted),
        classes=classes,
        generator=seeds.rng(0, "bootstrap"),
        **options,
    )


def test_four_images_by_hand():
    # Class 0: 2 of 3 found; class 1: 1 of 1. Accuracy 3/4, balanced (2/3 + 1) / 2 = 5/6.
    got = scores([0, 0, 0, 1], [0, 0, 1, 1], 2)
    assert got.accuracy.value == 0.75
    assert got.balanced_accuracy.value == pytest.approx(5 / 6)
    np.testing.assert_allclose(got.recall, [2 / 3, 1])
    np.testing.assert_allclose(got.precision, [1, 1 / 2])
    np.testing.assert_array_equal(got.confusion, [[2, 1], [0, 1]])


def test_a_class_without_images_has_no_recall_and_does_not_count():
    got = scores([0, 1], [0, 1], 3)
    assert np.isnan(got.recall[2])
    assert got.balanced_accuracy.value == 1.0
    assert (got.balanced_accuracy.low, got.balanced_accuracy.high) == (1.0, 1.0)


def test_scores_are_scikit_learns():
    r = seeds.rng(1, "labels")
    labels, predicted = r.integers(0, 5, 300), r.integers(0, 5, 300)
    got = scores(labels, predicted, 5)
    np.testing.assert_array_equal(got.confusion, confusion_matrix(labels, predicted))
    assert got.balanced_accuracy.value == pytest.approx(balanced_accuracy_score(labels, predicted))


def test_the_interval_of_the_accuracy_is_the_binomial_one():
    # 200 images, 80 % right: the standard error is sqrt(.8 * .2 / 200) = 0.0283.
    labels = np.zeros(200, dtype=int)
    predicted = (np.arange(200) < 40).astype(int)
    got = scores(labels, predicted, 2, resamples=4000).accuracy
    assert got.low == pytest.approx(0.8 - 1.96 * 0.0283, abs=0.008)
    assert got.high == pytest.approx(0.8 + 1.96 * 0.0283, abs=0.008)


def test_the_same_generator_gives_the_same_interval():
    labels, predicted = np.arange(50) % 3, np.arange(50) % 4 % 3
    assert scores(labels, predicted, 3).accuracy == scores(labels, predicted, 3).accuracy


def test_paired_differences_see_what_separate_intervals_hide():
    # 400 images; both are right on the same half, one of them on 20 more: 20/400 = 0.05 better.
    labels = np.ones(400, dtype=int)
    worse = (np.arange(400) < 200).astype(int)
    better = (np.arange(400) < 220).astype(int)
    got = accuracy_difference(labels, better, worse, generator=seeds.rng(0, "pairs"))
    assert got.value == pytest.approx(0.05)
    assert got.low > 0.02
    a, b = scores(labels, better, 2).accuracy, scores(labels, worse, 2).accuracy
    assert a.low < b.high


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        scores(np.array([], dtype=int), np.array([], dtype=int), 2)
