import numpy as np
import pytest

from geodino import seeds
from geodino.evals.pool import shared_metric, standing


def row(name, dataset, value, *, metric="accuracy", method="linear"):
    return {
        "name": name, "dataset": dataset, "metric_value": str(value), "metric_name": metric,
        "method": method,
    }  # fmt: skip


PUBLISHED = [
    row("low", "m-eurosat", 0.5), row("high", "m-eurosat", 0.9),
    row("low", "m-bigearthnet", 0.2, metric="f1"), row("high", "m-bigearthnet", 0.6, metric="f1"),
    row("low", "heights", 8.0, metric="rmse"), row("high", "heights", 4.0, metric="rmse"),
]  # fmt: skip
OURS = {
    "m-eurosat": ("accuracy", np.array([0.7])),
    "m-bigearthnet": ("micro_f1", np.array([0.3])),
    "heights": ("rmse", np.array([4.0])),
}


def placed(ours, published):
    return standing(
        ours, published, name="mine", method="linear", generator=seeds.rng(0, "standing")
    )


def test_scores_lie_between_the_worst_and_the_best_of_the_pool():
    # (0.7 - 0.5) / 0.4 = 0.5; (0.3 - 0.2) / 0.4 = 0.25; an error of 4 is the best: 1. Three sets
    # leave nothing to cut, so the interquartile mean is the mean.
    found = placed(OURS, PUBLISHED)
    assert found.pool == ("high", "low")
    assert found.scores["mine"].value == pytest.approx((0.5 + 0.25 + 1.0) / 3)
    assert found.scores["high"].value == 1.0
    assert found.scores["low"].value == 0.0
    assert list(found.scores) == ["high", "mine", "low"]


def test_the_best_of_several_rows_counts_and_other_probes_do_not():
    more = [
        *PUBLISHED,
        {**row("low", "m-eurosat", 0.7), "bands": "all"},
        row("low", "m-eurosat", 0.99, method="knn5"),
    ]
    found = placed(OURS, more)
    assert found.scores["mine"].value == pytest.approx((0.0 + 0.25 + 1.0) / 3)


def test_seeds_are_all_in_the_mean_and_make_the_interval():
    # Rows of one model that differ in their seeds alone are one model with several scores.
    row_of = {"bands": "rgb", "seed": "0"}
    more = [
        *({**one, **row_of} for one in PUBLISHED),
        {**row("low", "m-eurosat", 0.7), "bands": "rgb", "seed": "1"},
    ]
    ours = {**OURS, "m-eurosat": ("accuracy", np.array([0.7, 0.8]))}
    found = placed(ours, more)
    # 0.5, 0.75 of EuroSAT, 0.25 and 1 of the others: the middle two of four.
    assert found.scores["mine"].value == pytest.approx((0.5 + 0.75) / 2)
    assert found.scores["mine"].low < found.scores["mine"].value < found.scores["mine"].high
    # 0, 0.5 (0.7 between 0.5 and 0.9), 0, 0.
    assert found.scores["low"].value == pytest.approx(0.0)
    assert found.scores["high"].low == found.scores["high"].high == 1.0


def test_a_set_that_most_of_the_pool_lacks_is_left_out_with_its_models():
    rare = [
        *PUBLISHED,
        row("third", "m-eurosat", 0.95),
        row("third", "m-bigearthnet", 0.5, metric="f1"),
    ]
    found = placed(OURS, rare)
    assert "heights" in found.sets
    assert "third" not in found.pool


def test_a_pool_of_one_spans_nothing():
    alone = [one for one in PUBLISHED if one["name"] == "low"]
    assert placed(OURS, alone) is None


def test_a_set_is_compared_in_a_score_that_published_rows_have():
    published = [row("low", "m-bigearthnet", 0.7, metric="micro_mAP")]
    own = ["micro_f1", "macro_f1", "micro_map"]
    assert shared_metric("m-bigearthnet", "micro_f1", own, published) == "micro_map"
    assert shared_metric("m-eurosat", "accuracy", ["accuracy"], published) == "accuracy"
    assert shared_metric("m-bigearthnet", "micro_f1", own, PUBLISHED) == "micro_f1"
