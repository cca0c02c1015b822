"""Curves of training as a row of small plots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from geodino.report.content import Curve
from geodino.report.curves import is_constant
from geodino.report.plots import curve_plot
from geodino.report.words import number


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """A plot and what it is called."""

    title: str
    plot: Markup


def curve_panels(curves: Sequence[Curve], titles: Mapping[str, str]) -> list[Panel]:
    """Plot those of the curves that have a title, in the order of the titles.

    Curves that never change are left out, unless they are one value long.
    """
    by_name: dict[str, Any] = {curve.name: curve for curve in curves}
    found = [by_name[name] for name in titles if name in by_name]
    return [
        _panel(curve, titles[curve.name])
        for curve in found
        if len(curve.values) == 1 or not is_constant(curve)
    ]


def _panel(curve: Curve, title: str) -> Panel:
    last = curve.values[np.isfinite(curve.values)]
    said = number(float(last[-1])) if len(last) else "no finite value"
    return Panel(title=title, plot=curve_plot(curve, label=f"{title}: {said} at last", log=False))
