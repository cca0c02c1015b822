import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from geodino.errors import SourceError
from geodino.world.masks import masked
from geodino.world.objects import shadows
from geodino.world.scene import CLASSES, scene
from geodino.world.spectra import SENSORS, stored

GRASS, ARABLE, TREES, WATER, PAVED, TRACK, BUILDING = range(len(CLASSES))


def digest(got):
    state = hashlib.sha256()
    for layer in (got.pixels, got.classes, got.height_m):
        state.update(np.ascontiguousarray(layer).tobytes())
    return state.hexdigest()[:16]


@pytest.fixture(scope="module")
def town():
    """Halls, a few houses, wood, grass and water in one picture."""
    return scene(18, height=400, width=400, top=600, left=350)


@pytest.fixture(scope="module")
def country():
    """Six by six kilometres from space."""
    return scene(3, height=600, width=600, sensor="s2")


def test_a_seed_gives_the_same_bits_on_any_machine():
    # Recorded once; the same with and without AVX2 and AVX-512. A change of the world on purpose
    # changes them.
    assert digest(scene(18, height=160, width=160)) == "4eb843d7cf44fa5d"
    assert digest(scene(3, height=160, width=160, sensor="s2")) == "43fbdce813804868"


def test_the_width_of_the_vector_unit_changes_no_bit():
    found = np.show_config("dicts")["SIMD Extensions"].get("found", [])
    if not found:
        pytest.skip("this processor has no wider vector unit to switch off")
    code = (
        "import hashlib, numpy as np\n"
        "from geodino.world.scene import scene\n"
        "got = scene(18, height=96, width=96)\n"
        "print(hashlib.sha256(got.pixels.tobytes()).hexdigest())"
    )
    narrow = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True,
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found)},
    ).stdout.strip()  # fmt: skip
    assert hashlib.sha256(scene(18, height=96, width=96).pixels.tobytes()).hexdigest() == narrow


def test_seeds_differ():
    assert digest(scene(1, height=64, width=64)) != digest(scene(2, height=64, width=64))


@pytest.mark.parametrize("sensor", ["rgb", "s2"])
def test_overlapping_windows_of_one_world_agree(sensor):
    whole = scene(24, height=150, width=170, sensor=sensor, top=-40, left=30)
    part = scene(24, height=60, width=50, sensor=sensor, top=10, left=100)
    inner = (slice(50, 110), slice(70, 120))
    np.testing.assert_array_equal(whole.pixels[:, 1:-1, 1:-1][:, 49:109, 69:119], part.pixels)
    np.testing.assert_array_equal(whole.classes[inner], part.classes)
    np.testing.assert_array_equal(whole.height_m[inner], part.height_m)


def test_layers_have_their_types_and_one_grid(town, country):
    assert (town.pixels.dtype, town.pixels.shape) == (np.uint8, (3, 400, 400))
    assert (country.pixels.dtype, country.pixels.shape) == (np.uint16, (12, 600, 600))
    for got in (town, country):
        assert got.classes.shape == got.height_m.shape == got.valid.shape == got.pixels.shape[1:]
        assert got.classes.max() < len(CLASSES)
        assert got.valid.all()
        assert len(got.sensor.bands) == len(got.pixels)


def mean_of(got, label):
    """Mean stored value per band over a class."""
    return got.pixels[:, got.classes == label].astype(float).mean(axis=1)


def test_classes_agree_with_the_colours_of_the_picture(town):
    assert set(np.unique(town.classes)) >= {GRASS, TREES, WATER, PAVED, BUILDING}
    red, green, _ = mean_of(town, GRASS)
    assert green > red + 10
    red, green, blue = mean_of(town, PAVED)
    assert abs(red - green) < 12
    assert abs(green - blue) < 12
    assert mean_of(town, TREES).sum() < 0.8 * mean_of(town, GRASS).sum()
    assert mean_of(town, BUILDING)[0] > mean_of(town, GRASS)[0]
    assert mean_of(town, WATER)[0] < mean_of(town, PAVED)[0]


def test_classes_agree_with_the_spectra_of_the_satellite(country):
    names = [band.name for band in country.sensor.bands]
    red, nir, swir = names.index("B04"), names.index("B08"), names.index("B11")
    value = {label: mean_of(country, label) * 1e-4 - 0.1 for label in (GRASS, ARABLE, TREES, WATER)}
    assert value[WATER][nir] < 0.05
    assert value[WATER][swir] < 0.03
    ndvi = {k: (v[nir] - v[red]) / (v[nir] + v[red]) for k, v in value.items()}
    assert ndvi[TREES] > 0.7
    assert ndvi[TREES] > ndvi[ARABLE] > ndvi[WATER]


def test_only_trees_and_buildings_stand_up(town):
    tall = town.height_m > 0
    assert set(np.unique(town.classes[tall])) == {TREES, BUILDING}
    assert (town.height_m[town.classes == TREES] > 0).all()
    assert 10 < town.height_m.max() < 27
    houses = town.height_m[town.classes == BUILDING]
    assert houses.min() >= 3
    assert houses.max() < 11


def test_a_wall_throws_a_shadow_of_its_height_away_from_the_sun():
    # 5 m high, sun in the south (towards larger rows) at 45 degrees, 1 m pixels: rows 5 to 9 lie
    # in shadow; the last of the five sees the ray 0 m above it and is free.
    height = np.zeros((20, 3), dtype=np.float32)
    height[10] = 5
    shade = shadows(height, gsd_m=1.0, sun=(1.0, 0.0), tangent=1.0)
    assert np.flatnonzero(shade[:, 1]).tolist() == [6, 7, 8, 9]
    assert not shadows(np.zeros((4, 4), np.float32), gsd_m=1.0, sun=(1.0, 0.0), tangent=1.0).any()


def test_shadows_are_dark_and_bluish(town):
    ground = np.isin(town.classes, (GRASS, ARABLE))
    brightness = town.pixels.astype(float).sum(axis=0)
    dark = ground & (brightness < np.quantile(brightness[ground], 0.05))
    ratio = town.pixels[2] / np.maximum(town.pixels[0], 1)
    assert np.median(ratio[dark]) > np.median(ratio[ground])


def test_stored_values_follow_the_sensors_scale():
    half = np.full((12, 1, 1), 0.5, dtype=np.float32)
    s2 = SENSORS["s2"]
    assert (stored(half, s2) == 6000).all()
    band = s2.bands[0]
    assert 6000 * band.scale + band.offset == pytest.approx(0.5)
    # 0 is nodata there: nothing is darker than 1.
    assert (stored(half - 1, s2) == 1).all()
    # On the square-root curve 4/25 of the brightest reflectance is 2/5 of 255.
    assert (stored(np.full((3, 1, 1), 0.42 * 0.16, dtype=np.float32), SENSORS["rgb"]) == 102).all()


def test_names_and_sizes_that_make_no_sense_are_refused():
    with pytest.raises(SourceError, match=r"'rgbb' is no sensor.*Did you mean 'rgb'"):
        scene(0, height=8, width=8, sensor="rgbb")
    with pytest.raises(SourceError, match="at least one pixel"):
        scene(0, height=0, width=8)
    assert scene(0, height=1, width=1).pixels.shape == (3, 1, 1)


def test_masks_keep_the_truth_and_change_only_what_they_hide(town):
    keep = town.classes != WATER
    got = masked(town, keep, fill=0)
    np.testing.assert_array_equal(got.valid, keep)
    np.testing.assert_array_equal(got.pixels[:, keep], town.pixels[:, keep])
    assert (got.pixels[:, ~keep] == 0).all()
    assert got.classes is town.classes
