import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodino.report.words import count, duration, first_of, interval, moment, number, percent, tick


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"), (7.123, "7.12"), (0.02, "0.02"), (123.4, "123.4"), (120.0, "120"),
        (1777.25, "1,777.2"), (1234567.0, "1,234,567"), (2.5e-5, "2.5e-5"), (-3.0, "-3"),
        (float("nan"), "not finite"), (float("inf"), "not finite"),
    ],
)  # fmt: skip
def test_numbers_have_three_digits_or_separators(value, text):
    assert number(value) == text


@pytest.mark.parametrize(
    ("value", "spacing", "text"),
    [
        (0.8825, 0.0005, "0.8825"), (5.0, 0.5, "5.0"), (40.0, 20.0, "40"), (0.0, 0.1, "0"),
        (2e6, 1e6, "2e6"), (2e-5, 1e-5, "2e-5"), (15_000.0, 5_000.0, "15,000"),
    ],
)  # fmt: skip
def test_ticks_have_the_decimals_that_tell_them_apart(value, spacing, text):
    assert tick(value, spacing) == text


@given(first=st.sampled_from([1, 2, 5]), power=st.integers(-7, 6), multiple=st.integers(-500, 500))
def test_neighbouring_ticks_never_look_the_same(first, power, multiple):
    spacing = first * 10.0**power
    a, b = (tick(k * spacing, spacing) for k in (multiple, multiple + 1))
    assert a != b


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (1.0, "100 %"), (0.9999, "over 99.9 %"), (0.0002, "under 0.1 %"),
     (0.691, "69.1 %")],
)  # fmt: skip
def test_a_share_is_whole_only_if_it_is(share, text):
    assert percent(share) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "under 1 s"), (59.6, "1 min"), (80.0, "1 min 20 s"), (3 * 3600.0 + 5, "3 h"),
     (90_000.0, "1 d 1 h")],
)  # fmt: skip
def test_durations_have_two_units(seconds, text):
    assert duration(seconds) == text


def test_small_words():
    assert moment(0.0) == "1970-01-01 00:00 UTC"
    assert interval("1", "1") == "1"
    assert interval("1", "2") == "1 to 2"
    assert (count(1, "tile"), count(2000, "tile")) == ("1 tile", "2,000 tiles")
    assert first_of(["a.", "b.", "c.", "d.", "e."]) == "a. b. c. (and 2 more)"
