"""What grows on the ground of each parcel on a date, with rows, tramlines and patches."""

from dataclasses import dataclass
from datetime import date

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from geodino import seeds
from geodino.world.calendar import day_of_year, seasonal
from geodino.world.land import Land
from geodino.world.noise import Frame, eighth, fractal, grain, mix
from geodino.world.sensors import Sensor
from geodino.world.spectra import material, reflectance_on

Map = Float32[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]

_SHIFTS = 16
"""Parcels of one crop are up to this many times two days early or late."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Crop:
    """A year of a field: (day, plant, share of the ground it covers)."""

    share: float
    soil: str
    year: tuple[tuple[int, str, float], ...]


_MEADOW = _Crop(share=0.0, soil="brown soil", year=(
    (1, "grass", 0.80), (120, "grass", 0.90), (150, "grass", 0.90), (154, "mown grass", 0.85),
    (180, "grass", 0.90), (208, "grass", 0.88), (212, "mown grass", 0.80), (240, "grass", 0.88),
    (300, "grass", 0.85),
))  # fmt: skip
_WILD = _Crop(share=0.0, soil="brown soil", year=((1, "grass", 0.88), (180, "grass", 0.92)))
_SLASH = _Crop(share=0.0, soil="brown soil", year=((1, "slash", 0.80), (180, "slash", 0.85)))
_CROPS = (
    _Crop(share=0.42, soil="light soil", year=(  # winter cereals
        (1, "green crop", 0.35), (60, "green crop", 0.50), (100, "green crop", 0.85),
        (150, "green crop", 0.95), (172, "green crop", 0.93), (190, "ripe crop", 0.92),
        (206, "ripe crop", 0.90), (210, "stubble", 0.80), (248, "stubble", 0.75),
        (253, "green crop", 0.04), (290, "green crop", 0.04), (330, "green crop", 0.30),
    )),
    _Crop(share=0.14, soil="brown soil", year=(  # oilseed rape
        (1, "green crop", 0.60), (80, "green crop", 0.70), (106, "green crop", 0.90),
        (114, "rape in flower", 0.95), (136, "rape in flower", 0.95), (145, "green crop", 0.95),
        (175, "green crop", 0.90), (192, "ripe crop", 0.92), (200, "stubble", 0.80),
        (228, "stubble", 0.75), (232, "green crop", 0.05), (275, "green crop", 0.50),
    )),
    _Crop(share=0.26, soil="brown soil", year=(  # maize, beet, potatoes
        (1, "maize", 0.04), (125, "maize", 0.04), (155, "maize", 0.30), (185, "maize", 0.80),
        (205, "maize", 0.95), (250, "maize", 0.92), (272, "ripe crop", 0.75),
        (282, "stubble", 0.45), (310, "maize", 0.05),
    )),
    _Crop(share=0.18, soil="light soil", year=(  # summer barley
        (1, "green crop", 0.05), (85, "green crop", 0.05), (120, "green crop", 0.55),
        (155, "green crop", 0.92), (175, "green crop", 0.90), (192, "ripe crop", 0.90),
        (212, "ripe crop", 0.88), (216, "stubble", 0.75), (265, "stubble", 0.70),
        (270, "green crop", 0.04),
    )),
)  # fmt: skip
_USES = (_MEADOW, _WILD, _SLASH, *_CROPS)
_FIRST_CROP = 3
_SPREAD = (0.10, 0.09, 0.22, 0.08, 0.05, 0.12, 0.08)
_ROWS = (0.012, 0.0, 0.0, 0.035, 0.03, 0.06, 0.035)


@dataclass(frozen=True, kw_only=True, slots=True)
class States:
    """How every use of the land looks on a date: row ``use * 16 + shift`` of each table."""

    bare: Float32[np.ndarray, "c s"]
    """Reflectance of the soil per band."""

    grown: Float32[np.ndarray, "c s"]
    """Reflectance of the plants, less that of the soil."""

    cover: Float32[np.ndarray, " s"]
    """Share of the ground under plants."""

    spread: Float32[np.ndarray, " s"]
    """How much that share changes within a parcel."""

    rows: Float32[np.ndarray, " s"]
    """Contrast of the rows."""


def states(day: date, sensor: Sensor) -> States:
    """Look up every crop's year at a date, for parcels that are early or late."""
    number = day_of_year(day)
    table = reflectance_on(number)
    bare, grown, cover = [], [], []
    for crop in _USES:
        soil = table[material(crop.soil)]
        days = [first for first, *_ in crop.year]
        for shift in range(_SHIFTS):
            when = number - 2 * (shift - _SHIFTS // 2)
            plant = sum(
                table[material(name)] * seasonal(_tent(days, i), when)
                for i, (_, name, _) in enumerate(crop.year)
            )
            bare.append(soil)
            grown.append(plant - soil)
            cover.append(seasonal([(first, share) for first, _, share in crop.year], when))
    return States(
        bare=sensor.table(np.array(bare)),
        grown=sensor.table(np.array(grown)),
        cover=np.array(cover, dtype=np.float32),
        spread=np.repeat(np.array(_SPREAD, dtype=np.float32), _SHIFTS),
        rows=np.repeat(np.array(_ROWS, dtype=np.float32), _SHIFTS),
    )


def _tent(days: list[int], middle: int) -> list[tuple[int, float]]:
    """A function of the day that is 1 on one of the days, 0 on the others."""
    return [(day, 1.0 if i == middle else 0.0) for i, day in enumerate(days)]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """The ground without the things that stand on it."""

    state: UInt8[np.ndarray, "h w"]
    """Row of the tables of :class:`States`."""

    cover: Map
    """Share of a pixel under plants."""

    gain: Map
    """Brightness, around 1."""

    crop: Mask
    """True on arable land."""


def grow(frame: Frame, seed: int, day: date, land: Land, table: States) -> Ground:
    """Choose a use for each parcel and give it texture."""
    use, crop = _uses(seed, day.year, land)
    shift = (land.parcel >> np.uint32(16)).astype(np.uint8) % np.uint8(_SHIFTS)
    # A strip of grass, the baulk, grows along the borders of fields.
    baulk = crop & (np.minimum(land.edge_m, land.end_m) < 0.9)
    state = np.where(baulk, np.uint8(_USES.index(_WILD)), use) * np.uint8(_SHIFTS) + shift
    broad = fractal(frame, seed, "fertility", wavelength_m=90.0, octaves=4, gain=0.55)
    fine = fractal(frame, seed, "tufts", wavelength_m=9.0, octaves=3, gain=0.6)
    region = fractal(frame, seed, "soils", wavelength_m=4000.0, octaves=2)
    dots = grain(frame, seed, "ground")
    patch = np.float32(0.7) * broad + np.float32(0.5) * fine + np.float32(0.4) * region
    cover = np.clip(table.cover[state] + table.spread[state] * patch, 0, 1)
    tone = eighth(mix(land.parcel), 2) - np.float32(0.5)
    gain = 1 + np.float32(0.18) * tone + np.float32(0.05) * (broad + region)
    rough = np.where(crop, np.float32(0.018), np.float32(0.05))
    gain += rough * (np.float32(0.8) * fine + np.float32(0.5) * dots)
    if frame.gsd_m <= 2.0:
        gain += _rows(land, table.rows[state], baulk)
    return Ground(state=state, cover=cover, gain=np.clip(gain, 0.5, 1.6), crop=crop)


def _uses(seed: int, year: int, land: Land) -> tuple[UInt8[np.ndarray, "h w"], Mask]:
    """Number of each pixel's use, and where it is arable.

    A tenth of the parcels change between meadow and arable once within thirty years; arable
    land changes its crop every year.
    """
    lasting = mix(land.parcel ^ np.uint32(0x5BD1E995))
    turned = (lasting & np.uint32(0xFF)) < 26
    after = 2005 + ((lasting >> np.uint32(8)) & np.uint32(0x1F)) <= year
    arable = (eighth(lasting, 2) < np.float32(0.66)) ^ (turned & after)
    bounds = np.cumsum([crop.share for crop in _CROPS]) * 256
    kinds = np.searchsorted(bounds, np.arange(256), side="right").astype(np.uint8)
    yearly = mix(land.parcel ^ np.uint32(seeds.integer(seed, "crop", year) & 0xFFFFFFFF))
    use = np.uint8(_FIRST_CROP) + kinds[yearly >> np.uint32(24)]
    wild = land.urban | (land.wood > 0) | (land.water_m > -14)
    crop = arable & ~wild
    use = np.where(crop, use, np.uint8(_USES.index(_MEADOW)))
    use = np.where(wild, np.uint8(_USES.index(_WILD)), use)
    fresh = land.felled & (land.age < 3)
    return np.where(fresh, np.uint8(_USES.index(_SLASH)), use), crop


def _rows(land: Land, contrast: Map, baulk: Mask) -> Map:
    """Swaths of the machines and, every 18 to 27 m, the two wheel tracks of the sprayer."""
    headland = land.end_m < 9
    across = np.where(headland, land.along_m, land.across_m)
    swath = np.float32(2.4) + np.float32(2.4) * eighth(land.parcel, 0)
    wave = _triangle(across / swath) * contrast
    tramline = np.float32(18) + np.float32(9) * eighth(land.parcel, 1)
    offset = across / tramline
    apart = np.abs(offset - np.floor(offset) - np.float32(0.5)) * tramline
    tracks = (np.abs(apart - np.float32(0.95)) < np.float32(0.32)) & ~headland & ~baulk
    tracks &= contrast > np.float32(0.02)
    wave -= tracks * np.float32(0.1)
    return np.asarray(wave)


def _triangle(t: Map) -> Map:
    """A wave of period 1 between -1 and 1 out of straight lines."""
    return np.asarray(4 * np.abs(t - np.floor(t) - np.float32(0.5)) - 1)
