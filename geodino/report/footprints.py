"""A plain map of where tiles lie: footprints on a graticule, without any base map."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy import ndarray
from pyproj import Geod

from geodino.report.content import Place
from geodino.report.plots import ACCENT, INK, STEPS, svg

_AS_SHAPES = 1500
"""More footprints than this are drawn as pixels, so that the page stays small."""

_TINY = 4.0
"""Footprints narrower than this, in the units of the page, also get a dot."""

_WIDTH, _TALLEST, _FLATTEST = 5.0, 3.6, 1.4
"""Inches."""

_INSIDE = 0.84
"""Share of the width that is map."""

_PIXELS_COLOUR = "#2b7bba"
"""Between the accents of light and dark: pixels cannot follow the style sheet."""

_WGS84 = Geod(ellps="WGS84")


def footprint_map(place: Place, *, label: str) -> Markup:
    """Draw the footprints of tiles in longitude and latitude, true to shape at mid-latitude."""
    outlines = unrolled(place.outlines)
    (west, south, east, north), height = framed(outlines)

    def draw(axes: Axes) -> None:
        axes.set(xlim=(west, east), ylim=(south, north))
        as_pixels = len(outlines) > _AS_SHAPES
        colour = _PIXELS_COLOUR if as_pixels else ACCENT
        shapes = PolyCollection(
            outlines, facecolors=to_rgba(colour, 0.35), edgecolors=colour, linewidths=0.6
        )
        shapes.set_rasterized(as_pixels)
        axes.add_collection(shapes, autolim=False)
        if _are_tiny(outlines):
            middles = np.array([outline.mean(axis=0) for outline in outlines])
            axes.plot(
                *middles.T, linestyle="none", marker="o", markersize=3.5, color=colour,
                markeredgewidth=0, alpha=0.7, rasterized=as_pixels,
            )  # fmt: skip
        for axis, names in ((axes.xaxis, "EW"), (axes.yaxis, "NS")):
            axis.set_major_locator(MaxNLocator(5, steps=STEPS))
            axis.set_major_formatter(FuncFormatter(_Degrees(axis, names)))
        for side in ("top", "right"):
            axes.spines[side].set_visible(True)
        _scale_bar(axes)

    below, above = 0.25, 0.22
    whole = below + height + above
    box = (1 - _INSIDE - 0.02, below / whole, _INSIDE, height / whole)
    return svg(draw, label=label, size=(_WIDTH, whole), box=box)


def closer_map(place: Place, *, label: str) -> Markup | None:
    """Draw the most crowded part of a map whose footprints are too small to be seen as such.

    None where the whole map shows them, or where nowhere two of them are close to each other.
    """
    part = unrolled(place.outlines)
    while _are_tiny(part) and len(crowded := _most_crowded(part)) < len(part):
        part = crowded
    if len(part) == len(place.outlines) or len(part) < 2:
        return None
    return footprint_map(replace(place, outlines=tuple(part)), label=label)


def _are_tiny(outlines: Sequence[Float[ndarray, "n 2"]]) -> bool:
    (west, _, east, _), _ = framed(outlines)
    widths = [np.ptp(outline[:, 0]) for outline in outlines]
    return bool(np.median(widths) / (east - west) * _WIDTH * 72 < _TINY)


def _most_crowded(
    outlines: Sequence[Float[ndarray, "n 2"]], *, parts: int = 6
) -> list[Float[ndarray, "n 2"]]:
    """Return the footprints in the fullest of the squares the map is cut into."""
    middles = np.array([outline.mean(axis=0) for outline in outlines])
    low = middles.min(axis=0)
    side = max(float(np.ptp(middles, axis=0).max()) / parts, 1e-9)
    squares = np.minimum((middles - low) // side, parts - 1)
    _, square, counts = np.unique(squares, axis=0, return_inverse=True, return_counts=True)
    chosen = np.flatnonzero(square.ravel() == counts.argmax())
    return [outlines[i] for i in chosen.tolist()]


def unrolled(outlines: Sequence[Float[ndarray, "n 2"]]) -> list[Float[ndarray, "n 2"]]:
    """Cut the globe where most of it is empty, so that tiles on both sides of 180° stay together.

    Outlines are moved east by 360 degrees where they lie west of the widest gap in longitude.
    """
    starts = np.array([outline[:, 0].min() for outline in outlines])
    ends = np.array([outline[:, 0].max() for outline in outlines])
    order = np.argsort(starts, kind="stable")
    reach = np.maximum.accumulate(ends[order])
    gaps = starts[order][1:] - reach[:-1]
    around = starts.min() + 360.0 - ends.max()  # across 180°
    if not len(gaps) or gaps.max() <= around:
        return list(outlines)
    first = starts[order][int(gaps.argmax()) + 1]
    return [
        outline + np.array([360.0, 0.0]) if start < first else outline
        for outline, start in zip(outlines, starts, strict=True)
    ]


def framed(
    outlines: Sequence[Float[ndarray, "n 2"]],
) -> tuple[tuple[float, float, float, float], float]:
    """Return west, south, east and north of a map around the outlines, and its height in inches.

    A degree of latitude is drawn longer than one of longitude by 1 / cos(mid-latitude).
    """
    low = np.min([outline.min(axis=0) for outline in outlines], axis=0)
    high = np.max([outline.max(axis=0) for outline in outlines], axis=0)
    (x, y), (width, height) = (low + high) / 2, 1.12 * np.maximum(high - low, 1e-5)
    stretch = 1 / max(math.cos(math.radians(y)), 0.05)
    inches = min(max(_WIDTH * _INSIDE * height * stretch / width, _FLATTEST), _TALLEST)
    width = max(width, height * stretch * _WIDTH * _INSIDE / inches)
    height = width * inches / (_WIDTH * _INSIDE * stretch)
    west, south = float(x - width / 2), float(y - height / 2)
    return (west, south, west + float(width), south + float(height)), float(inches)


class _Degrees:
    """Writes degrees with as many decimals as tell two lines of the graticule apart."""

    def __init__(self, axis: Axis, names: str) -> None:
        self._axis, self._names = axis, names

    def __call__(self, value: float, _: int | None) -> str:
        first, second, *_rest = self._axis.get_majorticklocs()
        decimals = max(0, -math.floor(math.log10((second - first) * (1 + 1e-9))))
        if self._names == "EW":
            value = (value + 180.0) % 360.0 - 180.0
        text = f"{abs(value):.{decimals}f}"
        side = "" if float(text) in (0.0, 180.0) else " " + self._names[0 if value > 0 else 1]
        return f"{text}°{side}"


def _scale_bar(axes: Axes) -> None:
    """Draw a length on the ground, measured along the middle of the map."""
    (west, east), (south, north) = axes.get_xlim(), axes.get_ylim()
    latitude = min(max((south + north) / 2, -89.0), 89.0)
    per_degree_m = _WGS84.inv(west, latitude, west + 1e-3, latitude)[2] * 1e3
    length_m = nice_length((east - west) * per_degree_m / 4)
    share = length_m / per_degree_m / (east - west)
    axes.plot(
        [0, share], [1.03, 1.03], transform=axes.transAxes, color=INK, linewidth=2.0,
        solid_capstyle="butt", clip_on=False,
    )  # fmt: skip
    text = f"{length_m / 1000:,.0f} km" if length_m >= 1000 else f"{length_m:,.0f} m"
    axes.text(share + 0.01, 1.03, text, transform=axes.transAxes, color=INK, va="center")


def nice_length(length_m: float) -> float:
    """Return the largest of 1, 2 and 5 times a power of ten metres that is no longer."""
    power = 10.0 ** math.floor(math.log10(length_m))
    return max(step * power for step in (1.0, 2.0, 5.0) if step * power <= length_m * (1 + 1e-9))
