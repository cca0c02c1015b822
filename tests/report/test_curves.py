import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodino.report.content import Curve
from geodino.report.curves import (
    chips_seen,
    first_and_last,
    is_constant,
    seconds_of_steps,
    shortened,
    training_of,
)


def curve(values, *, name="loss/total"):
    values = np.array(values, dtype=np.float64)
    return Curve(name=name, steps=np.arange(len(values), dtype=np.float64), values=values)


def test_rows_become_curves_and_null_becomes_nan():
    rows = [
        {"step": 0, "phase": "pretrain", "time": 1.0, "health/cls_rank": 3.0},
        {"step": 0, "phase": "pretrain", "time": 2.0, "loss/total": 7.0, "lr": 0.1},
        {"step": 5, "phase": "pretrain", "time": 2.0, "loss/total": None, "lr": 0.2},
    ]
    training = training_of(rows)
    assert [c.name for c in training.curves] == ["health/cls_rank", "loss/total", "lr"]
    loss = training.curves[1]
    np.testing.assert_array_equal(loss.steps, [0.0, 5.0])
    np.testing.assert_array_equal(loss.values, [7.0, np.nan])
    assert training.phases == (("pretrain", 0),)


def test_a_phase_begins_at_the_smallest_of_its_steps_whatever_the_order_of_rows():
    places = [("a", 0), ("a", 9), ("b", 12), ("b", 10), ("b", 11)]
    rows = [{"step": s, "phase": p, "lr": 1.0} for p, s in places]
    assert training_of(rows).phases == (("a", 0), ("b", 10))


def test_neighbours_are_joined_into_mean_and_range():
    short = shortened(curve([1.0, 3.0, np.nan, 5.0, 9.0]), points=2)
    np.testing.assert_array_equal(short.mean, [2.0, 7.0])
    np.testing.assert_array_equal(short.low, [1.0, 5.0])
    np.testing.assert_array_equal(short.high, [3.0, 9.0])
    np.testing.assert_array_equal(short.steps, [0.5, 3.5])


@given(
    values=st.lists(st.floats(-1e3, 1e3) | st.just(float("nan")), max_size=200),
    points=st.integers(1, 50),
)
def test_a_short_curve_keeps_the_extremes_and_never_has_too_many_points(values, points):
    short = shortened(curve(values), points=points)
    finite = [v for v in values if v == v]
    assert len(short.mean) == min(points, len(finite))
    if finite:
        assert (short.low.min(), short.high.max()) == (min(finite), max(finite))
        assert ((short.low - 1e-9 <= short.mean) & (short.mean <= short.high + 1e-9)).all()


def test_constant_curves_are_known():
    assert is_constant(curve([0.5, 0.5]))
    assert not is_constant(curve([0.5, 0.6]))
    assert not is_constant(curve([0.5, np.nan]))


def test_the_first_and_the_last_tenth():
    assert first_and_last(curve(range(20))) == (0.5, 18.5)
    assert first_and_last(curve([np.nan])) is None


def test_time_in_steps_is_what_was_done_over_its_pace():
    # Steps 0 to 9 at 40 images/s, 10 to 19 at 80, each of 8 images: 80 / 40 + 80 / 80 s. The
    # hour between the two, and the health row, do not count.
    rows = [
        {"step": 9, "time": 0.0, "images_per_s": 40.0},
        {"step": 10, "time": 3600.0, "health/cls_rank": 1.0},
        {"step": 19, "time": 3600.0, "images_per_s": 80.0},
    ]
    assert seconds_of_steps(rows, batch=8) == pytest.approx(3.0)
    assert seconds_of_steps([{"step": 0, "images_per_s": 0.0}], batch=8) == 0.0


def test_chips_are_counted_where_steps_have_different_numbers_of_them():
    # Ten steps of 8 chips, then ten of 4, at 40 and 80 images/s: 80 / 40 + 40 / 80 s.
    rows = [
        {"step": 9, "samples": 80, "images_per_s": 40.0},
        {"step": 10, "health/cls_rank": 1.0},
        {"step": 19, "samples": 120, "images_per_s": 80.0},
    ]
    assert chips_seen(rows, batch=8) == 120
    assert seconds_of_steps(rows, batch=8) == pytest.approx(2.5)
