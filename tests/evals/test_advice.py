import pytest
from hypothesis import given
from hypothesis import strategies as st

import geodino
from geodino.errors import RecipeError
from geodino.evals.advice import EVIDENCE, TASKS, in_words, recommend


def test_heights_go_to_the_satellite_model_and_boxes_to_the_web_model():
    assert recommend("canopy").variant == "satellite"
    assert recommend("detection").variant == "web"
    assert "sat493m" in recommend("canopy").models[0]


def test_the_domain_score_is_the_vote_of_all_and_of_those_with_like_pixels():
    # Six comparisons for the web model, two (ForestNet, the mean of six) for the satellite model.
    rows = [row for row in EVIDENCE if row.task == "classification"]
    wins = sum(row.winner == "satellite" for row in rows)
    assert recommend("classification").domain_score == (2 * wins - len(rows)) / len(rows)
    # At 0.1 m the one comparison near by is PV4GER, which the web model won.
    near, far = (recommend("classification", gsd_m=g).domain_score for g in (0.1, 12.0))
    assert near == pytest.approx(-1.0, abs=0.02)
    assert -0.6 < far < 0.0


@given(gsd=st.floats(0.01, 1000), task=st.sampled_from(TASKS))
def test_the_variant_follows_the_domain_score(gsd, task):
    advice = recommend(task, gsd_m=gsd)
    assert -1 <= advice.domain_score <= 1
    assert (advice.variant == "satellite") == (advice.domain_score >= 0.5)
    assert (advice.variant == "web") == (advice.domain_score <= -0.5)


def test_the_winner_follows_the_direction_of_the_metric():
    by_set = {(row.task, row.set): row.winner for row in EVIDENCE}
    assert by_set["canopy", "NEON"] == "satellite"  # 2.6 m against 2.7 m: lower is better
    assert by_set["segmentation", "iSAID"] == "web"  # 64.8 against 71.4: higher is better
    assert by_set["classification", "m-forestnet"] == "satellite"


def test_images_unlike_all_others_and_other_bands_are_said():
    advice = recommend("canopy", gsd_m=30.0, bands=("red", "green", "blue", "nir"))
    words = in_words(advice)
    assert "none of them has pixels near 30 m" in words
    assert "nir need an adapted first layer" in words
    assert recommend("canopy", gsd_m=30.0, bands="red,green, blue,nir") == advice


@pytest.mark.parametrize("task", TASKS)
def test_every_task_comes_with_its_table(task):
    words = in_words(geodino.recommend(task))
    for row in EVIDENCE:
        if row.task == task:
            assert row.set in words


def test_an_unknown_task_is_refused_with_the_nearest():
    with pytest.raises(RecipeError, match="Did you mean 'canopy'"):
        recommend("canopies")


@pytest.mark.parametrize("gsd", [0.0, -1.0, float("nan"), float("inf")])
def test_a_pixel_without_a_size_is_refused(gsd):
    with pytest.raises(RecipeError, match="a pixel has a size above 0"):
        recommend("canopy", gsd_m=gsd)
