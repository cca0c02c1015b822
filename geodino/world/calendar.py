"""Dates, the sun above them, and values that follow the seasons."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from geodino import seeds
from geodino.errors import SourceError

Keys = Sequence[tuple[int, float]]
"""(day of the year, value): linear in between, and from the last day round to the first."""

# Mean tangents of the sun's elevation at half past ten, at 50 degrees north, mid-month.
_TANGENTS: Keys = (
    (15, 0.27), (46, 0.44), (74, 0.70), (105, 1.04), (135, 1.38), (166, 1.54), (196, 1.48),
    (227, 1.15), (258, 0.81), (288, 0.53), (319, 0.32), (349, 0.25),
)  # fmt: skip

_YEAR = 365


def parse_date(text: str) -> date:
    """Read ``2023-07-01``.

    Raises:
        SourceError: the text is no date.
    """
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise SourceError(
            f"{text!r} is no date ({error}). Write it as year-month-day, e.g. 2023-07-01."
        ) from error


def day_of_year(day: date) -> int:
    """Return 1 for New Year's Day; 29 February counts as 1 March, so years have 365 days."""
    leap = day.year % 4 == 0 and (day.year % 100 != 0 or day.year % 400 == 0)
    number = day.timetuple().tm_yday
    return number - 1 if leap and number >= 61 else number


def seasonal(keys: Keys, day: int) -> float:
    """Return the value of a day of the year; days before 1 and after 365 wrap round."""
    day = (day - 1) % _YEAR + 1
    days = [key for key, _ in keys]
    after = bisect_right(days, day)
    if 0 < after < len(keys):
        (first, low), (last, high) = keys[after - 1], keys[after]
    else:
        (first, low), (last, high) = keys[-1], keys[0]
        last += _YEAR
        day = day if after else day + _YEAR
    return low + (high - low) * (day - first) / (last - first)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sun:
    """Where the light comes from."""

    toward: tuple[float, float]
    """Unit vector on the ground towards the sun: rows (south), columns (east)."""

    tangent: float
    """Tangent of its elevation."""


def satellite_sun(day: date) -> Sun:
    """Return the sun of a satellite's morning pass: in the south-east."""
    return Sun(toward=_turned(0.2), tangent=seasonal(_TANGENTS, day_of_year(day)))


def aerial_sun(seed: int, day: date) -> Sun:
    """Return the sun of a flight around noon, at an hour drawn from the seed and the date."""
    hour = 2 * float(seeds.rng(seed, "hour", day.toordinal()).random()) - 1
    noon = seasonal(_TANGENTS, day_of_year(day)) * (1.12 - 0.12 * hour * hour)
    return Sun(toward=_turned(0.38 * hour), tangent=noon)


def _turned(t: float) -> tuple[float, float]:
    """Turn from south to east; ``t`` is the tangent of half the angle."""
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
