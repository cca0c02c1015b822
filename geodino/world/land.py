"""The lie of the land: relief, water, woods, districts of parcels, roads and settlements."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt64

from geodino.world.noise import Cells, Frame, fractal, hashed, mix, quarters, smooth_noise

Map = Float32[np.ndarray, "h w"]
Places = Float64[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]

DISTRICT_M = 430.0
"""Mean distance of the points that districts of parallel parcels grow around."""

_STREET_M = 62.0
_BLOCK_M = 138.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Land:
    """Where everything lies. Distances are in metres; masks are True inside."""

    relief_m: Map
    """Height of the ground."""

    water_m: Map
    """Distance to the shore, positive in the water."""

    wood: Map
    """Positive inside woods, growing inwards."""

    urban: Mask
    """Settlements."""

    industrial: Mask
    """The part of the settlements with halls instead of houses."""

    district: UInt64[np.ndarray, "h w"]
    """Hash of the district a pixel is in."""

    parcel: UInt64[np.ndarray, "h w"]
    """Hash of the parcel a pixel is in."""

    along_m: Places
    """Local coordinate along the rows of the fields."""

    across_m: Places
    """Local coordinate across the rows."""

    edge_m: Places
    """Distance to the parcel's border along its long sides."""

    end_m: Places
    """Distance to the parcel's ends, where a track runs."""

    border_m: Map
    """Distance to the next district."""

    toward: tuple[Places, Places]
    """Unit vector to the next district, in the axes of ``along_m`` and ``across_m``."""

    road_m: Map
    """Distance to the edge of a paved road, positive on it."""

    track_m: Map
    """Distance to the edge of an unpaved track, positive on it."""


def lay_out(frame: Frame, seed: int) -> Land:
    """Lay out the land of a frame; neighbouring frames of one seed fit together."""
    relief = fractal(frame, seed, "relief", wavelength_m=1600.0, octaves=5, gain=0.45)
    lake, river = _waters(frame, seed, relief)
    water = np.maximum(lake, river)
    y, x = np.meshgrid(frame.y_m, frame.x_m, indexing="ij")
    bend = np.float32(28.0)
    y_bent = y + bend * smooth_noise(frame, seed, "bend y", wavelength_m=520.0)
    x_bent = x + bend * smooth_noise(frame, seed, "bend x", wavelength_m=520.0)
    districts = Cells.of(y_bent, x_bent, seed, "district", size_m=DISTRICT_M)
    # Roads wind; the fields between them are straighter.
    axis = _axis(districts)
    along, across = _turned(axis, y + (y_bent - y) / 5, x + (x_bent - x) / 5)
    district = districts.hashes[districts.nearest]
    parcel, edge, end = _parcels(districts, district, along, across)
    town = fractal(frame, seed, "town", wavelength_m=1900.0, octaves=3)
    chance = districts.draw(5)
    urban = (town + chance * np.float32(0.5) > 0.85) & (water < -12)
    wood = _wood(frame, seed, parcel, relief)
    wood = np.where(urban, np.minimum(wood, -0.2), wood)
    main = 5.0 - _level_line(frame, seed, "main road", wavelength_m=2600.0)
    # The border of two districts is paved or not by the draw of both.
    both = districts.hashes[districts.nearest] ^ districts.hashes[districts.second]
    paved = (mix(both) >> np.uint64(40)) % np.uint64(100) < 55
    border = np.float32(2.7) - districts.border_m
    road = np.maximum(main, np.where(paved | urban, border, np.float32(-99)))
    track = np.where(paved, np.float32(-99), border - np.float32(0.8))
    track = np.maximum(track, np.where(wood > 0.25, np.float32(-99), np.float32(1.5) - end))
    track = np.where(urban, np.float32(-99), track)
    # Bridges span rivers, not lakes.
    road, track = (np.where(lake > -3, np.float32(-99), way) for way in (road, track))
    return Land(
        relief_m=relief * np.float32(14.0),
        water_m=water,
        wood=wood,
        urban=urban,
        industrial=urban & (districts.draw(6) < 0.22),
        district=district,
        parcel=parcel,
        along_m=along,
        across_m=across,
        edge_m=edge,
        end_m=end,
        border_m=districts.border_m,
        toward=_turned(axis, *districts.toward),
        road_m=road.astype(np.float32),
        track_m=track.astype(np.float32),
    )


def _waters(frame: Frame, seed: int, relief: Map) -> tuple[Map, Map]:
    """Lakes in the hollows, and a river where a slow noise changes its sign."""
    lake = (np.float32(-1.55) - relief) * np.float32(60.0)
    broad = smooth_noise(frame, seed, "river width", wavelength_m=700.0)
    half_width = np.float32(10.0) + np.float32(4.0) * broad
    return lake, half_width - _level_line(frame, seed, "river", wavelength_m=2900.0, detail=3)


def _level_line(frame: Frame, seed: int, name: str, *, wavelength_m: float, detail: int = 1) -> Map:
    """Distance to the line where a noise is 0: its value over its slope, metres."""
    noise = fractal(frame, seed, name, wavelength_m=wavelength_m, octaves=detail, gain=0.28)
    dy, dx = np.gradient(noise, np.float32(frame.gsd_m))
    slope = np.sqrt(dy * dy + dx * dx)
    return np.asarray(np.abs(noise) / np.maximum(slope, np.float32(2e-4)), dtype=np.float32)


def _axis(districts: Cells) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of each district's own direction: a rational point of the circle."""
    t = 2 * districts.draw(2).astype(np.float64) - 1
    return (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)


def _turned(
    axis: tuple[np.ndarray, np.ndarray], y: np.ndarray, x: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Turn vectors (rows, columns) into each district's own (along, across)."""
    cosine, sine = axis
    return x * cosine + y * sine, y * cosine - x * sine


def _parcels(
    districts: Cells, district: np.ndarray, along: np.ndarray, across: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut districts into rows of parcels, and rows into strips of their own width."""
    length = 150 + 170 * districts.draw(3).astype(np.float64)
    position = along / length
    row = np.floor(position)
    end = (0.5 - np.abs(position - row - 0.5)) * length
    of_row = hashed(district, row.astype(np.int64), np.zeros_like(row, dtype=np.int64))
    a, b, _, _ = quarters(of_row)
    # Many narrow strips in some districts, few broad fields in others.
    width = (32 + 60 * districts.draw(4) + 55 * a).astype(np.float64)
    position = across / width + b
    strip = np.floor(position)
    edge = (0.5 - np.abs(position - strip - 0.5)) * width
    parcel = hashed(of_row, strip.astype(np.int64), np.ones_like(strip, dtype=np.int64))
    return parcel, edge, end


def _wood(frame: Frame, seed: int, parcel: np.ndarray, relief: Map) -> Map:
    """Woods with natural fringes where it is remote, with straight edges where parcels decide."""
    remote = fractal(frame, seed, "wood", wavelength_m=900.0, octaves=5, gain=0.5)
    own = quarters(parcel)[3]
    return remote + np.float32(0.25) * relief + np.float32(0.9) * own - np.float32(1.15)
