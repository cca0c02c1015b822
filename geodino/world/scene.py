"""A scene of the generated world: pixels of one sensor on one date, and the truth behind them."""

from dataclasses import dataclass
from datetime import date as Date

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, Shaped, UInt8

from geodino.errors import SourceError, suggest
from geodino.world.calendar import aerial_sun, parse_date, satellite_sun
from geodino.world.compose import CLASSES, Setting, compose
from geodino.world.land import districts_around
from geodino.world.noise import Frame
from geodino.world.sensors import SENSORS, Sensor, SensorName
from geodino.world.standing import Standing, margin, stand

__all__ = ["CLASSES", "DATE", "BuildingTruth", "Scene", "TreeTruth", "changed", "scene"]

DATE = "2023-07-01"
"""The date of a scene that is not told another."""

_BLOCK = 512
"""Side of the blocks in which pixels are made: they stay near the processor's cache."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BuildingTruth:
    """The buildings of a scene, as far as they are in the picture; one entry per building."""

    boxes: Int64[np.ndarray, "n 4"]
    """Tight boxes ``x0, y0, x1, y1`` in pixels, half-open: columns ``x0`` to ``x1 - 1``."""

    kind: UInt8[np.ndarray, " n"]
    """Index into ``buildings.KINDS``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TreeTruth:
    """The trees whose stems stand in a scene; one entry per tree."""

    xy: Float64[np.ndarray, "n 2"]
    """Stems in pixels (column, row), from the corner of the first pixel."""

    height_m: Float32[np.ndarray, " n"]
    """Height of the top above the ground."""

    radius_m: Float32[np.ndarray, " n"]
    """Radius of the crown."""

    conifer: Bool[np.ndarray, " n"]
    """Conifers; the others are broadleaved."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Pixels and truth on one grid. The values are made up: test data, never a result."""

    pixels: Shaped[np.ndarray, "c h w"]
    """Stored values in the sensor's type."""

    valid: Bool[np.ndarray, "h w"]
    """True where a pixel may be used; everywhere, until a mask is applied."""

    classes: UInt8[np.ndarray, "h w"]
    """Land cover under the clouds, an index into ``CLASSES``. At 10 m and more, whole towns count
    as buildings."""

    height_m: Float32[np.ndarray, "h w"]
    """Height of trees and buildings above the ground."""

    sky: UInt8[np.ndarray, "h w"]
    """Clouds and their shadows, an index into ``clouds.SKY``."""

    buildings: BuildingTruth
    """Single buildings; none where pixels are larger than they are."""

    trees: TreeTruth
    """Single trees; none where pixels are larger than they are."""

    sensor: Sensor
    """What took the picture: bands, scale, ground sampling distance."""

    frame: Frame
    """Where in the world it lies."""

    seed: int
    """Which world it is of."""

    date: Date
    """When it was taken."""


def scene(
    seed: int,
    *,
    height: int,
    width: int,
    sensor: SensorName | str = "rgb",
    date: str = DATE,
    clouds: float = 0.0,
    top: int = 0,
    left: int = 0,
) -> Scene:
    """Generate a scene; the same arguments give the same bits on any machine.

    Scenes of one seed and sensor are windows of one endless world: where two of them overlap,
    they agree. Another date is another season on the same grid; from year to year crops change,
    towns grow, woods are felled and grow again.

    Args:
        seed: which world.
        height: rows.
        width: columns.
        sensor: one of ``sensors.SENSORS``: ``rgb``, ``rgbn``, ``s2``, ``landsat``, ``s1``.
        date: day of the picture, ``year-month-day``.
        clouds: share of the world under clouds on that day, 0 to 1; radar sees through them.
        top: first row of the window.
        left: first column of the window.

    Raises:
        SourceError: an unknown sensor, a wrong date, an empty window, no share of clouds.
    """
    if sensor not in SENSORS:
        raise SourceError(
            f"{sensor!r} is no sensor of the generated world.{suggest(sensor, SENSORS)} "
            f"There are: {', '.join(SENSORS)}."
        )
    if height < 1 or width < 1:
        raise SourceError(f"A scene needs at least one pixel, not {height} x {width}.")
    if not 0 <= clouds <= 1:
        raise SourceError(f"The share of clouds must lie between 0 and 1, not {clouds}.")
    device, day = SENSORS[sensor], parse_date(date)
    frame = Frame(top=top, left=left, height=height, width=width, gsd_m=device.gsd_m)
    sun = aerial_sun(seed, day) if device.resolves_objects else satellite_sun(day)
    setting = Setting.of(seed, day, device, sun, 0.0 if device.radar else clouds)
    standing = None
    if device.resolves_objects:
        wide = frame.padded(margin(frame, sun))
        standing = stand(wide, seed, day, districts_around(wide, seed, day.year), sun)
    return _filled(frame, setting, standing)


