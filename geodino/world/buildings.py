"""Settlements: streets on a grid, and a house or a hall on most of the lots between them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64, UInt8, UInt32

from geodino.world.land import NOWHERE, Districts, Land, lay_out
from geodino.world.noise import Frame, Points, together, uniform
from geodino.world.spectra import material

Map = Float32[np.ndarray, "h w"]
List = Float32[np.ndarray, " n"]

TALLEST_M = 15.0
"""No building is higher."""

KINDS = ("house", "hall")
"""Classes of buildings."""

_REACH_M = 600.0
"""No place of a district lies further from its point."""

_LONGEST_M = 90.0
"""No lot is longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Plan:
    """Measures of a kind of settlement, metres."""

    street: float
    row: float
    block: float
    plot: float
    half_along: tuple[float, float]
    half_deep: tuple[float, float]
    setback: float
    eaves: tuple[float, float]
    ridge: float
    roofs: tuple[tuple[str, float], ...]
    """Materials, each with the draw in [0, 1) it is used below."""


_HOUSES = _Plan(street=5.5, row=64.0, block=132.0, plot=21.0, half_along=(4.5, 7.5),
                half_deep=(3.8, 5.5), setback=6.0, eaves=(3.0, 5.5), ridge=3.2,
                roofs=(("red roof", 0.45), ("grey roof", 0.72), ("dark roof", 1.0)))  # fmt: skip
_HALLS = _Plan(street=8.0, row=118.0, block=176.0, plot=84.0, half_along=(22.0, 34.0),
               half_deep=(11.0, 18.0), setback=9.0, eaves=(6.0, 10.0), ridge=0.0,
               roofs=(("bright roof", 0.5), ("grey roof", 1.0)))  # fmt: skip
