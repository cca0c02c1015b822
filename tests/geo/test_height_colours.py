"""Colours of heights: even steps of lightness, round labels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodino.geo.height_colours import STOPS, height_colours, height_ticks_m, round_highest_m

HIGHEST = st.floats(0.5, 120.0)


def lightness(rgb):
    """CIE L* of sRGB, from its definition."""
    share = np.asarray(rgb) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return 116 * np.cbrt(linear @ [0.2126, 0.7152, 0.0722]) - 16


def test_lightness_falls_by_the_same_step_from_stop_to_stop():
    steps = np.diff([lightness(rgb) for _, rgb in STOPS])
    np.testing.assert_allclose(steps, -9.25, atol=0.4)


def test_equal_metres_are_nearly_equal_steps_of_lightness_all_along():
    steps = np.diff(lightness(height_colours(np.linspace(0, 40, 33), highest_m=40.0)))
    assert steps.max() < -1.6
    assert steps.min() > -3.0


def test_bare_ground_is_sand_and_not_the_white_of_a_page():
    np.testing.assert_array_equal(height_colours(np.zeros(1), highest_m=30.0)[0], STOPS[0][1])
    assert lightness(STOPS[0][1]) < 92


def test_heights_beyond_the_ends_have_the_colours_of_the_ends():
    got = height_colours(np.array([-3.0, 20.0, 10.0, 99.0]), highest_m=20.0)
    # 10 of 20 m is the fifth of nine stops.
    np.testing.assert_array_equal(got, [STOPS[i][1] for i in (0, 8, 4, 8)])


@pytest.mark.parametrize(
    ("highest", "ticks"),
    [
        (40.0, (0, 5, 10, 15, 20, 25, 30, 35, 40)),
        (10.0, tuple(range(11))),
        (42.0, (0, 5, 10, 15, 20, 25, 30, 35, 42)),  # 40 would crowd 42
        (43.0, (0, 5, 10, 15, 20, 25, 30, 35, 40, 43)),
        (0.3, (0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3)),
    ],
)
def test_labels_are_round_and_end_at_the_highest(highest, ticks):
    assert height_ticks_m(highest) == ticks


@given(highest=HIGHEST)
def test_labels_rise_are_few_and_never_crowd(highest):
    ticks = np.array(height_ticks_m(highest))
    steps = np.diff(ticks)
    assert ticks[0] == 0
    assert ticks[-1] == highest
    assert 4 <= len(ticks) <= 11
    assert steps.min() >= 0.49 * steps[0]


@given(height=HIGHEST)
def test_a_scale_reaches_what_it_is_for_and_little_more(height):
    top = round_highest_m(height)
    assert height <= top * (1 + 1e-9)
    assert top <= max(5.0, 1.25 * height)


def test_scales_end_at_round_heights():
    found = [round_highest_m(h) for h in (0.0, 4.9, 5.0, 5.1, 38.2, 40.0, 61.0)]
    assert found == [5, 5, 5, 6, 40, 40, 70]


@pytest.mark.parametrize("highest", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_ends_nowhere_is_refused(highest):
    with pytest.raises(ValueError, match="ends above 0 m"):
        height_colours(np.zeros(1), highest_m=highest)
