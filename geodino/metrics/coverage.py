"""Whether intervals of heights hold: site by site and height by height."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from geodino.metrics.height_maps import CLASS_EDGES_M, class_names, finite_values

Values = Float[np.ndarray, "*s"]


@dataclass(frozen=True, kw_only=True, slots=True)
class IntervalSite:
    """Heights with their intervals, and the truth, of one site that was not calibrated on."""

    name: str
    predicted_m: Values
    lower_m: Values
    upper_m: Values
    true_m: Values
    valid: Bool[np.ndarray, "*s"]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupCoverage:
    """One site, or all pixels of one class of predicted height."""

    name: str
    """The site's name, or ``5-10m``."""

    pixels: int
    """Valid pixels."""

    coverage: float
    """Share of them whose truth lies in the interval, ends included; NaN without pixels."""

    width_m: float
    """Mean width of the intervals; NaN without pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CoverageReport:
    """What intervals promised and kept."""

    coverage: float
    """Mean of the coverages of the sites: what a calibration on sites promises."""

    width_m: float
    """Mean of the mean widths of the sites."""

    sites: tuple[GroupCoverage, ...]
    """Each site; a site below the promise is no breach, many of them are."""

    classes: tuple[GroupCoverage, ...]
    """By predicted height, all pixels alike; the last class has no upper edge."""

    @property
    def worst_site(self) -> GroupCoverage:
        """The site covered least."""
        return min(self.sites, key=lambda site: site.coverage)


def coverage_report(
    sites: Sequence[IntervalSite], *, class_edges_m: tuple[float, ...] = CLASS_EDGES_M
) -> CoverageReport:
    """Count how often the truth lies in its interval; a truth below 0 m counts as 0 m.

    Args:
        sites: what to count.
        class_edges_m: lower edges of the classes of predicted height; lower ones join the first.

    Raises:
        ValueError: no site, a site without valid pixels, or a valid pixel without a finite value.
    """
    if not sites:
        raise ValueError("no site to report a coverage of")
    classes = len(class_edges_m)
    total = np.zeros((3, classes))
    rows = []
    for site in sites:
        predicted, low, high, true = (
            finite_values(getattr(site, key), site.valid, name=f"{key} at {site.name}")
            for key in ("predicted_m", "lower_m", "upper_m", "true_m")
        )
        if not true.size:
            raise ValueError(f"site {site.name!r} has no valid pixel")
        true = np.maximum(true, 0.0)
        inside = ((low <= true) & (true <= high)).astype(np.float64)
        place = np.searchsorted(np.array(class_edges_m[1:]), predicted, side="right")
        for row, values in enumerate((np.ones_like(true), inside, high - low)):
            total[row] += np.bincount(place, weights=values, minlength=classes)
        rows.append(_group(site.name, float(true.size), inside.sum(), (high - low).sum()))
    return CoverageReport(
        coverage=float(np.mean([row.coverage for row in rows])),
        width_m=float(np.mean([row.width_m for row in rows])),
        sites=tuple(rows),
        classes=tuple(
            _group(name, *total[:, i]) for i, name in enumerate(class_names(class_edges_m))
        ),
    )


def _group(name: str, pixels: float, inside: float, width: float) -> GroupCoverage:
    some = pixels > 0
    return GroupCoverage(
        name=name,
        pixels=int(pixels),
        coverage=float(inside / pixels) if some else float("nan"),
        width_m=float(width / pixels) if some else float("nan"),
    )
