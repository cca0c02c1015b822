"""What a trained head is worth: scores with intervals beside floors, coverage, effects of chips."""

import math
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field, replace
from functools import reduce
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from geodino import seeds
from geodino.data.splits import SplitName
from geodino.errors import RunError
from geodino.infer.engine import Predictor
from geodino.infer.heights import HeightPredictor
from geodino.infer.symmetries import Symmetric, Symmetries
from geodino.metrics.bootstrap import Interval
from geodino.metrics.conformal import (
    HeightSite,
    QuantileIntervals,
    QuantileSite,
    ResidualIntervals,
    fit_quantile_intervals,
    fit_residual_intervals,
)
from geodino.metrics.coverage import CoverageReport, IntervalSite, coverage_report
from geodino.metrics.height import HeightClassScores, HeightSums
from geodino.metrics.height_sites import MIN_SITES, site_differences, site_intervals
from geodino.runs.finetune.canopy.scene import CanopyScene
from geodino.tasks.canopy.areas import Area, Compared, drawn_areas, find_areas
from geodino.tasks.canopy.evaluate import Chips, SiteSums, SiteValues, by_site, judged
from geodino.tasks.canopy.floors import Floors, fit_floors, green_map

MEAN, GREEN = "mean height", "height by greenness"
"""What the floors are called."""

_SHOWN = 6
"""Sites that pictures are made of."""

_FLOOR_AREAS = 256
"""Areas of training ground that floors are fitted on, at most."""

_EFFECT_AREAS = 4
"""Validation areas on which the effect of chips and turns is measured."""

