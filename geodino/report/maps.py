"""Maps of heights in a report: image, prediction, truth and error side by side, to one scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float, UInt8
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy import ndarray

from geodino.geo.height_colours import height_colours, height_ticks_m, round_highest_m
from geodino.report.picture_table import Cell, Seen, picture_table, place_row
from geodino.report.pictures import enlarged, enlargement, hatched, shrunk
from geodino.report.plots import svg
from geodino.report.words import tick

MAP_SIDE = 256
"""Longest side of a map in the page, pixels."""

_SHOWN = 99.5
"""Percentile of the heights that the scale reaches; the same of the errors is 95."""

_ERRORS_SHOWN = 95.0

_COLUMNS = ("image", "predicted", "true", "predicted minus true")


@dataclass(frozen=True, kw_only=True, slots=True)
class HeightCase:
    """One place: what was seen, what was predicted, what is true.

    The image may have other pixels than the heights; all pictures show the same ground.
    """

    name: str
    """Site or tile, as the reader knows it."""

    image: Seen

    predicted_m: Float[ndarray, "h w"]
    """Metres; NaN where there is no prediction."""

    true_m: Float[ndarray, "h w"]
    """Metres; undefined where ``valid`` is False."""

    valid: Bool[ndarray, "h w"]
    """Where the truth may be used."""

    @property
    def both(self) -> Bool[ndarray, "h w"]:
        """Where there is a truth and a prediction."""
        return np.asarray(self.valid & np.isfinite(self.predicted_m))

    @property
    def errors_m(self) -> Float[ndarray, " n"]:
        """Predicted minus true, metres, wherever there are both; a truth below 0 m is 0 m."""
        both = self.both
        return np.asarray(self.predicted_m[both] - np.maximum(self.true_m[both], 0.0))


def height_panels(
    cases: Sequence[HeightCase], *, highest_m: float | None = None, error_m: float | None = None
) -> Markup:
    """Draw each case as a row of four pictures, with one legend for all heights and one for errors.

    Hatched: nothing is known there. Pictures of more than ``MAP_SIDE`` pixels are shrunk to means;
    errors are those of the means then.

    Args:
        cases: what to draw; none gives an empty fragment.
        highest_m: height of the darkest colour; None suits the heights of all cases.
        error_m: error of the strongest colours; None suits the errors of all cases.

    Returns:
        A fragment of the page: table and legends, coloured for light and dark by its style sheet.
    """
    if not cases:
        return Markup("")
    highest = _highest(cases) if highest_m is None else highest_m
    worst = _worst(cases) if error_m is None else error_m
    rows = (_row(case, highest_m=highest, error_m=worst) for case in cases)
    return picture_table(_COLUMNS, rows) + Markup(
        '<div class="two">'
        "<figure>{heights}<figcaption>canopy height, metres</figcaption></figure>"
        "<figure>{errors}<figcaption>predicted minus true, metres: below 0 is too low, above 0 too "
        "tall</figcaption></figure></div>"
    ).format(heights=_height_legend(highest), errors=_error_legend(worst))


def error_colours(error_m: Float[ndarray, "*s"], *, worst_m: float) -> UInt8[ndarray, "*s 3"]:
    """Return purple where too low, orange where too tall, pale where right; metres.

    Both colours differ in lightness from the pale middle alike, and no eye confuses them.
    """
    share = np.nan_to_num(np.asarray(error_m, dtype=np.float64) / worst_m).clip(-1.0, 1.0)
    table = mpl.colormaps["PuOr_r"]
    return np.asarray(np.rint(255 * np.asarray(table((share + 1) / 2))[..., :3]), dtype=np.uint8)


def _highest(cases: Sequence[HeightCase]) -> float:
    shown = [case.true_m[case.valid] for case in cases]
    shown += [case.predicted_m[np.isfinite(case.predicted_m)] for case in cases]
    values = np.concatenate(shown)
    return round_highest_m(float(np.percentile(values, _SHOWN)) if values.size else 0.0)


def _worst(cases: Sequence[HeightCase]) -> float:
    errors = np.abs(np.concatenate([case.errors_m for case in cases]))
    return round_highest_m(float(np.percentile(errors, _ERRORS_SHOWN)) if errors.size else 0.0)


def _row(case: HeightCase, *, highest_m: float, error_m: float) -> Markup:
    there, both = np.isfinite(case.predicted_m), case.both
    error = case.predicted_m - np.maximum(case.true_m, 0.0)
    errors = case.errors_m
    said = "no truth"
    if errors.size:
        said = f"mean error {errors.mean():+.2f} m, mean absolute {np.abs(errors).mean():.2f} m"
    cells = (
        Cell(rgb=case.image.picture(side=MAP_SIDE), kind="photo", words="image"),
        _map(_heights(case.predicted_m, there, highest_m), "predicted heights"),
        _map(_heights(case.true_m, case.valid, highest_m), "true heights"),
        _map(_errors(error, both, error_m), f"errors: {said}"),
    )
    return place_row(case.name, said, cells)


def _map(rgb: UInt8[ndarray, "h w 3"], words: str) -> Cell:
    return Cell(rgb=rgb, kind="map", words=words)


def _heights(
    height_m: Float[ndarray, "h w"], valid: Bool[ndarray, "h w"], highest_m: float
) -> UInt8[ndarray, "h2 w2 3"]:
    values, usable = _small(height_m, valid)
    return _finished(height_colours(values, highest_m=highest_m), usable)


def _errors(
    error_m: Float[ndarray, "h w"], valid: Bool[ndarray, "h w"], worst_m: float
) -> UInt8[ndarray, "h2 w2 3"]:
    values, usable = _small(error_m, valid)
    return _finished(error_colours(values, worst_m=worst_m), usable)


def _small(
    values: Float[ndarray, "h w"], valid: Bool[ndarray, "h w"]
) -> tuple[Float[ndarray, "h2 w2"], Bool[ndarray, "h2 w2"]]:
    known = np.where(valid, values, 0.0)
    means, usable = shrunk(known[None], valid, side=MAP_SIDE)
    return means[0], usable


def _finished(
    rgb: UInt8[ndarray, "h w 3"], valid: Bool[ndarray, "h w"]
) -> UInt8[ndarray, "h2 w2 3"]:
    factor = enlargement(max(valid.shape), wanted=MAP_SIDE)
    return hatched(enlarged(rgb, factor), enlarged(valid, factor))


def _height_legend(highest_m: float) -> Markup:
    heights = np.linspace(0.0, highest_m, 256)
    ticks = height_ticks_m(highest_m)
    return _legend(
        height_colours(heights[None], highest_m=highest_m),
        ticks=ticks,
        words=[*(tick(t, ticks[1]) for t in ticks[:-1]), f"{tick(highest_m, ticks[1])}+"],
        low=0.0,
        high=highest_m,
        label=f"Colours of heights from 0 to {highest_m:g} m",
    )


def _error_legend(worst_m: float) -> Markup:
    errors = np.linspace(-worst_m, worst_m, 256)
    ticks = [worst_m * share for share in (-1.0, -0.5, 0.0, 0.5, 1.0)]
    return _legend(
        error_colours(errors[None], worst_m=worst_m),
        ticks=ticks,
        words=[f"{t:+g}" if t else "0" for t in ticks],
        low=-worst_m,
        high=worst_m,
        label=f"Colours of errors from {-worst_m:g} to {worst_m:g} m",
    )


def _legend(
    colours: UInt8[ndarray, "1 n 3"],
    *,
    ticks: Sequence[float],
    words: Sequence[str],
    low: float,
    high: float,
    label: str,
) -> Markup:
    def draw(axes: Axes) -> None:
        axes.imshow(colours, extent=(low, high, 0, 1), aspect="auto", interpolation="nearest")
        axes.set_xticks(list(ticks))
        named = dict(zip(ticks, words, strict=True))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: named.get(value, "")))
        axes.yaxis.set_major_locator(NullLocator())
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)

    return svg(draw, label=label, size=(4.4, 0.42), box=(0.03, 0.55, 0.92, 0.4))
