"""The picture beside a table of objects: their boxes over the raster, and a legend."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from PIL import Image, ImageDraw

from geodino.files import replacing
from geodino.report.class_quicklook import with_legend
from geodino.report.pictures import stretched
from geodino.report.quicklook import SIDE, quicklook_path

_SHOWN = (2, 98)
"""Percentiles of the values that become black and white."""

_LINE = 2
"""Width of the outlines, pixels."""


def write_box_quicklook(
    table_path: Path,
    values: Float[ndarray, "c h w"],
    valid: Bool[ndarray, "h w"],
    xyxy: Float[ndarray, "n 4"],
    numbers: Int64[ndarray, " n"],
    classes: Sequence[tuple[str, tuple[int, int, int]]],
) -> Path:
    """Draw boxes over a small picture of their raster, the surest last; no data are hatched.

    Args:
        table_path: the table; the picture lies beside it.
        values: one band or three, of at most ``SIDE`` pixels a side.
        valid: where a pixel may be used.
        xyxy: boxes in pixels of the picture, the surest first.
        numbers: class of each.
        classes: name and colour of each number.

    Returns:
        Where the picture was written.

    Raises:
        RunError: the picture cannot be written.
    """
    seen = values[:, valid] if valid.any() else np.zeros((len(values), 1))
    low, high = np.percentile(seen, _SHOWN, axis=1)
    rgb = stretched(values, valid, low=low, high=high, side=SIDE)
    picture = Image.fromarray(rgb).convert("RGBA")
    draw, factor = ImageDraw.Draw(picture), rgb.shape[1] / valid.shape[1]
    for box, number in zip(reversed((xyxy * factor).tolist()), reversed(numbers), strict=True):
        x0, y0, x1, y1 = map(round, box)
        corners = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
        draw.rectangle(corners, outline=classes[number][1], width=_LINE)
    there = [classes[number] for number in np.unique(numbers).tolist()]
    path = quicklook_path(table_path)
    with replacing(path) as temporary:
        with_legend(np.asarray(picture), there).save(temporary, format="PNG")
    return path