Intervals = ResidualIntervals | QuantileIntervals


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What was found on the areas of one split."""

    which: SplitName
    model: dict[str, HeightSums]
    floors: dict[str, dict[str, HeightSums]]
    """By the name of the floor."""

    values: list[SiteValues]
    """A part of the pixels of each site."""

    shown: list[Compared] = field(default_factory=list)
    """One area each of some sites."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """Everything a run found out about its model."""

    facts: dict[str, Any]
    """For run.json, without anything that is not finite."""

    intervals: Intervals | None

    classes: tuple[HeightClassScores, ...]
    """Errors by true height, of all sites that are reported; empty without any."""

    coverage: CoverageReport | None
    """What intervals kept on test ground; None without intervals or test ground."""

    shown: list[Compared]
    values: list[SiteValues]


class Judge:
    """Measures a model on the ground of each split.

    Args:
        scene: images, labels, chips.
        predictor: the model.
        threads: that read.
    """

    def __init__(self, scene: CanopyScene, predictor: Predictor, threads: Executor) -> None:
        self._scene = scene
        self._predictor = predictor
        self._threads = threads
        self._config = scene.prepared.config

    def floors(self) -> Floors:
        """Fit the floors on training ground."""
        prepared = self._scene.prepared
        areas = find_areas(prepared.source, "train", threads=prepared.threads)
        return fit_floors(
            prepared.source, drawn_areas(areas, _FLOOR_AREAS, seed=self._config.train.seed)
        )

    def measure(self, which: SplitName, floors: Floors | None) -> Measured | None:
        """Predict all areas of a split; None where it has none."""
        prepared, config = self._scene.prepared, self._config
        areas = find_areas(prepared.source, which, threads=prepared.threads)
        model = SiteSums(config.protocol)
        beside = {MEAN: SiteSums(config.protocol), GREEN: SiteSums(config.protocol)}
        parts: list[Compared] = []
        shown: dict[str, Compared] = {}
        for one in self._judged(areas, which):
            model.add(one)
            if floors is not None:
                beside[MEAN].add(one, floors.mean.predict(one.true_m.shape))
                if floors.by_greenness is not None:
                    green = green_map(prepared.source, one.area, which, floors.greenness)
                    guess = floors.by_greenness.predict(green.values[0].astype(np.float64))
                    beside[GREEN].add(replace(one, valid=one.valid & green.valid), guess)
            parts.append(_thinned(one, config.intervals.pixels_per_site, config.train.seed))
            if one.area.site not in shown and len(shown) < _SHOWN and one.valid.any():
                shown[one.area.site] = one
        if not model.sites:
            return None
        return Measured(
            which=which,
            model=model.sites,
            floors={name: sums.sites for name, sums in beside.items() if sums.sites},
            values=by_site(parts),
            shown=list(shown.values()),
        )

    def effects(self) -> dict[str, Any]:
        """Return what other chips and moved chips change on a few validation areas."""
        config, scene = self._config, self._scene
        areas = drawn_areas(scene.val, _EFFECT_AREAS, seed=config.train.seed)
        usual = list(self._judged(areas, "val"))
        found: dict[str, Any] = {"areas": len(areas), "mae_m": _mae(usual)}
        align = self._predictor.align
        for name, factor in (("chips half as large", 0.5), ("chips twice as large", 2.0)):
            side = max(align, round(scene.chips.chip * factor / align) * align)
            if side == scene.chips.chip:
                continue
            chips = Chips.fitting(chip=side, overlap=None, align=align)
            found[f"{name} ({side} px)"] = _change(
                usual, list(self._judged(areas, "val", chips=chips))
            )
        means: tuple[tuple[str, Symmetries], ...] = (
            ("mean of 4 flips of each chip", "flips"),
            ("mean of 8 flips and turns of each chip", "turns"),
        )
        for name, symmetries in means:
            found[name] = _change(usual, list(self._judged(areas, "val", symmetries=symmetries)))
        return found

    def _judged(
        self,
        areas: tuple[Area, ...],
        which: SplitName,
        *,
        chips: Chips | None = None,
        symmetries: Symmetries = "none",
    ) -> Iterator[Compared]:
        return judged(
            self._scene.prepared.source,
            areas,
            which,
            Symmetric(self._predictor, symmetries),
            chips or self._scene.chips,
            threads=self._threads,
        )


def results_of(scene: CanopyScene, threads: Executor, *, device: torch.device) -> Results:
    """Measure the scene's model, which is on ``device``, on test, validation and calibration ground."""
    config = scene.prepared.config
    judge = Judge(scene, HeightPredictor(scene.model, device=device), threads)
    floors = judge.floors()
    test, val = judge.measure("test", floors), judge.measure("val", floors)
    calibration = judge.measure("calibration", None)
    quantiles = config.canopy.quantiles
    intervals, missing = calibrated(calibration, scene)
    reported = test or val
    facts: dict[str, Any] = {
        "reported_on": reported.which if reported else None,
        "floors": {
            "mean_height_m": floors.mean.mean_m,
            "greenness": floors.greenness.name or "none: red, green and blue are not known",
        },
        "val": scored(val, seed=config.train.seed),
        "test": scored(test, seed=config.train.seed),
        "intervals": None if intervals is None else intervals.model_dump(mode="json"),
        "intervals_missing": missing,
        "coverage": None,
        "effects_on_val": judge.effects(),
    }
    coverage = None
    if intervals is not None and test is not None:
        coverage = covered(test, intervals, quantiles, config.protocol.class_edges_m)
        facts["coverage"] = asdict(coverage)
    return Results(
        facts=finite(facts),
        intervals=intervals,
        classes=_classes(reported.model) if reported else (),
        coverage=coverage,
        shown=reported.shown if reported else [],
        values=reported.values if reported else [],
    )


def calibrated(measured: Measured | None, scene: CanopyScene) -> tuple[Intervals | None, str]:
    """Return intervals calibrated on sites that nothing else saw; or None, and why."""
    config = scene.prepared.config
    if measured is None:
        return None, "No interval: there is no calibration ground (split.shares.calibration)."
    enough = [
        site for site in measured.values if site.true_m.size >= config.intervals.min_pixels_per_site
    ]
    seed, quantiles = config.train.seed, config.canopy.quantiles
    try:
        if len(quantiles) >= 2:
            return fit_quantile_intervals(
                [
                    QuantileSite(
                        name=s.name,
                        lower_m=s.values[1],
                        upper_m=s.values[-1],
                        true_m=s.true_m,
                        valid=s.valid,
                    )
                    for s in enough
                ],
                config=config.intervals,
                seed=seed,
            ), ""
        return fit_residual_intervals(
            [
                HeightSite(name=s.name, predicted_m=s.values[0], true_m=s.true_m, valid=s.valid)
                for s in enough
            ],
            config=config.intervals,
            seed=seed,
        ), ""
    except RunError as error:
        return None, f"No interval: {error}"


