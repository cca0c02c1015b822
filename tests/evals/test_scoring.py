import numpy as np
import pytest

from geodino import seeds
from geodino.data.labelled.sets import SetFacts
from geodino.evals.probes.prediction import Prediction
from geodino.evals.scoring import Judged, per_class
from geodino.geo.bands import Band


def facts_of(kind, metric, classes=("a", "b"), **more):
    return SetFacts(
        name="set", kind=kind, classes=classes, bands=(Band(name="red"),), dtype="uint8",
        metric=metric, **more,
    )  # fmt: skip


def rng():
    return seeds.rng(0, "test")


def test_accuracy_and_balanced_accuracy_by_hand():
    truth = np.array([0, 0, 0, 1])
    found = Prediction(
        labels=np.array([0, 0, 1, 1]), probabilities=np.eye(2)[[0, 0, 1, 1]], chosen={}
    )
    judged = Judged(facts_of("classification", "accuracy"), found, truth)
    assert judged.value("accuracy") == 0.75
    # Recalls 2/3 and 1.
    assert judged.value("balanced_accuracy") == pytest.approx(5 / 6)
    assert per_class(judged) == {"recall": [pytest.approx(2 / 3), 1.0], "precision": [1.0, 0.5]}
    assert judged.value("accuracy", np.array([2, 3])) == 0.5


def test_a_class_without_test_images_is_left_out_of_the_mean():
    found = Prediction(labels=np.array([0, 1]), probabilities=np.eye(3)[[0, 1]], chosen={})
    judged = Judged(
        facts_of("classification", "accuracy", ("a", "b", "c")), found, np.array([0, 1])
    )
    assert judged.value("balanced_accuracy") == 1.0
    assert per_class(judged)["recall"] == [1.0, 1.0, None]


def test_mean_iou_by_hand_with_and_without_background():
    # Class 0: 2 right of union 3; class 1: 1 right of union 2.
    confusion = np.array([[[2, 1], [0, 1]]])
    found = Prediction(confusion=confusion, chosen={})
    judged = Judged(facts_of("segmentation", "miou"), found, None)
    assert judged.value("miou") == pytest.approx((2 / 3 + 1 / 2) / 2)
    without = Judged(facts_of("segmentation", "miou", background=0), found, None)
    assert without.value("miou") == pytest.approx(1 / 2)


def test_errors_are_better_when_lower():
    truth = np.array([1.0, 2.0, 3.0, 4.0])
    facts = facts_of("regression", "rmse", ())
    good = Judged(facts, Prediction(values=truth + 1, chosen={}), truth)
    bad = Judged(facts, Prediction(values=truth + 3, chosen={}), truth)
    assert good.value("rmse") == pytest.approx(1.0)
    difference = good.above(bad, generator=rng(), resamples=50)
    assert difference.value == pytest.approx(2.0)
    assert difference.low == pytest.approx(2.0)


def test_every_score_of_several_labels_has_an_interval_around_it():
    labels = rng().random((60, 3)) < 0.4
    said = np.clip(labels + rng().normal(0, 0.4, (60, 3)), 0, 1)
    found = Prediction(labels=said >= 0.5, probabilities=said, chosen={})
    judged = Judged(facts_of("multilabel", "micro_map", ("a", "b", "c")), found, labels)
    intervals = judged.intervals(rng, resamples=60)
    assert set(intervals) == {"micro_f1", "macro_f1", "micro_map", "macro_map"}
    for one in intervals.values():
        assert 0 < one.low <= one.value <= one.high <= 1
    assert judged.above(judged, generator=rng(), resamples=20).high == 0.0
