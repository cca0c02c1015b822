"""One block of a scene: things laid over the ground, lit, seen through clouds, and stored."""

from dataclasses import dataclass
from datetime import date

import numpy as np
from jaxtyping import Float32, Int64, Shaped, UInt8

from geodino.world.buildings import streets
from geodino.world.calendar import Sun, day_of_year
from geodino.world.clouds import Clouds, clouds
from geodino.world.fields import Ground, States, grow, states
from geodino.world.land import BARREN_YEARS, Land, districts_around, lay_out
from geodino.world.layers import NOTHING
from geodino.world.light import sunlight
from geodino.world.noise import Frame, eighth, fractal, grain, together
from geodino.world.radar import facing, speckle
from geodino.world.sensors import Sensor, stored
from geodino.world.spectra import material, reflectance_on
from geodino.world.standing import Standing

Map = Float32[np.ndarray, "h w"]

CLASSES = ("grass", "arable", "trees", "water", "paved", "track", "building")
"""Names of the values of ``Scene.classes``."""

GRASS, ARABLE, TREES, WATER, PAVED, TRACK, BUILDING = range(len(CLASSES))

_RED = np.uint8(material("red roof"))

_RIM = 2
"""Pixels around a block that its slopes and its blur look at, and one more for level lines."""

_SKY = 0.28
"""Share of the light that comes from the sky and reaches shadows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """What all blocks of a scene have in common."""

    seed: int
    """Which world."""

    day: date
    """When."""

    sensor: Sensor
    """What looks at it."""

    sun: Sun
    """What lights it."""

    clouds: float
    """Share of the world under clouds."""

    states: States
    """How the uses of the land look on that day."""

    table: Float32[np.ndarray, "c m"]
    """Reflectance per band and material on that day."""

    @classmethod
    def of(cls, seed: int, day: date, sensor: Sensor, sun: Sun, clouds: float) -> "Setting":
        """Look up the day's reflectances."""
        return cls(
            seed=seed,
            day=day,
            sensor=sensor,
            sun=sun,
            clouds=clouds,
            states=states(day, sensor),
            table=sensor.table(reflectance_on(day_of_year(day))),
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """A finished block; the fields are those of ``Scene``."""

    pixels: Shaped[np.ndarray, "c h w"]
    classes: UInt8[np.ndarray, "h w"]
    height_m: Map
    sky: UInt8[np.ndarray, "h w"]


def compose(frame: Frame, setting: Setting, standing: Standing | None) -> Block:
    """Make a block; ``standing`` holds single trees and houses where the sensor resolves them.

    What covers each pixel is found first, and then painted band by band: a band stays in the
    processor's cache from its soil to its stored value.
    """
    seed, day, sensor = setting.seed, setting.day, setting.sensor
    wide = frame.padded(_RIM)
    land = _land(wide, seed, day.year)
    paint = _ground(wide, setting, land)
    if standing is None:
        tall = _stand_far(paint, wide, setting, land)
    else:
        tall = _stand_near(paint, wide, setting, standing)
    above = clouds(wide, seed, day, setting.clouds, setting.sun)
    if sensor.radar:
        light = facing(land.relief_m, gsd_m=wide.gsd_m)
    else:
        surface = land.relief_m + tall * ((paint.classes == TREES) | (standing is not None))
        shade = None if standing is None else standing.shade[standing.cut(wide)]
        light = _sunlight(surface, wide, setting.sun, shade, above)
    inner = (slice(_RIM, -_RIM), slice(_RIM, -_RIM))
    pixels = np.empty((len(sensor.bands), *frame.shape), dtype=sensor.dtype)
    for number, column in enumerate(sensor.columns):
        band = paint.band(number)
        if sensor.radar:
            band *= light
        else:
            # The sky is blue: shadows keep more of the short waves.
            sky = _SKY * (1.25 if column <= 1 else 1.0 if column == 2 else 0.85)
            band *= np.float32(sky) + np.float32(1 - _SKY) * light
        if above is not None:
            above.hide(band, column)
        band = _blurred(band)[inner]
        key = (seed, "sensor", day.toordinal(), column)
        if sensor.radar:
            speckle(band, frame, *key)
        else:
            band += np.float32(sensor.noise) * grain(frame, *key)
        pixels[number] = stored(band, sensor, number)
    return Block(
        pixels=pixels,
        classes=paint.classes[inner],
        height_m=tall[inner],
        sky=np.zeros(frame.shape, dtype=np.uint8) if above is None else above.sky[inner],
    )


def _land(frame: Frame, seed: int, year: int) -> Land:
    """Lay out a frame from a wider one: level lines need a neighbour on every side."""
    wide = frame.padded(1)
    return lay_out(wide, seed, year, districts_around(wide, seed, year)).inner(1)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Coat:
    """One material, or a map of them, over some of the pixels."""

    where: Int64[np.ndarray, " n"] | slice
    """The pixels, counted row by row."""

    what: int | UInt8[np.ndarray, " n"]
    """Their material."""

    rest: Float32[np.ndarray, " n"]
    """Share of what lies below that is still seen."""

    light: Float32[np.ndarray, " n"]
    """Share covered, times the brightness."""


class _Paint:
    """Ground, and the coats laid over it; a pixel's class is the last to cover enough of it."""

    def __init__(self, ground: Ground, setting: Setting) -> None:
        self.classes = np.where(ground.crop, np.uint8(ARABLE), np.uint8(GRASS))
        self._ground, self._setting = ground, setting
        self._coats: list[_Coat] = []

    def over(
        self, share: Map, what: int | UInt8[np.ndarray, "h w"], label: int, *,
        gain: Map | None = None, least: float = 0.5,
    ) -> None:  # fmt: skip
        """Cover ``share`` of each pixel; where it is at least ``least``, the class is ``label``."""
        flat = share.ravel()
        touched = np.flatnonzero(flat > 0)
        # Many pixels are faster done all together than looked up.
        where = touched if 4 * len(touched) < len(flat) else slice(None)
        part = flat[where]
        coat = _Coat(
            where=where,
            what=what.ravel()[where] if isinstance(what, np.ndarray) else what,
            rest=1 - part,
            light=part if gain is None else part * gain.ravel()[where],
        )
        if len(touched):
            self._coats.append(coat)
            self.classes[(share > 0) & (share >= np.float32(least))] = label

    def band(self, number: int) -> Map:
        """Return the reflectance of a band under even light."""
        ground, states, row = self._ground, self._setting.states, self._setting.table[number]
        out = states.grown[number][ground.state]
        out *= ground.cover
        out += states.bare[number][ground.state]
        out *= ground.gain
        flat = out.reshape(-1)
        for coat in self._coats:
            if isinstance(coat.where, slice):
                flat *= coat.rest
                flat += row[coat.what] * coat.light
            else:
                flat[coat.where] = flat[coat.where] * coat.rest + row[coat.what] * coat.light
        return np.asarray(out)


def _ground(frame: Frame, setting: Setting, land: Land) -> _Paint:
    """Paint fields, ways and waters."""
    seed = setting.seed
    paint = _Paint(grow(frame, seed, setting.day, land, setting.states), setting)
    gsd = np.float32(frame.gsd_m)
    paint.over(_edge(land.track_m, gsd, np.float32(3.0)), material("gravel"), TRACK)
    worn = 1 + np.float32(0.05) * fractal(frame, seed, "wear", wavelength_m=14.0, octaves=4)
    road = np.maximum(
        _edge(land.road_m, gsd, np.float32(6.0)), _edge(streets(land), gsd, np.float32(5.5))
    )
    paint.over(road, material("asphalt"), PAVED, gain=worn)
    # Over water a road is a bridge.
    water = _edge(land.water_m, gsd, np.float32(20.0)) * (road < np.float32(0.5))
    paint.over(water, material("clear water"), WATER)
    if water.any():
        silt = fractal(frame, seed, "silt", setting.day.toordinal(), wavelength_m=1500.0, octaves=2)
        muddy = np.clip(np.float32(0.5) + np.float32(0.5) * silt, 0, 1)
        paint.over(water * muddy, material("turbid water"), WATER)
    return paint


def _stand_near(paint: _Paint, frame: Frame, setting: Setting, standing: Standing) -> Map:
    """Paint drives, trees and houses; return their heights."""
    layers, part = standing.layers, standing.cut(frame)
    to_share = np.float32(1 / 255)
    paved = layers.paved[part] * to_share
    paint.over(paved, material("asphalt"), PAVED)
    what = layers.what[part]
    share = layers.share[part] * to_share
    gain = layers.gain[part] * np.float32(1 / 128)
    house = layers.number[part] >= 0
    wooded = np.isin(what, (material("broadleaf"), material("conifer")))
    leaves = 1 + np.float32(0.07) * grain(frame, setting.seed, "leaves")
    paint.over(share * wooded, np.where(wooded, what, 0), TREES, gain=gain * leaves, least=0.0)
    roofed = ~wooded & (what != NOTHING)
    paint.over(share * roofed, np.where(roofed, what, 0), BUILDING, gain=gain)
    # Exactly the pixels that the boxes of buildings are drawn around.
    paint.classes[house] = BUILDING
    return layers.height_m[part]


def _stand_far(paint: _Paint, frame: Frame, setting: Setting, land: Land) -> Map:
    """Paint woods and towns as mixtures; return their mean heights."""
    seed = setting.seed
    built = _town_far(frame, seed, land)
    paint.over(built.paved, material("asphalt"), PAVED)
    paint.over(built.gardens, material("broadleaf"), TREES, least=2.0)
    paint.over(built.roofs, built.roof, BUILDING, least=0.0)
    wooded = (land.wood > -0.08) & (land.water_m < 0) & (land.road_m < 0)
    wooded &= land.age >= BARREN_YEARS
    canopy = np.clip(np.float32(0.5) + land.wood * np.float32(6), 0, 1) * wooded
    pure = eighth(land.parcel, 2) > np.float32(0.62)
    leaf = np.where(pure, np.uint8(material("conifer")), np.uint8(material("broadleaf")))
    grown = np.minimum(1, np.float32(0.2) + land.age / 50)
    mottled = 1 + np.float32(0.08) * grain(frame, seed, "canopy")
    mottled += np.float32(0.05) * fractal(frame, seed, "stands", wavelength_m=120.0, octaves=3)
    paint.over(canopy, leaf, TREES, gain=mottled * (np.float32(1.1) - np.float32(0.15) * grown))
    height = (14 + 8 * np.clip(land.wood, 0, 1)) * grown
    tall = np.where(paint.classes == TREES, height, 0)
    return np.where(paint.classes == BUILDING, np.float32(6), tall).astype(np.float32)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Town:
    """Shares of a pixel's area, where single houses cannot be seen."""

    paved: Map
    gardens: Map
    roofs: Map
    roof: UInt8[np.ndarray, "h w"]


def _town_far(frame: Frame, seed: int, land: Land) -> _Town:
    """Mix streets, gardens and roofs; every lot of halls and every quarter has its own mixture."""
    # Squares of the size of a lot of halls.
    row, column = (
        np.floor(place / np.float32(size)).astype(np.int32).view(np.uint32)
        for place, size in ((land.across_m, 59.0), (land.along_m, 84.0))
    )
    lot = together(5, land.district, together(6, row, column))
    hall = land.industrial & (eighth(lot, 0) < np.float32(0.6))
    mottle = 1 + np.float32(0.5) * grain(frame, seed, "town mix")
    mottle += np.float32(0.6) * (eighth(land.parcel, 0) - np.float32(0.5))
    mottle = np.maximum(mottle, np.float32(0.3))
    red = grain(frame, seed, "roofs") < np.float32(0.3)
    roofs = np.where(land.industrial, np.where(hall, np.float32(0.7), 0), np.float32(0.17) * mottle)
    paved = np.where(land.industrial, np.float32(0.55), np.float32(0.14))
    gardens = np.where(
        land.industrial, np.float32(0.06), np.float32(0.36) / np.maximum(mottle, np.float32(0.6))
    )
    bright = land.industrial & (eighth(lot, 1) < np.float32(0.3))
    roof = np.where(land.industrial | ~red, np.uint8(material("grey roof")), _RED)
    roof = np.where(bright, np.uint8(material("bright roof")), roof)
    shares = (paved, gardens, roofs)
    paved, gardens, roofs = (
        np.clip(share * land.urban, 0, 1).astype(np.float32) for share in shares
    )
    return _Town(paved=paved, gardens=gardens, roofs=roofs, roof=roof)


def _sunlight(
    surface_m: Map, frame: Frame, sun: Sun, shade: UInt8[np.ndarray, "h w"] | None,
    above: Clouds | None,
) -> Map:  # fmt: skip
    """Direct light of the sun, 1 on flat open ground."""
    direct = sunlight(surface_m, gsd_m=frame.gsd_m, sun=sun)
    if shade is not None:
        direct *= 1 - shade * np.float32(1 / 255)
    if above is not None:
        direct *= 1 - np.float32(0.82) * above.shadow
    return direct


def _edge(inside_m: Map, gsd_m: np.float32, width_m: np.float32) -> Map:
    """Share of a pixel inside a shape whose border is ``inside_m`` away, ``width_m`` wide."""
    most = np.minimum(np.float32(1), width_m / gsd_m)
    return np.asarray(np.clip(np.float32(0.5) + inside_m / gsd_m, 0, most))


def _blurred(band: Map) -> Map:
    """The optics: weights 1-6-1 along both axes; the outermost pixels lack a neighbour."""
    for axis in (0, 1):
        out, side = band * np.float32(0.75), band * np.float32(0.125)
        first, last = [slice(None)] * 2, [slice(None)] * 2
        first[axis], last[axis] = slice(1, None), slice(None, -1)
        out[tuple(first)] += side[tuple(last)]
        out[tuple(last)] += side[tuple(first)]
        band = out
    return band
