"""Noise as a function of place: the same seed and place give the same value anywhere.

Everything is hashed from integer lattice coordinates and computed with additions, products,
quotients, square roots and comparisons of single elements. IEEE 754 fixes those to the last bit,
so a scene is the same on every machine; sines, powers, sums and matrix products are not used,
because their last bit depends on the width of the vector unit.

It is also written for speed: integers have 32 bits, which vector units multiply, and choices are
made by ``minimum`` and ``maximum`` or from small tables, which are faster than ``where``.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt32

from geodino import seeds

_ROWS_AT_ONCE = 64
"""Passes over so many rows stay in the processor's cache."""

_ROW, _COLUMN, _CHANNEL = 0xD6E8FEB9, 0xA0761D65, 0x9E3779B9

Map = Float32[np.ndarray, "h w"]
Hashes = UInt32[np.ndarray, "..."]


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
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.height, self.width

    @property
    def finest_m(self) -> float:
        """Waves shorter than this would only alias: two pixels."""
        return 2 * self.gsd_m

    @property
    def y_m(self) -> Float64[np.ndarray, " h"]:
        """Distance of the pixel centres south of the world's origin, metres."""
        return (self.top + np.arange(self.height) + 0.5) * self.gsd_m

    @property
    def x_m(self) -> Float64[np.ndarray, " w"]:
        """Distance of the pixel centres east of the world's origin, metres."""
        return (self.left + np.arange(self.width) + 0.5) * self.gsd_m

    def mesh(self) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"]]:
        """Both coordinates of every pixel centre (views that must not be written to)."""
        y, x = np.broadcast_arrays(self.y_m[:, None], self.x_m[None, :])
        return y, x

    def padded(self, pixels: int) -> "Frame":
        """Return the frame with ``pixels`` more on every side."""
        return self.cut(-pixels, -pixels, self.height + 2 * pixels, self.width + 2 * pixels)

    def cut(self, top: int, left: int, height: int, width: int) -> "Frame":
        """Return the window at ``top`` and ``left``, counted from the frame's first pixel."""
        return replace(self, top=self.top + top, left=self.left + left, height=height, width=width)


@dataclass(frozen=True, kw_only=True, slots=True)
class Points:
    """Places without a raster, in any arrangement of rows and columns."""

    y_m: Float64[np.ndarray, "h w"]
    """Distance south of the world's origin, metres."""

    x_m: Float64[np.ndarray, "h w"]
    """Distance east of the world's origin, metres."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the arrangement."""
        return self.y_m.shape[0], self.y_m.shape[1]

    @property
    def finest_m(self) -> float:
        """Points have no pixels that a short wave could alias with."""
        return 0.0

    def mesh(self) -> tuple[Float64[np.ndarray, "h w"], Float64[np.ndarray, "h w"]]:
        """Both coordinates."""
        return self.y_m, self.x_m

    def moved(self, dy_m: float, dx_m: float) -> "Points":
        """Return the places so many metres further south and east."""
        return Points(y_m=self.y_m + dy_m, x_m=self.x_m + dx_m)


Places = Frame | Points


def mix(z: Hashes) -> Hashes:
    """Scramble 32-bit integers (``lowbias32``; Wellons 2018, "Hash function prospecting")."""
    z = z ^ (z >> np.uint32(16))
    z = z * np.uint32(0x7FEB352D)
    z = z ^ (z >> np.uint32(15))
    z = z * np.uint32(0x846CA68B)
    return np.asarray(z ^ (z >> np.uint32(16)))


def hashed(key: int, rows: Int64[np.ndarray, "..."], columns: Int64[np.ndarray, "..."]) -> Hashes:
    """Hash integer places under a 64-bit key; negative coordinates are fine."""
    return together(key, rows.astype(np.uint32), columns.astype(np.uint32))


def together(key: int, first: Hashes, second: Hashes) -> Hashes:
    """Make one hash of two, under a 64-bit key."""
    low, high = np.uint32(key & 0xFFFFFFFF), np.uint32(key >> 32)
    z = mix(first * np.uint32(_ROW) + low)
    return mix(z ^ (second * np.uint32(_COLUMN) + high))


def uniform(hashes: Hashes, channel: int) -> Float32[np.ndarray, "..."]:
    """Turn hashes into numbers in [0, 1); each channel is another independent draw."""
    z = mix(hashes + np.uint32((channel * _CHANNEL) % 2**32))
    return (z >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-24)


