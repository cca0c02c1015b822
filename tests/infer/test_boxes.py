import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.infer.boxes import Boxes, chips_for, joined, taken
from geodino.infer.cover import Cover
from geodino.models.detection.faster_rcnn import Found

COVER = Cover.of(100, 140, chip=40, overlap=16, align=1)
CHIPS = [(r, c) for r in range(COVER.rows.count) for c in range(COVER.columns.count)]


def seen(chip, objects, *, shift=0.0):
    """What a perfect model says of a chip: every object it sees, clipped, off by ``shift``."""
    start = np.array([COVER.columns.start(chip[1]), COVER.rows.start(chip[0])] * 2)
    moved = objects + shift * (1 if sum(chip) % 2 else -1) - start
    inside = moved.clip(0, 40)
    keep = ((inside[:, 2:] - inside[:, :2]) > 0.5).all(axis=1)
    whole = (inside == moved).all(axis=1)
    found = Found(
        boxes=torch.from_numpy(inside[keep]),
        classes=torch.zeros(int(keep.sum()), dtype=torch.int64),
        scores=torch.from_numpy(np.where(whole, 0.9, 0.4)[keep]),
    )
    return taken(COVER, chip, found)


def same(one, other):
    return all(np.array_equal(getattr(one, n), getattr(other, n)) for n in Boxes.__slots__)


def test_every_place_is_taken_by_some_chip():
    # Steps of 24: rows from 0, 24, 48 and, moved back, 60; columns from 0, 24, ..., 96, 100.
    y, x = np.meshgrid(np.arange(0.0, 100, 0.5), np.arange(0.0, 140, 0.5), indexing="ij")
    times = np.zeros(y.shape, int)
    for row, column in CHIPS:
        (left, right), (top, bottom) = COVER.columns.span(column), COVER.rows.span(row)
        times += (x >= left) & (x < right) & (y >= top) & (y < bottom)
    assert times.min() == 1
    assert times.max() == 4


@settings(max_examples=40)
@given(st.integers(0, 86), st.integers(0, 126), st.floats(0, 1, width=32))
def test_an_object_is_found_once_wherever_seams_lie(top, left, shift):
    one = np.array([[left, top, left + 13, top + 13]], dtype=np.float64)
    boxes = joined({chip: seen(chip, one, shift=shift) for chip in CHIPS}, iou=0.3)
    assert len(boxes) == 1
    assert np.abs(boxes.xyxy - one).max() <= 2.0


def test_a_box_that_a_border_cuts_is_left_to_the_chip_that_sees_it_whole():
    # Chips begin at 0 and 24 and are 40 long. Of 27 to 46 the first sees 27 to 40, whose middle, 33.5,
    # it would count for.
    one = np.array([[27.0, 4, 46, 14]])
    assert len(seen((0, 0), one)) == 0
    assert seen((0, 1), one).xyxy.tolist() == one.tolist()
    # What begins before the next chip is whole in neither: both say what they see.
    longer = np.array([[20.0, 4, 46, 14]])
    assert seen((0, 0), longer).xyxy.tolist() == [[20, 4, 40, 14]]
    assert seen((0, 1), longer).xyxy.tolist() == [[24, 4, 46, 14]]
    # The image's own borders cut nothing that another chip could see.
    assert len(seen((0, 0), np.array([[-5.0, -5, 5, 5]]))) == 1


@settings(max_examples=100)
@given(
    st.integers(30, 200), st.sampled_from([0, 4, 8, 12, 16]), st.data(), st.floats(0, 1),
)  # fmt: skip
def test_what_a_chip_leaves_to_a_neighbour_the_neighbour_takes(length, overlap, data, part):
    axis = Cover.of(length, length, chip=32, overlap=overlap, align=1).columns
    low = data.draw(st.floats(0, length - 1))
    high = low + data.draw(st.floats(0.5, max(0.6, overlap or 1)))
    whole = []
    for number in range(axis.count):
        start = axis.start(number)
        a, b = (np.array([np.clip(end, start, start + axis.side)]) for end in (low, high))
        first, stop = axis.span(number)
        counts = first <= (a[0] + b[0]) / 2 < stop and b[0] > a[0]
        if counts and not axis.is_cut(number, a, b)[0]:
            whole.append((a[0], b[0]) == (low, high))
    if overlap and high <= length:
        assert whole
        assert any(whole)


