import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.metrics.boxes import Matches, at_score, matches, pairwise_iou
from geodino.metrics.detection import DetectionScorer


def boxes(*rows):
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def add(scorer, true, found, *, true_classes=None, found_classes=None, difficult=None):
    """``found`` holds (score, x0, y0, x1, y1)."""
    true, found = boxes(*true), np.array(found, dtype=np.float64).reshape(-1, 5)
    scorer.add(
        true,
        np.array(true_classes or [0] * len(true), dtype=np.int64),
        found[:, 1:],
        np.array(found_classes or [0] * len(found), dtype=np.int64),
        found[:, 0],
        difficult=None if difficult is None else np.array(difficult, dtype=np.bool_),
    )


A, B, C = (0, 0, 10, 10), (20, 0, 30, 10), (40, 0, 50, 10)
FAR = (80, 80, 90, 90)


def test_the_iou_of_half_overlapping_squares_is_a_third():
    # 50 of 150 square pixels are common.
    assert pairwise_iou(boxes(A), boxes((5, 0, 15, 10)))[0, 0] == pytest.approx(1 / 3)


def test_boxes_without_area_have_an_iou_of_0():
    assert pairwise_iou(boxes((1, 1, 1, 1)), boxes((1, 1, 1, 1)))[0, 0] == 0.0


def test_ap50_is_the_area_under_the_envelope():
    # By score: right, wrong, right; two of two found. Precisions 1, 1/2, 2/3: the envelope is 1 up
    # to recall 1/2 and 2/3 up to 1.
    scorer = DetectionScorer(1)
    add(scorer, [A, B], [(0.9, *A), (0.8, *FAR), (0.7, *B)])
    assert scorer.scores().ap50 == pytest.approx((1 + 2 / 3) / 2)


def test_cocos_ap_takes_101_recalls():
    # The same boxes: recalls 0 to .50 have precision 1 (51 of them), .51 to 1 have 2/3 (50).
    scorer = DetectionScorer(1)
    add(scorer, [A, B], [(0.9, *A), (0.8, *FAR), (0.7, *B)])
    expected = (51 + 50 * 2 / 3) / 101
    scores = scorer.scores()
    assert scores.coco_ap50 == pytest.approx(expected)
    assert scores.coco_ap == pytest.approx(expected)  # the boxes are exact, so every IoU agrees


def test_a_box_found_twice_is_wrong_once():
    scorer = DetectionScorer(1)
    add(scorer, [A, B], [(0.9, *A), (0.8, *A), (0.7, *B)])
    assert scorer.scores().ap50 == pytest.approx((1 + 2 / 3) / 2)


def test_what_matches_a_difficult_box_counts_neither_way_and_need_not_be_found():
    scorer = DetectionScorer(1)
    add(scorer, [A, B], [(0.9, *B), (0.8, *A)], difficult=[False, True])
    scores = scorer.scores()
    assert scores.ap50 == scores.coco_ap == 1.0
    assert scores.truths.tolist() == [1]


def test_voc_gives_a_box_to_its_best_overlap_coco_to_its_best_free_one():
    # The second box overlaps A and the true box beside it alike, 90 of 120 square pixels. VOC gives
    # it to the first, which is taken, and calls it wrong; COCO gives it to the free one.
    near = (0, 3, 10, 13)
    second = (0, 1, 10, 12)
    true = [A, near]
    scorer = DetectionScorer(1)
    add(scorer, true, [(0.9, *A), (0.8, *second)])
    scores = scorer.scores()
    iou = pairwise_iou(boxes(second), boxes(*true))[0]
    assert iou[1] == pytest.approx(9 / 12) == iou[0]
    assert scores.ap50 == pytest.approx(0.5)
    assert scores.coco_ap50 == pytest.approx(1.0)


def test_any_number_of_boxes_may_lie_in_a_crowd():
    # Each quarter lies wholly in the crowd, though its IoU with it is 1/4 and less.
    scorer = DetectionScorer(1)
    crowd = (100, 100, 140, 140)
    found = [(0.9, 100, 100, 110, 110), (0.8, 120, 120, 140, 140), (0.7, *A)]
    add(scorer, [A, crowd], found, difficult=[False, True])
    scores = scorer.scores()
    assert scores.coco_ap50 == 1.0
    assert scores.ap50 == pytest.approx(1 / 3)  # for VOC they are two wrong ones before the right


