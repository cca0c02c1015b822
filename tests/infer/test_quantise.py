"""Eight bits per dimension, and what they cost."""

import numpy as np
import pytest

from geodino.infer.quantise import NODATA, Quantiser, measure


def features(n=200, d=6, seed=0):
    widths = np.float32([0.01, 0.1, 1, 2, 5, 100])[:d]
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32) * widths


def test_the_largest_magnitude_of_a_dimension_is_stored_as_127():
    sample = np.float32([[1.0, -2.54], [-0.5, 1.27]])
    quantiser = Quantiser.fit(sample)
    np.testing.assert_allclose(quantiser.scale, [1 / 127, 0.02], rtol=1e-6)
    np.testing.assert_array_equal(quantiser.quantise(sample.T), [[127, -64], [-127, 64]])


def test_no_value_in_range_is_off_by_more_than_half_a_step():
    sample = features()
    quantiser = Quantiser.fit(sample)
    restored = quantiser.restore(quantiser.quantise(sample.T)).T
    assert (np.abs(restored - sample) <= 0.5001 * quantiser.scale).all()


def test_missing_features_stay_missing_and_nothing_else_becomes_missing():
    quantiser = Quantiser(np.float32([1.0]))
    stored = quantiser.quantise(np.float32([[np.nan, -500.0, 500.0, 0.4]]))
    np.testing.assert_array_equal(stored, [[NODATA, -127, 127, 0]])
    np.testing.assert_array_equal(quantiser.restore(stored), np.float32([[np.nan, -127, 127, 0]]))


def test_maps_are_quantised_along_their_first_axis():
    sample = features()
    quantiser = Quantiser.fit(sample)
    image = sample.T.reshape(6, 10, 20)
    np.testing.assert_array_equal(
        quantiser.quantise(image).reshape(6, -1), quantiser.quantise(sample.T)
    )


def test_a_dimension_of_zeros_is_stored_as_zeros():
    quantiser = Quantiser.fit(np.zeros((3, 2), np.float32))
    np.testing.assert_array_equal(quantiser.quantise(np.zeros((2, 1), np.float32)), [[0], [0]])


def test_lengths_are_kept():
    # Normalised features could not tell these two apart.
    sample = np.float32([[1.0, 1.0], [2.0, 2.0]])
    quantiser = Quantiser.fit(sample)
    restored = quantiser.restore(quantiser.quantise(sample.T)).T
    assert np.linalg.norm(restored[1]) == pytest.approx(2 * np.linalg.norm(restored[0]), rel=0.01)


def test_the_loss_is_what_its_words_say():
    sample = features(60)
    quantiser = Quantiser(np.abs(sample).max(axis=0) / 7)  # coarse, and clipping nothing
    loss = measure(quantiser, sample)
    restored = quantiser.restore(quantiser.quantise(sample.T)).T
    error = np.sqrt(((restored - sample) ** 2).mean()) / np.sqrt(
        ((sample - sample.mean(axis=0)) ** 2).mean()
    )
    assert loss.relative_error == pytest.approx(error, rel=1e-5)
    assert loss.clipped_share == 0.0
    assert (loss.features, loss.neighbours) == (60, 10)

    def nearest(x, i):
        cosine = [a @ x[i] / np.linalg.norm(a) / np.linalg.norm(x[i]) for a in x]
        order = sorted((j for j in range(60) if j != i), key=lambda j: -cosine[j])
        return set(order[:10])

    shared = [len(nearest(sample, i) & nearest(restored, i)) for i in range(60)]
    assert loss.recall == pytest.approx(sum(shared) / 600)
    assert 0.3 < loss.recall < 1.0


def test_values_beyond_the_range_are_counted():
    loss = measure(Quantiser(np.float32([1.0])), np.float32([[1], [2], [200], [-300]]))
    assert loss.clipped_share == 0.5


def test_a_single_feature_has_no_neighbours_to_lose():
    sample = np.float32([[1.0, 2.0]])
    assert measure(Quantiser.fit(sample), sample).recall == 1.0
