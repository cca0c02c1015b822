"""A scene of the generated world: pixels of one sensor and the truth behind them."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int64, Shaped, UInt8

from geodino import seeds
from geodino.errors import SourceError, suggest
from geodino.world.cover import Ground, grow
from geodino.world.land import Land, lay_out
from geodino.world.noise import Frame, fractal, grain
from geodino.world.objects import CROWN_M, TALLEST_M, Buildings, Trees, build, plant, shadows
from geodino.world.spectra import SENSORS, Sensor, SensorName, material, stored

Map = Float32[np.ndarray, "h w"]

CLASSES = ("grass", "arable", "trees", "water", "paved", "track", "building")
"""Names of the values of ``Scene.classes``."""

_GRASS, _ARABLE, _TREES, _WATER, _PAVED, _TRACK, _BUILDING = range(7)

_SKY = 0.36
"""Share of the light that comes from the sky and reaches shadows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """Pixels and truth on one grid. The values are made up: test data, never a result."""

    pixels: Shaped[np.ndarray, "c h w"]
    """Stored values, uint8 or uint16."""

    valid: Bool[np.ndarray, "h w"]
    """True where a pixel may be used; everywhere, until a mask is applied."""

    classes: UInt8[np.ndarray, "h w"]
    """Land cover, an index into ``CLASSES``."""

    height_m: Float32[np.ndarray, "h w"]
    """Height of trees and buildings above the ground."""

    sensor: Sensor
    """What took the picture: bands, scale, ground sampling distance."""

    frame: Frame
    """Where in the world it lies."""


def scene(
    seed: int,
    *,
    height: int,
    width: int,
    sensor: SensorName | str = "rgb",
    top: int = 0,
    left: int = 0,
) -> Scene:
    """Generate a scene; the same arguments give the same bits on any machine.

    Scenes of one seed and sensor are windows of one endless world: where two of them overlap,
    they agree.

    Args:
        seed: which world.
        height: rows.
        width: columns.
        sensor: ``rgb`` (0.6 m, uint8) or ``s2`` (10 m, 12 bands, uint16).
        top: first row of the window.
        left: first column of the window.

    Raises:
        SourceError: an unknown sensor or an empty window.
    """
    if sensor not in SENSORS:
        raise SourceError(
            f"{sensor!r} is no sensor of the generated world.{suggest(sensor, SENSORS)} "
            f"There are: {', '.join(SENSORS)}."
        )
    if height < 1 or width < 1:
        raise SourceError(f"A scene needs at least one pixel, not {height} x {width}.")
    device = SENSORS[sensor]
    frame = Frame(top=top, left=left, height=height, width=width, gsd_m=device.gsd_m)
    sun, tangent = _sun(seed)
    # What stands outside throws its shadow in; slopes need a neighbour.
    margin = 3
    if device.resolves_objects:
        margin += int((TALLEST_M / tangent + 2 * CROWN_M) / device.gsd_m)
    wide = frame.padded(margin)
    land = lay_out(wide, seed)
    ground = grow(wide, seed, land)
    light, classes, tall, reflectance = _compose(wide, seed, land, ground, device, sun, tangent)
    reflectance *= light
    inner = (slice(margin, margin + height), slice(margin, margin + width))
    reflectance = _blurred(reflectance)[:, inner[0], inner[1]]
    for band in range(len(reflectance)):
        reflectance[band] += np.float32(device.noise) * grain(frame, seed, "sensor", sensor, band)
    pixels = stored(reflectance, device)
    return Scene(
        pixels=pixels,
        valid=np.ones((height, width), dtype=bool),
        classes=np.ascontiguousarray(classes[inner]),
        height_m=np.ascontiguousarray(tall[inner]),
        sensor=device,
        frame=frame,
    )