def test_sizes_are_those_of_the_true_boxes_and_others_are_not_counted():
    # 10 x 10 is small, 50 x 50 medium, 100 x 100 large; the medium one is missed.
    medium, large = (100, 0, 150, 50), (200, 0, 300, 100)
    scorer = DetectionScorer(1)
    add(scorer, [A, medium, large], [(0.9, *A), (0.8, *large)])
    scores = scorer.scores()
    assert (scores.coco_ap_small, scores.coco_ap_medium, scores.coco_ap_large) == (1.0, 0.0, 1.0)


def test_a_wrong_box_of_another_size_does_not_count_against_a_size():
    scorer = DetectionScorer(1)
    add(scorer, [A], [(0.9, 200, 0, 300, 100), (0.8, *A)])
    assert scorer.scores().coco_ap_small == 1.0
    assert scorer.scores().coco_ap50 == pytest.approx(0.5)


def test_the_mean_is_over_classes_that_have_true_boxes():
    scorer = DetectionScorer(3)
    add(
        scorer, [A, B], [(0.9, *A), (0.8, *FAR)],
        true_classes=[0, 1], found_classes=[0, 2],
    )  # fmt: skip
    scores = scorer.scores()
    assert scores.ap50_by_class[:2].tolist() == [1.0, 0.0]
    assert np.isnan(scores.ap50_by_class[2])
    assert scores.ap50 == 0.5


def test_the_surest_box_of_all_images_comes_first():
    # Wrong at .8 in one image, between the right ones at .9 and .7 of another.
    scorer = DetectionScorer(1)
    add(scorer, [A, B], [(0.9, *A), (0.7, *B)])
    add(scorer, [], [(0.8, *FAR)])
    assert scorer.scores().ap50 == pytest.approx((1 + 2 / 3) / 2)


def test_coco_looks_at_the_surest_boxes_of_each_image_only():
    scorer = DetectionScorer(1, max_found=1)
    add(scorer, [A], [(0.9, *FAR), (0.8, *A)])
    assert scorer.scores().coco_ap50 == 0.0
    assert scorer.scores().ap50 == pytest.approx(0.5)


def test_nothing_true_has_no_score_and_nothing_found_scores_0():
    empty = DetectionScorer(1)
    add(empty, [], [(0.9, *A)])
    assert np.isnan(empty.scores().ap50)
    assert np.isnan(empty.scores().coco_ap)
    missed = DetectionScorer(1)
    add(missed, [A], [])
    assert missed.scores().ap50 == missed.scores().coco_ap == 0.0


@pytest.mark.parametrize(("true", "found"), [([2], [0]), ([0], [-1])])
def test_a_class_that_does_not_exist_is_refused(true, found):
    with pytest.raises(ValueError, match="class lies outside 0 to 1"):
        add(DetectionScorer(2), [A], [(0.9, *A)], true_classes=true, found_classes=found)


def test_without_an_image_there_is_no_score():
    with pytest.raises(ValueError, match="no image"):
        DetectionScorer(1).scores()


def test_the_interval_over_equal_images_is_one_point():
    scorer = DetectionScorer(1)
    for _ in range(5):
        add(scorer, [A, B], [(0.9, *A)])
    made = scorer.intervals(generator=np.random.default_rng(0), resamples=20)["ap50"]
    assert made.low == made.value == made.high == 0.5


def test_a_resample_is_what_scoring_its_images_would_give():
    rng = np.random.default_rng(3)
    images = [
        ([A, B], [(rng.random(), *box) for box in (A, FAR, B, C)]),
        ([C], [(rng.random(), *box) for box in (C, A)]),
        ([B], [(rng.random(), *FAR)]),
    ]
    scorer = DetectionScorer(1)
    for true, found in images:
        add(scorer, true, found)
    drawn = np.random.default_rng(0).integers(0, 3, size=(1, 3))[0]
    again = DetectionScorer(1)
    for i in drawn:
        add(again, *images[i])
    made = scorer.intervals(generator=np.random.default_rng(0), resamples=1)
    for name, one in made.items():
        assert one.low == one.high == pytest.approx(getattr(again.scores(), name))


def test_a_difference_is_drawn_on_the_same_images():
    one, other = DetectionScorer(1), DetectionScorer(1)
    for i in range(6):
        add(one, [A, B], [(0.9, *A), (0.8, *B)][: 1 + i % 2])
        add(other, [A, B], [(0.9, *A)][: i % 2])
    generator = np.random.default_rng
    same = one.intervals(generator=generator(0), resamples=50, minus=one)
    assert all(d.value == d.low == d.high == 0.0 for d in same.values())
    found = one.intervals(generator=generator(0), resamples=50, minus=other)["ap50"]
    assert found.value == pytest.approx(one.scores().ap50 - other.scores().ap50)
    assert 0 < found.low <= found.value <= found.high
    with pytest.raises(ValueError, match="cannot be compared"):
        one.intervals(generator=generator(0), minus=DetectionScorer(1))


