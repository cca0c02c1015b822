import numpy as np

from geodino.world.calendar import Sun
from geodino.world.light import shadows, sunlight
from geodino.world.noise import Frame
from geodino.world.scene import scene

GRASS, ARABLE, PAVED = 0, 1, 4


def frame(height, width, gsd_m=1.0):
    return Frame(top=0, left=0, height=height, width=width, gsd_m=gsd_m)


def test_a_wall_throws_a_shadow_of_its_height_away_from_the_sun():
    # 5 m high, sun in the south (towards larger rows) at 45 degrees, 1 m pixels: rows 5 to 9 lie
    # in shadow; the last of the five sees the ray 0 m above it and is free.
    height = np.zeros((20, 3), dtype=np.float32)
    height[10] = 5
    south = Sun(toward=(1.0, 0.0), tangent=1.0)
    shade = shadows(height, frame(20, 3), south)
    assert np.flatnonzero(shade[:, 1]).tolist() == [6, 7, 8, 9]
    assert not shadows(np.zeros((4, 4), np.float32), frame(4, 4), south).any()


def test_shadows_of_a_pole_point_away_from_a_sun_in_the_south_east():
    # 3-4-5: four rows and three columns to the north-west are 5 m, lowered by 5 m at 45 degrees.
    height = np.zeros((30, 30), dtype=np.float32)
    height[20, 20] = 10
    shade = shadows(height, frame(30, 30), Sun(toward=(0.8, 0.6), tangent=1.0))
    rows, columns = np.nonzero(shade)
    assert rows.min() == 13  # 8 rows up is 10 m: there the ray is down.
    assert rows.max() == 19
    np.testing.assert_allclose(20 - columns, (20 - rows) * 0.75, atol=0.51)


def test_shadows_are_longer_in_winter(village):
    winter = scene(0, height=400, width=400, top=-200, left=-700, date="2023-01-20")
    open_ = np.isin(village.classes, (GRASS, ARABLE, PAVED))
    dark = [
        (got.pixels.astype(float).sum(axis=0) < 0.75 * np.median(got.pixels.sum(axis=0)[open_]))
        for got in (village, winter)
    ]
    assert dark[1][open_].mean() > 1.2 * dark[0][open_].mean() > 0


def slow_shadows(height, sun):
    """Follow every pixel's ray towards the sun, row by row."""
    rows, columns = height.shape
    south, east = sun.toward
    out = np.zeros(height.shape, dtype=bool)
    for r in range(rows):
        for c in range(columns):
            for s in range(r + 1, rows):
                k = (
                    c
                    + int(np.floor(s * east / south + 0.5))
                    - int(np.floor(r * east / south + 0.5))
                )
                ray = height[r, c] + 0.3 + (s - r) * sun.tangent / south
                out[r, c] |= 0 <= k < columns and height[s, k] > ray
    return out


def test_one_pass_finds_the_shadows_that_single_rays_find():
    rng = np.random.default_rng(0)
    height = (rng.random((24, 20)) ** 8 * 12).astype(np.float32)
    for east in (-0.6, 0.0, 0.28):
        sun = Sun(toward=(float(np.sqrt(1 - east * east)), east), tangent=0.7)
        np.testing.assert_array_equal(
            shadows(height, frame(24, 20), sun), slow_shadows(height.astype(float), sun)
        )


def test_slopes_towards_the_sun_are_brighter():
    # Ground that falls by half a metre per metre towards the sun at 45 degrees:
    # (1 + 0.5) / sqrt(1.25) = 1.342; the other way (1 - 0.5) / sqrt(1.25) = 0.447.
    south = Sun(toward=(1.0, 0.0), tangent=1.0)
    down = np.repeat(-0.5 * np.arange(6, dtype=np.float32)[:, None], 5, axis=1)
    np.testing.assert_allclose(sunlight(down, gsd_m=1.0, sun=south), 1.342, atol=1e-3)
    np.testing.assert_allclose(sunlight(-down, gsd_m=1.0, sun=south), 0.447, atol=1e-3)
    np.testing.assert_allclose(sunlight(0 * down, gsd_m=1.0, sun=south), 1.0)


def test_shadows_in_a_picture_are_dark_and_bluish(village):
    ground = np.isin(village.classes, (GRASS, ARABLE))
    brightness = village.pixels.astype(float).sum(axis=0)
    dark = ground & (brightness < np.quantile(brightness[ground], 0.05))
    ratio = village.pixels[2] / np.maximum(village.pixels[0], 1)
    assert np.median(ratio[dark]) > np.median(ratio[ground])
