"""A raster as few pixels: what the boxes found in it are drawn over."""

import math
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float

from geodino.geo.bands import Band, rgb_indices
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.infer.chips import Raster
from geodino.infer.ground import Regrid

_READ = 1 << 20
"""About how many pixels a thread reads at a time."""


@dataclass(frozen=True, slots=True)
class Overview:
    """A part of a raster as few pixels."""

    values: Float[np.ndarray, "c h w"]
    """Red, green and blue where the raster has them, else its first band."""

    valid: Bool[np.ndarray, "h w"]
    corner: tuple[float, float]
    """Column and row of the raster that it begins at."""

    steps: tuple[float, float]
    """Pixels of the raster per pixel, across and down."""

    def placed(self, xyxy: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 4"]:
        """Return boxes of the raster in its pixels."""
        moved: Float[np.ndarray, "n 4"] = (xyxy - np.tile(self.corner, 2)) / np.tile(self.steps, 2)
        return moved


def overview(
    raster: Raster, bands: tuple[Band, ...], part: Window, *, side: int, threads: Executor
) -> Overview:
    """Read a part of a raster as means of its valid pixels, each pixel once.

    Args:
        raster: the pixels.
        bands: that it has.
        part: which of its pixels.
        side: longest side of the result, pixels.
        threads: that read.
    """
    grid = raster.grid
    shrink = max(1.0, max(part.height, part.width) / side)
    width, height = (max(1, math.floor(n / shrink)) for n in (grid.width, grid.height))
    steps = grid.width / width, grid.height / height
    small = Grid(grid.crs, grid.transform @ Affine.scale(*steps), width=width, height=height)
    seen = raster if shrink == 1 else Regrid(grid, small).seen(raster)
    left, top = math.floor(part.left / steps[0]), math.floor(part.top / steps[1])
    right = min(width, math.ceil(part.right / steps[0]), left + side)
    bottom = min(height, math.ceil(part.bottom / steps[1]), top + side)
    rows = max(1, int(_READ / ((right - left) * steps[0] * steps[1])))
    strips = [
        Window(y, left, min(rows, bottom - y), right - left) for y in range(top, bottom, rows)
    ]
    read = list(threads.map(seen.read, strips))
    shown = list(rgb_indices(bands) or (0,))
    values = np.concatenate([pixels[shown] for pixels, _ in read], axis=1).astype(np.float64)
    valid = np.concatenate([valid for _, valid in read])
    return Overview(values, valid, (left * steps[0], top * steps[1]), steps)