_PLANS = (_HOUSES, _HALLS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Boxes:
    """Upright or turned rectangles on the ground."""

    y_m: Float64[np.ndarray, " n"]
    """Centres, metres south of the world's origin."""

    x_m: Float64[np.ndarray, " n"]
    """Centres, metres east."""

    cosine: List
    """Cosine of the angle from east to the rectangle's own first axis."""

    sine: List
    """Sine of that angle."""

    half_along: List
    """Half of the side along the first axis, metres."""

    half_deep: List
    """Half of the other side, metres."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Buildings:
    """The buildings in and around a frame; one entry per building."""

    walls: Boxes
    """Their outlines."""

    yards: Boxes
    """The paved drive or car park of each; of size 0 where there is none."""

    eaves_m: List
    """Height of the walls."""

    ridge_m: List
    """Height of the ridge above the eaves; 0 for flat roofs."""

    kind: UInt8[np.ndarray, " n"]
    """Index into ``KINDS``."""

    roof: UInt8[np.ndarray, " n"]
    """Material of the roof."""

    gain: List
    """Brightness of the roof, around 1."""

    def __len__(self) -> int:
        return len(self.eaves_m)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Lots:
    """Lots as a list: their hash, district, and the coordinates in it."""

    hashes: UInt32[np.ndarray, " n"]
    district: Int64[np.ndarray, " n"]
    middle_along: List
    front: List
    """Coordinate across at the street's edge."""
    way: List
    """1 where the lot reaches up from the street's coordinate, -1 where down."""


def settle(frame: Frame, seed: int, year: int, districts: Districts) -> Buildings:
    """Build on the lots in and around a frame that are not cut by a road, a shore or a border."""
    parts = []
    for kind, plan in enumerate(_PLANS):
        chosen = np.flatnonzero(districts.urban & (districts.industrial == bool(kind)))
        lots = _lots(frame, plan, districts, chosen)
        parts.append(_build(seed, year, districts, plan, kind, lots))
    joined: Buildings = _each(parts, np.concatenate)
    return joined


def streets(land: Land) -> Map:
    """Distance to the edge of a street, positive on it; far away outside of settlements."""
    out = np.full(land.road_m.shape, NOWHERE, dtype=np.float32)
    for plan, where in (
        (_HOUSES, land.urban & ~land.industrial),
        (_HALLS, land.industrial),
    ):
        if where.any():
            across = _inside_street(land.across_m[where], plan.row, plan.street)
            along = _inside_street(land.along_m[where], plan.block, plan.street)
            out[where] = np.maximum(across, along)
    return out


def _inside_street(place_m: List, period: float, width: float) -> List:
    """Distance to the edge of parallel streets that start at the multiples of ``period``."""
    period_, width_ = np.float32(period), np.float32(width)
    deep = place_m - np.floor(place_m / period_) * period_
    return np.asarray(np.maximum(np.minimum(deep, width_ - deep), deep - period_))


def _lots(frame: Frame, plan: _Plan, districts: Districts, chosen: np.ndarray) -> _Lots:
    """List the lots of the chosen districts that lie in or near the frame."""
    rows = np.arange(-int(_REACH_M / plan.row) - 1, int(_REACH_M / plan.row) + 1)
    blocks = np.arange(-int(_REACH_M / plan.block) - 1, int(_REACH_M / plan.block) + 1)
    per_block = int((plan.block - plan.street + 1) // plan.plot)
    of, row, far, block, lot = (
        axis.ravel()
        for axis in np.meshgrid(
            chosen, rows, np.arange(2), blocks, np.arange(per_block), indexing="ij"
        )
    )
    middle = block * plan.block + plan.street + (lot + 0.5) * plan.plot
    front = np.where(far == 1, (row + 1) * plan.row, row * plan.row + plan.street)
    way = np.where(far == 1, -1.0, 1.0)
    cosine, sine = districts.cosine[of], districts.sine[of]
    y = districts.points.y_m[of] + middle * sine + front * cosine
    x = districts.points.x_m[of] + middle * cosine - front * sine
    near = (y > frame.y_m[0] - _LONGEST_M) & (y < frame.y_m[-1] + _LONGEST_M)
    near &= (x > frame.x_m[0] - _LONGEST_M) & (x < frame.x_m[-1] + _LONGEST_M)
    hashes = together(2, districts.points.hashes[of], (row * 2 + far).astype(np.uint32))
    hashes = together(3, hashes, (block * 64 + lot).astype(np.uint32))
    return _Lots(
        hashes=hashes[near],
        district=of[near],
        middle_along=middle[near].astype(np.float32),
        front=front[near].astype(np.float32),
        way=way[near].astype(np.float32),
    )


def _build(
    seed: int, year: int, districts: Districts, plan: _Plan, kind: int, lots: _Lots
) -> Buildings:
    def draw(channel: int, low: float = 0.0, high: float = 1.0) -> List:
        return np.float32(low) + np.float32(high - low) * uniform(lots.hashes, channel)

    half_along, half_deep = draw(0, *plan.half_along), draw(1, *plan.half_deep)
    along = lots.middle_along + draw(2, -1.0, 1.0)
    setback = np.float32(plan.setback) + draw(3, 0.0, 2.5)
    across = lots.front + lots.way * (setback + half_deep)
    walls = _placed(districts, lots.district, along, across, half_along, half_deep)
    if kind == KINDS.index("hall"):
        yard_deep = np.float32((plan.row - plan.street) / 4 * 0.8) + np.zeros_like(along)
        yard_along = np.float32(plan.plot / 2 - 1) + np.zeros_like(along)
        yard_middle = lots.middle_along
    else:
        yard_deep = np.where(draw(4) < np.float32(0.7), (setback + 4) / 2, 0)
        yard_along = np.where(yard_deep > 0, np.float32(1.6), 0)
        yard_middle = lots.middle_along + np.float32(plan.plot / 2 - 2.2)
    yards = _placed(
        districts, lots.district, yard_middle, lots.front + lots.way * yard_deep,
        yard_along, yard_deep,
    )  # fmt: skip
    # A sixth of the lots was built on in a year of its own.
    built = np.where(draw(5) < np.float32(0.83), 0, 2008 + np.floor(draw(6) * 30))
    stands = (draw(7) < np.float32(0.92)) & (built <= year)
    stands &= _has_room(seed, year, districts, lots.district, walls)
    materials = np.array([material(name) for name, _ in plan.roofs])
    roof = materials[np.searchsorted([below for _, below in plan.roofs], draw(8), side="right")]
    every = Buildings(
        walls=walls,
        yards=yards,
        eaves_m=draw(9, *plan.eaves),
        ridge_m=np.full_like(along, plan.ridge),
        kind=np.full(along.shape, kind, dtype=np.uint8),
        roof=roof.astype(np.uint8),
        gain=draw(10, 0.72, 1.22),
    )
    chosen: Buildings = _each([every], lambda arrays: arrays[0][stands])
    return chosen


def _placed(
    districts: Districts, of: Int64[np.ndarray, " n"], along: List, across: List,
    half_along: List, half_deep: List,
) -> Boxes:  # fmt: skip
    cosine, sine = districts.cosine[of], districts.sine[of]
    return Boxes(
        y_m=districts.points.y_m[of] + (along * sine + across * cosine),
        x_m=districts.points.x_m[of] + (along * cosine - across * sine),
        cosine=cosine,
        sine=sine,
        half_along=half_along.astype(np.float32),
        half_deep=half_deep.astype(np.float32),
    )


def _has_room(
    seed: int, year: int, districts: Districts, of: Int64[np.ndarray, " n"], walls: Boxes
) -> Bool[np.ndarray, " n"]:
    """Whether the middle and the corners of buildings stand on free ground of their district."""
    if len(of) == 0:
        return np.zeros(0, dtype=bool)
    signs = np.array([[0, 0], [1, 1], [1, -1], [-1, 1], [-1, -1]], dtype=np.float32)
    along = walls.half_along[:, None] * signs[:, 0]
    across = walls.half_deep[:, None] * signs[:, 1]
    cosine, sine = walls.cosine[:, None], walls.sine[:, None]
    corners = Points(
        y_m=walls.y_m[:, None] + (along * sine + across * cosine),
        x_m=walls.x_m[:, None] + (along * cosine - across * sine),
    )
    land = lay_out(corners, seed, year, districts)
    free = land.urban & (land.district == districts.points.hashes[of][:, None])
    free &= (land.border_m > 6) & (land.road_m < -4) & (land.water_m < -14)
    return np.asarray(free.all(axis=1))


def _each(parts: Sequence[Any], join: Callable[[Sequence[Any]], Any]) -> Any:
    """Make one record of arrays out of several, field by field."""
    first = parts[0]
    if not is_dataclass(first):
        return join(parts)
    kind: Any = type(first)
    return kind(
        **{f.name: _each([getattr(part, f.name) for part in parts], join) for f in fields(first)}
    )
