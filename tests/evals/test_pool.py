import pytest

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
    "m-eurosat": ("accuracy", 0.7),
    "m-bigearthnet": ("micro_f1", 0.3),
    "heights": ("rmse", 4.0),
}


def test_scores_lie_between_the_worst_and_the_best_of_the_pool():
    # (0.7 - 0.5) / 0.4 = 0.5; (0.3 - 0.2) / 0.4 = 0.25; an error of 4 is the best: 1. Three sets
    # leave nothing to cut, so the interquartile mean is the mean.
    found = standing(OURS, PUBLISHED, name="mine", method="linear")
    assert found.pool == ("high", "low")
    assert found.scores["mine"] == pytest.approx((0.5 + 0.25 + 1.0) / 3)
    assert found.scores["high"] == 1.0
    assert found.scores["low"] == 0.0
    assert list(found.scores) == ["high", "mine", "low"]


def test_the_best_of_several_rows_counts_and_other_probes_do_not():
    more = [*PUBLISHED, row("low", "m-eurosat", 0.7), row("low", "m-eurosat", 0.99, method="knn5")]
    found = standing(OURS, more, name="mine", method="linear")
    assert found.scores["mine"] == pytest.approx((0.0 + 0.25 + 1.0) / 3)


def test_a_set_that_most_of_the_pool_lacks_is_left_out_with_its_models():
    rare = [
        *PUBLISHED,
        row("third", "m-eurosat", 0.95),
        row("third", "m-bigearthnet", 0.5, metric="f1"),
    ]
    found = standing(OURS, rare, name="mine", method="linear")
    assert "heights" in found.sets
    assert "third" not in found.pool


def test_a_pool_of_one_spans_nothing():
    alone = [one for one in PUBLISHED if one["name"] == "low"]
    assert standing(OURS, alone, name="mine", method="linear") is None


def test_a_set_is_compared_in_a_score_that_published_rows_have():
    published = [row("low", "m-bigearthnet", 0.7, metric="micro_mAP")]
    own = ["micro_f1", "macro_f1", "micro_map"]
    assert shared_metric("m-bigearthnet", "micro_f1", own, published) == "micro_map"
    assert shared_metric("m-eurosat", "accuracy", ["accuracy"], published) == "accuracy"
    assert shared_metric("m-bigearthnet", "micro_f1", own, PUBLISHED) == "micro_f1"
