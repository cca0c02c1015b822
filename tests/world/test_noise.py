import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.world.noise import (
    Cells,
    Frame,
    fractal,
    grain,
    hashed,
    quarters,
    smooth_noise,
    uniform,
)


def frame_of(top=0, left=0, height=40, width=50, gsd_m=1.0):
    return Frame(top=top, left=left, height=height, width=width, gsd_m=gsd_m)


def slow_noise(frame, key, wavelength_m):
    """Perlin's noise one pixel at a time, in float64."""
    from geodino import seeds

    def gradient(row, column):
        place = hashed(seeds.integer(*key), np.array([row]), np.array([column]))
        return 2.0 * float(uniform(place, 0)[0]) - 1, 2.0 * float(uniform(place, 1)[0]) - 1

    def fade(t):
        return t**3 * (t * (t * 6 - 15) + 10)

    out = np.zeros((frame.height, frame.width))
    for i, y in enumerate(frame.y_m / wavelength_m):
        for j, x in enumerate(frame.x_m / wavelength_m):
            row, column = int(np.floor(y)), int(np.floor(x))
            corner = {}
            for dy in (0, 1):
                for dx in (0, 1):
                    gy, gx = gradient(row + dy, column + dx)
                    corner[dy, dx] = gy * (y - row - dy) + gx * (x - column - dx)
            sy, sx = fade(y - row), fade(x - column)
            top = corner[0, 0] * (1 - sx) + corner[0, 1] * sx
            bottom = corner[1, 0] * (1 - sx) + corner[1, 1] * sx
            out[i, j] = 5.66 * (top * (1 - sy) + bottom * sy)
    return out


def test_smooth_noise_is_perlins():
    frame = frame_of(top=-7, left=13, height=12, width=9)
    fast = smooth_noise(frame, 5, "n", wavelength_m=4.3)
    np.testing.assert_allclose(fast, slow_noise(frame, (5, "n"), 4.3), atol=1e-5)


@given(top=st.integers(-1000, 1000), left=st.integers(-1000, 1000), wave=st.floats(1.5, 300))
@settings(deadline=None, derandomize=True, max_examples=20)
def test_noise_belongs_to_the_place_not_to_the_window(top, left, wave):
    whole = frame_of(top=top, left=left)
    part = frame_of(top=top + 11, left=left + 7, height=20, width=30)
    for noise in (lambda f: smooth_noise(f, 1, wavelength_m=wave), lambda f: grain(f, 1)):
        np.testing.assert_array_equal(noise(whole)[11:31, 7:37], noise(part))


def test_noises_have_about_unit_deviation():
    frame = frame_of(height=300, width=300)
    assert smooth_noise(frame, 0, wavelength_m=6.0).std() == pytest.approx(1, abs=0.1)
    assert fractal(frame, 0, wavelength_m=12.0, octaves=3).std() == pytest.approx(1, abs=0.15)
    white = grain(frame, 0)
    assert white.std() == pytest.approx(1, abs=0.01)
    assert abs(white.mean()) < 0.01
    assert abs(np.corrcoef(white[:, 1:].ravel(), white[:, :-1].ravel())[0, 1]) < 0.02


def test_octaves_that_would_alias_are_left_out():
    frame = frame_of(gsd_m=5.0)
    one = fractal(frame, 0, wavelength_m=16.0, octaves=1)
    np.testing.assert_array_equal(fractal(frame, 0, wavelength_m=16.0, octaves=9), one)


def test_hashes_are_spread_evenly():
    place = hashed(7, np.arange(-100, 100)[:, None], np.arange(200)[None, :])
    assert len(np.unique(place)) == place.size
    for draw in (uniform(place, 0), uniform(place, 1), *quarters(place)):
        counts, _ = np.histogram(draw, bins=10, range=(0, 1))
        assert abs(counts - 4000).max() < 300
    assert abs(np.corrcoef(uniform(place, 0).ravel(), uniform(place, 1).ravel())[0, 1]) < 0.02


def test_cells_are_those_of_the_nearest_point():
    # The slow way: all points of a wide lattice, every distance.
    frame = frame_of(top=-20, left=35)
    y, x = np.meshgrid(frame.y_m, frame.x_m, indexing="ij")
    cells = Cells.of(y, x, 3, "cells", size_m=13.0)
    again = Cells.of(y, x, 3, "cells", size_m=13.0)
    np.testing.assert_array_equal(cells.border_m, again.border_m)
    rows = np.arange(np.floor(y.min() / 13) - 1, np.floor(y.max() / 13) + 2)
    columns = np.arange(np.floor(x.min() / 13) - 1, np.floor(x.max() / 13) + 2)
    py = (rows[:, None] + 0.05 + 0.9 * uniform(cells.hashes, 0).reshape(len(rows), -1)) * 13
    px = (columns[None, :] + 0.05 + 0.9 * uniform(cells.hashes, 1).reshape(len(rows), -1)) * 13
    distance = np.hypot(y[..., None] - py.ravel(), x[..., None] - px.ravel())
    assert (distance.argmin(axis=2) == cells.nearest).mean() > 0.999
    assert cells.border_m.min() >= 0
    # On a border two points are equally near.
    near = cells.border_m < 0.3
    two = np.sort(distance, axis=2)[..., :2]
    assert (two[near][:, 1] - two[near][:, 0]).max() < 1.3
    length = np.hypot(*cells.toward)
    np.testing.assert_allclose(length, 1, rtol=1e-5)
