"""The seam score says what an eye would: whether the squares of chips show in a map."""

from itertools import pairwise

import numpy as np
import pytest

from geodino.geo.windows import Window
from geodino.infer.cover import Cover
from geodino.infer.seams import SeamMeter, SeamSums

SIDE = 512
EVERYWHERE = np.ones((SIDE, SIDE), dtype=bool)


def cover_of(overlap):
    return Cover.of(SIDE, SIDE, chip=128, overlap=overlap, align=16)


def levels(axis):
    """Chips of level 0 and 1 in turn, each fading into the next."""
    found = np.zeros(SIDE)
    for number in range(axis.count):
        first, full = axis.first(number), axis.full(number)
        weight = axis.fade(number)
        found[first:full] = (1 - weight) * ((number - 1) % 2) + weight * (number % 2)
        found[full:] = number % 2
    return found


def chequered(cover, height):
    return height * np.add.outer(levels(cover.rows), levels(cover.columns)).astype(np.float32)


def noise(size=(SIDE, SIDE)):
    return np.random.default_rng(0).normal(size=size).astype(np.float32)


def measured(cover, values, valid=EVERYWHERE, *, cuts=(0, SIDE)):
    meter = SeamMeter(cover, Window(0, 0, *values.shape))
    for top, stop in pairwise(cuts):
        meter.add(top, values[top:stop], valid[top:stop])
    return meter.sums


@pytest.mark.parametrize("overlap", [0, 32, 64])
def test_it_is_one_where_chips_agree(overlap):
    assert measured(cover_of(overlap), noise()).score == pytest.approx(1, abs=0.2)


@pytest.mark.parametrize("overlap", [0, 32, 64])
def test_levels_that_differ_show_however_restless_each_chip_is_and_however_smooth_the_fade(overlap):
    # Means of 32 normal values differ by 0.2 on average. A step of 1, of which half a fade
    # bridges five sevenths, is at least 0.71 / 0.2 times as much: pixels alone would hide it.
    cover = cover_of(overlap)
    assert measured(cover, noise() + chequered(cover, 1.0)).score > 3


def test_a_step_within_chips_is_no_seam():
    cover = cover_of(32)
    # Chips meet every 96 px; these squares have their edges elsewhere.
    steps = np.add.outer(*[np.arange(SIDE) % 96 < 48] * 2).astype(np.float32)
    assert measured(cover, noise() / 10 + steps).score < 0.5


def test_it_does_not_depend_on_how_rows_come():
    cover = cover_of(32)
    values = noise() + chequered(cover, 1.0)
    whole, parts = (measured(cover, values, cuts=c) for c in ((0, 512), (0, 5, 90, 91, 256, 512)))
    assert (parts.across_count, parts.within_count) == (whole.across_count, whole.within_count)
    assert (parts.across, parts.within) == pytest.approx((whole.across, whole.within))


def test_invalid_places_do_not_count_and_rows_may_be_left_out():
    cover = cover_of(32)
    values, valid = noise() + chequered(cover, 1.0), EVERYWHERE.copy()
    valid[200:300] = False
    masked = measured(cover, np.where(valid, values, 1e6).astype(np.float32), valid)
    assert masked.score == pytest.approx(measured(cover, values).score, rel=0.1)
    meter = SeamMeter(cover, Window(0, 0, SIDE, SIDE))
    for top, stop in ((0, 200), (300, 512)):
        meter.add(top, values[top:stop], valid[top:stop])
    assert meter.sums.score == pytest.approx(masked.score, rel=0.1)


def test_the_parts_of_a_map_are_measured_by_themselves():
    cover = cover_of(32)
    values = noise() + chequered(cover, 1.0)
    sums = SeamSums()
    for left in (0, 256):
        meter = SeamMeter(cover, Window(0, left, SIDE, 256))
        meter.add(0, values[:, left : left + 256], EVERYWHERE[:, :256])
        sums = sums + meter.sums
    assert sums.score == pytest.approx(measured(cover, values).score, rel=0.1)


def test_a_map_of_one_chip_and_one_without_a_change_have_none():
    one = Cover.of(100, 100, chip=128, overlap=32, align=16)
    assert measured(one, noise((100, 100)), EVERYWHERE[:100, :100], cuts=(0, 100)).score is None
    assert measured(cover_of(32), np.zeros((SIDE, SIDE), np.float32)).score is None
