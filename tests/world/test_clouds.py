import numpy as np
import pytest

from geodino.errors import SourceError
from geodino.world.clouds import CIRRUS, CLEAR, NEAR, SHADOW, THICK, THIN
from geodino.world.masks import masked
from geodino.world.quality import SCL, qa_pixel, scene_classification
from geodino.world.scene import CLASSES, scene

WATER = CLASSES.index("water")
SIZE = {"height": 500, "width": 500}


@pytest.fixture(scope="module")
def clear():
    return scene(3, sensor="s2", **SIZE)


@pytest.fixture(scope="module")
def cloudy():
    return scene(3, sensor="s2", clouds=0.3, **SIZE)


@pytest.fixture(scope="module")
def landsat():
    return scene(3, sensor="landsat", clouds=0.3, date="2023-07-03", **SIZE)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_clouds_cover_their_share_of_the_world(share):
    # 60 x 60 km, some 500 clouds long and wide.
    got = scene(1, height=600, width=600, sensor="landsat", clouds=share)
    assert np.isin(got.sky, (THIN, THICK)).mean() == pytest.approx(share, abs=0.06)


def test_days_have_their_own_clouds():
    one, two = (
        scene(3, sensor="s2", clouds=0.3, date=d, **SIZE) for d in ("2023-07-01", "2023-07-02")
    )
    assert (one.sky != two.sky).mean() > 0.2
    assert not (scene(3, sensor="s2", **SIZE).sky != CLEAR).any()
    for share in (-0.1, 1.5):
        with pytest.raises(SourceError, match="between 0 and 1"):
            scene(3, height=8, width=8, clouds=share, sensor="s1")


def test_clouds_brighten_all_bands_and_their_shadows_darken_them(clear, cloudy):
    thick, shadow = cloudy.sky == THICK, cloudy.sky == SHADOW
    assert thick.mean() > 0.1
    assert shadow.mean() > 0.05
    for before, after in zip(clear.pixels.astype(int), cloudy.pixels.astype(int), strict=True):
        assert after[thick].mean() > before[thick].mean() + 1000
        assert after[shadow].mean() < before[shadow].mean() - 50
    # Far from clouds, and where none are, nothing changes.
    free = cloudy.sky == CLEAR
    change = abs(cloudy.pixels.astype(int) - clear.pixels.astype(int))
    assert np.median(change[:, free]) == 0


def test_shadows_are_the_clouds_moved_away_from_the_sun(cloudy):
    cloud, shadow = np.isin(cloudy.sky, (THIN, THICK)), cloudy.sky == SHADOW
    # The sun stands in the south-east: shadows lie north-west. Some shift of the clouds in that
    # direction explains all shadows, as far as their clouds are in the picture.
    best = max(
        ((cloud[dy:, dx:] & shadow[: 500 - dy, : 500 - dx]).sum() / shadow[: 500 - dy, : 500 - dx].sum())
        for dy in range(40, 170, 2)
        for dx in range(16, 80, 2)
    )  # fmt: skip
    assert best > 0.9


def test_truth_lies_under_the_clouds(clear, cloudy):
    np.testing.assert_array_equal(clear.classes, cloudy.classes)
    np.testing.assert_array_equal(clear.height_m, cloudy.height_m)


def test_the_scene_classification_says_what_the_pixels_show(cloudy):
    got = scene_classification(cloudy)
    for kind, name in (
        (THIN, "cloud medium probability"), (THICK, "cloud high probability"),
        (SHADOW, "cloud shadow"), (CIRRUS, "thin cirrus"),
    ):  # fmt: skip
        np.testing.assert_array_equal(got == SCL.index(name), cloudy.sky == kind)
    open_ = np.isin(cloudy.sky, (CLEAR, NEAR))
    np.testing.assert_array_equal(got == SCL.index("water"), open_ & (cloudy.classes == WATER))
    red, nir = (cloudy.pixels[i] * 1e-4 - 0.1 for i in (3, 7))
    ndvi = (nir - red) / np.maximum(nir + red, 1e-3)
    assert ndvi[got == SCL.index("vegetation")].min() >= 0.4 - 1e-6
    assert ndvi[got == SCL.index("not vegetated")].max() < 0.4 + 1e-6
    assert len(SCL) == 12


def test_pixel_quality_has_the_values_of_the_product(landsat):
    got = qa_pixel(landsat)
    water = landsat.classes == WATER
    # As tabulated in the product guide: clear land and water, cloud, shadow over both, cirrus.
    for sky, where, value in (
        (CLEAR, ~water, 21824), (CLEAR, water, 21952), (THIN, ~water, 22280), (THICK, ~water, 22280),
        (SHADOW, ~water, 23888), (SHADOW, water, 24016), (NEAR, ~water, 21762),
    ):  # fmt: skip
        here = (landsat.sky == sky) & where
        assert here.any()
        assert (got[here] == value).all(), (sky, value)


def test_pixels_that_are_not_valid_are_fill_and_their_values_never_matter(landsat):
    keep = np.ones((500, 500), dtype=bool)
    keep[:, :30] = False
    layers = [
        (qa_pixel(got), scene_classification(got))
        for got in (masked(landsat, keep, fill=0), masked(landsat, keep, fill=65535))
    ]
    for zero, other in zip(*layers, strict=True):
        np.testing.assert_array_equal(zero, other)
    qa, scl = layers[0]
    assert (qa[~keep] == 1).all()
    assert (scl[~keep] == 0).all()
    np.testing.assert_array_equal(qa[keep], qa_pixel(landsat)[keep])


def test_sensors_without_near_infrared_have_no_scene_classification():
    with pytest.raises(SourceError, match="no reflectance in the near infrared"):
        scene_classification(scene(0, height=8, width=8))