def eighth(hashes: Hashes, number: int) -> Float32[np.ndarray, "..."]:
    """Turn byte ``number`` (0 to 3) of hashes into numbers in [0, 1); cheaper than a channel."""
    byte = (hashes >> np.uint32(8 * number)) & np.uint32(0xFF)
    return (byte.astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-8)


def smooth_noise(places: Places, *key: seeds.Key, wavelength_m: float) -> Map:
    """Gradient noise (Perlin 1985, "An image synthesizer") scaled to about unit deviation.

    Random gradients on a square lattice, blended by ``6t^5 - 15t^4 + 10t^3``. The noise is 0 on
    the points of the lattice, so every noise has its lattice shifted by a draw of its own:
    otherwise the lines where two noises change their signs would meet there.
    """
    if isinstance(places, Points):
        return _noise_at(places, key, wavelength_m)
    shift_y, shift_x = lattice_shift(key)
    row, fy = _lattice(places.y_m, wavelength_m, shift_y)
    column, fx = _lattice(places.x_m, wavelength_m, shift_x)
    gy, gx = _gradients(key, int(row[0]), int(row[-1]) + 2, int(column[0]), int(column[-1]) + 2)
    c, r, sx, sy = column - column[0], row - row[0], _fade(fx), _fade(fy)
    # Along the columns first: the part that grows with x, and the factor of y, per lattice row.
    along = gx[:, c] * fx * (1 - sx) + gx[:, c + 1] * (fx - 1) * sx
    factor = gy[:, c] * (1 - sx) + gy[:, c + 1] * sx
    shares = (1 - sy, sy, (1 - sy) * fy, sy * (fy - 1))
    weights = [(share * _TO_UNIT)[:, None] for share in shares]
    out = np.empty(places.shape, dtype=np.float32)
    for start in range(0, places.height, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        above = r[part]
        total = out[part]
        np.multiply(along[above], weights[0][part], out=total)
        total += along[above + 1] * weights[1][part]
        total += factor[above] * weights[2][part]
        total += factor[above + 1] * weights[3][part]
    return out


def _noise_at(points: Points, key: tuple[seeds.Key, ...], wavelength_m: float) -> Map:
    shift_y, shift_x = lattice_shift(key)
    row, fy = _lattice(points.y_m, wavelength_m, shift_y)
    column, fx = _lattice(points.x_m, wavelength_m, shift_x)
    top, left, wide = int(row.min()), int(column.min()), int(np.ptp(column)) + 2
    gy, gx = (g.ravel() for g in _gradients(key, top, int(row.max()) + 2, left, left + wide))
    corner = (row - top) * wide + (column - left)
    sx, sy = _fade(fx), _fade(fy)
    lines = []
    for below in (0, 1):
        index = corner + below * wide
        here = gy[index] * (fy - below) + gx[index] * fx
        there = gy[index + 1] * (fy - below) + gx[index + 1] * (fx - 1)
        lines.append(here * (1 - sx) + there * sx)
    return np.asarray((lines[0] * (1 - sy) + lines[1] * sy) * _TO_UNIT)


_TO_UNIT = np.float32(5.66)


def lattice_shift(key: tuple[seeds.Key, ...]) -> tuple[float, float]:
    """Shift of a noise's lattice in rows and columns, in its own squares."""
    draw = seeds.integer(*key, "shift")
    return (draw & 0xFFFF) / 65536, (draw >> 16 & 0xFFFF) / 65536


def _gradients(
    key: tuple[seeds.Key, ...], top: int, bottom: int, left: int, right: int
) -> tuple[Float32[np.ndarray, "r c"], Float32[np.ndarray, "r c"]]:
    hashes = lattice_hashes(key, np.arange(top, bottom), np.arange(left, right))
    return 2 * uniform(hashes, 0) - 1, 2 * uniform(hashes, 1) - 1


def fractal(
    places: Places, *key: seeds.Key, wavelength_m: float, octaves: int, gain: float = 0.5
) -> Map:
    """Sum of smooth noises, each with half the wavelength and ``gain`` times the amplitude.

    Octaves finer than two pixels are left out: they would only alias. Waves of many pixels are
    summed on every fourth pixel and drawn straight in between.
    """
    waves, amplitude, power = [], 1.0, 0.0
    for octave in range(octaves):
        if wavelength_m < places.finest_m:
            break
        waves.append((wavelength_m, amplitude, (*key, octave)))
        power += amplitude * amplitude
        wavelength_m, amplitude = wavelength_m / 2, amplitude * gain
    to_unit = 1 / math.sqrt(max(power, 1e-12))
    long = [wave for wave in waves if isinstance(places, Frame) and wave[0] >= _LONG * places.gsd_m]
    total = np.zeros(places.shape, dtype=np.float32)
    if isinstance(places, Frame) and long:
        coarse = _every_fourth(places)
        total = _between(_summed(coarse, long, to_unit), coarse, places)
    total += _summed(places, waves[len(long) :], to_unit)
    return total


_LONG = 64
_STEP = 4


def _summed(
    places: Places, waves: list[tuple[float, float, tuple[seeds.Key, ...]]], scale: float
) -> Map:
    total = np.zeros(places.shape, dtype=np.float32)
    for wavelength, amplitude, key in waves:
        noise = smooth_noise(places, *key, wavelength_m=wavelength)
        noise *= np.float32(amplitude * scale)
        total += noise
    return total


def _every_fourth(frame: Frame) -> Frame:
    """Pixels of four times the size whose centres surround those of the frame."""
    top, left = (start // _STEP - 1 for start in (frame.top, frame.left))
    bottom, right = (
        (start + n - 1) // _STEP + 2
        for start, n in ((frame.top, frame.height), (frame.left, frame.width))
    )
    return Frame(
        top=top, left=left, height=bottom - top, width=right - left, gsd_m=_STEP * frame.gsd_m
    )


def _between(values: Float32[np.ndarray, "r c"], coarse: Frame, frame: Frame) -> Map:
    """Interpolate linearly from the centres of coarse pixels to those of a frame."""
    row, fy = _fraction(frame.top, frame.height, coarse.top)
    column, fx = _fraction(frame.left, frame.width, coarse.left)
    wide = values[:, column] + (values[:, column + 1] - values[:, column]) * fx
    steps = wide[1:] - wide[:-1]
    out = np.empty(frame.shape, dtype=np.float32)
    for start in range(0, frame.height, _ROWS_AT_ONCE):
        part = slice(start, start + _ROWS_AT_ONCE)
        np.multiply(steps[row[part]], fy[part, None], out=out[part])
        out[part] += wide[row[part]]
    return out


def _fraction(
    start: int, count: int, first: int
) -> tuple[Int64[np.ndarray, " n"], Float32[np.ndarray, " n"]]:
    position = (start + np.arange(count) + 0.5) / _STEP - 0.5
    below = np.floor(position)
    return below.astype(np.int64) - first, (position - below).astype(np.float32)


def grain(frame: Frame, *key: seeds.Key) -> Map:
    """White noise of unit deviation, one draw per pixel: the sum of four bytes of a hash."""
    rows, columns = (start + np.arange(n) for start, n in _spans(frame))
    out = np.empty(frame.shape, dtype=np.float32)
    for first in range(0, frame.height, _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        z = lattice_hashes(key, rows[part], columns)
        pairs = (z & np.uint32(0x00FF00FF)) + ((z >> np.uint32(8)) & np.uint32(0x00FF00FF))
        total = (pairs & np.uint32(0xFFFF)) + (pairs >> np.uint32(16))
        # A byte has the mean 127.5 and the variance (2^16 - 1) / 12.
        np.multiply(total.astype(np.float32) - np.float32(510), _GRAIN, out=out[part])
    return out


_GRAIN = np.float32(1 / math.sqrt((2**16 - 1) / 3))


def _spans(frame: Frame) -> tuple[tuple[int, int], tuple[int, int]]:
    return (frame.top, frame.height), (frame.left, frame.width)


def lattice_hashes(
    key: tuple[seeds.Key, ...], rows: Int64[np.ndarray, " r"], columns: Int64[np.ndarray, " c"]
) -> UInt32[np.ndarray, "r c"]:
    """Hash every pair of a row and a column."""
    return hashed(seeds.integer(*key), rows[:, None], columns[None, :])


def _lattice(
    place_m: Float64[np.ndarray, "..."], size_m: float, shift: float
) -> tuple[Int64[np.ndarray, "..."], Float32[np.ndarray, "..."]]:
    """Lattice cell of each place, and how far into it the place lies (0 to 1)."""
    position = place_m / size_m + shift
    cell = np.floor(position)
    return cell.astype(np.int64), (position - cell).astype(np.float32)


def _fade(t: Float32[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    return np.asarray(t * t * t * (t * (t * 6 - 15) + 10))
