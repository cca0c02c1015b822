"""A map in memory, for rasters that fit there."""

from concurrent.futures import Executor

import numpy as np
from jaxtyping import Bool, Float

from geodino.geo.windows import Window
from geodino.infer.chips import Raster
from geodino.infer.cover import Cover
from geodino.infer.engine import Predictor, predicted
from geodino.infer.ground import Ground, Plain, Regrid, Resampled


def predict_window(
    raster: Raster,
    predictor: Predictor,
    cover: Cover,
    *,
    threads: Executor,
    regrid: Regrid | None = None,
    window: Window | None = None,
) -> tuple[Float[np.ndarray, "k h w"], Bool[np.ndarray, "h w"]]:
    """Return the predictions of a window of the map, and which of them mean something.

    The values are those a map on disk would have (see :mod:`geodino.infer.render`).

    Args:
        raster: the pixels.
        predictor: the model.
        cover: how chips cover the grid the model sees.
        threads: that read.
        regrid: the model's grid, where it is not the raster's.
        window: of the map; None is all of it.

    Returns:
        Values, NaN where none is meant, and where they are valid.
    """
    if window is None:
        whole = raster.grid if regrid is not None else None
        height = cover.rows.out_length if whole is None else whole.height
        width = cover.columns.out_length if whole is None else whole.width
        window = Window(0, 0, height, width)
    ground: Ground
    if regrid is None:
        region = window
        ground = Plain(raster, cover, window, threads=threads, wanted=None)
    else:
        region = regrid.region(window)
        ground = Resampled(raster, regrid, cover, window, threads=threads, wanted=None)
    values = np.full((predictor.channels, window.height, window.width), np.nan, dtype=np.float32)
    valid = np.zeros((window.height, window.width), dtype=bool)
    for strip in ground.on_map(predicted(ground, predictor, cover, region)):
        used = ground.used(strip.top, strip.top + strip.height)
        rows = slice(strip.top - window.top, strip.top - window.top + strip.height)
        valid[rows] = used
        if strip.values is not None:
            values[:, rows] = np.where(used, strip.values, np.float32(np.nan))
    return values, valid