def _compose(
    frame: Frame,
    seed: int,
    land: Land,
    ground: Ground,
    sensor: Sensor,
    sun: tuple[float, float],
    tangent: float,
) -> tuple[np.ndarray, UInt8[np.ndarray, "h w"], Map, Float32[np.ndarray, "c h w"]]:
    """Lay things over the ground, then light them: light, classes, heights, reflectance."""
    table = sensor.table
    image = table[:, ground.soil] * (1 - ground.cover) + table[:, ground.plant] * ground.cover
    image *= ground.gain
    classes = np.where(ground.crop, np.uint8(_ARABLE), np.uint8(_GRASS))
    paint = _Painter(image, classes, table)
    gsd = np.float32(frame.gsd_m)
    paint.over(_edge(land.track_m, gsd, np.float32(3.0)), material("gravel"), _TRACK)
    buildings, trees = _standing(frame, seed, land, sensor)
    worn = 1 + np.float32(0.05) * fractal(frame, seed, "wear", wavelength_m=14.0, octaves=4)
    road = _edge(land.road_m, gsd, np.float32(6.0))
    paint.over(np.maximum(road, buildings.paved), material("asphalt"), _PAVED, gain=worn)
    silt = fractal(frame, seed, "silt", wavelength_m=1500.0, octaves=2)
    water = _edge(land.water_m, gsd, np.float32(20.0)) * (road < np.float32(0.5))
    paint.over(water, material("clear water"), _WATER)
    muddy = np.clip(np.float32(0.5) + np.float32(1.2) * silt, 0, 1)
    paint.over(water * muddy, material("turbid water"), _WATER)
    # Over water a road is a bridge; the reed belt beside it is grass.
    least = 0.5 if sensor.resolves_objects else 0.05
    paint.over(buildings.cover, buildings.roof, _BUILDING, gain=buildings.gain, least=least)
    crowned = (trees.height_m > 0).astype(np.float32) if sensor.resolves_objects else _canopy(land)
    crowned = crowned * (buildings.cover < np.float32(0.5))
    leaf = np.where(trees.conifer, material("conifer"), material("broadleaf"))
    leaves = 1 + np.float32(0.07) * grain(frame, seed, "leaves")
    paint.over(crowned, leaf, _TREES, gain=trees.gain * leaves)
    tall = np.where(classes == _TREES, trees.height_m, 0)
    tall = np.where(classes == _BUILDING, buildings.height_m, tall).astype(np.float32)
    light = _light(land.relief_m + tall, gsd, sun, tangent)
    shade = np.zeros(tall.shape, dtype=bool)
    if sensor.resolves_objects:
        shade = shadows(tall, gsd_m=frame.gsd_m, sun=sun, tangent=tangent)
    # The sky is blue: shadows keep more of the short waves.
    wavelengths = np.array(sensor.columns)
    sky = np.where(wavelengths <= 1, 1.25, np.where(wavelengths == 2, 1.0, 0.85)) * _SKY
    full = sky[:, None, None] + (1 - _SKY) * np.where(shade, 0, light)
    return full.astype(np.float32), classes, tall, image


class _Painter:
    """Lays materials over an image; a pixel's class is the last to cover ``least`` of it."""

    def __init__(self, image: np.ndarray, classes: np.ndarray, table: np.ndarray) -> None:
        self.image, self.classes, self.table = image, classes, table

    def over(
        self,
        share: Map,
        what: int | Int64[np.ndarray, "h w"],
        label: int,
        *,
        gain: Map | float = 1.0,
        least: float = 0.5,
    ) -> None:
        touched = share > 0
        if not touched.any():
            return
        part = share[touched]
        kinds = what[touched] if isinstance(what, np.ndarray) else what
        gains = gain[touched] if isinstance(gain, np.ndarray) else gain
        for band, rows in zip(self.image, self.table, strict=True):
            band[touched] = band[touched] * (1 - part) + rows[kinds] * gains * part
        self.classes[touched & (share >= np.float32(least))] = label


