"""Panels of heights: one scale for all, hatched where nothing is known."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.image import imread

from geodino.geo.height_colours import height_colours
from geodino.report.maps import HeightCase, error_colours, height_panels
from geodino.report.picture_table import Seen

NAN = float("nan")


def case(**fields):
    """Heights of 64 x 64 pixels: 10 m predicted and true, an image of twice the pixels."""
    values = {
        "name": "a wood",
        "image": Seen(
            values=np.full((3, 128, 128), 100.0), low=np.zeros(3), high=np.full(3, 200.0)
        ),
        "predicted_m": np.full((64, 64), 10.0),
        "true_m": np.full((64, 64), 10.0),
        "valid": np.ones((64, 64), dtype=bool),
    }
    return HeightCase(**(values | fields))


def pictures(html):
    """Return the maps (not the photographs) of a fragment, in order."""
    links = re.findall(r'<img src="data:image/png;base64,([^"]+)"', html)
    return [
        np.rint(255 * imread(io.BytesIO(base64.b64decode(link)), format="png")[..., :3])
        for link in links
    ]


def texts(html):
    return re.findall(r"<text[^>]*>([^<]*)</text>", html)


def test_a_row_shows_image_prediction_truth_and_error():
    html = height_panels([case()], highest_m=40.0)
    assert re.findall(r'<th scope="col">([^<]*)</th>', html) == [
        "image", "predicted", "true", "predicted minus true",
    ]  # fmt: skip
    assert html.count("data:image/webp") == 1
    predicted, true, error = pictures(html)
    assert predicted.shape == (256, 256, 3)
    wanted = height_colours(np.array(10.0), highest_m=40.0)
    np.testing.assert_array_equal(predicted[7, 7], wanted)
    np.testing.assert_array_equal(true, predicted)
    np.testing.assert_array_equal(error[7, 7], error_colours(np.array(0.0), worst_m=1.0))


def test_all_cases_share_one_scale():
    low, high = case(name="low"), case(name="high", true_m=np.full((64, 64), 50.0))
    html = height_panels([low, high])
    assert "50+" in texts(html)
    assert "+40" in texts(html)
    alone, together = pictures(height_panels([low]))[0], pictures(html)[0]
    assert not np.array_equal(alone, together)


def test_words_give_the_errors_where_there_are_a_truth_and_a_prediction():
    # 2 m too tall in the left half, 4 m too low in the right: mean -1 m, absolute 3 m.
    predicted = np.full((64, 64), 12.0)
    predicted[:, 32:] = 6.0
    predicted[0] = NAN
    valid = np.ones((64, 64), dtype=bool)
    valid[1] = False
    true = np.full((64, 64), 10.0)
    true[1] = -9999.0
    html = height_panels([case(predicted_m=predicted, true_m=true, valid=valid)])
    assert "a wood: mean error -1.00 m, mean absolute 3.00 m" in html


def test_a_truth_below_the_ground_is_the_ground():
    below = case(true_m=np.full((64, 64), -3.0), predicted_m=np.full((64, 64), 1.0))
    assert "mean error +1.00 m" in height_panels([below])


@pytest.mark.parametrize("fill", [NAN, -9999.0, 1e9])
def test_what_lies_under_invalid_truth_changes_nothing(fill):
    rng = np.random.default_rng(1)
    true, valid = rng.uniform(0, 30, (64, 64)), rng.random((64, 64)) < 0.7
    one, two = (case(true_m=np.where(valid, true, f), valid=valid) for f in (0.0, fill))
    assert height_panels([one]) == height_panels([two])


def test_the_unknown_is_hatched_in_the_maps_it_is_unknown_in():
    predicted = np.full((64, 64), 10.0)
    predicted[:32] = NAN
    valid = np.ones((64, 64), dtype=bool)
    valid[:, :32] = False
    greys = [
        (picture.std(axis=-1) < 4).reshape(2, 128, 2, 128).all(axis=(1, 3))
        for picture in pictures(
            height_panels([case(predicted_m=predicted, valid=valid)], highest_m=40.0)
        )[:2]
    ]
    np.testing.assert_array_equal(greys[0], [[True, True], [False, False]])
    np.testing.assert_array_equal(greys[1], [[True, False], [True, False]])


def test_large_maps_shrink_to_means():
    # Pairs of columns of 0 and 20 m become 10 m.
    stripes = np.tile([0.0, 20.0], (512, 256))
    large = case(predicted_m=stripes, true_m=stripes, valid=np.ones((512, 512), dtype=bool))
    predicted = pictures(height_panels([large], highest_m=40.0))[0]
    assert predicted.shape == (256, 256, 3)
    np.testing.assert_array_equal(
        np.unique(predicted.reshape(-1, 3), axis=0),
        [height_colours(np.array(10.0), highest_m=40.0)],
    )


def test_a_case_without_truth_or_prediction_says_so():
    nothing = case(valid=np.zeros((64, 64), dtype=bool), predicted_m=np.full((64, 64), NAN))
    assert "a wood: no truth" in height_panels([nothing])
    assert height_panels([]) == ""


def test_names_never_become_markup():
    html = height_panels([replace(case(), name='<b>"x"&')])
    assert "<b>" not in html
    assert "&lt;b&gt;&#34;x&#34;&amp;: mean error" in html


def test_legends_take_their_ink_from_the_page():
    html = height_panels([case()])
    assert html.count("<svg ") == 2
    assert "var(--muted)" in html
    assert re.findall(r"#0[0-9]0[0-9]0[0-9]\b", html) == []


def test_too_low_is_purple_too_tall_orange_and_right_is_pale():
    low, right, tall = error_colours(np.array([-9.0, 0.0, 9.0]), worst_m=5.0).astype(int)
    assert low[2] > low[0] > low[1]
    assert tall[0] > tall[1] > tall[2]
    assert right.min() > 240
    np.testing.assert_array_equal(low, error_colours(np.array(-5.0), worst_m=5.0))
