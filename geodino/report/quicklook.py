"""The picture beside a map of heights, or of change: colours, a legend, a scale bar."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from affine import Affine
from jaxtyping import Bool, Float, Shaped, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from numpy import ndarray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from geodino.errors import SourceError
from geodino.files import replacing
from geodino.geo.height_colours import height_colours, height_ticks_m, round_highest_m
from geodino.io.metadata import cause, describe_file, open_raster
from geodino.report.words import tick

SIDE = 1024
"""Longest side of the picture, pixels."""

HEIGHT = "canopy height, metres"
"""What the legend says of a map of heights."""

_LEGEND = 64
"""Rows of the legend below the map."""

_LEAST = 420
"""Columns of the picture at least, so that the legend has room; a small map is enlarged for it."""

_MOST_SHOWN = 99.5
"""Percentile of the heights that the scale reaches by default: single pixels do not stretch it."""

_BAR = 200
"""Longest scale bar, pixels."""

_INK, _PAPER = "#1a1f24", "#ffffff"
_DPI = 100


@dataclass(frozen=True, slots=True)
class _Small:
    """A map as few pixels."""

    height_m: Float[ndarray, "h w"]
    valid: Bool[ndarray, "h w"]
    pixel_m: float | None
    """Ground width of one pixel; None where the map has no place on the Earth."""


def quicklook_path(map_path: Path) -> Path:
    """Return where the picture of a map lies: beside it, with the ending ``.png``."""
    return map_path.with_suffix(".png")


def highest_shown_m(map_path: Path, *, least_m: float = 5.0) -> float:
    """Return the height of the darkest colour that suits a map, metres: a round number.

    99.5 % of the heights, as the overviews have them, are no taller.

    Args:
        map_path: the map.
        least_m: what the colours end at, at least.

    Raises:
        SourceError: the map cannot be read.
    """
    return _highest(_read(map_path), least_m)


def write_quicklook(map_path: Path, *, highest_m: float | None = None, label: str = HEIGHT) -> Path:
    """Draw a map of heights, or of another measure, with a legend; no data are transparent.

    The picture has at most ``SIDE`` pixels a side. Pixels come from the overviews, so memory does
    not grow with the map. They are drawn as squares, with north above, and the scale bar is true for rows at the
    middle of the map.

    Args:
        map_path: a cloud-optimised GeoTIFF whose first band holds heights, in metres or with the
            scale that makes them metres.
        highest_m: height of the darkest colour; None is :func:`highest_shown_m`.
        label: what the legend says the colours are.

    Returns:
        Where the picture was written.

    Raises:
        SourceError: the map cannot be read.
        RunError: the picture cannot be written.
        ValueError: ``highest_m`` is not above 0.
    """
    small = _read(map_path)
    highest = _highest(small) if highest_m is None else highest_m
    factor = max(1, math.ceil(_LEAST / max(small.valid.shape)))
    rgba = _coloured(small, highest).repeat(factor, axis=0).repeat(factor, axis=1)
    pixel_m = None if small.pixel_m is None else small.pixel_m / factor
    room = max(0, _LEAST - rgba.shape[1])
    rgba = np.pad(rgba, ((0, 0), (room // 2, room - room // 2), (0, 0)))
    legend = _legend(rgba.shape[1], label, highest_m=highest, pixel_m=pixel_m)
    path = quicklook_path(map_path)
    with replacing(path) as temporary:
        imsave(
            temporary,
            np.concatenate([rgba, legend]),
            format="png",
            metadata={"Software": "geodino"},
        )
    return path


def _read(map_path: Path) -> _Small:
    info = describe_file(map_path)
    grid = info.grid
    shrink = min(1.0, SIDE / grid.width, (SIDE - _LEGEND) / grid.height)
    rows, columns = (max(1, round(side * shrink)) for side in (grid.height, grid.width))
    try:
        with open_raster(info.path) as dataset:
            # GDAL takes the overview that is next in size, so little is read.
            stored = dataset.read(
                1, out_shape=(rows, columns), resampling=Resampling.average, masked=True
            )
    except RasterioError as error:
        raise SourceError(
            f"{map_path} cannot be read for its picture: {cause(error)}. Make the map again."
        ) from error
    height_m = stored.data.astype(np.float64) * info.scales[0] + info.offsets[0]
    valid = ~np.ma.getmaskarray(stored) & np.isfinite(height_m)
    pixel_m = None
    if grid.gsd_m is not None:
        pixel_m = grid.gsd_m[0] * grid.width / columns
    height_m, valid = (north_up(one, grid.transform, grid.crs) for one in (height_m, valid))
    return _Small(height_m, valid, pixel_m)


def north_up(
    pixels: Shaped[ndarray, "h w"], place: Affine, crs: CRS | str | None
) -> Shaped[ndarray, "h w"]:
    """Return a map with north above and east to the right, where its rows or columns run against it.

    A grid that is turned, or has no place on the Earth, is left as it is stored.
    """
    if crs is None or place.b or place.d:
        return pixels
    return pixels[:: -1 if place.e > 0 else 1, :: -1 if place.a < 0 else 1]


def _highest(small: _Small, least_m: float = 5.0) -> float:
    heights = small.height_m[small.valid]
    most = float(np.percentile(heights, _MOST_SHOWN)) if heights.size else 0.0
    return round_highest_m(most, least_m=least_m)


def _coloured(small: _Small, highest_m: float) -> UInt8[ndarray, "h w 4"]:
    opacity = np.where(small.valid, 255, 0).astype(np.uint8)
    shown = np.where(small.valid, small.height_m, 0.0)
    rgb = height_colours(shown, highest_m=highest_m)
    return np.concatenate([rgb * small.valid[..., None], opacity[..., None]], axis=-1)


def _legend(
    width: int, label: str, *, highest_m: float, pixel_m: float | None
) -> UInt8[ndarray, "h w 4"]:
    """Draw the strip below the map: opaque, so that it can be read on any page."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update({"font.size": 8, "text.color": _INK})
        figure = Figure(figsize=(width / _DPI, _LEGEND / _DPI), dpi=_DPI, facecolor=_PAPER)
        axes = figure.add_axes((0.0, 0.0, 1.0, 1.0))
        axes.set(xlim=(0, width), ylim=(0, _LEGEND))
        axes.axis("off")
        _draw_ramp(axes, label, left=16, right=round(0.58 * width), highest_m=highest_m)
        if pixel_m is not None:
            _draw_scale(axes, left=round(0.58 * width) + 48, right=width - 16, pixel_m=pixel_m)
        canvas: Any = FigureCanvasAgg(figure)  # its methods have no types
        canvas.draw()
        return np.asarray(canvas.buffer_rgba(), dtype=np.uint8).copy()


