r"""A rising curve from predicted to true heights: how a model is set right by some local labels.

The curve is piecewise linear. Its knots are bins of predicted height: where a bin's predictions lie
on average, and the centre of the true heights there. Three things keep it honest:

- *Little data.* Pixels of one site are near copies of each other, so what a bin is worth is counted
  in sites: :math:`n = (\sum_s c_s)^2 / \sum_s c_s^2` of its pixel counts :math:`c_s`. The bin's
  offset is shrunk as if ``prior_sites`` more sites said that the model is right:

  .. math:: y_k = x_k + (t_k - x_k) \, n_k / (n_k + \text{prior})

- *Order.* Isotonic regression makes the knots never fall: a taller prediction stays at least as tall.
- *Beyond the highest knot* the curve goes on with a slope of its upper half, held between 0.5 and 2.
  It never goes flat there: isotonic regression alone would cut all taller trees to one height.

Piecewise linear rather than the steps of plain isotonic regression: steps would put contour lines
into maps. Below the lowest knot the curve reaches 0 m with the knot's offset, never below the ground.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from pydantic import Field, model_validator

from geodino.config import Config
from geodino.errors import RunError
from geodino.metrics.conformal import HeightSite
from geodino.metrics.height_maps import finite_values

SLOPES_ABOVE = 0.5, 2.0
"""Least and largest slope beyond the highest knot."""

_DIGITS = 4
"""Decimals of knots, metres."""

Values = Float[np.ndarray, "*s"]


class RecalibrationConfig(Config):
    """How heights are set right."""

    centre: Literal["median", "mean"] = "median"
    """What the heights of a bin become: the median of its labels keeps absolute errors small, as
    heads learn; the mean keeps squared errors small, and the mean height of the ground."""

    knots: int = Field(default=24, ge=2)
    """Bins at most: half of them hold as many pixels each, half are as wide each."""

    min_pixels: int = Field(default=50, ge=1)
    """A bin with fewer labels is joined to its neighbour."""

    prior_sites: tuple[float, ...] = (10.0, 3.0, 1.0, 0.3, 0.1)
    """How many sites the model's own heights are worth; the best on the validation ground is taken,
    or no change at all where none is better."""

    areas: int = Field(default=256, ge=1)
    """Areas of the training ground, and of the validation ground, that are predicted at most."""

    pixels_per_area: int = Field(default=20_000, ge=1)
    """At most so many labels of an area are used, drawn by seed."""

    @model_validator(mode="after")
    def _has_candidates(self) -> "RecalibrationConfig":
        if not self.prior_sites or any(prior < 0 for prior in self.prior_sites):
            raise ValueError("prior_sites needs one number at least, none of them below 0")
        return self


class HeightCurve(Config):
    """A curve that never falls, in metres."""

    predicted_m: tuple[float, ...] = Field(min_length=1)
    """Knots: predicted heights, from 0, rising."""

    height_m: tuple[float, ...] = Field(min_length=1)
    """What they become: never below 0, never falling."""

    slope_above: float = Field(gt=0)
    """Metres per predicted metre beyond the highest knot."""

    @model_validator(mode="after")
    def _rising(self) -> "HeightCurve":
        if len(self.predicted_m) != len(self.height_m):
            raise ValueError("predicted_m and height_m must have one entry per knot each")
        if self.predicted_m[0] != 0 or any(a >= b for a, b in pairwise(self.predicted_m)):
            raise ValueError(f"predicted_m must begin with 0 and rise, found {self.predicted_m}")
        if self.height_m[0] < 0 or any(a > b for a, b in pairwise(self.height_m)):
            raise ValueError(f"height_m must not fall or be below 0, found {self.height_m}")
        return self

    @property
    def slopes(self) -> tuple[float, ...]:
        """Slope from each knot to the next, and beyond the last one."""
        steps = pairwise(zip(self.predicted_m, self.height_m, strict=True))
        return (*((d - b) / (c - a) for (a, b), (c, d) in steps), self.slope_above)

    @property
    def is_identity(self) -> bool:
        """Whether every height stays what it is."""
        return self.predicted_m == self.height_m and self.slope_above == 1.0

    def apply(self, predicted_m: Values) -> Values:
        """Return the heights that predictions become; NaN stays NaN.

        Predictions below 0 count as 0.
        """
        knots, slopes = np.array(self.predicted_m), np.array(self.slopes)
        at = np.maximum(predicted_m, 0.0)
        below = np.maximum(np.searchsorted(knots, at, side="right") - 1, 0)
        heights = np.array(self.height_m)[below] + slopes[below] * (at - knots[below])
        return np.asarray(heights, dtype=predicted_m.dtype)

    def after(self, earlier: "HeightCurve") -> "HeightCurve":
        """Return the one curve that does what ``earlier`` and then this one do."""
        knots = sorted(
            {*earlier.predicted_m, *(x for y in self.predicted_m for x in earlier._at(y))}
        )
        heights = self.apply(earlier.apply(np.array(knots)))
        return _curve(knots, heights.tolist(), self.slope_above * earlier.slope_above)

    def _at(self, height_m: float) -> list[float]:
        """Where the curve crosses a height between two knots, or beyond the last."""
        ends = (*self.height_m[1:], float("inf"))
        parts = zip(self.predicted_m, self.height_m, ends, self.slopes, strict=True)
        return [
            x + (height_m - low) / slope for x, low, high, slope in parts if low < height_m < high
        ]


IDENTITY = HeightCurve(predicted_m=(0.0,), height_m=(0.0,), slope_above=1.0)
"""Leaves every height as it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeightBins:
    """What is known of the true heights in bins of predicted height."""

    predicted_m: Float[np.ndarray, " k"]
    """Mean prediction, rising."""

    true_m: Float[np.ndarray, " k"]
    """Centre of the true heights."""

    pixels: Int[np.ndarray, " k"]
    """How many."""

    sites: Float[np.ndarray, " k"]
    """Of how many sites they are as good as: 1 where all are of one."""

    def curve(self, prior_sites: float) -> HeightCurve:
        """Return the curve where the model's own heights are worth so many sites."""
        from sklearn.isotonic import isotonic_regression

        share = self.sites / (self.sites + prior_sites)
        wanted = np.maximum(self.predicted_m + share * (self.true_m - self.predicted_m), 0.0)
        knots = self.predicted_m.tolist()
        heights = isotonic_regression(wanted, sample_weight=self.pixels.astype(float)).tolist()
        if knots[0] > 0:
            heights = [max(0.0, heights[0] - knots[0]), *heights]
            knots = [0.0, *knots]
        return _curve(knots, heights, _slope_above(knots, heights))


