"""Things that stand on the land: trees with crowns, houses with roofs, and their shadows."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from geodino import seeds
from geodino.world.land import Land
from geodino.world.noise import Frame, hashed, quarters, uniform
from geodino.world.spectra import material

Map = Float32[np.ndarray, "h w"]

CROWN_M = 5.2
"""Side of the square that holds one tree."""

TALLEST_M = 27.0
"""No tree and no house is higher."""

_MOST_RADIUS_M = 4.6


@dataclass(frozen=True, kw_only=True, slots=True)
class Trees:
    """Crowns from above."""

    height_m: Map
    """Height of the crown's surface above the ground; 0 where there is none."""

    conifer: Bool[np.ndarray, "h w"]
    """True under the crown of a conifer."""

    gain: Map
    """Brightness of the tree a pixel belongs to, around 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Buildings:
    """Roofs, streets and yards of the settlements."""

    cover: Map
    """Share of a pixel under a roof."""

    height_m: Map
    """Height of the roof above the ground; 0 where there is none."""

    roof: Int64[np.ndarray, "h w"]
    """Material of the roof."""

    gain: Map
    """Brightness of the roof, around 1."""

    paved: Map
    """Share of a pixel that is street, drive or car park."""


def plant(frame: Frame, seed: int, land: Land, keep_free: Bool[np.ndarray, "h w"]) -> Trees:
    """Grow one tree per square of ``CROWN_M`` where its stem finds a place.

    Squares in woods hold a tree nearly always, gardens and hedges often, fields hardly ever. The
    crown of a pixel is the highest of those that reach it.
    """
    y, x = frame.y_m / CROWN_M, frame.x_m / CROWN_M
    rows = np.arange(int(np.floor(y[0])) - 1, int(np.floor(y[-1])) + 2)
    columns = np.arange(int(np.floor(x[0])) - 1, int(np.floor(x[-1])) + 2)
    place = hashed(seeds.integer(seed, "trees"), rows[:, None], columns[None, :])
    a, b, c, d = quarters(place)
    stem_y = (rows[:, None] + 0.15 + 0.7 * a).astype(np.float64)
    stem_x = (columns[None, :] + 0.15 + 0.7 * b).astype(np.float64)
    # The pixel of the stem, or the nearest one for stems just outside of the frame.
    i = np.clip((stem_y * CROWN_M / frame.gsd_m - frame.top).astype(np.int64), 0, frame.height - 1)
    j = np.clip((stem_x * CROWN_M / frame.gsd_m - frame.left).astype(np.int64), 0, frame.width - 1)
    wood = land.wood[i, j]
    hedged = quarters(land.district[i, j])[2] > 0.45
    hedge = hedged & (land.edge_m[i, j] < 1.8) & (quarters(land.parcel[i, j])[1] > 0.35)
    bank = (land.water_m[i, j] > -9) & (land.water_m[i, j] < -1)
    chance = np.where(wood > 0, 0.55 + 0.5 * np.minimum(1, wood * 4), 0.006)
    chance = np.where(hedge, np.maximum(chance, 0.6), chance)
    chance = np.where(bank, np.maximum(chance, 0.4), chance)
    chance = np.where(land.urban[i, j], np.where(land.industrial[i, j], 0.03, 0.3), chance)
    lives = (c < chance) & ~keep_free[i, j]
    stand = quarters(land.parcel[i, j])[2]
    conifer = (wood > 0) & (d < np.where(stand > 0.62, 0.92, 0.1))
    size = 0.55 + 0.45 * uniform(place, 5)
    radius = np.where(conifer, 1.5 + 1.5 * size, 1.6 + 3.0 * size * size) / CROWN_M
    height = np.where(conifer, 9 + 17 * size, 5 + 17 * size * np.minimum(1, 0.6 + wood))
    height = np.where(lives, np.minimum(height, TALLEST_M - 1), 0).astype(np.float32)
    forest = _Forest(
        height_m=height,
        radius=radius.astype(np.float32),
        conifer=conifer,
        # Relative to the first square, stems keep their digits in 32 bits.
        stem_y=(stem_y - rows[0]).astype(np.float32),
        stem_x=(stem_x - columns[0]).astype(np.float32),
        brightness=uniform(place, 6),
    )
    return _crowns(y - rows[0], x - columns[0], forest)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Forest:
    """One tree per square; lengths but the height are in squares."""

    height_m: Float32[np.ndarray, "r c"]
    radius: Float32[np.ndarray, "r c"]
    conifer: Bool[np.ndarray, "r c"]
    stem_y: Float32[np.ndarray, "r c"]
    stem_x: Float32[np.ndarray, "r c"]
    brightness: Float32[np.ndarray, "r c"]


def _crowns(y: Float64[np.ndarray, " h"], x: Float64[np.ndarray, " w"], forest: _Forest) -> Trees:
    """Take the highest crown over each pixel, from the trees of the 9 squares around it."""
    stride = forest.height_m.shape[1]
    row, column = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    near = _spread(forest.height_m > 0)[row[:, None], column[None, :]]
    iy, ix = np.nonzero(near)
    py, px = y[iy].astype(np.float32), x[ix].astype(np.float32)
    middle = row[iy] * stride + column[ix]
    height, needle = forest.height_m.ravel(), forest.conifer.ravel()
    stem_y, stem_x = forest.stem_y.ravel(), forest.stem_x.ravel()
    inverse = (1 / (forest.radius * forest.radius)).ravel()
    best = np.zeros(len(iy), dtype=np.float32)
    owner = middle.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            index = middle + (dy * stride + dx)
            ey, ex = stem_y[index] - py, stem_x[index] - px
            away = (ey * ey + ex * ex) * inverse[index]
            # A dome for broadleaves; conifers fall off towards the rim like a rounded cone.
            fall = np.where(needle[index], np.float32(0.75), away * np.float32(0.55)) * away
            crown = np.where(away < 1, height[index] * (1 - fall), np.float32(0))
            owner = np.where(crown > best, index, owner)
            best = np.maximum(best, crown)
    trees = Trees(
        height_m=np.zeros(near.shape, dtype=np.float32),
        conifer=np.zeros(near.shape, dtype=bool),
        gain=np.ones(near.shape, dtype=np.float32),
    )
    trees.height_m[near] = best
    trees.conifer[near] = needle[owner]
    trees.gain[near] = np.float32(0.78) + np.float32(0.44) * forest.brightness.ravel()[owner]
    return trees


def _spread(mask: Bool[np.ndarray, "r c"]) -> Bool[np.ndarray, "r c"]:
    """True also where a neighbour is."""
    out = mask.copy()
    out[1:] |= mask[:-1]
    out[:-1] |= mask[1:]
    wide = out.copy()
    wide[:, 1:] |= out[:, :-1]
    wide[:, :-1] |= out[:, 1:]
    return wide


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


_HOUSES = _Plan(street=5.5, row=64.0, block=132.0, plot=21.0, half_along=(4.5, 7.5),
                half_deep=(3.8, 5.5), setback=6.0, eaves=(3.0, 5.5), ridge=3.2)  # fmt: skip
_HALLS = _Plan(street=8.0, row=118.0, block=176.0, plot=84.0, half_along=(22.0, 34.0),
               half_deep=(11.0, 18.0), setback=9.0, eaves=(6.0, 10.0), ridge=0.0)  # fmt: skip


def build(frame: Frame, land: Land) -> Buildings:
    """Build houses along a grid of streets in the settlements, and halls in their own quarters."""
    shape = (frame.height, frame.width)
    maps = {name: np.zeros(shape, dtype=np.float32) for name in ("cover", "height_m", "paved")}
    gain = np.ones(shape, dtype=np.float32)
    roof = np.zeros(shape, dtype=np.int64)
    for plan, where in (
        (_HOUSES, land.urban & ~land.industrial),
        (_HALLS, land.industrial),
    ):
        if where.any():
            parts = _settle(frame, plan, land, where)
            maps["cover"][where], maps["height_m"][where], maps["paved"][where] = parts[:3]
            roof[where], gain[where] = parts[3:]
    return Buildings(roof=roof, gain=gain, **maps)


def _settle(frame: Frame, plan: _Plan, land: Land, where: np.ndarray) -> tuple[np.ndarray, ...]:
    u, v = land.along_m[where], land.across_m[where]
    district = land.district[where]
    street_v = np.floor(v / plan.row)
    deep = v - street_v * plan.row  # 0 .. row; the street comes first
    depth = (plan.row - plan.street) / 2
    far = deep > plan.street + depth
    setback = np.where(far, plan.row - deep, deep - plan.street)  # from the plot's own street
    way = np.where(far, -1.0, 1.0)
    block = np.floor(u / plan.block)
    run = u - block * plan.block
    lot = np.floor((run - plan.street) / plan.plot)
    beside = run - plan.street - (lot + 0.5) * plan.plot
    street = np.maximum(plan.street - deep, plan.street - run)
    place = hashed(
        district, (street_v * 2 + far).astype(np.int64), (block * 64 + lot).astype(np.int64)
    )
    a, b, c, d = quarters(place)
    e, f, g, _ = quarters(place * np.uint64(0x9E3779B97F4A7C15))
    half_u = plan.half_along[0] + (plan.half_along[1] - plan.half_along[0]) * a
    half_v = plan.half_deep[0] + (plan.half_deep[1] - plan.half_deep[0]) * b
    at_u = beside - (c - 0.5) * 2.0
    at_v = setback - (plan.setback + half_v + 2.5 * d)
    inside = np.minimum(half_u - np.abs(at_u), half_v - np.abs(at_v))
    stands = (
        (e < 0.9)
        & (street < 0)
        & (lot >= 0)
        & ((lot + 1) * plan.plot + plan.street <= plan.block + 1)
    )
    # The whole house must stand in this district, whichever of its pixels asks.
    room = land.border_m[where] + at_u * land.toward[0][where] + way * at_v * land.toward[1][where]
    stands &= room > 4 + np.maximum(half_u, half_v) * np.float32(1.2)
    stands &= (land.road_m[where] < -8) & (land.wood[where] < 0.2)
    cover = np.where(stands, np.clip(0.5 + inside / frame.gsd_m, 0, 1), 0)
    eaves = plan.eaves[0] + (plan.eaves[1] - plan.eaves[0]) * f
    along = half_u > half_v
    slope = np.where(along, np.abs(at_v) / half_v, np.abs(at_u) / half_u)
    height = np.where(cover >= 0.5, eaves + plan.ridge * np.maximum(0, 1 - slope), 0)
    drive = (np.abs(beside - (plan.plot / 2 - 2.2)) < 1.6) & (setback < plan.setback + 6) & stands
    paved = np.clip(0.5 + street / frame.gsd_m, 0, 1)
    paved = np.maximum(paved, np.where(drive & (g > 0.3), 0.9, 0.0))
    if plan is _HALLS:
        paved = np.maximum(paved, np.where(setback < depth * 0.8, 0.92, 0.0))
        roof = np.where(g < 0.6, material("bright roof"), material("grey roof"))
    else:
        roof = np.where(g < 0.62, material("red roof"), material("grey roof"))
    gain = 0.75 + 0.5 * quarters(place * np.uint64(0xBF58476D1CE4E5B9))[0]
    return (
        cover.astype(np.float32),
        height.astype(np.float32),
        paved.astype(np.float32),
        roof,
        gain.astype(np.float32),
    )


def shadows(
    height_m: Map, *, gsd_m: float, sun: tuple[float, float], tangent: float
) -> Bool[np.ndarray, "h w"]:
    """Where a flat ground with ``height_m`` upon it lies in shadow.

    The ray from each pixel to the sun is followed pixel by pixel: it is cut where something on
    the way is higher than the ray.

    Args:
        height_m: height above the ground.
        gsd_m: side of a pixel.
        sun: unit vector (rows, columns) on the ground towards the sun.
        tangent: tangent of the sun's elevation.
    """
    reach = float(height_m.max()) if height_m.size else 0.0
    steps = int(reach / (gsd_m * tangent)) + 1
    blocking = np.zeros_like(height_m)
    rows, columns = height_m.shape
    for step in range(1, steps + 1):
        dy, dx = round(step * sun[0]), round(step * sun[1])
        drop = np.float32(step * gsd_m * tangent)
        to = (slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), columns - max(0, dx)))
        of = (slice(max(0, dy), rows - max(0, -dy)), slice(max(0, dx), columns - max(0, -dx)))
        np.maximum(blocking[to], height_m[of] - drop, out=blocking[to])
    return blocking > height_m + np.float32(0.3)
