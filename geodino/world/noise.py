"""Noise and cells as functions of place: the same seed and place give the same value anywhere.

Everything is hashed from integer lattice coordinates and computed with additions, products,
quotients, square roots and comparisons of single elements. IEEE 754 fixes those to the last bit,
so a scene is the same on every machine; sines, powers, sums and matrix products are not used,
because their last bit depends on the width of the vector unit.
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt64

from geodino import seeds

_ROWS_AT_ONCE = 32
"""Passes over so many rows stay in the processor's cache."""

_ROW = np.uint64(0xD6E8FEB86659FD93)
_COLUMN = np.uint64(0xA0761D6478BD642F)
_CHANNEL = 0x9E3779B97F4A7C15

Map = Float32[np.ndarray, "h w"]
Hashes = UInt64[np.ndarray, "..."]


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """A window of the endless world, in pixels of one size."""

    top: int
    """First row."""

    left: int
    """First column."""

    height: int
    """Rows."""

    width: int
    """Columns."""

    gsd_m: float
    """Side of a pixel, metres."""

    @property
    def y_m(self) -> Float64[np.ndarray, " h"]:
        """Distance of the pixel centres south of the world's origin, metres."""
        return (self.top + np.arange(self.height) + 0.5) * self.gsd_m

    @property
    def x_m(self) -> Float64[np.ndarray, " w"]:
        """Distance of the pixel centres east of the world's origin, metres."""
        return (self.left + np.arange(self.width) + 0.5) * self.gsd_m

    def padded(self, pixels: int) -> "Frame":
        """Return the frame with ``pixels`` more on every side."""
        return replace(
            self,
            top=self.top - pixels,
            left=self.left - pixels,
            height=self.height + 2 * pixels,
            width=self.width + 2 * pixels,
        )


