import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from geodino.errors import SourceError
from geodino.world.masks import masked
from geodino.world.scene import CLASSES, scene
from geodino.world.sensors import SENSORS, stored

GRASS, ARABLE, TREES, WATER, PAVED, TRACK, BUILDING = range(len(CLASSES))


def digest(got):
    state = hashlib.sha256()
    for layer in (got.pixels, got.classes, got.height_m, got.sky):
        state.update(np.ascontiguousarray(layer).tobytes())
    return state.hexdigest()[:16]


@pytest.mark.parametrize(
    ("sensor", "recorded"),
    [
        ("rgb", "5f1cf4e0c7da1168"),
        ("rgbn", "be791cb1448a01ab"),
        ("s2", "395c8147f0046c6e"),
        ("landsat", "aae30da9f896235f"),
        ("s1", "c1b98f14361c804a"),
    ],
)
def test_a_seed_gives_the_same_bits_on_any_machine(sensor, recorded):
    # Recorded once; the same with and without AVX2 and AVX-512. A change of the world on purpose
    # changes them.
    got = scene(0, height=80, width=90, top=-200, left=-700, sensor=sensor, clouds=0.4)
    assert digest(got) == recorded


def test_the_width_of_the_vector_unit_changes_no_bit():
    found = np.show_config("dicts")["SIMD Extensions"].get("found", [])
    if not found:
        pytest.skip("this processor has no wider vector unit to switch off")
    code = (
        "import hashlib\n"
        "from geodino.world.scene import scene\n"
        "for sensor in ('rgb', 's2', 's1'):\n"
        "    got = scene(0, height=96, width=96, top=-200, left=-700, sensor=sensor, clouds=0.4)\n"
        "    print(hashlib.sha256(got.pixels.tobytes()).hexdigest())"
    )

    def run(env):
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True,
            text=True, env=env,
        ).stdout  # fmt: skip

    narrow = run({**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found)})
    assert narrow == run(dict(os.environ))
    assert len(narrow.split()) == 3


def test_seeds_differ():
    assert digest(scene(1, height=64, width=64)) != digest(scene(2, height=64, width=64))


@pytest.mark.parametrize(("top", "left"), [(-240, -730), (3_000_000, -5_000_000)])
@pytest.mark.parametrize("sensor", list(SENSORS))
def test_overlapping_windows_of_one_world_agree(sensor, top, left):
    where = {"sensor": sensor, "clouds": 0.3, "date": "2023-04-10"}
    whole = scene(0, height=150, width=170, top=top, left=left, **where)
    part = scene(0, height=60, width=50, top=top + 50, left=left + 70, **where)
    inner = (slice(50, 110), slice(70, 120))
    np.testing.assert_array_equal(whole.pixels[:, *inner], part.pixels)
    for layer in ("classes", "height_m", "sky"):
        np.testing.assert_array_equal(getattr(whole, layer)[inner], getattr(part, layer))


def test_a_scene_does_not_show_the_blocks_it_was_made_in(monkeypatch):
    whole = scene(0, height=90, width=100, top=-200, left=-700)
    monkeypatch.setattr("geodino.world.scene._BLOCK", 37)
    assert digest(scene(0, height=90, width=100, top=-200, left=-700)) == digest(whole)


@pytest.mark.parametrize("sensor", list(SENSORS))
def test_layers_have_their_types_and_one_grid(sensor):
    got = scene(5, height=20, width=30, sensor=sensor)
    assert got.pixels.shape == (len(got.sensor.bands), 20, 30)
    assert got.pixels.dtype == got.sensor.dtype
    assert got.classes.shape == got.height_m.shape == got.valid.shape == got.sky.shape == (20, 30)
    assert got.valid.all()
    assert (got.sky == 0).all()
    if got.sensor.nodata is not None:
        assert (got.pixels != got.sensor.nodata).all()


def mean_of(got, label):
    """Mean stored value per band over a class."""
    return got.pixels[:, got.classes == label].astype(float).mean(axis=1)


def test_classes_agree_with_the_colours_of_the_picture(village):
    assert set(np.unique(village.classes)) == set(range(len(CLASSES)))
    red, green, _ = mean_of(village, GRASS)
    assert green > red + 10
    red, green, blue = mean_of(village, PAVED)
    assert abs(red - green) < 15
    assert abs(green - blue) < 15
    assert mean_of(village, TREES).sum() < 0.8 * mean_of(village, GRASS).sum()
    assert mean_of(village, BUILDING)[0] > mean_of(village, GRASS)[0]
    assert mean_of(village, WATER)[0] < mean_of(village, PAVED)[0]


