"""What a trained head is worth: scores with intervals beside floors, coverage, effects of chips."""

from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from functools import reduce
from typing import Any

from geodino.errors import RunError
from geodino.evals.results import MODEL
from geodino.files import finite
from geodino.infer.engine import Predictor
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
from geodino.runs.finetune.canopy.judge import Judge, Measured, Subject
from geodino.tasks.canopy.areas import Compared
from geodino.tasks.canopy.config import CanopyProtocol
from geodino.tasks.canopy.evaluate import SiteValues

Intervals = ResidualIntervals | QuantileIntervals


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


def results_of(
    subject: Subject, predictor: Predictor, threads: Executor, *, effects: bool = True
) -> Results:
    """Measure a model on test, validation and calibration ground.

    Args:
        subject: the model and the ground.
        predictor: the model on its device; see ``Judge``.
        threads: that read.
        effects: whether the effect of other chips and turns is measured too.
    """
    config, seed = subject.config, subject.seed
    judge = Judge(subject, predictor, threads)
    floors = judge.floors()
    test, val = judge.measure("test", floors), judge.measure("val", floors)
    calibration = judge.measure("calibration", None)
    quantiles = subject.model.config.quantiles
    intervals, missing = calibrated(calibration, subject)
    reported = test or val
    facts: dict[str, Any] = {
        "reported_on": reported.which if reported else None,
        "scored": scored_words(config.protocol),
        "floors": {
            "mean_height_m": floors.mean.mean_m,
            "greenness": floors.greenness.name or "none: red, green and blue are not known",
        },
        "val": scored(val, seed=seed),
        "test": scored(test, seed=seed),
        "intervals": None if intervals is None else intervals.model_dump(mode="json"),
        "intervals_missing": missing,
        "coverage": None,
        "effects_on_val": judge.effects() if effects else None,
        "classes": [asdict(one) for one in _classes(reported.model)] if reported else [],
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


def scored_words(protocol: CanopyProtocol) -> str:
    """Say which labels are scored; begins with a space, and is empty where all are."""
    below = "" if protocol.below_m is None else f" below {protocol.below_m:g} m"
    where = "" if protocol.vegetation is None else " of vegetation"
    return f" Only labels{where}{below} are scored." if below or where else ""


def calibrated(measured: Measured | None, subject: Subject) -> tuple[Intervals | None, str]:
    """Return intervals calibrated on sites that nothing else saw; or None, and why."""
    config = subject.config
    if measured is None:
        return None, "No interval: there is no calibration ground (split.shares.calibration)."
    least = config.intervals.min_pixels_per_site
    enough = [site for site in measured.values if site.true_m.size >= least]
    small = len(measured.values) - len(enough)
    seed, quantiles = subject.seed, subject.model.config.quantiles
    try:
        if len(quantiles) >= 2:
            return fit_quantile_intervals(
                [
                    QuantileSite(
                        name=s.name,
                        lower_m=s.values[1],
                        upper_m=s.values[len(quantiles)],
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
        of = f" Of {len(measured.values)} calibration sites {small} have fewer than {least} labels and "
        return None, f"No interval: {error}" + (
            f"{of}do not count (intervals.min_pixels_per_site)." if small else ""
        )


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
            low, high = intervals.interval(site.values[1], site.values[len(quantiles)])
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
    rows = {MODEL: measured.model, **measured.floors}
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