def slow_coco(images, threshold):
    """COCO's AP of one class at one IoU, as its loops are written down; no crowds, any size."""
    marks = []
    truths = 0
    for true, found in images:
        truths += len(true)
        taken = set()
        for score, *box in sorted(found, key=lambda row: -row[0])[:100]:
            best, at = threshold, None
            for j, one in enumerate(true):
                iou = pairwise_iou(boxes(box), boxes(one))[0, 0]
                if j not in taken and iou >= best:
                    best, at = iou, j
            taken.add(at)
            marks.append((score, at is not None))
    marks.sort(key=lambda row: -row[0])
    right, curve = 0, []
    for n, (_, hit) in enumerate(marks, start=1):
        right += hit
        curve.append((right / truths, right / n))
    total = 0.0
    for i in range(101):
        total += max((p for r, p in curve if r >= np.linspace(0, 1, 101)[i]), default=0.0)
    return total / 101


BOX = st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(3, 12)] * 2).map(
    lambda b: (b[0], b[1], b[0] + b[2], b[1] + b[3])
)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.lists(BOX, max_size=4), st.lists(BOX, max_size=6)), max_size=3))
def test_coco_agrees_with_its_slow_definition(drawn):
    rng = np.random.default_rng(0)
    images = [([A], [])] + [
        (true, [(score, *box) for score, box in zip(rng.random(len(found)), found, strict=True)])
        for true, found in drawn
    ]
    scorer = DetectionScorer(1)
    for true, found in images:
        add(scorer, true, found)
    expected = [slow_coco(images, t) for t in np.round(np.arange(0.5, 1.0, 0.05), 2)]
    scores = scorer.scores()
    assert scores.coco_ap50 == pytest.approx(expected[0])
    assert scores.coco_ap75 == pytest.approx(expected[5])
    assert scores.coco_ap == pytest.approx(np.mean(expected))


def matched(true, found, *, difficult=None):
    kinds = np.zeros(len(true), np.int64), np.zeros(len(found), np.int64)
    hard = np.zeros(len(true), bool) if difficult is None else np.array(difficult)
    return matches(boxes(*true), kinds[0], boxes(*found), kinds[1], difficult=hard)


def test_boxes_are_matched_as_vocs_ap_matches_them():
    made = matched([A, B, C], [A, A, FAR, C], difficult=[False, False, True])
    assert made.right.tolist() == [True, False, False, False]
    assert made.wrong.tolist() == [False, True, True, False]  # that on a difficult one is neither
    assert made.seen.tolist() == [True, False, False]


def test_a_box_of_another_class_is_wrong():
    made = matches(boxes(A), np.array([0]), boxes(A), np.array([1]), difficult=np.array([False]))
    assert made.wrong.tolist() == [True]
    assert made.seen.tolist() == [False]


def test_the_score_to_cut_at_has_the_best_f1():
    # F1 of the first, the first two, ... of four boxes, of two true ones:
    # 2*1/(1+2) = .67, 2*1/(2+2) = .5, 2*2/(3+2) = .8, 2*2/(4+2) = .67.
    marks = np.array([True, False, True, False])
    found = Matches(right=marks, wrong=~marks, seen=np.array([True, True]))
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    best = at_score(scores, found, truths=2)
    assert best.score == 0.7
    assert best.f1 == pytest.approx(0.8)
    assert best.precision == pytest.approx(2 / 3)
    assert best.recall == 1.0
    assert at_score(scores, found, truths=2, score=0.85).recall == 0.5
    above = at_score(scores, found, truths=2, score=0.95)
    assert above.f1 == above.recall == 0.0
    assert np.isnan(above.precision)
    none = Matches(right=np.zeros(4, bool), wrong=np.ones(4, bool), seen=np.zeros(2, bool))
    assert at_score(scores, none, truths=2) is None


def test_boxes_of_one_score_are_taken_together():
    marks = np.array([True, False])
    found = Matches(right=marks, wrong=~marks, seen=np.array([True]))
    best = at_score(np.array([0.5, 0.5]), found, truths=1)
    assert best.precision == 0.5