def height_bins(sites: Sequence[HeightSite], config: RecalibrationConfig) -> HeightBins:
    """Gather predicted and true heights of sites in bins.

    Args:
        sites: of ground that no head has to be judged on.
        config: bins and their centres.

    Raises:
        RunError: there is no valid pixel.
    """
    predicted, true_m, of_site = _joined(sites)
    if not predicted.size:
        raise RunError("There is no label to set heights right with: label some of the ground.")
    edges = _edges(predicted, config)
    place = np.searchsorted(edges, predicted, side="right")
    counts = np.zeros((len(sites), len(edges) + 1), dtype=np.int64)
    np.add.at(counts, (of_site, place), 1)
    inside = [place == k for k in range(len(edges) + 1)]
    centre = np.median if config.centre == "median" else np.mean
    pixels = counts.sum(axis=0)
    return HeightBins(
        predicted_m=np.array([predicted[some].mean() for some in inside]),
        true_m=np.array([float(centre(true_m[some])) for some in inside]),
        pixels=pixels,
        sites=pixels.astype(float) ** 2 / (counts.astype(float) ** 2).sum(axis=0),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class ChosenCurve:
    """The curve that was best on held-out ground."""

    curve: HeightCurve

    prior_sites: float | None
    """What the model's own heights were worth; None where nothing is better than they are."""

    errors_m: dict[str, float]
    """Error on held-out ground by ``prior_sites``, and ``as it is``: mean absolute, or root mean
    square where the centre is the mean."""


def choose_curve(
    bins: HeightBins, held_out: Sequence[HeightSite], config: RecalibrationConfig
) -> ChosenCurve:
    """Fit a curve for each candidate and take the best one on ground that no bin was made of.

    Of equals the one nearer to no change is taken.

    Raises:
        RunError: there is no valid pixel on the held-out ground.
    """
    predicted, true_m, _ = _joined(held_out)
    if not predicted.size:
        raise RunError("There is no label on the ground for validation to choose a curve by.")

    def error(curve: HeightCurve) -> float:
        off = curve.apply(predicted) - true_m
        if config.centre == "median":
            return float(np.abs(off).mean())
        return float(np.sqrt(np.square(off).mean()))

    best, prior, least = IDENTITY, None, error(IDENTITY)
    errors = {"as it is": least}
    for candidate in sorted(set(config.prior_sites), reverse=True):
        curve = bins.curve(candidate)
        errors[f"{candidate:g}"] = found = error(curve)
        if found < least:
            best, prior, least = curve, candidate, found
    return ChosenCurve(curve=best, prior_sites=prior, errors_m=errors)


def _joined(
    sites: Sequence[HeightSite],
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Predictions, true heights (not below the ground), and the number of the site, in float64."""
    none = np.zeros(0)
    predicted = [finite_values(s.predicted_m, s.valid, name=f"height at {s.name}") for s in sites]
    true_m = [finite_values(s.true_m, s.valid, name=f"true height at {s.name}") for s in sites]
    return (
        np.maximum(np.concatenate([none, *predicted]), 0.0),
        np.maximum(np.concatenate([none, *true_m]), 0.0),
        np.repeat(np.arange(len(sites)), [len(p) for p in predicted]),
    )


def _edges(
    predicted: Float[np.ndarray, " n"], config: RecalibrationConfig
) -> Float[np.ndarray, " e"]:
    """Edges between bins, rising; each bin holds ``min_pixels`` if there are as many."""
    rising = np.sort(predicted)
    half = np.linspace(0.0, 1.0, config.knots // 2 + 1)[1:-1]
    even = rising[0] + np.linspace(0.0, 1.0, config.knots - config.knots // 2 + 1)[1:-1] * (
        rising[-1] - rising[0]
    )
    wanted = np.unique(np.concatenate([np.quantile(rising, half), even]).round(2))
    kept, last = [], 0
    for edge in wanted.tolist():
        here = int(np.searchsorted(rising, edge, side="left"))
        if here - last >= config.min_pixels and len(rising) - here >= config.min_pixels:
            kept.append(edge)
            last = here
    return np.array(kept, dtype=np.float64)


def _slope_above(knots: Sequence[float], heights: Sequence[float]) -> float:
    """Slope of the upper half of the curve, within bounds."""
    half = max((i for i, x in enumerate(knots[:-1]) if x <= knots[-1] / 2), default=None)
    if half is None:
        return 1.0
    slope = (heights[-1] - heights[half]) / (knots[-1] - knots[half])
    least, most = SLOPES_ABOVE
    return min(max(slope, least), most)


def _curve(knots: Sequence[float], heights: Sequence[float], slope: float) -> HeightCurve:
    """A curve with knots that are told apart once they are rounded."""
    kept: dict[float, float] = {}
    for knot, height in zip(knots, heights, strict=True):
        kept.setdefault(round(knot, _DIGITS), round(height, _DIGITS))
    return HeightCurve(
        predicted_m=tuple(kept), height_m=tuple(kept.values()), slope_above=round(slope, _DIGITS)
    )
