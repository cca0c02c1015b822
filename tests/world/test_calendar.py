from datetime import date

import pytest

from geodino.errors import SourceError
from geodino.world.calendar import (
    aerial_sun,
    day_of_year,
    parse_date,
    satellite_sun,
    seasonal,
)
from geodino.world.spectra import leafiness, material, reflectance_on


def test_values_are_linear_between_the_days_they_are_given_for():
    keys = ((100, 0.0), (200, 1.0))
    assert seasonal(keys, 150) == 0.5
    assert seasonal(keys, 100) == 0.0
    assert seasonal(keys, 200) == 1.0


def test_values_go_round_the_end_of_the_year():
    # From day 200 to day 465 = 100 of the next year it takes 265 days.
    keys = ((100, 0.0), (200, 1.0))
    assert seasonal(keys, 253) == pytest.approx(1 - 53 / 265)
    assert seasonal(keys, 365) == pytest.approx(100 / 265)
    assert seasonal(keys, 47) == pytest.approx(53 / 265)
    assert seasonal(keys, 0) == seasonal(keys, 365)
    assert seasonal(keys, 366) == seasonal(keys, 1)


def test_leap_years_have_no_day_of_their_own():
    assert day_of_year(date(2023, 3, 1)) == day_of_year(date(2024, 3, 1)) == 60
    assert day_of_year(date(2024, 2, 29)) == 60
    assert day_of_year(date(2024, 12, 31)) == 365


def test_the_sun_is_higher_in_summer_and_always_more_south_than_east():
    assert satellite_sun(date(2023, 6, 21)).tangent > 5 * satellite_sun(date(2023, 12, 21)).tangent
    for seed in range(20):
        sun = aerial_sun(seed, date(2023, 6, 21))
        south, east = sun.toward
        assert south > abs(east)
        assert south * south + east * east == pytest.approx(1)


def test_broadleaves_are_bare_in_winter_and_conifers_are_not():
    assert (leafiness(20), leafiness(180)) == (0.0, 1.0)
    winter, summer = reflectance_on(20), reflectance_on(180)
    leaf, needle = material("broadleaf"), material("conifer")
    near_infrared = 7
    assert winter[leaf, near_infrared] < 0.6 * summer[leaf, near_infrared]
    assert (winter[needle] == summer[needle]).all()


def test_a_wrong_date_is_refused():
    assert parse_date("2023-07-01") == date(2023, 7, 1)
    for text in ("2023-13-01", "yesterday", "2023-02-29"):
        with pytest.raises(SourceError, match=r"is no date.*year-month-day"):
            parse_date(text)