def test_two_objects_side_by_side_that_one_chip_says_both_stay():
    objects = np.array([[4.0, 4, 14, 14], [8, 4, 18, 14]])
    assert len(joined({(0, 0): seen((0, 0), objects)}, iou=0.3)) == 2


def test_a_surer_box_of_another_class_takes_nothing_away():
    one = np.array([[10.0, 10, 20, 20]])
    first = Boxes(xyxy=one, classes=np.array([0]), scores=np.array([0.9]))
    other = Boxes(xyxy=one, classes=np.array([1]), scores=np.array([0.5]))
    assert joined({(0, 0): first, (0, 1): other}, iou=0.3).classes.tolist() == [0, 1]
    again = Boxes(xyxy=one, classes=np.array([0]), scores=np.array([0.9]))
    assert len(joined({(0, 0): first, (0, 1): again}, iou=0.3)) == 1


def objects(seed):
    rng = np.random.default_rng(seed)
    corner = rng.random((25, 2)) * [126.0, 86.0]
    return np.concatenate([corner, corner + 4 + 9 * rng.random((25, 2))], axis=1)


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_the_order_of_chips_changes_nothing(seed):
    found = {chip: seen(chip, objects(seed)) for chip in CHIPS}
    assert same(joined(found, iou=0.3), joined(dict(reversed(found.items())), iou=0.3))


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_what_is_said_once_is_what_the_definition_says(seed):
    found = {chip: seen(chip, objects(seed), shift=0.5) for chip in CHIPS}
    rows = [
        (-score, chip, number, tuple(box))
        for chip, one in found.items()
        for number, (box, score) in enumerate(zip(one.xyxy, one.scores, strict=True))
    ]
    stays = []
    for one in sorted(rows):
        over = [
            other for other in rows
            if other[:3] < one[:3] and other[1] != one[1] and slow_iou(other[3], one[3]) > 0.3
        ]  # fmt: skip
        stays += [] if over else [one[3]]
    assert [tuple(box) for box in joined(found, iou=0.3).xyxy] == stays


def slow_iou(a, b):
    across, down = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (a, b)]
    return across * down / (sum(areas) - across * down)


@settings(max_examples=15)
@given(st.integers(0, 1000), st.integers(0, 60), st.integers(0, 80))
def test_an_area_has_the_boxes_it_has_in_the_whole_image(seed, top, left):
    bottom, right = top + 30, left + 40

    def touches(window):
        return (
            window.top < bottom and top < window.bottom
            and window.left < right and left < window.right
        )  # fmt: skip

    def inside(chips):
        boxes = joined({c: seen(c, objects(seed), shift=0.5) for c in chips}, iou=0.3)
        x, y = boxes.centres.T
        return boxes.at((x >= left) & (x < right) & (y >= top) & (y < bottom))

    needed = chips_for(COVER, touches)
    assert same(inside(CHIPS), inside(needed))


def test_of_a_large_image_an_area_needs_few_chips():
    cover = Cover.of(1000, 1000, chip=40, overlap=16, align=1)
    # Chips begin every 24 px; the one from 480 on takes what lies between 484 and 516.
    near = chips_for(cover, lambda w: w.top <= 500 < w.bottom and w.left <= 500 < w.right)
    assert near == [(r, c) for r in (19, 20, 21) for c in (19, 20, 21)]


@pytest.mark.parametrize("found", [{}, {(0, 0): seen((0, 0), np.zeros((0, 4)))}])
def test_nothing_found_is_no_box(found):
    boxes = joined(found, iou=0.5)
    assert (boxes.xyxy.shape, boxes.classes.shape, boxes.scores.shape) == ((0, 4), (0,), (0,))
