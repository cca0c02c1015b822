import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from geodino import seeds
from geodino.metrics.segmentation import Confusion, pixel_confusion, segmentation_scores


def test_six_pixels_by_hand():
    # Truth 0 0 0 1 1 and one ignored; said 0 0 1 1 1. IoU of 0: 2 / 3; of 1: 2 / 3; class 2 in
    # neither, left out. Right: 4 of 5. Weighted by truth: (3 * 2/3 + 2 * 2/3) / 5 = 2 / 3.
    got = Confusion(3)
    got.add(np.array([[0, 0, 0], [1, 1, 255]]), np.array([[0, 0, 1], [1, 1, 2]]))
    scores = got.scores()
    np.testing.assert_allclose(scores.iou, [2 / 3, 2 / 3, np.nan])
    assert float(scores.miou) == pytest.approx(2 / 3)
    assert float(scores.pixel_accuracy) == pytest.approx(4 / 5)
    assert float(scores.fw_iou) == pytest.approx(2 / 3)
    assert int(scores.present) == 2


def test_a_class_that_is_only_predicted_counts_as_nothing_found():
    # Truth 0 0, said 0 2: IoU of 0 is 1/2, of 2 is 0, class 1 is in neither.
    scores = segmentation_scores(pixel_confusion(np.array([0, 0]), np.array([0, 2]), classes=3))
    assert float(scores.miou) == pytest.approx(1 / 4)


def test_the_background_is_left_out_of_the_mean_but_its_pixels_count_against_the_others():
    # Truth 0 0 1 1, said 0 1 1 1: IoU of 0 is 1/2, of 1 is 2/3.
    counts = pixel_confusion(np.array([0, 0, 1, 1]), np.array([0, 1, 1, 1]), classes=2)
    assert float(segmentation_scores(counts).miou) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert float(segmentation_scores(counts, background=0).miou) == pytest.approx(2 / 3)


def test_scores_are_torchmetrics():
    r = seeds.rng(0, "maps")
    truth, said = r.integers(0, 5, (4, 9, 9)), r.integers(0, 5, (4, 9, 9))
    truth[:, :2] = 255
    confusion = Confusion(5)
    for t, p in zip(truth, said, strict=True):
        confusion.add(t, p)
    scores = confusion.scores()
    given = torch.from_numpy(said), torch.from_numpy(truth)
    for average, got in ((None, scores.iou), ("macro", scores.miou), ("weighted", scores.fw_iou)):
        peer = MulticlassJaccardIndex(5, average=average, ignore_index=255)
        np.testing.assert_allclose(got, peer(*given).numpy(), rtol=1e-6)
    peer = MulticlassAccuracy(5, average="micro", ignore_index=255)
    assert float(scores.pixel_accuracy) == pytest.approx(float(peer(*given)))


def test_parts_add_up_and_images_are_scored_alone():
    r = seeds.rng(0, "parts")
    truth, said = r.integers(0, 3, (4, 8)), r.integers(0, 3, (4, 8))
    one, two = Confusion(3), Confusion(3)
    one.add(truth[:2], said[:2])
    two.add(truth[2:], said[2:])
    one.merge(two)
    np.testing.assert_array_equal(one.counts, pixel_confusion(truth, said, classes=3))
    stack = np.stack([pixel_confusion(t, p, classes=3) for t, p in zip(truth, said, strict=True)])
    alone = [segmentation_scores(c).miou for c in stack]
    np.testing.assert_allclose(segmentation_scores(stack).miou, alone)


def test_no_scored_pixel_gives_no_score():
    scores = Confusion(2).scores()
    assert np.isnan(scores.miou)
    assert np.isnan(scores.pixel_accuracy)


def test_a_class_that_does_not_exist_is_an_error():
    with pytest.raises(ValueError, match="label lies outside 0 to 1: 2 to 2"):
        pixel_confusion(np.array([2]), np.array([0]), classes=2)
