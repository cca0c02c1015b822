import numpy as np

from geodino import seeds
from geodino.evals.floors import compare, fit_alarms, floor_alarms
from geodino.evals.results import MAJORITY, MODEL, RANDOM, STATISTICS, Outcome
from geodino.metrics.classification import score

TRUTH = np.arange(200) % 2


def outcome(encoder, right, method="knn5", features="cls", **chosen):
    """An outcome with the first ``right`` of 200 images right."""
    labels = np.where(np.arange(200) < right, TRUTH, 1 - TRUTH)
    scores = score(TRUTH, labels, classes=2, generator=seeds.rng(0), resamples=200)
    return Outcome(
        encoder=encoder,
        method=method,
        features=features,
        feature_dim=3,
        chosen=chosen,
        scores=scores,
        labels=labels,
        confidence=np.ones(200),
    )


FLOORS = (
    outcome(RANDOM, 100),
    outcome(STATISTICS, 120, features="statistics"),
    outcome(MAJORITY, 100, method="majority", features="none"),
)


def verdicts(*outcomes):
    return {c.floor: c.verdict for c in compare(outcomes, TRUTH, seed=0)}


def test_a_model_above_all_floors_raises_no_alarm():
    outcomes = (outcome(MODEL, 180), *FLOORS)
    assert set(verdicts(*outcomes).values()) == {"above"}
    assert floor_alarms(compare(outcomes, TRUTH, seed=0)) == []


def test_a_model_below_a_floor_is_named_in_one_sentence():
    comparisons = compare((outcome(MODEL, 101), *FLOORS), TRUTH, seed=0)
    (alarm,) = floor_alarms(comparisons)
    assert alarm == (
        "knn5 on cls: the model (0.505) is below image statistics (0.600), not clearly above "
        "random weights (0.500) and majority class (0.500)."
    )
    assert comparisons[1].difference.value == (101 - 120) / 200


def test_random_weights_are_met_with_the_same_features_and_statistics_with_any():
    ours = outcome(MODEL, 180, method="knn20-dino", features="mean")
    assert set(verdicts(ours, *FLOORS)) == {STATISTICS, MAJORITY}
    ours = outcome(MODEL, 180, method="linear", features="cls")
    assert set(verdicts(ours, *FLOORS)) == {MAJORITY}


def test_a_fit_that_did_not_converge_is_said():
    assert fit_alarms([outcome(MODEL, 100, method="linear", converged=0.0)]) == [
        "linear on cls of model: L-BFGS did not converge."
    ]
    assert fit_alarms([outcome(MODEL, 100, method="linear", converged=1.0)]) == []
