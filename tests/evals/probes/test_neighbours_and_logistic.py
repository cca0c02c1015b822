import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from sklearn.neighbors import KNeighborsClassifier

from geodino import seeds
from geodino.evals.probes.constant import majority
from geodino.evals.probes.logistic import DINO_GRID, FAST_GRID, logistic
from geodino.evals.probes.neighbours import knn
from geodino.evals.probes.prediction import standardise


def blobs(n, d, classes, *, spread, seed=0):
    """Rows around one random centre per class."""
    r = seeds.rng(seed, "blobs")
    centres = r.normal(size=(classes, d))
    y = np.arange(n) % classes
    return (centres[y] + spread * r.normal(size=(n, d))).astype(np.float32), y


def test_the_majority_of_three_neighbours_wins():
    # Directions: three rows near east (classes 1, 1, 0), two near north (class 2).
    train = np.array([[1, 0], [9, 1], [1, -0.3], [0, 1], [0.1, 5]], dtype=np.float32)
    got = knn(
        train,
        np.array([0, 1, 1, 2, 2]),
        np.array([[2, 0.2]], dtype=np.float32),
        classes=3,
        k=(1, 3),
    )
    assert got[1].labels.tolist() == [1]
    assert got[3].labels.tolist() == [1]
    np.testing.assert_allclose(got[3].probabilities, [[1 / 3, 2 / 3, 0]])


def test_cosine_ignores_length_and_euclidean_does_not():
    # The row [10, 1] points almost like the question; [1, 1] is closer to it. The columns have the
    # same spread, so standardising them does not change the picture.
    train = np.array([[10, 1], [1, 1], [1, 10], [10, 10]], dtype=np.float32)
    question = np.array([[2.0, 0.3]], dtype=np.float32)
    labels = np.array([0, 1, 2, 3])
    assert knn(train, labels, question, classes=4, k=(1,))[1].labels.tolist() == [0]
    euclidean = knn(train, labels, question, classes=4, k=(1,), metric="euclidean")
    assert euclidean[1].labels.tolist() == [1]


def test_the_weighted_vote_is_a_softmax_over_the_largest_k():
    # Similarities 1, 0.8, 0.6 at temperature 0.2: weights exp(0), exp(-1), exp(-2) over their sum.
    train = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8], [-1, 0]], dtype=np.float64)
    got = knn(
        train,
        np.array([0, 1, 0, 1]),
        np.array([[3.0, 0.0]]),
        classes=2,
        k=(1, 3),
        vote="weighted",
        temperature=0.2,
    )
    weights = np.exp([0, -1, -2]) / np.exp([0, -1, -2]).sum()
    np.testing.assert_allclose(got[1].probabilities, [[weights[0], 0]])
    np.testing.assert_allclose(got[3].probabilities, [[weights[0] + weights[2], weights[1]]])


def test_the_weighted_vote_agrees_with_the_reference(shared_golden):
    golden = load_file(shared_golden / "knn_linear.safetensors")
    got = knn(
        golden["in.train"],
        golden["in.labels"],
        golden["in.test"],
        classes=5,
        k=(1, 5, 10, 20),
        vote="weighted",
        temperature=0.07,
    )
    for k, prediction in got.items():
        np.testing.assert_allclose(
            prediction.probabilities, golden[f"skip0.probas.k{k}"], atol=1e-5
        )


def test_the_grid_of_the_reference_is_ours(shared_golden):
    grid = json.loads((shared_golden / "knn_linear.json").read_text())["logreg_C_grid"]
    np.testing.assert_allclose(DINO_GRID, grid, rtol=1e-6)


@given(
    seed=st.integers(0, 10_000),
    k=st.integers(1, 12),
    metric=st.sampled_from(["cosine", "euclidean"]),
)
@settings(max_examples=25)
def test_the_majority_vote_is_scikit_learns(seed, k, metric):
    train, labels = blobs(60, 6, 4, spread=1.0, seed=seed)
    test, _ = blobs(30, 6, 4, spread=1.0, seed=seed + 1)
    if metric == "cosine":
        peer = KNeighborsClassifier(k, metric="cosine").fit(train, labels)
        expected = peer.predict_proba(test)
    else:
        a, b = standardise(train, test)
        expected = KNeighborsClassifier(k).fit(a, labels).predict_proba(b)
    got = knn(train, labels, test, classes=4, k=(k,), metric=metric)[k]
    np.testing.assert_allclose(got.probabilities, expected, atol=1e-12)
    np.testing.assert_array_equal(got.labels, expected.argmax(axis=1))


def test_a_k_above_the_number_of_training_rows_is_left_out():
    train, labels = blobs(6, 3, 2, spread=0.1)
    assert list(knn(train, labels, train, classes=2, k=(5, 200))) == [5]
    with pytest.raises(ValueError, match="no k of"):
        knn(train, labels, train, classes=2, k=(200,))


def test_columns_are_scaled_by_the_training_rows_and_constant_ones_vanish():
    train = np.array([[0.0, 7.0], [2.0, 7.0]])
    a, b = standardise(train, np.array([[4.0, 9.0]]))
    np.testing.assert_allclose(a, [[-1, 0], [1, 0]])
    np.testing.assert_allclose(b, [[3, 0]])


def logistic_of(train, labels, test, **options):
    return logistic(train, labels, test, classes=3, generator=seeds.rng(0, "held-out"), **options)


def test_separable_classes_are_told_apart_and_the_choice_is_reported():
    train, labels = blobs(90, 5, 3, spread=0.05)
    got = logistic_of(train, labels, train)
    assert (got.labels == labels).mean() == 1.0
    np.testing.assert_allclose(got.probabilities.sum(axis=1), 1.0)
    assert got.chosen["c"] in FAST_GRID
    assert got.chosen["converged"] == 1.0
    assert got.chosen["held_out_accuracy"] == 1.0


def test_the_test_rows_choose_nothing():
    # The same fit whatever is asked: a row's answer does not depend on the other test rows.
    train, labels = blobs(60, 4, 3, spread=0.8)
    test, _ = blobs(20, 4, 3, spread=0.8, seed=1)
    together = logistic_of(train, labels, test)
    alone = logistic_of(train, labels, test[:1])
    assert together.chosen == alone.chosen
    np.testing.assert_allclose(together.probabilities[:1], alone.probabilities, atol=1e-12)


def test_c_is_chosen_on_the_validation_part_and_the_last_fit_uses_both():
    # The training rows carry no signal, the validation rows do: a fit that sees them knows.
    x, labels = blobs(120, 4, 3, spread=0.05)
    wrong = np.roll(labels, 1)[:30]
    got = logistic_of(x[:30], wrong, x[30:], val=(x[30:], labels[30:]))
    assert (got.labels == labels[30:]).mean() > 0.9


def test_one_image_per_class_is_fitted_without_a_held_out_part():
    train, labels = blobs(3, 4, 3, spread=0.01)
    got = logistic_of(train, labels, train)
    assert got.labels.tolist() == labels.tolist()
    assert "held_out_accuracy" not in got.chosen


def test_the_majority_answers_the_most_frequent_class():
    got = majority(np.array([2, 0, 2, 1]), tests=2, classes=4)
    assert got.labels.tolist() == [2, 2]
    np.testing.assert_allclose(got.probabilities[0], [0.25, 0.25, 0.5, 0])