def _filled(frame: Frame, setting: Setting, standing: Standing | None) -> Scene:
    """Make a scene block by block."""
    bands, shape = setting.sensor.bands, frame.shape
    made = Scene(
        pixels=np.empty((len(bands), *shape), dtype=setting.sensor.dtype),
        valid=np.ones(shape, dtype=bool),
        classes=np.empty(shape, dtype=np.uint8),
        height_m=np.empty(shape, dtype=np.float32),
        sky=np.empty(shape, dtype=np.uint8),
        buildings=_buildings(standing, frame),
        trees=_trees(standing, frame),
        sensor=setting.sensor,
        frame=frame,
        seed=setting.seed,
        date=setting.day,
    )
    for top in range(0, frame.height, _BLOCK):
        for left in range(0, frame.width, _BLOCK):
            height, width = min(_BLOCK, frame.height - top), min(_BLOCK, frame.width - left)
            part = (slice(top, top + height), slice(left, left + width))
            done = compose(frame.cut(top, left, height, width), setting, standing)
            made.pixels[:, *part] = done.pixels
            made.classes[part], made.height_m[part] = done.classes, done.height_m
            made.sky[part] = done.sky
    return made


def changed(before: Scene, after: Scene) -> Bool[np.ndarray, "h w"]:
    """Where the land cover of a place differs between two dates: exact, under clouds too.

    Raises:
        SourceError: the scenes are not of one world, sensor and window.
    """
    same = (before.seed, before.sensor.gsd_m, before.frame)
    other = (after.seed, after.sensor.gsd_m, after.frame)
    if same != other:
        raise SourceError(
            "Changes are found between two scenes of one seed, pixel size and window, not between "
            f"{same} and {other}."
        )
    return np.asarray(before.classes != after.classes)


def _buildings(standing: Standing | None, frame: Frame) -> BuildingTruth:
    """Find the box around the pixels of every building."""
    if standing is None:
        return BuildingTruth(
            boxes=np.zeros((0, 4), dtype=np.int64), kind=np.zeros(0, dtype=np.uint8)
        )
    number = standing.layers.number[standing.cut(frame)]
    row, column = np.nonzero(number >= 0)
    own = number[row, column]
    order = np.argsort(own, kind="stable")
    row, column, own = row[order], column[order], own[order]
    which, first = np.unique(own, return_index=True)
    if len(which) == 0:
        return _buildings(None, frame)
    low = [np.minimum.reduceat(axis, first) for axis in (column, row)]
    high = [np.maximum.reduceat(axis, first) + 1 for axis in (column, row)]
    return BuildingTruth(boxes=np.stack([*low, *high], axis=1), kind=standing.buildings.kind[which])


def _trees(standing: Standing | None, frame: Frame) -> TreeTruth:
    if standing is None:
        return TreeTruth(
            xy=np.zeros((0, 2)),
            height_m=np.zeros(0, dtype=np.float32),
            radius_m=np.zeros(0, dtype=np.float32),
            conifer=np.zeros(0, dtype=bool),
        )
    trees = standing.trees
    x, y = trees.x_m / frame.gsd_m - frame.left, trees.y_m / frame.gsd_m - frame.top
    inside = (x >= 0) & (x < frame.width) & (y >= 0) & (y < frame.height)
    return TreeTruth(
        xy=np.stack([x[inside], y[inside]], axis=1),
        height_m=trees.height_m[inside],
        radius_m=trees.radius_m[inside],
        conifer=trees.conifer[inside],
    )
