"""Trees one by one: where they stand, how high and wide they are, and their crowns from above."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, UInt8, UInt32

from geodino.world.land import BARREN_YEARS, Land
from geodino.world.noise import Frame, Points, eighth, lattice_hashes, uniform

Map = Float32[np.ndarray, "h w"]
Squares = Float32[np.ndarray, "r c"]

SQUARE_M = 5.4
"""Side of the square that holds at most one tree."""

TALLEST_M = 27.0
"""No tree is higher."""

_JITTER = 0.94
_NEAR = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
_NUMBER = np.uint32(0xF)


@dataclass(frozen=True, kw_only=True, slots=True)
class Trees:
    """Trees as a list."""

    y_m: Float64[np.ndarray, " n"]
    """Stems, metres south of the world's origin."""

    x_m: Float64[np.ndarray, " n"]
    """Stems, metres east."""

    height_m: Float32[np.ndarray, " n"]
    """Height of the top above the ground."""

    radius_m: Float32[np.ndarray, " n"]
    """Radius of the crown."""

    conifer: Bool[np.ndarray, " n"]
    """Conifers; the others are broadleaved."""

    def __len__(self) -> int:
        return len(self.height_m)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plot:
    """The lattice of squares around a frame, and the place in each where a stem could be."""

    top: int
    """Lattice row of the first square."""

    left: int
    """Lattice column of the first square."""

    hashes: UInt32[np.ndarray, "r c"]
    """One per square."""

    stems: Points
    """The places."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forest:
    """At most one tree per square."""

    plot: Plot
    """The squares."""

    height_m: Squares
    """Height of the tree; 0 where there is none."""

    radius_m: Squares
    """Radius of its crown."""

    conifer: Bool[np.ndarray, "r c"]
    """Conifers."""

    def listed(self) -> Trees:
        """Return the trees as a list, row by row."""
        alive = self.height_m > 0
        return Trees(
            y_m=self.plot.stems.y_m[alive],
            x_m=self.plot.stems.x_m[alive],
            height_m=self.height_m[alive],
            radius_m=self.radius_m[alive],
            conifer=self.conifer[alive],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Crowns:
    """The crowns of a forest from above."""

    height_m: Map
    """Height of the highest crown over a pixel; 0 where there is none."""

    conifer: Bool[np.ndarray, "h w"]
    """True under the crown of a conifer."""

    gain: UInt8[np.ndarray, "h w"]
    """Brightness of the tree a pixel belongs to; 128 means 1."""


def plot(frame: Frame, seed: int) -> Plot:
    """Lay a lattice of squares over a frame, one more on every side."""
    per_square = _pixels(frame)
    top, left = frame.top // per_square - 1, frame.left // per_square - 1
    rows = np.arange(top, (frame.top + frame.height - 1) // per_square + 2)
    columns = np.arange(left, (frame.left + frame.width - 1) // per_square + 2)
    hashes = lattice_hashes((seed, "trees"), rows, columns)
    margin = (1 - _JITTER) / 2
    a, b = (uniform(hashes, i).astype(np.float64) * _JITTER + margin for i in (0, 1))
    stems = Points(
        y_m=(rows[:, None] + a) * SQUARE_M,
        x_m=(columns[None, :] + b) * SQUARE_M,
    )
    return Plot(top=top, left=left, hashes=hashes, stems=stems)


def plant(squares: Plot, land: Land, free: Bool[np.ndarray, "r c"]) -> Forest:
    """Grow one tree per square where its stem finds a place.

    Squares in woods hold a tree nearly always, gardens and hedges often, fields hardly ever.

    Args:
        squares: where the stems could be.
        land: the land at the stems.
        free: where a stem may be.
    """
    hashes, wood = squares.hashes, land.wood
    hedge = land.hedged & (land.edge_m < 1.8) & (eighth(land.parcel, 1) > np.float32(0.35))
    bank = (land.water_m > -9) & (land.water_m < -1)
    chance = np.where(wood > 0, 0.62 + 0.4 * np.minimum(1, wood * 4), 0.005)
    chance = np.where(hedge, np.maximum(chance, 0.6), chance)
    chance = np.where(bank, np.maximum(chance, 0.4), chance)
    chance = np.where(land.urban, np.where(land.industrial, 0.03, 0.26), chance)
    young = land.age < BARREN_YEARS
    chance = np.where((wood > 0) & young, 0.02, chance)
    lives = (uniform(hashes, 2) < chance) & free
    pure = eighth(land.parcel, 2) > np.float32(0.62)
    share = np.where(pure, np.float32(0.92), np.float32(0.1))
    conifer = (wood > 0) & (uniform(hashes, 3) < share)
    size = np.float32(0.55) + np.float32(0.45) * uniform(hashes, 4)
    # Trees of a stand are of one age; seed trees left on a felled one are old.
    grown = np.where(wood > 0, np.minimum(1, np.float32(0.2) + land.age / 50), 1)
    grown = np.where(young, 1, grown).astype(np.float32)
    radius = np.where(conifer, 1.5 + 1.5 * size, 1.6 + 2.9 * size * size)
    height = np.where(conifer, 9 + 17 * size, 5 + 17 * size * np.clip(0.6 + wood, 0.3, 1)) * grown
    height = np.where(lives, np.minimum(height, TALLEST_M - 1), 0)
    radius = radius * (np.float32(0.45) + np.float32(0.55) * grown)
    return Forest(
        plot=squares,
        height_m=height.astype(np.float32),
        radius_m=radius.astype(np.float32),
        conifer=conifer,
    )


def crowns(frame: Frame, forest: Forest) -> Crowns:
    """Take the highest crown over each pixel, from the trees of the 9 squares around it.

    The pixels of one place within their squares are done together, so that everything about a
    square is looked up once. A crown is a dome, ``h * (1 - 0.55 t^4)`` with ``t`` from 0 at the
    stem to 1 at the rim, for broadleaves, and a rounded cone, ``h * (1 - 0.75 t^2)``, for conifers.
    """
    per_square = _pixels(frame)
    near = _Near.of(forest)
    shape = near.active.shape
    height = np.zeros((shape[0], per_square, shape[1], per_square), dtype=np.float32)
    owner = np.zeros(height.shape, dtype=np.uint8)
    for i in range(per_square):
        for j in range(per_square):
            place = ((i + 0.5) / per_square, (j + 0.5) / per_square)
            ranked = near.highest(*place)
            height[:, i, :, j][near.active] = (ranked & ~_NUMBER).view(np.float32)
            owner[:, i, :, j][near.active] = (ranked & _NUMBER).astype(np.uint8)
    needle = np.stack([_moved(forest.conifer, *to) for to in _NEAR])
    byte = (forest.plot.hashes >> np.uint32(24)).astype(np.uint8)
    gain = np.stack([_moved(byte, *to) for to in _NEAR])
    rows, columns = np.arange(shape[0])[:, None, None, None], np.arange(shape[1])[:, None]
    # Where the frame begins in the lattice.
    top = frame.top - forest.plot.top * per_square
    left = frame.left - forest.plot.left * per_square

    def cut(layer: np.ndarray) -> np.ndarray:
        flat = layer.reshape(shape[0] * per_square, shape[1] * per_square)
        return np.ascontiguousarray(flat[top : top + frame.height, left : left + frame.width])

    return Crowns(
        height_m=cut(height),
        conifer=cut(needle[owner, rows, columns]),
        gain=cut((gain[owner, rows, columns] >> np.uint8(2)) + np.uint8(96)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Near:
    """The trees of the nine squares around the squares that any crown may reach."""

    active: Bool[np.ndarray, "r c"]
    stem_y: Float32[np.ndarray, "9 n"]
    """Places of the stems, in squares from the middle square's corner."""
    stem_x: Float32[np.ndarray, "9 n"]
    inverse: Float32[np.ndarray, "9 n"]
    """1 over the squared radius, in squares."""
    height_m: Float32[np.ndarray, "9 n"]
    cone: Float32[np.ndarray, "9 n"]
    dome: Float32[np.ndarray, "9 n"]

    @classmethod
    def of(cls, forest: Forest) -> "_Near":
        squares = forest.plot
        rows, columns = (
            start + np.arange(n)
            for start, n in zip((squares.top, squares.left), squares.hashes.shape, strict=True)
        )
        own_y = squares.stems.y_m / SQUARE_M - rows[:, None]
        own_x = squares.stems.x_m / SQUARE_M - columns[None, :]
        radius = forest.radius_m / np.float32(SQUARE_M)
        tall = np.stack([_moved(forest.height_m, *to) for to in _NEAR])
        active = tall.max(axis=0) > 0

        def around(own: np.ndarray) -> Float32[np.ndarray, "9 n"]:
            return np.stack([_moved(own, *to)[active] for to in _NEAR]).astype(np.float32)

        shift = np.array(_NEAR, dtype=np.float32)
        needle = around(forest.conifer)
        return cls(
            active=active,
            stem_y=around(own_y) + shift[:, :1],
            stem_x=around(own_x) + shift[:, 1:],
            inverse=1 / np.maximum(around(radius * radius), np.float32(1e-6)),
            height_m=tall[:, active],
            cone=np.float32(0.75) * needle,
            dome=np.float32(0.55) * (1 - needle),
        )

    def highest(self, y: float, x: float) -> UInt32[np.ndarray, " n"]:
        """Crown height at a place in every square, its last bits the number of the neighbour."""
        best = np.zeros(self.height_m.shape[1], dtype=np.uint32)
        for number in range(len(_NEAR)):
            ey, ex = self.stem_y[number] - np.float32(y), self.stem_x[number] - np.float32(x)
            away = (ey * ey + ex * ex) * self.inverse[number]
            fall = (self.cone[number] + self.dome[number] * away) * away
            # Not below 0: as an integer, minus zero would be the largest of all.
            crown = self.height_m[number] * (1 - np.minimum(fall, 1)) * (away < 1)
            ranked = (crown.view(np.uint32) & ~_NUMBER) | np.uint32(number)
            np.maximum(best, ranked, out=best)
        # Without a crown only the number would be left.
        return np.where(best <= _NUMBER, np.uint32(0), best)


def _moved(layer: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """Return each square's neighbour ``dy`` rows down and ``dx`` right; 0 outside."""
    rows, columns = layer.shape
    out = np.zeros_like(layer)
    to = (slice(max(0, -dy), rows - max(0, dy)), slice(max(0, -dx), columns - max(0, dx)))
    of = (slice(max(0, dy), rows - max(0, -dy)), slice(max(0, dx), columns - max(0, -dx)))
    out[to] = layer[of]
    return out


def _pixels(frame: Frame) -> int:
    """Pixels along the side of a square."""
    return round(SQUARE_M / frame.gsd_m)
