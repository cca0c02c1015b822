"""The lie of the land: relief, water, woods, districts of parcels, roads and settlements."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt32

from geodino.world.cells import Cells, Scatter, cells, scatter
from geodino.world.noise import (
    Frame,
    Places,
    Points,
    eighth,
    fractal,
    mix,
    together,
)

Map = Float32[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]
List = Float32[np.ndarray, " n"]

DISTRICT_M = 430.0
"""Mean distance of the points that districts of parallel parcels grow around."""

NOWHERE = np.float32(-99)
"""Distance from a way that is not there."""

_ROTATION_YEARS = 80
"""Age at which the trees of a stand are felled."""

BARREN_YEARS = 6
"""Years after which a felled stand counts as wood again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Districts:
    """What the districts of a scatter are like; one entry per point."""

    points: Scatter
    """Where they are."""

    cosine: List
    """Cosine of the angle from east to the rows of the fields, towards south."""

    sine: List
    """Sine of that angle."""

    length_m: List
    """Length of the parcels."""

    width_m: List
    """Least width of the parcels."""

    urban: Bool[np.ndarray, " n"]
    """Settlements."""

    industrial: Bool[np.ndarray, " n"]
    """Settlements with halls instead of houses."""

    def local(
        self, y_m: Float64[np.ndarray, "h w"], x_m: Float64[np.ndarray, "h w"],
        number: Int64[np.ndarray, "h w"],
    ) -> tuple[Map, Map]:  # fmt: skip
        """Coordinates (along, across) of places in their district, from its point, metres."""
        dy = (y_m - self.points.y_m[number]).astype(np.float32)
        dx = (x_m - self.points.x_m[number]).astype(np.float32)
        cosine, sine = self.cosine[number], self.sine[number]
        return dx * cosine + dy * sine, dy * cosine - dx * sine


@dataclass(frozen=True, kw_only=True, slots=True)
class Land:
    """Where everything lies. Distances are in metres; masks are True inside."""

    relief_m: Map
    """Height of the ground."""

    water_m: Map
    """Distance to the shore, positive in the water."""

    wood: Map
    """Positive inside woods, growing inwards."""

    age: Float32[np.ndarray, "h w"]
    """Years since the stand of trees was felled, were it a wood."""

    urban: Mask
    """Settlements."""

    industrial: Mask
    """The part of the settlements with halls instead of houses."""

    district: UInt32[np.ndarray, "h w"]
    """Hash of the district a place is in."""

    hedged: Mask
    """True in districts with hedges."""

    parcel: UInt32[np.ndarray, "h w"]
    """Hash of the parcel a place is in."""

    along_m: Map
    """Coordinate along the rows of the fields, from the district's point."""

    across_m: Map
    """Coordinate across the rows."""

    edge_m: Map
    """Distance to the parcel's border along its long sides."""

    end_m: Map
    """Distance to the parcel's ends, where a track runs."""

    border_m: Map
    """Distance to the next district."""

    road_m: Map
    """Distance to the edge of a paved road, positive on it."""

    track_m: Map
    """Distance to the edge of an unpaved track, positive on it."""

    @property
    def felled(self) -> Mask:
        """Woods whose trees are gone or not yet grown."""
        return (self.wood > 0) & (self.age < BARREN_YEARS)

    def inner(self, pixels: int) -> "Land":
        """Return the land without so many pixels on every side."""
        part = slice(pixels, -pixels)
        return Land(**{f.name: getattr(self, f.name)[part, part] for f in fields(self)})


def districts_around(places: Places, seed: int, year: int) -> Districts:
    """Describe the districts that places may be in; the range is wider than their bends."""
    y, x = places.mesh()
    wide = 4 * _BEND_M
    south, east = (float(y.min()) - wide, float(y.max()) + wide), (
        float(x.min()) - wide, float(x.max()) + wide,
    )  # fmt: skip
    points = scatter(south, east, seed, "district", size_m=DISTRICT_M)
    t = 2 * points.draw(2) - 1
    heart = Points(y_m=points.y_m[:, None], x_m=points.x_m[:, None])
    town = fractal(heart, seed, "town", wavelength_m=1900.0, octaves=3)[:, 0]
    score = town + points.draw(5) * np.float32(0.5)
    # Old settlements, and districts at their rims that were built on in a year of their own.
    founded = 2008 + np.floor(points.draw(7) * np.float32(30))
    young = (score > np.float32(1.0)) & (points.draw(8) < np.float32(0.4))
    urban = (score > np.float32(1.4)) | (young & (founded <= year))
    return Districts(
        points=points,
        cosine=(1 - t * t) / (1 + t * t),
        sine=2 * t / (1 + t * t),
        length_m=150 + 170 * points.draw(3),
        width_m=32 + 60 * points.draw(4),
        urban=urban,
        industrial=urban & (points.draw(6) < np.float32(0.22)),
    )


_BEND_M = 28.0


