import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino import seeds
from geodino.world.noise import (
    Frame,
    Points,
    eighth,
    fractal,
    grain,
    hashed,
    lattice_shift,
    smooth_noise,
    uniform,
)


def frame_of(top=0, left=0, height=40, width=50, gsd_m=1.0):
    return Frame(top=top, left=left, height=height, width=width, gsd_m=gsd_m)


def slow_noise(frame, key, wavelength_m):
    """Perlin's noise one pixel at a time, in float64."""

    def gradient(row, column):
        place = hashed(seeds.integer(*key), np.array([row]), np.array([column]))
        return 2.0 * float(uniform(place, 0)[0]) - 1, 2.0 * float(uniform(place, 1)[0]) - 1

    def fade(t):
        return t**3 * (t * (t * 6 - 15) + 10)

    out = np.zeros((frame.height, frame.width))
    down, right = lattice_shift(key)
    for i, y in enumerate(frame.y_m / wavelength_m + down):
        for j, x in enumerate(frame.x_m / wavelength_m + right):
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


def test_smooth_noise_is_perlins_on_frames_and_at_points():
    frame = frame_of(top=-7, left=13, height=12, width=9)
    slow = slow_noise(frame, (5, "n"), 4.3)
    np.testing.assert_allclose(smooth_noise(frame, 5, "n", wavelength_m=4.3), slow, atol=1e-5)
    y, x = frame.mesh()
    points = Points(y_m=y, x_m=x)
    np.testing.assert_allclose(smooth_noise(points, 5, "n", wavelength_m=4.3), slow, atol=1e-5)


@given(top=st.integers(-1000, 1000), left=st.integers(-1000, 1000), wave=st.floats(1.5, 300))
@settings(max_examples=20)
def test_noise_belongs_to_the_place_not_to_the_window(top, left, wave):
    whole = frame_of(top=top, left=left)
    part = whole.cut(11, 7, 20, 30)
    noises = (
        lambda f: smooth_noise(f, 1, wavelength_m=wave),
        lambda f: fractal(f, 1, wavelength_m=4 * wave, octaves=4),
        lambda f: grain(f, 1),
    )
    for noise in noises:
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


def test_long_waves_drawn_from_every_fourth_pixel_differ_little_from_exact_ones():
    # The finest wave taken that way is 64 pixels long: between points that are a sixteenth of it
    # apart, a line leaves a sine of amplitude sqrt(2) by (pi / 16)^2 / 2 = 2 % of that at most.
    frame = frame_of(top=33, left=-9, height=120, width=150)
    y, x = frame.mesh()
    exact = fractal(Points(y_m=y, x_m=x), 7, wavelength_m=140.0, octaves=2)
    assert abs(fractal(frame, 7, wavelength_m=140.0, octaves=2) - exact).max() < 0.04


def test_hashes_are_spread_evenly():
    place = hashed(7, np.arange(-100, 100)[:, None], np.arange(200)[None, :])
    # 40 000 draws of 32 bits: about 40000^2 / 2^33 = 0.2 of them meet.
    assert len(np.unique(place)) > place.size - 5
    for draw in (uniform(place, 0), uniform(place, 1), *(eighth(place, i) for i in range(4))):
        counts, _ = np.histogram(draw, bins=8, range=(0, 1))
        assert abs(counts - 5000).max() < 350
    assert abs(np.corrcoef(uniform(place, 0).ravel(), uniform(place, 1).ravel())[0, 1]) < 0.02


def test_neighbouring_keys_give_unrelated_numbers():
    rows, columns = np.arange(200)[:, None], np.arange(200)[None, :]
    draws = [uniform(hashed(key, rows, columns), 0).ravel() for key in (1, 2, 1 << 32)]
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert abs(np.corrcoef(draws[i], draws[j])[0, 1]) < 0.02
