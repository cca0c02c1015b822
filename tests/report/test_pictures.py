import base64
import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from geodino.report import pictures
from geodino.report.pictures import coloured, data_uri, hatched, marked, stretched

GREY = st.sampled_from([0.0, -9999.0, float("nan"), float("inf"), 65535.0])


def show(values, valid=None, *, low=0.0, high=10.0):
    values = np.asarray(values, dtype=np.float64)
    valid = np.ones(values.shape[1:], dtype=bool) if valid is None else np.asarray(valid)
    black, white = (np.full(len(values), v) for v in (low, high))
    return stretched(values, valid, low=black, high=white)


@pytest.fixture
def no_enlargement(monkeypatch):
    monkeypatch.setattr(pictures, "SIDE", 2)


def test_black_white_and_half(no_enlargement):
    picture = show([[[0.0, 10.0], [5.0, 99.0]]])
    np.testing.assert_array_equal(picture[..., 0], [[0, 255], [128, 255]])
    np.testing.assert_array_equal(picture[..., 0], picture[..., 2])


def test_large_pictures_shrink_to_means_over_valid_pixels(no_enlargement):
    # 4 x 4 to 2 x 2. Top left: 2 and 6 are valid, mean 4 of 10 = 102 of 255; top right: one of
    # four is valid, too few; below: all.
    values = [[[2.0, 6.0, 9.0, 9.0], [7.0, 7.0, 9.0, 9.0], *[[0.0, 0.0, 10.0, 10.0]] * 2]]
    valid = np.ones((4, 4), dtype=bool)
    valid[1, :2] = False
    valid[:2, 2:] = [[True, False], [False, False]]
    picture = show(values, valid)
    assert picture.shape == (2, 2, 3)
    assert picture[0, 0, 0] == 102
    assert (picture[1, 0, 0], picture[1, 1, 0]) == (0, 255)
    np.testing.assert_array_equal(picture[0, 1], hatched(picture, np.zeros((2, 2), bool))[0, 1])


def test_small_pictures_are_enlarged_by_a_whole_factor():
    assert show(np.zeros((3, 32, 32))).shape == (160, 160, 3)
    assert show(np.zeros((3, 96, 50))).shape == (96, 50, 3)
    assert show(np.zeros((1, 1000, 500))).shape == (142, 71, 3)


@given(fill=GREY, other=GREY, side=st.sampled_from([4, 33, 400]), seed=st.integers(0, 99))
@settings(max_examples=30)
def test_what_lies_under_invalid_pixels_changes_no_bit(fill, other, side, seed):
    rng = np.random.default_rng(seed)
    values, valid = rng.uniform(0, 10, (3, side, side)), rng.random((side, side)) < 0.6
    one, two = (np.where(valid, values, f) for f in (fill, other))
    np.testing.assert_array_equal(show(one, valid), show(two, valid))


def test_a_constant_band_is_no_division_by_zero():
    assert show(np.ones((1, 4, 4)), low=1.0, high=1.0).max() == 0


def test_hatching_covers_invalid_pixels_only():
    rgb = np.full((16, 16, 3), 7, dtype=np.uint8)
    valid = np.zeros((16, 16), dtype=bool)
    valid[:8] = True
    picture = hatched(rgb, valid)
    assert (picture[:8] == 7).all()
    assert (picture[8:] >= 120).all()
    assert len(np.unique(picture[8:].reshape(-1, 3), axis=0)) == 2


def test_a_frame_leaves_what_it_frames():
    rgb = np.full((20, 20, 3), 100, dtype=np.uint8)
    picture = marked(rgb, top=8, left=8, height=4, width=4)
    assert (picture[8:12, 8:12] == 100).all()
    assert (picture[6, 6:14] == 255).all()
    assert (picture[5, 5:15] == 0).all()
    assert (picture[:5] == 100).all()
    assert (rgb == 100).all()


def test_a_frame_at_the_corner_stays_inside():
    rgb = np.zeros((10, 10, 3), dtype=np.uint8)
    assert marked(rgb, top=0, left=0, height=4, width=4).shape == rgb.shape


def test_colours_run_from_dark_to_bright_and_values_outside_stay_at_the_ends():
    picture = coloured(np.array([[-1.0, 0.0, 0.5, 1.0, 2.0, np.nan]]), low=0.0, high=1.0)[0]
    brightness = picture.astype(int).sum(axis=-1)
    assert brightness[0] == brightness[1] == brightness[5]
    assert brightness[1] < brightness[2] < brightness[3] == brightness[4]


def test_pictures_live_in_their_links_and_maps_keep_every_value():
    rgb = np.random.default_rng(0).integers(0, 256, (12, 9, 3)).astype(np.uint8)
    kind, text = data_uri(rgb, kind="map").split(",")
    assert kind == "data:image/png;base64"
    stored = imread(io.BytesIO(base64.b64decode(text)), format="png")
    np.testing.assert_array_equal(np.rint(255 * stored[..., :3]), rgb)
    assert data_uri(rgb, kind="photo").startswith("data:image/webp;base64,")
    assert data_uri(rgb, kind="photo") == data_uri(rgb, kind="photo")