def lay_out(places: Places, seed: int, year: int, districts: Districts) -> Land:
    """Lay out the land; neighbouring frames of one seed and year fit together.

    Args:
        places: a frame, or points.
        seed: which world.
        year: settlements grow and woods are felled and grow again.
        districts: those around the places, from :func:`districts_around`.
    """
    relief = fractal(places, seed, "relief", wavelength_m=1600.0, octaves=5, gain=0.45)
    lake, river = _waters(places, seed, relief)
    water = np.maximum(lake, river)
    y, x = places.mesh()
    bend = np.float32(_BEND_M)
    found = cells(
        y + bend * fractal(places, seed, "bend y", wavelength_m=520.0, octaves=1),
        x + bend * fractal(places, seed, "bend x", wavelength_m=520.0, octaves=1),
        districts.points,
    )
    number = found.nearest
    along, across = districts.local(y, x, number)
    parcel, edge, end = _parcels(districts, number, along, across)
    urban = districts.urban[number] & (water < -12)
    own = eighth(parcel, 3)
    wood = fractal(places, seed, "wood", wavelength_m=900.0, octaves=5, gain=0.5)
    wood += np.float32(0.25) * relief + np.float32(0.9) * own - np.float32(1.15)
    wood = np.where(urban, np.minimum(wood, np.float32(-0.2)), wood)
    felled = (parcel >> np.uint32(8)) % np.uint32(_ROTATION_YEARS)
    age = (np.uint32(year) - felled) % np.uint32(_ROTATION_YEARS)
    road, track = _ways(places, seed, districts, found, urban=urban, wood=wood, end_m=end)
    # Bridges span rivers, not lakes.
    road, track = (np.where(lake > -3, NOWHERE, way) for way in (road, track))
    return Land(
        relief_m=relief * np.float32(14.0),
        water_m=water,
        wood=wood,
        age=age.astype(np.float32),
        urban=urban,
        industrial=urban & districts.industrial[number],
        district=districts.points.hashes[number],
        hedged=(districts.points.draw(9) > np.float32(0.45))[number],
        parcel=parcel,
        along_m=along,
        across_m=across,
        edge_m=edge,
        end_m=end,
        border_m=found.border_m,
        road_m=road,
        track_m=track,
    )


def _waters(places: Places, seed: int, relief: Map) -> tuple[Map, Map]:
    """Lakes in the hollows, and a river where a slow noise changes its sign."""
    lake = (np.float32(-1.55) - relief) * np.float32(60.0)
    broad = fractal(places, seed, "river width", wavelength_m=700.0, octaves=1)
    half_width = np.float32(10.0) + np.float32(4.0) * broad
    return lake, half_width - _level_line(places, seed, "river", wavelength_m=2900.0, detail=3)


def _level_line(
    places: Places, seed: int, name: str, *, wavelength_m: float, detail: int = 1
) -> Map:
    """Distance to the line where a noise is 0: its value over its slope, metres."""

    def noise(at: Places) -> Map:
        return fractal(at, seed, name, wavelength_m=wavelength_m, octaves=detail, gain=0.28)

    here = noise(places)
    if isinstance(places, Frame):
        dy, dx = np.gradient(here, np.float32(places.gsd_m))
    else:
        dy = (noise(places.moved(1.0, 0.0)) - noise(places.moved(-1.0, 0.0))) * np.float32(0.5)
        dx = (noise(places.moved(0.0, 1.0)) - noise(places.moved(0.0, -1.0))) * np.float32(0.5)
    slope = np.sqrt(dy * dy + dx * dx)
    return np.asarray(np.abs(here) / np.maximum(slope, np.float32(2e-4)))


def _parcels(
    districts: Districts, number: Int64[np.ndarray, "h w"], along: Map, across: Map
) -> tuple[UInt32[np.ndarray, "h w"], Map, Map]:
    """Cut districts into rows of parcels, and rows into strips of their own width."""
    length = districts.length_m[number]
    position = along / length
    row = np.floor(position)
    end = (np.float32(0.5) - np.abs(position - row - np.float32(0.5))) * length
    of_row = together(0, districts.points.hashes[number], row.astype(np.int32).view(np.uint32))
    # Many narrow strips in some districts, few broad fields in others.
    width = districts.width_m[number] + 55 * eighth(of_row, 0)
    position = across / width + eighth(of_row, 1)
    strip = np.floor(position)
    edge = (np.float32(0.5) - np.abs(position - strip - np.float32(0.5))) * width
    return together(1, of_row, strip.astype(np.int32).view(np.uint32)), edge, end


def _ways(
    places: Places, seed: int, districts: Districts, found: Cells, *, urban: Mask, wood: Map,
    end_m: Map,
) -> tuple[Map, Map]:  # fmt: skip
    """Roads and tracks: a winding main road, the borders of districts, the ends of parcels."""
    main = np.float32(5.0) - _level_line(places, seed, "main road", wavelength_m=2600.0)
    # The border of two districts is paved or not by the draw of both.
    hashes = districts.points.hashes
    both = mix(hashes[found.nearest] ^ hashes[found.second])
    paved = (both < np.uint32(0.55 * 2**32)) | urban
    border = np.float32(2.7) - found.border_m
    road = np.maximum(main, np.where(paved, border, NOWHERE))
    track = np.where(paved, NOWHERE, border - np.float32(0.8))
    track = np.maximum(track, np.where(wood > 0.25, NOWHERE, np.float32(1.5) - end_m))
    return road, np.where(urban, NOWHERE, track)
