"""Cells around scattered points, and how far away their borders are (Worley 1996)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt32

from geodino import seeds
from geodino.world.noise import lattice_hashes, uniform

Map = Float32[np.ndarray, "h w"]
Near = UInt32[np.ndarray, "h w"]

_NEAR = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
_NUMBER = np.uint32(0xF)
_ROWS_AT_ONCE = 64


@dataclass(frozen=True, kw_only=True, slots=True)
class Scatter:
    """One point somewhere in each square of a lattice."""

    size_m: float
    """Side of a square."""

    columns: int
    """Squares from west to east."""

    top: int
    """Lattice row of the first point."""

    left: int
    """Lattice column of the first point."""

    hashes: UInt32[np.ndarray, " n"]
    """One per point, row by row."""

    y: Float32[np.ndarray, " n"]
    """Place of the point in its square, 0 to 1 southwards."""

    x: Float32[np.ndarray, " n"]
    """Place of the point in its square, 0 to 1 eastwards."""

    @property
    def y_m(self) -> Float64[np.ndarray, " n"]:
        """Places of the points, metres south of the world's origin."""
        row = self.top + np.arange(len(self.y)) // self.columns
        return (row + self.y.astype(np.float64)) * self.size_m

    @property
    def x_m(self) -> Float64[np.ndarray, " n"]:
        """Places of the points, metres east of the world's origin."""
        column = self.left + np.arange(len(self.x)) % self.columns
        return (column + self.x.astype(np.float64)) * self.size_m

    def draw(self, channel: int) -> Float32[np.ndarray, " n"]:
        """One number in [0, 1) per point."""
        return np.asarray(uniform(self.hashes, channel))


def scatter(
    y_m: tuple[float, float], x_m: tuple[float, float], *key: seeds.Key, size_m: float,
    jitter: float = 0.9,
) -> Scatter:  # fmt: skip
    """Scatter points so that those of the nine squares around any place in the range are there.

    Args:
        y_m: first and last place, north to south.
        x_m: first and last place, west to east.
        key: which points.
        size_m: side of a lattice square.
        jitter: 0 puts each point in the middle of its square, 1 anywhere in it.
    """
    top, left = int(np.floor(y_m[0] / size_m)) - 1, int(np.floor(x_m[0] / size_m)) - 1
    bottom, right = int(np.floor(y_m[1] / size_m)) + 2, int(np.floor(x_m[1] / size_m)) + 2
    hashes = lattice_hashes(key, np.arange(top, bottom), np.arange(left, right)).ravel()
    shift = np.float32((1 - jitter) / 2)
    return Scatter(
        size_m=size_m,
        columns=right - left,
        top=top,
        left=left,
        hashes=hashes,
        y=shift + np.float32(jitter) * uniform(hashes, 0),
        x=shift + np.float32(jitter) * uniform(hashes, 1),
    )


@dataclass(frozen=True, slots=True)
class Cells:
    """The nearest and second nearest of scattered points."""

    nearest: Int64[np.ndarray, "h w"]
    """Number of the point whose cell a place is in."""

    second: Int64[np.ndarray, "h w"]
    """Number of the point beyond the nearest border."""

    border_m: Map
    """Distance to that border (the bisector of the two points), metres."""


def cells(
    y_m: Float64[np.ndarray, "h w"], x_m: Float64[np.ndarray, "h w"], points: Scatter
) -> Cells:
    """Find the cells of places: the nine squares around each hold its nearest points."""
    shape = (y_m.shape[0], y_m.shape[1])
    nearest, second = np.empty(shape, dtype=np.int64), np.empty(shape, dtype=np.int64)
    border = np.empty(shape, dtype=np.float32)
    to_metres = np.float32(points.size_m / 2)
    rows, columns = (np.array(steps, dtype=np.float32) for steps in zip(*_NEAR, strict=True))
    steps = np.array([(dy + 1) * points.columns + dx + 1 for dy, dx in _NEAR])
    for start in range(0, shape[0], _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        corner, one, two, gap = _two_nearest(y_m[part], x_m[part], points)
        a, b = nearest[part], second[part]
        a[:], b[:] = corner + steps[one], corner + steps[two]
        apart_y = rows[two] - rows[one] + (points.y[b] - points.y[a])
        apart_x = columns[two] - columns[one] + (points.x[b] - points.x[a])
        apart = np.sqrt(apart_y * apart_y + apart_x * apart_x)
        np.divide(gap * to_metres, apart, out=border[part])
    return Cells(nearest, second, border)


def _two_nearest(
    y_m: Float64[np.ndarray, "h w"], x_m: Float64[np.ndarray, "h w"], points: Scatter
) -> tuple[Int64[np.ndarray, "h w"], Near, Near, Map]:
    """Find the two nearest points, and the gap between their squared distances (in squares).

    Points are told by the number of the north-western square of the nine, and which of the nine
    they are in. A squared distance (in squares) and the number of the neighbour share 32 bits: positive floats
    are in order as integers, too, so that the two smallest are found without a branch.
    """
    fy, row = _split(y_m, points.size_m)
    fx, column = _split(x_m, points.size_m)
    corner = (row - points.top - 1) * points.columns + (column - points.left - 1)
    first = np.full(fy.shape, 0x7F7FFFFF, dtype=np.uint32)
    then, larger = first.copy(), np.empty_like(first)
    square, apart_x = np.empty_like(fy), np.empty_like(fy)
    ranked = square.view(np.uint32)
    for number, (dy, dx) in enumerate(_NEAR):
        step = (dy + 1) * points.columns + dx + 1
        # Indices are inside by construction; "clip" only spares numpy its own copy.
        np.take(points.y[step:] + np.float32(dy), corner, out=square, mode="clip")
        np.take(points.x[step:] + np.float32(dx), corner, out=apart_x, mode="clip")
        square -= fy
        apart_x -= fx
        square *= square
        apart_x *= apart_x
        square += apart_x
        np.bitwise_and(ranked, ~_NUMBER, out=ranked)
        np.bitwise_or(ranked, np.uint32(number), out=ranked)
        np.maximum(first, ranked, out=larger)
        np.minimum(then, larger, out=then)
        np.minimum(first, ranked, out=first)
    gap = (then & ~_NUMBER).view(np.float32) - (first & ~_NUMBER).view(np.float32)
    return corner, first & _NUMBER, then & _NUMBER, gap


def _split(
    place_m: Float64[np.ndarray, "h w"], size_m: float
) -> tuple[Map, Int64[np.ndarray, "h w"]]:
    """Return how far into its square a place lies (0 to 1), and the square."""
    position = place_m / size_m
    cell = np.floor(position)
    return (position - cell).astype(np.float32), cell.astype(np.int64)