def covered(
    measured: Measured,
    intervals: Intervals,
    quantiles: tuple[float, ...],
    class_edges_m: tuple[float, ...],
) -> CoverageReport:
    """Return how often the truth of a split lies in its intervals."""
    sites = []
    for site in measured.values:
        predicted = site.values[0]
        if isinstance(intervals, QuantileIntervals):
            low, high = intervals.interval(site.values[1], site.values[-1])
        else:
            low, high = intervals.interval(predicted)
        sites.append(
            IntervalSite(
                name=site.name,
                predicted_m=predicted,
                lower_m=low,
                upper_m=high,
                true_m=site.true_m,
                valid=site.valid,
            )
        )
    return coverage_report(sites, class_edges_m=class_edges_m)


def scored(measured: Measured | None, *, seed: int) -> dict[str, Any] | None:
    """Return scores over all sites with their intervals, those of the floors, and differences."""
    if measured is None:
        return None
    rows = {"model": measured.model, **measured.floors}
    found: dict[str, Any] = {
        "sites": len(measured.model),
        "pixels": sum(int(s.totals["n"]) for s in measured.model.values()),
        "scores": {name: _intervals(sites, seed) for name, sites in rows.items()},
        "by_site": {name: _few(sums) for name, sums in sorted(measured.model.items())},
        "model_minus": {},
    }
    for name, sites in measured.floors.items():
        common = measured.model.keys() & sites.keys()
        if len(common) < MIN_SITES:
            continue
        ours = {k: measured.model[k] for k in common}
        theirs = {k: sites[k] for k in common}
        if all(ours[k].totals["n"] == theirs[k].totals["n"] for k in common):
            difference = site_differences(ours, theirs, seed=seed)["mae_m"]
            found["model_minus"][name] = {"mae_m": asdict(difference)}
    if len(measured.model) < MIN_SITES:
        found["note"] = "one site: no interval can be given, since sites are what is resampled"
    return found


def _intervals(sites: Mapping[str, HeightSums], seed: int) -> dict[str, Any]:
    if len(sites) >= MIN_SITES:
        return {name: asdict(found) for name, found in site_intervals(sites, seed=seed).items()}
    (only,) = sites.values()
    nan = float("nan")
    return {
        name: asdict(Interval(value=value, low=nan, high=nan))
        for name, value in only.named().items()
    }


def _classes(sites: Mapping[str, HeightSums]) -> tuple[HeightClassScores, ...]:
    return reduce(HeightSums.merge, sites.values()).scores().classes


def _few(sums: HeightSums) -> dict[str, float]:
    named = sums.named()
    keys = ("mae_m", "rmse_m", "bias_predicted_minus_true_m", "r2")
    return {"pixels": float(sums.totals["n"]), **{key: named[key] for key in keys}}


def _thinned(one: Compared, most: int, seed: int) -> Compared:
    """An area with at most so many of its valid pixels, as a list: memory is bounded."""
    values, true_m = one.values[:, one.valid], one.true_m[one.valid]
    if true_m.size > most:
        area = one.area
        key = (area.image, -1 if area.label is None else area.label, area.site, str(area.window))
        some = np.sort(seeds.rng(seed, "pixels of areas", *key).permutation(true_m.size)[:most])
        values, true_m = values[:, some], true_m[some]
    valid = np.ones(true_m.shape, dtype=bool)
    return replace(one, values=values, true_m=true_m, valid=valid)


def _mae(compared: list[Compared]) -> float:
    errors = [np.abs(one.values[0] - np.maximum(one.true_m, 0))[one.valid] for one in compared]
    joined = np.concatenate(errors) if errors else np.zeros(0)
    return float(joined.mean()) if joined.size else float("nan")


def _change(usual: list[Compared], other: list[Compared]) -> dict[str, float]:
    def gap(a: Compared, b: Compared) -> Float[np.ndarray, " n"]:
        return np.asarray(np.abs(a.values[0] - b.values[0])[a.valid & b.valid])

    gaps = [gap(a, b) for a, b in zip(usual, other, strict=True)]
    joined = np.concatenate(gaps) if gaps else np.zeros(0)
    mean = float(joined.mean()) if joined.size else float("nan")
    return {"mean_change_m": mean, "mae_m": _mae(other)}


def finite(value: Any) -> Any:
    """Return a value with None for whatever is not finite, as JSON wants it."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value
