"""The watch over dense-feature health: the best is kept, and a lasting turn is seen."""

import pytest

from geodino.pretrain.watch import Watch


def watch(**changes):
    return Watch(**{"figure": "patch_rank", "tolerance": 0.1, "patience": 2, "after": 0} | changes)


def follow(of, values):
    return [of.update(step, {of.figure: value}) for step, value in enumerate(values)]


def test_the_best_is_the_highest_rank_and_the_lowest_cosine():
    assert follow(watch(), [5.0, 7.0, 6.9, 8.0, 1.0]) == [True, True, False, True, False]
    cosine = watch(figure="cls_patch_cosine")
    assert follow(cosine, [0.5, 0.3, 0.4, 0.2]) == [True, True, False, True]
    assert (cosine.best, cosine.best_step) == (0.2, 3)


def test_a_turn_lasts_and_is_more_than_the_tolerance():
    of = watch()
    follow(of, [10.0, 8.9, 9.1, 8.9])  # worse by more than 10 %, then not, then again
    assert not of.turned
    of.update(4, {"patch_rank": 8.8})
    assert of.turned
    assert of.reason(8.8) == (
        "patch_rank was 10.000 at step 0 and is 8.800 now, worse by more than 10 % in 2 "
        "measurements in a row"
    )


def test_cosines_are_judged_by_their_distance_to_one():
    # From 0.8 a tenth of the way to 1 is 0.82.
    of = watch(figure="cls_patch_cosine", patience=1)
    follow(of, [0.8, 0.819])
    assert not of.turned
    of.update(2, {"cls_patch_cosine": 0.821})
    assert of.turned


def test_early_measurements_are_not_judged():
    of = watch(after=2)
    assert follow(of, [100.0, 100.0, 5.0]) == [False, False, True]


@pytest.mark.parametrize("steps", [1, 3])
def test_its_state_goes_on_elsewhere(steps):
    values = [10.0, 8.0, 8.0, 8.0]
    whole, first, second = watch(patience=3), watch(patience=3), watch(patience=3)
    follow(whole, values)
    for step, value in enumerate(values):
        if step == steps:
            second.load_state(first.state())
        (first if step < steps else second).update(step, {"patch_rank": value})
    assert second.state() == whole.state()
    assert second.turned
