"""Units of heights, and whether the heights of a source can be what they are said to be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from geodino.data.labels.config import HeightUnit
from geodino.errors import BandError

TO_M: dict[HeightUnit, float] = {"m": 1.0, "dm": 0.1, "cm": 0.01, "ft": 0.3048}

FLOOR_M = -5.0
"""Heights between this and 0 are noise of the ground and read as 0; lower ones are invalid."""

_WORDS: dict[HeightUnit, tuple[str, ...]] = {
    "m": ("m", "metre", "metres", "meter", "meters"),
    "dm": ("dm", "decimetre", "decimetres", "decimeter", "decimeters"),
    "cm": ("cm", "centimetre", "centimetres", "centimeter", "centimeters"),
    "ft": ("ft", "foot", "feet", "international foot"),
}

_LOW_M = 1.0
"""Labels that are all below this are hardly heights of vegetation in the unit they are said to
have."""

_PLAUSIBLE_M = (2.0, 100.0)
"""Where the 99th percentile of true canopy heights lies."""


def unit_of(word: str | None) -> HeightUnit | None:
    """Return the unit that a file's word means; None for words that mean no length we know."""
    plain = (word or "").strip().lower()
    return next((unit for unit, words in _WORDS.items() if plain in words), None)


@dataclass(frozen=True, kw_only=True, slots=True)
class HeightSurvey:
    """What was found of the heights of a source, over the pixels or footprints looked at."""

    looked_at: int
    """Pixels (or footprints), valid or not."""

    of: int
    """Pixels (or footprints) of the whole source."""

    valid: int
    """Those with a height."""

    negative: int
    """Those between -5 and 0 m, which are read as 0."""

    below: int
    """Those below -5 m, which are invalid."""

    above: int
    """Those above the ceiling, which are invalid."""

    lowest_m: float
    """Lowest height; NaN without any."""

    highest_m: float
    """Highest height; NaN without any."""

    p99_m: float
    """99th percentile of the heights of at least -5 m; NaN without any."""

    example: str = ""
    """Where the lowest height is."""

    @property
    def text(self) -> str:
        """The survey in one sentence."""
        part = "" if self.looked_at == self.of else f" (of {self.of:,})"
        text = (
            f"{self.valid:,} of {self.looked_at:,} labels looked at{part} are valid; heights "
            f"reach {self.highest_m:.1f} m, 99 % are below {self.p99_m:.1f} m"
        )
        if self.negative:
            text += f"; {self.negative:,} between {FLOOR_M:g} and 0 m are read as 0"
        if self.below or self.above:
            text += f"; {self.below + self.above:,} out of range are invalid"
        return text


def survey(
    heights: Sequence[tuple[str, NDArray[np.float64]]],
    *,
    looked_at: int,
    of: int,
    ceiling_m: float,
) -> HeightSurvey:
    """Count heights (metres, valid ones only) by file."""
    together = np.concatenate([values for _, values in heights]) if heights else np.zeros(0)
    lows = [(float(values.min()), name) for name, values in heights if values.size]
    low, example = min(lows, default=(float("nan"), ""))
    usual = together[together >= FLOOR_M]
    return HeightSurvey(
        looked_at=looked_at,
        of=of,
        valid=int(((together >= FLOOR_M) & (together <= ceiling_m)).sum()),
        negative=int(((together >= FLOOR_M) & (together < 0)).sum()),
        below=int((together < FLOOR_M).sum()),
        above=int((together > ceiling_m).sum()),
        lowest_m=low,
        highest_m=float(together.max()) if together.size else float("nan"),
        p99_m=float(np.percentile(usual, 99)) if usual.size else float("nan"),
        example=example,
    )


def refuse_doubtful(
    found: HeightSurvey, *, source: str, factors: Sequence[float], ceiling_m: float
) -> None:
    """Refuse heights that can hardly be what they are said to be.

    Args:
        found: the heights looked at.
        source: what the user calls the labels.
        factors: metres of one declared unit, of every file.
        ceiling_m: heights above are invalid.

    Raises:
        BandError: naming what was found and the option that settles it.
    """
    settle = "or say that they are right: labels.accept: [range]"
    if found.below:
        raise BandError(
            f"{source}: {found.below:,} of {found.looked_at:,} labels looked at are below "
            f"{FLOOR_M:g} m (lowest {found.lowest_m:g} m, in {found.example}). If that marks missing "
            "labels, declare the stored value (labels.nodata); if they are heights above the sea, "
            f"subtract the terrain; {settle}, which takes such pixels as invalid."
        )
    if found.p99_m > ceiling_m:
        raise BandError(
            f"{source}: 1 % of the labels are above {found.p99_m:.0f} m, and labels.ceiling_m is "
            f"{ceiling_m:g} m. {_other_unit(found.p99_m, factors)}raise labels.ceiling_m, "
            f"{settle}, which takes heights above the ceiling as invalid."
        )
    if found.highest_m < _LOW_M:
        raise BandError(
            f"{source}: all labels looked at are below {_LOW_M:g} m (highest "
            f"{found.highest_m:g} m). {_other_unit(found.p99_m, factors)}name the band of the "
            f"heights (labels.band), {settle}."
        )


def _other_unit(p99_m: float, factors: Sequence[float]) -> str:
    """Name the units in which the heights would be those of trees."""
    if len(set(factors)) > 1:
        return "Check the units that the files declare, "
    stored = p99_m / factors[0]
    low, high = _PLAUSIBLE_M
    fitting = [u for u in get_args(HeightUnit) if low <= stored * TO_M[u] <= high]
    if not fitting:
        return "Declare their unit (labels.unit) or scale (labels.scale), "
    example = " or ".join(f"labels.unit: {unit}" for unit in fitting)
    return f"They would be those of trees with {example}: declare it, "


def clean(
    heights_m: NDArray[np.float64], valid: NDArray[np.bool_], ceiling_m: float
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Read small negative heights as 0, and take those out of range as invalid (0 there)."""
    kept = valid & (heights_m >= FLOOR_M) & (heights_m <= ceiling_m)
    return np.where(kept & (heights_m > 0), heights_m, 0.0), kept
