r"""Intervals of canopy heights that keep what they promise on new sites, by split conformal prediction.

Pixels of one site are near copies of each other, so a thousand of them promise no more than a few.
What is exchangeable are sites: another site is another draw. Each calibration site therefore counts
the same, and the correction for a finite sample is made on the number of sites ``S``. The scores of
its pixels are weighed :math:`1 / (S n_s)` and the quantile is taken at

.. math:: \text{coverage} \cdot (S + 1) / S,

as if one more site with an endless error belonged to the sample (Lee, Barber and Willett 2023,
"Distribution-free inference with hierarchical data", arXiv 2306.06342). Then a random pixel of a new
site drawn like the others lies in its interval with at least the stated probability: on average over
sites, not on each site and not at each height. ``coverage_report`` shows both.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field, model_validator

from geodino import seeds
from geodino.config import Config
from geodino.errors import RunError
from geodino.metrics.height_maps import CLASS_EDGES_M, finite_values

Values = Float[np.ndarray, "*s"]

_ROUNDING = 1e-12


class IntervalConfig(Config):
    """How intervals are calibrated."""

    coverage: float = Field(default=0.9, gt=0, lt=1)
    """Share of pixels of a new site that should lie inside, on average over sites."""

    pixels_per_site: int = Field(default=20_000, ge=1)
    """At most so many pixels of a site are used, drawn by seed."""

    min_pixels_per_site: int = Field(default=100, ge=1)
    """A site with fewer valid pixels is refused."""

    scale_share: float = Field(default=0.3, gt=0, lt=1)
    """Share of the sites that only say how errors grow with height; the others calibrate."""

    scale_edges_m: tuple[float, ...] = CLASS_EDGES_M
    """Lower edges of the bins of predicted height in which errors are averaged."""

    min_scale_m: float = Field(default=0.1, gt=0)
    """No height is taken to be known better than this."""


@dataclass(frozen=True, kw_only=True, slots=True)
class HeightSite:
    """Predicted and true heights of one site that no weight was fitted on."""

    name: str
    predicted_m: Values
    true_m: Values
    valid: Bool[np.ndarray, "*s"]


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantileSite:
    """Predicted quantiles and true heights of one site that no weight was fitted on."""

    name: str
    lower_m: Values
    upper_m: Values
    true_m: Values
    valid: Bool[np.ndarray, "*s"]


class QuantileIntervals(Config):
    """Conformalised quantiles: predicted ones, moved apart (or together) by one margin.

    Romano, Patterson and Candès 2019, "Conformalized quantile regression".
    """

    kind: Literal["quantiles"] = "quantiles"

    coverage: float = Field(gt=0, lt=1)
    """Share of pixels of a new site that should lie inside, on average over sites."""

    sites: int = Field(ge=1)
    """How many sites it was calibrated on."""

    pixels: int = Field(ge=1)
    """How many of their pixels."""

    margin_m: float
    """Added above and below; negative where the predicted quantiles were too far apart."""

    def interval(self, lower_m: Values, upper_m: Values) -> tuple[Values, Values]:
        """Return the calibrated ends, never below 0; NaN stays NaN.

        Where a negative margin would make the ends cross, both are their middle.
        """
        low, high = lower_m - self.margin_m, upper_m + self.margin_m
        middle = (low + high) / 2
        return _above_ground(np.minimum(low, middle), np.maximum(high, middle))


class ResidualIntervals(Config):
    """Absolute errors in units of a scale that rises with the predicted height."""

    kind: Literal["residuals"] = "residuals"

    coverage: float = Field(gt=0, lt=1)
    """Share of pixels of a new site that should lie inside, on average over sites."""

    sites: int = Field(ge=1)
    """How many sites it was calibrated on, those of the scale not counted."""

    pixels: int = Field(ge=1)
    """How many of their pixels."""

    height_m: tuple[float, ...] = Field(min_length=1)
    """Mean predicted height of each bin of the scale, rising."""

    scale_m: tuple[float, ...] = Field(min_length=1)
    """Mean absolute error at these heights, never falling."""

    factor: float = Field(ge=0)
    """Half an interval is so many times the scale."""

    @model_validator(mode="after")
    def _rising(self) -> "ResidualIntervals":
        if len(self.height_m) != len(self.scale_m):
            raise ValueError("height_m and scale_m must have one entry per bin each")
        if any(a >= b for a, b in pairwise(self.height_m)):
            raise ValueError(f"height_m must rise, found {self.height_m}")
        if self.scale_m[0] <= 0 or any(a > b for a, b in pairwise(self.scale_m)):
            raise ValueError(f"scale_m must be above 0 and never fall, found {self.scale_m}")
        return self

    def interval(self, predicted_m: Values) -> tuple[Values, Values]:
        """Return ``predicted -+ factor * scale(predicted)``, never below 0; NaN stays NaN.

        The scale is interpolated between its heights and constant outside them.
        """
        half = self.factor * self.scale(predicted_m)
        return _above_ground(predicted_m - half, predicted_m + half)

    def scale(self, predicted_m: Values) -> Values:
        """Return the mean absolute error expected at each predicted height."""
        return _interpolated(predicted_m, self.height_m, self.scale_m)


def fit_quantile_intervals(
    sites: Sequence[QuantileSite], *, config: IntervalConfig, seed: int
) -> QuantileIntervals:
    """Calibrate predicted quantiles: a pixel's score is how far the truth lies outside of them.

    Args:
        sites: calibration sites, none of them trained or tuned on.
        config: coverage and limits.
        seed: of the pixels drawn from large sites.

    Raises:
        RunError: too few sites for this coverage, too few pixels in a site, or a name twice.
    """
    _enough_sites([s.name for s in sites], config.coverage, for_scale=0)
    scores = []
    for site in sites:
        low, high, true = _pixels(
            {"lower quantile": site.lower_m, "upper quantile": site.upper_m},
            site.true_m,
            site.valid,
            name=site.name,
            config=config,
            seed=seed,
        )
        scores.append(np.maximum(low - true, true - high))
    return QuantileIntervals(
        coverage=config.coverage,
        sites=len(sites),
        pixels=sum(s.size for s in scores),
        margin_m=_site_quantile(scores, config.coverage),
    )


def fit_residual_intervals(
    sites: Sequence[HeightSite], *, config: IntervalConfig, seed: int
) -> ResidualIntervals:
    """Calibrate absolute errors in units of their mean at the same predicted height.

    Some sites (``scale_share``, drawn by seed, at least one, fewer if sites are scarce) give the scale: mean absolute errors
    in bins of predicted height, each site counting the same, made never to fall with height (pooled
    adjacent violators). The others give the factor, so that the scale owes nothing to them.

    Args:
        sites: calibration sites, none of them trained or tuned on.
        config: coverage, scale and limits.
        seed: of the sites of the scale and of the pixels drawn from large sites.

    Raises:
        RunError: too few sites for this coverage, too few pixels in a site, or a name twice.
    """
    spare = len(sites) - min_sites(config.coverage)
    for_scale = max(min(int(config.scale_share * len(sites)), spare), 1)
    _enough_sites([s.name for s in sites], config.coverage, for_scale=for_scale)
    drawn = {
        site.name: _pixels(
            {"predicted height": site.predicted_m},
            site.true_m,
            site.valid,
            name=site.name,
            config=config,
            seed=seed,
        )
        for site in sites
    }
    names = seeds.rng(seed, "sites of the scale").permutation(sorted(drawn)).tolist()
    heights, scale = _error_by_height([drawn[n] for n in names[:for_scale]], config)
    scores = [
        np.abs(true - predicted) / _interpolated(predicted, heights, scale)
        for predicted, true in (drawn[n] for n in names[for_scale:])
    ]
    return ResidualIntervals(
        coverage=config.coverage,
        sites=len(scores),
        pixels=sum(s.size for s in scores),
        height_m=heights,
        scale_m=scale,
        factor=_site_quantile(scores, config.coverage),
    )


def min_sites(coverage: float) -> int:
    """Return how many calibration sites a coverage needs at least: 9 for 90 %, 19 for 95 %.

    With as many the interval is as wide as the largest error of all of them.
    """
    return math.ceil(coverage / (1.0 - coverage) - 1e-9)


def _enough_sites(names: list[str], coverage: float, *, for_scale: int) -> None:
    if twice := sorted({n for n in names if names.count(n) > 1}):
        raise RunError(f"site {twice[0]!r} comes twice: join its pixels, or name the two apart.")
    needed, found = min_sites(coverage), max(len(names) - for_scale, 0)
    if found < needed:
        besides = f" besides {for_scale} for the scale of errors" if for_scale else ""
        lower = f", or ask for a coverage of {found * 100 // (found + 1)}%" if found else ""
        raise RunError(
            f"intervals of {coverage:.0%} need at least {needed} calibration sites{besides}, "
            f"found {found}: add labelled sites{lower}."
        )


def _pixels(
    predicted: dict[str, Values],
    true_m: Values,
    valid: Bool[np.ndarray, "*s"],
    *,
    name: str,
    config: IntervalConfig,
    seed: int,
) -> list[Float[np.ndarray, " n"]]:
    """Values of the drawn pixels of one site, the truth last and not below the ground."""
    count = int(valid.sum())
    if count < config.min_pixels_per_site:
        raise RunError(
            f"site {name!r} has {count} valid pixels, at least {config.min_pixels_per_site} are "
            "needed: leave it out, or label more of it."
        )
    values = [finite_values(v, valid, name=f"{k} at {name}") for k, v in predicted.items()]
    values.append(np.maximum(finite_values(true_m, valid, name=f"true height at {name}"), 0.0))
    if count > config.pixels_per_site:
        some = seeds.rng(seed, "calibration pixels", name).permutation(count)
        values = [v[some[: config.pixels_per_site]] for v in values]
    return values


def _site_quantile(scores: Sequence[Float[np.ndarray, " _"]], coverage: float) -> float:
    """Smallest score with the corrected share of all sites' weight at or below it."""
    level = coverage * (len(scores) + 1) / len(scores)
    values = np.concatenate(scores)
    weights = np.concatenate([np.full(s.size, 1.0 / (len(scores) * s.size)) for s in scores])
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weights[order]) >= level - _ROUNDING
    # Weights sum to 1 but for rounding, and so may the level.
    return float(values[order][np.argmax(reached) if reached.any() else -1])


def _error_by_height(
    sites: Sequence[Sequence[Float[np.ndarray, " _"]]], config: IntervalConfig
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean predicted height and mean absolute error of each bin that has pixels."""
    from sklearn.isotonic import isotonic_regression

    edges = np.array(config.scale_edges_m[1:])
    sums = np.zeros((3, len(edges) + 1))
    for predicted, true in sites:
        place = np.searchsorted(edges, predicted, side="right")
        for row, values in enumerate((np.ones_like(true), predicted, np.abs(true - predicted))):
            sums[row] += np.bincount(place, weights=values / true.size, minlength=len(edges) + 1)
    weight, height, error = sums[:, sums[0] > 0]
    rising = isotonic_regression(error / weight, sample_weight=weight)
    scale = np.maximum(rising, config.min_scale_m)
    return tuple((height / weight).tolist()), tuple(scale.tolist())


def _interpolated(
    at: Values, heights: Sequence[float], values: Sequence[float]
) -> Float[np.ndarray, "*s"]:
    return np.asarray(np.interp(at, heights, values), dtype=at.dtype)


def _above_ground(low: Values, high: Values) -> tuple[Values, Values]:
    return np.maximum(low, 0.0), np.maximum(high, 0.0)