def test_classes_agree_with_the_spectra_of_the_satellite(country):
    names = [band.name for band in country.sensor.bands]
    red, nir, swir = names.index("B04"), names.index("B08"), names.index("B11")
    value = {label: mean_of(country, label) * 1e-4 - 0.1 for label in (GRASS, ARABLE, TREES, WATER)}
    assert value[WATER][nir] < 0.05
    assert value[WATER][swir] < 0.03
    ndvi = {k: (v[nir] - v[red]) / (v[nir] + v[red]) for k, v in value.items()}
    assert ndvi[TREES] > 0.7
    assert ndvi[TREES] > ndvi[ARABLE] > ndvi[WATER]


def test_near_infrared_of_the_aerial_camera_shows_vegetation():
    where = {"height": 400, "width": 400, "top": -200, "left": -700}
    got = scene(0, sensor="rgbn", **where)
    red, *_, nir = mean_of(got, TREES)
    assert nir > 2 * red
    red, *_, nir = mean_of(got, WATER)
    assert nir < red
    np.testing.assert_array_equal(got.pixels[:3], scene(0, **where).pixels)


def test_radar_sees_smooth_water_dark_woods_bright_and_speckle_everywhere():
    got = scene(3, height=400, width=400, sensor="s1")
    vv, vh = mean_of(got, WATER)
    assert vv < 0.02
    assert mean_of(got, TREES)[1] > 2 * mean_of(got, GRASS)[1] > 5 * vh
    assert mean_of(got, BUILDING)[0] > 1.2 * mean_of(got, TREES)[0]
    # Over even ground the deviation of a mean of 4.4 looks is 1 / sqrt(4.4) = 0.48 of it.
    around = np.lib.stride_tricks.sliding_window_view(got.classes == WATER, (9, 9))
    water = got.pixels[0][4:-4, 4:-4][around.all(axis=(2, 3))]
    assert water.std() / water.mean() == pytest.approx(0.48, abs=0.06)
    assert (got.pixels > 0).all()
    # It brings its own light: clouds change nothing.
    cloudy = scene(3, height=40, width=40, sensor="s1", clouds=0.9)
    np.testing.assert_array_equal(cloudy.pixels, scene(3, height=40, width=40, sensor="s1").pixels)


def test_landsat_and_sentinel_measure_the_same_world():
    # 3 x 3 pixels of 10 m are one of 30 m; fields differ in detail, the mean must not.
    fine = scene(3, height=360, width=360, sensor="s2")
    coarse = scene(3, height=120, width=120, sensor="landsat")
    for fine_band, coarse_band in ((2, 2), (3, 3), (8, 4), (11, 6)):
        a = fine.pixels[fine_band].mean() * 1e-4 - 0.1
        b = coarse.pixels[coarse_band].mean() * 2.75e-5 - 0.2
        assert a == pytest.approx(b, rel=0.05)
    share = (fine.classes == WATER).mean(), (coarse.classes == WATER).mean()
    assert share[0] == pytest.approx(share[1], abs=0.01)


def test_stored_values_follow_the_sensors_scale():
    half = np.full((1, 1), 0.5, dtype=np.float32)
    for name, value in (("s2", 6000), ("landsat", 25_455)):
        band = SENSORS[name].bands[0]
        assert stored(half, SENSORS[name], 0) == value
        assert value * band.scale + band.offset == pytest.approx(0.5, abs=band.scale)
        # 0 is nodata there: nothing is darker than 1.
        assert stored(half - 1, SENSORS[name], 0) == 1
        assert stored(half + 9, SENSORS[name], 0) == 65_535
    # On the square-root curve 4/25 of the brightest reflectance is 2/5 of 255.
    assert stored(np.full((1, 1), 0.34 * 0.16, dtype=np.float32), SENSORS["rgb"], 0) == 102
    assert stored(half, SENSORS["s1"], 0) == half


def test_names_and_sizes_that_make_no_sense_are_refused():
    with pytest.raises(SourceError, match=r"'rgbb' is no sensor.*Did you mean 'rgb"):
        scene(0, height=8, width=8, sensor="rgbb")
    with pytest.raises(SourceError, match="at least one pixel"):
        scene(0, height=0, width=8)
    with pytest.raises(SourceError, match="is no date"):
        scene(0, height=8, width=8, date="July")
    assert scene(0, height=1, width=1).pixels.shape == (3, 1, 1)


def test_masks_keep_the_truth_and_change_only_what_they_hide(village):
    keep = village.classes != WATER
    got = masked(village, keep, fill=0)
    np.testing.assert_array_equal(got.valid, keep)
    np.testing.assert_array_equal(got.pixels[:, keep], village.pixels[:, keep])
    assert (got.pixels[:, ~keep] == 0).all()
    assert got.classes is village.classes