def _draw_ramp(axes: Axes, label: str, *, left: int, right: int, highest_m: float) -> None:
    heights = np.linspace(0.0, highest_m, right - left)
    colours = height_colours(heights[None], highest_m=highest_m)
    axes.imshow(colours, extent=(left, right, 24, 38), aspect="auto", interpolation="nearest")
    axes.text(left, 44, label, va="bottom")
    ticks = height_ticks_m(highest_m)
    for height in ticks:
        x = left + (right - left) * height / highest_m
        axes.plot([x, x], [20, 24], color=_INK, linewidth=0.6)
        text = tick(height, ticks[1]) + ("+" if height == highest_m else "")
        axes.text(x, 18, text, ha="center", va="top")


def _draw_scale(axes: Axes, *, left: int, right: int, pixel_m: float) -> None:
    length_m = round_length_m(min(right - left, _BAR) * pixel_m)
    end = left + length_m / pixel_m
    axes.plot([left, left, end, end], [34, 28, 28, 34], color=_INK, linewidth=1.2)
    text = f"{length_m / 1000:g} km" if length_m >= 1000 else f"{length_m:g} m"
    axes.text((left + end) / 2, 24, text, ha="center", va="top")


def round_length_m(most_m: float) -> float:
    """Return the longest 1, 2 or 5 times a power of ten that is no longer, metres."""
    power = 10.0 ** math.floor(math.log10(most_m))
    return next(digit * power for digit in (5.0, 2.0, 1.0) if digit * power <= most_m * (1 + 1e-9))
