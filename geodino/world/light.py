"""Sunlight on a surface, and the shadows of what stands on it."""

import numpy as np
from jaxtyping import Bool, Float32

from geodino.world.calendar import Sun
from geodino.world.noise import Frame

Map = Float32[np.ndarray, "h w"]

_STEEPEST = np.float32(1.6)
"""Crowns are rough; steep walls would flicker between black and white."""


def sunlight(surface_m: Map, *, gsd_m: float, sun: Sun) -> Map:
    """Cosine of the angle between a surface and the sun, over that of flat ground."""
    dy, dx = (
        np.clip(slope, -_STEEPEST, _STEEPEST) for slope in np.gradient(surface_m, np.float32(gsd_m))
    )
    toward_y, toward_x = (np.float32(part / sun.tangent) for part in sun.toward)
    facing = 1 - (dy * toward_y + dx * toward_x)
    return np.asarray(np.clip(facing / np.sqrt(1 + dy * dy + dx * dx), 0, np.float32(1.7)))


def shadows(height_m: Map, frame: Frame, sun: Sun) -> Bool[np.ndarray, "h w"]:
    """Where a flat ground with ``height_m`` upon it lies in shadow.

    One pass from the southern edge to the north: every row inherits the lower edge of the light
    from the row before, lowered by what the light falls over one row, or the things that stand
    there. A ray goes on to the neighbouring column wherever its place, a multiple of the world's
    row, is nearer to that one; so windows of one world agree.

    Args:
        height_m: height above the ground.
        frame: where the pixels lie.
        sun: the sun, more in the south than in the east or west.
    """
    rows, columns = height_m.shape
    south, east = sun.toward
    fall = np.float32(frame.gsd_m * sun.tangent / south)
    out = np.zeros((rows, columns), dtype=bool)
    # A column more on both sides, from which nothing comes.
    edge = np.zeros(columns + 2, dtype=np.float32)
    for row in range(rows - 2, -1, -1):
        np.maximum(edge[1:-1], height_m[row + 1], out=edge[1:-1])
        world = frame.top + row
        step = _nearest((world + 1) * east / south) - _nearest(world * east / south)
        edge[1:-1] = edge[1 + step : columns + 1 + step] - fall
        np.greater(edge[1:-1], height_m[row] + np.float32(0.3), out=out[row])
    return out


def reach_m(height_m: float, sun: Sun) -> float:
    """Length of a shadow, metres."""
    return height_m / sun.tangent


def _nearest(value: float) -> int:
    return int(np.floor(value + 0.5))
