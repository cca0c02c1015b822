"""The colours of canopy height, the same wherever heights are shown."""

import math

import numpy as np
from jaxtyping import Float, UInt8
from numpy import ndarray

STOPS: tuple[tuple[str, tuple[int, int, int]], ...] = (
    ("sand", (245, 227, 196)),
    ("straw", (217, 204, 139)),
    ("meadow", (172, 186, 87)),
    ("leaf", (118, 167, 73)),
    ("forest", (65, 145, 81)),
    ("spruce", (29, 119, 97)),
    ("lake", (7, 92, 107)),
    ("dusk", (34, 61, 112)),
    ("ink", (45, 33, 85)),
)
"""From bare ground to the tallest trees, red, green and blue, at even steps of height.

Lightness (CIE L*) falls from 91 to 17 in even steps: equal differences of height look equally large,
no eye confuses two heights, and a print in grey shows the same order. Bare ground is sand, not white:
0 m is a height, and no data are the hole one sees through.
"""

_TICKS = 10
"""Most labelled heights above 0."""

_NICE = (1.0, 2.0, 5.0)


def height_colours(height_m: Float[ndarray, "*s"], *, highest_m: float) -> UInt8[ndarray, "*s 3"]:
    """Return the colour of each height; heights beyond the ends have the colours of the ends.

    Args:
        height_m: metres above the ground; NaN has the colour of 0 m, and is for the caller to hide.
        highest_m: height of the darkest colour.

    Raises:
        ValueError: ``highest_m`` is not above 0.
    """
    check_highest(highest_m)
    share = np.nan_to_num(np.asarray(height_m, dtype=np.float64) / highest_m).clip(0.0, 1.0)
    places = np.linspace(0.0, 1.0, len(STOPS))
    table = np.array([rgb for _, rgb in STOPS], dtype=np.float64)
    bands = [np.interp(share, places, table[:, band]) for band in range(3)]
    return np.asarray(np.rint(np.stack(bands, axis=-1)), dtype=np.uint8)


def height_ticks_m(highest_m: float) -> tuple[float, ...]:
    """Return heights to label: 0, round numbers, and ``highest_m``, at most 11 of them.

    Raises:
        ValueError: ``highest_m`` is not above 0.
    """
    check_highest(highest_m)
    step = _nice_at_least(highest_m / _TICKS)
    # A label in the last half of a step would crowd that of the end.
    count = math.ceil(highest_m / step - 0.5 - 1e-9)
    return (*(round(step * i, 9) for i in range(count)), float(highest_m))


def round_highest_m(height_m: float, *, least_m: float = 5.0) -> float:
    """Return the next round height, at least ``least_m``, that a scale up to ``height_m`` ends at."""
    if not height_m > least_m:
        return least_m
    step = _nice_at_least(height_m / _TICKS)
    return float(step * math.ceil(height_m / step - 1e-9))


def check_highest(highest_m: float) -> None:
    """Refuse the end of a scale that is none.

    Raises:
        ValueError: it is not above 0.
    """
    if not (math.isfinite(highest_m) and highest_m > 0):
        raise ValueError(f"a scale of heights ends above 0 m, not at {highest_m} m")


def _nice_at_least(value: float) -> float:
    """Return the smallest 1, 2 or 5 times a power of ten that is no less."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = (digit * power for digit in (*_NICE, 10.0))
    return next(step for step in steps if step >= value * (1 - 1e-9))
