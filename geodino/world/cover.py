"""What grows on the ground of each parcel, with rows, tramlines and patches."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int64

from geodino.world.land import Land
from geodino.world.noise import Frame, fractal, grain, mix, quarters
from geodino.world.spectra import material

Map = Float32[np.ndarray, "h w"]

#        share, soil, vegetation, cover, spread of cover, row contrast, is crop
_FIELDS = (
    (0.30, "brown soil", "grass", 0.88, 0.10, 0.015, False),
    (0.19, "brown soil", "green crop", 0.93, 0.06, 0.035, True),
    (0.06, "brown soil", "rape in flower", 0.95, 0.04, 0.03, True),
    (0.18, "light soil", "ripe crop", 0.92, 0.07, 0.04, True),
    (0.09, "light soil", "stubble", 0.85, 0.10, 0.07, True),
    (0.10, "brown soil", "grass", 0.04, 0.04, 0.06, True),
    (0.08, "brown soil", "green crop", 0.40, 0.18, 0.08, True),
)
"""What parcels carry. A crop with almost no cover is ploughed soil."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """The ground without the things that stand on it."""

    soil: Int64[np.ndarray, "h w"]
    """Material under the vegetation."""

    plant: Int64[np.ndarray, "h w"]
    """Material of the vegetation."""

    cover: Map
    """Share of a pixel under vegetation."""

    gain: Map
    """Brightness, around 1."""

    crop: np.ndarray
    """True on arable land."""


def grow(frame: Frame, seed: int, land: Land) -> Ground:
    """Choose a use for each parcel and give it texture."""
    first, own, tone, turn = quarters(mix(land.parcel))
    # Soils differ from region to region, uses within a region are alike.
    bounds = np.cumsum([share for share, *_ in _FIELDS]).astype(np.float32)
    use = np.searchsorted(bounds, np.minimum(first, np.float32(0.9999)) * bounds[-1], side="right")
    table = [np.array(values) for values in zip(*_FIELDS, strict=True)]
    soil = np.array([material(name) for name in table[1]])[use]
    plant = np.array([material(name) for name in table[2]])[use]
    cover, spread, rows = (table[i].astype(np.float32)[use] for i in (3, 4, 5))
    crop = table[6].astype(bool)[use]

    wild = land.urban | (land.wood > 0) | (land.water_m > -14)
    crop &= ~wild
    soil = np.where(wild, material("brown soil"), soil)
    plant = np.where(wild, material("grass"), plant)
    cover = np.where(wild, np.float32(0.9), cover)
    rows = np.where(wild, np.float32(0), rows)

    broad = fractal(frame, seed, "fertility", wavelength_m=90.0, octaves=4, gain=0.55)
    fine = fractal(frame, seed, "tufts", wavelength_m=9.0, octaves=3, gain=0.6)
    dots = grain(frame, seed, "ground")
    # A strip of grass, the baulk, grows along the borders of fields.
    baulk = crop & (np.minimum(land.edge_m, land.end_m) < 0.9)
    cover = np.where(baulk, np.float32(0.8), cover)
    plant = np.where(baulk, material("grass"), plant)
    cover = np.clip(cover + spread * (broad * 0.7 + fine * 0.5), 0, 1)
    rough = np.where(crop, np.float32(0.018), np.float32(0.05))
    gain = 1 + np.float32(0.16) * (tone - np.float32(0.5)) + np.float32(0.05) * broad
    gain += rough * (np.float32(0.8) * fine + np.float32(0.5) * dots)
    if frame.gsd_m <= 2.0:
        gain += _rows(land, rows * np.float32(1.0), own, turn, baulk)
    return Ground(
        soil=soil,
        plant=plant,
        cover=cover.astype(np.float32),
        gain=np.clip(gain, 0.5, 1.6).astype(np.float32),
        crop=crop,
    )


def _rows(land: Land, contrast: Map, own: Map, turn: Map, baulk: np.ndarray) -> Map:
    """Swaths of the machines and, every 18 to 27 m, the two wheel tracks of the sprayer."""
    headland = land.end_m < 9
    across = np.where(headland, land.along_m, land.across_m)
    swath = np.float32(2.4) + np.float32(2.4) * own
    wave = _triangle(across / swath) * contrast
    tramline = np.float32(18) + np.float32(9) * turn
    offset = across / tramline
    apart = np.abs(offset - np.floor(offset) - 0.5) * tramline
    tracks = (np.abs(apart - 0.95) < 0.32) & (contrast > 0.02) & ~headland
    return np.asarray(wave - np.where(tracks, 0.1, 0) * ~baulk, dtype=np.float32)


def _triangle(t: np.ndarray) -> np.ndarray:
    """A wave of period 1 between -1 and 1 out of straight lines."""
    return np.asarray(4 * np.abs(t - np.floor(t) - 0.5) - 1)