def _standing(frame: Frame, seed: int, land: Land, sensor: Sensor) -> tuple[Buildings, Trees]:
    """Houses and trees one by one, or nothing of them where pixels are larger than they are."""
    shape = (frame.height, frame.width)
    if sensor.resolves_objects:
        buildings = build(frame, land)
        free = (buildings.cover > 0) | (buildings.paved > 0.5) | (land.road_m > -2)
        free |= (land.water_m > -1) | (land.track_m > -1)
        return buildings, plant(frame, seed, land, free)
    # A town from far: a third roofs, a quarter streets, in a mix that changes from pixel to pixel.
    mottle = np.clip(1 + np.float32(0.4) * grain(frame, seed, "town mix"), 0.3, 1.7)
    share = np.where(land.urban, np.where(land.industrial, 0.3, 0.2), 0) * mottle
    bright = land.industrial & (grain(frame, seed, "halls") > 0)
    roof = np.where(bright, material("bright roof"), material("red roof"))
    stand = (land.parcel >> np.uint64(62)) == 0
    buildings = Buildings(
        cover=np.clip(share, 0, 1).astype(np.float32),
        height_m=np.where(land.urban, 6.0, 0.0).astype(np.float32),
        roof=roof,
        gain=np.ones(shape, dtype=np.float32),
        paved=np.where(land.urban, np.where(land.industrial, 0.5, 0.24), 0).astype(np.float32),
    )
    height = np.where(land.wood > 0, 14 + 8 * np.minimum(land.wood, 1), 0)
    mottled = 1 + np.float32(0.08) * grain(frame, seed, "canopy")
    trees = Trees(height_m=height.astype(np.float32), conifer=stand, gain=mottled)
    return buildings, trees


def _canopy(land: Land) -> Map:
    """Share of a coarse pixel under trees."""
    wooded = (land.wood > -0.08) & (land.water_m < 0)
    return np.asarray(np.clip(0.5 + land.wood * np.float32(6), 0, 1) * wooded, dtype=np.float32)


def _edge(inside_m: Map, gsd_m: np.float32, width_m: np.float32) -> Map:
    """Share of a pixel inside a shape whose border is ``inside_m`` away, ``width_m`` wide."""
    most = np.minimum(np.float32(1), width_m / gsd_m)
    return np.asarray(np.clip(np.float32(0.5) + inside_m / gsd_m, 0, most))


def _light(surface_m: Map, gsd_m: np.float32, sun: tuple[float, float], tangent: float) -> Map:
    """Sunlight on a surface: cosine of the angle to the sun, 1 on flat ground."""
    dy, dx = np.gradient(surface_m, gsd_m)
    # Crowns are rough; steep walls would flicker between black and white.
    dy, dx = (np.clip(slope, np.float32(-1.6), np.float32(1.6)) for slope in (dy, dx))
    facing = 1 - (dy * np.float32(sun[0]) + dx * np.float32(sun[1])) / np.float32(tangent)
    return np.asarray(np.clip(facing / np.sqrt(1 + dy * dy + dx * dx), 0, np.float32(1.7)))


def _sun(seed: int) -> tuple[tuple[float, float], float]:
    """Direction on the ground towards the sun, between south-east and south-west; elevation."""
    t = -0.45 + 0.9 * float(seeds.rng(seed, "sun").random())
    sine, cosine = 2 * t / (1 + t * t), (1 - t * t) / (1 + t * t)
    return (cosine, sine), 0.95 + 0.5 * float(seeds.rng(seed, "sun height").random())


def _blurred(image: Float32[np.ndarray, "c h w"]) -> Float32[np.ndarray, "c h w"]:
    """The optics: weights 1-6-1 along both axes."""
    for axis in (1, 2):
        out = image * np.float32(0.75)
        front = [slice(None)] * 3
        back = [slice(None)] * 3
        front[axis], back[axis] = slice(1, None), slice(None, -1)
        out[tuple(front)] += image[tuple(back)] * np.float32(0.125)
        out[tuple(back)] += image[tuple(front)] * np.float32(0.125)
        image = out
    return image
