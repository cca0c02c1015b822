"""Three principal components as colours."""

import numpy as np

from geodino.infer.preview import Preview


def sample(n=500, seed=0):
    """Points along known directions: most along the 3rd axis, less along the 1st, then the 4th."""
    widths = np.float32([3, 0.01, 9, 1, 0.02])
    return 5 + np.random.default_rng(seed).normal(size=(n, 5)).astype(np.float32) * widths


def test_components_are_the_widest_directions_and_point_to_their_largest_entry():
    found = Preview.fit(sample())
    np.testing.assert_allclose(found.axes, np.eye(5)[[2, 0, 3]], atol=0.05)
    widths = np.array([9, 3, 1]) ** 2
    np.testing.assert_allclose(found.explained, widths / widths.sum(), atol=0.03)


def test_the_sign_does_not_depend_on_the_order_of_the_sample():
    points = sample()
    np.testing.assert_allclose(Preview.fit(points).axes, Preview.fit(points[::-1]).axes, atol=1e-5)


def test_colours_run_from_1_to_255_between_the_2nd_and_the_98th_percentile():
    points = sample()
    found = Preview.fit(points)
    colours = found.colours(points.T.reshape(5, 20, 25), np.ones((20, 25), dtype=bool))
    assert colours.min() == 1
    assert colours.max() == 255
    # 2 % of 500 points lie below the darkest colour and 2 % above the brightest.
    for channel in colours:
        assert 10 <= (channel == 1).sum() <= 13
        assert 10 <= (channel == 255).sum() <= 13


def test_places_without_a_feature_are_nodata_whatever_they_hold():
    found = Preview.fit(sample())
    values = sample(6).T.reshape(5, 2, 3).copy()
    valid = np.array([[True, False, True], [True, True, True]])
    values[:, 0, 1] = np.nan
    colours = found.colours(values, valid)
    assert (colours[:, 0, 1] == 0).all()
    assert (colours[:, valid] > 0).all()


def test_features_all_alike_are_one_colour():
    flat = np.ones((4, 5), dtype=np.float32)
    found = Preview.fit(flat)
    colours = found.colours(np.ones((5, 1, 2), np.float32), np.ones((1, 2), dtype=bool))
    assert len(np.unique(colours)) == 1


def test_a_model_of_two_dimensions_leaves_blue_alone():
    points = sample()[:, [0, 2]]
    found = Preview.fit(points)
    assert (found.axes[2] == 0).all()