def mix(z: Hashes) -> Hashes:
    """Scramble 64-bit integers (the finaliser of splitmix64; Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))


def hashed(
    key: int | Hashes, rows: Int64[np.ndarray, "..."], columns: Int64[np.ndarray, "..."]
) -> Hashes:
    """Hash integer places under a key; negative coordinates are fine."""
    with np.errstate(over="ignore"):
        z = mix(np.asarray(key, dtype=np.uint64) ^ (rows.astype(np.uint64) * _ROW))
        return mix(z ^ (columns.astype(np.uint64) * _COLUMN))


def uniform(hashes: Hashes, channel: int) -> Float32[np.ndarray, "..."]:
    """Turn hashes into numbers in [0, 1); each channel is another independent draw."""
    shift = np.uint64((channel * _CHANNEL) % 2**64)
    with np.errstate(over="ignore"):
        z = mix(hashes + shift)
    return (z >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-24)


def quarters(hashes: Hashes) -> tuple[Float32[np.ndarray, "..."], ...]:
    """Four numbers in [0, 1) with 16 bits each from one hash; cheaper than four channels."""
    return tuple(
        ((hashes >> np.uint64(16 * i)) & np.uint64(0xFFFF)).astype(np.float32)
        * np.float32(2.0**-16)
        for i in range(4)
    )


def smooth_noise(frame: Frame, *key: seeds.Key, wavelength_m: float) -> Map:
    """Gradient noise (Perlin 1985, "An image synthesizer") scaled to about unit deviation.

    Random gradients on a square lattice, blended by ``6t^5 - 15t^4 + 10t^3``. The blend is done
    along the columns first and the rows after, so it costs a few passes over the image.
    """
    row, fy = _lattice(frame.y_m, wavelength_m)
    column, fx = _lattice(frame.x_m, wavelength_m)
    rows, columns = np.arange(row[0], row[-1] + 2), np.arange(column[0], column[-1] + 2)
    hashes = _grid(key, rows, columns)
    gy, gx = 2 * uniform(hashes, 0) - 1, 2 * uniform(hashes, 1) - 1
    c, r, sx, sy = column - column[0], row - row[0], _fade(fx), _fade(fy)
    # Along the columns: the part that grows with x, and the factor of y, for each lattice row.
    along = gx[:, c] * fx * (1 - sx) + gx[:, c + 1] * (fx - 1) * sx
    factor = gy[:, c] * (1 - sx) + gy[:, c + 1] * sx
    out = np.empty((frame.height, frame.width), dtype=np.float32)
    scale = np.float32(5.66)
    shares = (1 - sy, sy, (1 - sy) * fy, sy * (fy - 1))
    weights = [(share * scale)[:, None] for share in shares]
    starts = np.flatnonzero(np.diff(r, prepend=r[0] - 1))
    for start, stop in zip(starts, np.append(starts[1:], frame.height), strict=True):
        above = r[start]
        vectors = (along[above], along[above + 1], factor[above], factor[above + 1])
        for first in range(start, stop, _ROWS_AT_ONCE):
            rows_ = slice(first, min(first + _ROWS_AT_ONCE, stop))
            np.multiply(weights[0][rows_], vectors[0], out=out[rows_])
            for weight, vector in zip(weights[1:], vectors[1:], strict=True):
                out[rows_] += weight[rows_] * vector
    return out


def fractal(
    frame: Frame, *key: seeds.Key, wavelength_m: float, octaves: int, gain: float = 0.5
) -> Map:
    """Sum of smooth noises, each with half the wavelength and ``gain`` times the amplitude.

    Octaves finer than two pixels are left out: they would only alias.
    """
    total = np.zeros((frame.height, frame.width), dtype=np.float32)
    amplitude, power = np.float32(1.0), 0.0
    for octave in range(octaves):
        wavelength = wavelength_m / 2**octave
        if wavelength < 2 * frame.gsd_m:
            break
        total += amplitude * smooth_noise(frame, *key, octave, wavelength_m=wavelength)
        power += float(amplitude) ** 2
        amplitude *= np.float32(gain)
    return total / np.float32(max(power, 1e-12) ** 0.5)


def grain(frame: Frame, *key: seeds.Key) -> Map:
    """White noise of unit deviation, one draw per pixel: the sum of four uniform numbers."""
    columns = frame.left + np.arange(frame.width)
    out = np.empty((frame.height, frame.width), dtype=np.float32)
    low = np.uint64(0x0000FFFF0000FFFF)
    for first in range(0, frame.height, _ROWS_AT_ONCE):
        stop = min(first + _ROWS_AT_ONCE, frame.height)
        z = _grid(key, frame.top + np.arange(first, stop), columns)
        pairs = (z & low) + ((z >> np.uint64(16)) & low)
        total = (pairs & np.uint64(0xFFFFFFFF)) + (pairs >> np.uint64(32))
        out[first:stop] = total.astype(np.float32) * np.float32(2.0**-16) - np.float32(2.0)
    return out * np.float32(3.0**0.5)


@dataclass(frozen=True, slots=True)
class Cells:
    """The nearest and second nearest of points scattered over a square lattice (Worley 1996)."""

    hashes: UInt64[np.ndarray, " n"]
    """One per lattice point near the frame."""

    nearest: Int64[np.ndarray, "h w"]
    """Index into ``hashes`` of the cell a pixel is in."""

    second: Int64[np.ndarray, "h w"]
    """Index of the cell beyond the nearest border."""

    border_m: Map
    """Distance to that border (the bisector of the two points), metres."""

    toward: tuple[Map, Map]
    """Unit vector (rows, columns) from the pixel straight to the border."""

    @classmethod
    def of(
        cls, y_m: Float64[np.ndarray, "h w"], x_m: Float64[np.ndarray, "h w"], *key: seeds.Key,
        size_m: float, jitter: float = 0.9,
    ) -> "Cells":  # fmt: skip
        """Find the cells of places; ``jitter`` 0 makes squares, 1 scatters the points fully."""
        row, fy = _lattice(y_m, size_m)
        column, fx = _lattice(x_m, size_m)
        top, left = int(row.min()) - 1, int(column.min()) - 1
        rows = np.arange(top, int(row.max()) + 2)
        columns = np.arange(left, int(column.max()) + 2)
        hashes = _grid(key, rows, columns).ravel()
        shift = np.float32((1 - jitter) / 2)
        py = shift + np.float32(jitter) * uniform(hashes, 0)
        px = shift + np.float32(jitter) * uniform(hashes, 1)
        nearest, second = np.empty(fy.shape, dtype=np.int64), np.empty(fy.shape, dtype=np.int64)
        gap = np.empty(fy.shape, dtype=np.float32)
        for start in range(0, len(fy), _ROWS_AT_ONCE):
            part = slice(start, start + _ROWS_AT_ONCE)
            middle = (row[part] - top) * len(columns) + (column[part] - left)
            found = _two_nearest(middle, fy[part], fx[part], py, px, len(columns))
            nearest[part], second[part], gap[part] = found
        apart_y = (second // len(columns) - nearest // len(columns)) + py[second] - py[nearest]
        apart_x = (second % len(columns) - nearest % len(columns)) + px[second] - px[nearest]
        apart = np.sqrt(_square(apart_y) + _square(apart_x)).astype(np.float32)
        border = gap / (2 * apart) * np.float32(size_m)
        toward = ((apart_y / apart).astype(np.float32), (apart_x / apart).astype(np.float32))
        return cls(hashes, nearest, second, border.astype(np.float32), toward)

    def draw(self, channel: int) -> Map:
        """One number in [0, 1) per cell, as a map."""
        return np.asarray(uniform(self.hashes, channel)[self.nearest])


def _two_nearest(
    middle: Int64[np.ndarray, "h w"],
    fy: Map,
    fx: Map,
    py: Float32[np.ndarray, " n"],
    px: Float32[np.ndarray, " n"],
    stride: int,
) -> tuple[Int64[np.ndarray, "h w"], Int64[np.ndarray, "h w"], Map]:
    """Indices of the two nearest points, and the difference of their squared distances."""
    first = np.full(fy.shape, np.inf, dtype=np.float32)
    then = first.copy()
    nearest = np.zeros(fy.shape, dtype=np.int64)
    second = nearest.copy()
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            index = middle + (dy * stride + dx)
            square = _square(py[index] + (dy - fy)) + _square(px[index] + (dx - fx))
            wins = square < first
            second = np.where(wins, nearest, np.where(square < then, index, second))
            then = np.where(wins, first, np.minimum(then, square))
            nearest = np.where(wins, index, nearest)
            first = np.minimum(first, square)
    return nearest, second, then - first


def _grid(
    key: tuple[seeds.Key, ...], rows: Int64[np.ndarray, " r"], columns: Int64[np.ndarray, " c"]
) -> UInt64[np.ndarray, "r c"]:
    return hashed(seeds.integer(*key), rows[:, None], columns[None, :])


def _lattice(
    place_m: Float64[np.ndarray, "..."], size_m: float
) -> tuple[Int64[np.ndarray, "..."], Float32[np.ndarray, "..."]]:
    """Lattice cell of each place, and how far into it the place lies (0 to 1)."""
    position = place_m / size_m
    cell = np.floor(position)
    return cell.astype(np.int64), (position - cell).astype(np.float32)


def _fade(t: Float32[np.ndarray, " n"]) -> Float32[np.ndarray, " n"]:
    return np.asarray(t * t * t * (t * (t * 6 - 15) + 10))


def _square(values: np.ndarray) -> np.ndarray:
    return np.asarray(values * values)
