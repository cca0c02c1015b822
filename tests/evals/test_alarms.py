import numpy as np

from geodino.evals.alarms import same_alarms
from geodino.evals.probes.prediction import Prediction
from geodino.evals.results import MODEL, RANDOM, STATISTICS, Outcome


def outcome(encoder, probabilities, *, features="mean"):
    rows = np.array(probabilities, dtype=np.float64)
    prediction = Prediction(labels=rows.argmax(axis=1), probabilities=rows, chosen={})
    return Outcome(
        encoder=encoder, method="knn5", features=features, dim=2, prediction=prediction
    )  # fmt: skip


def said(*outcomes):
    return same_alarms(outcomes)


def test_two_encoders_that_say_the_very_same_raise_an_alarm():
    rows = [[0.6, 0.4], [0.2, 0.8], [0.8, 0.2]]
    statistics = outcome(STATISTICS, [[0.6, 0.4], [0.6, 0.4], [0.8, 0.2]], features="statistics")
    (alarm,) = said(outcome(MODEL, rows), outcome(RANDOM, rows), statistics)
    assert alarm.startswith("knn5 on mean: model and random weights predict exactly the same")
    # The same classes with other probabilities are what two good networks say.
    surer = [[0.7, 0.3], [0.2, 0.8], [0.8, 0.2]]
    assert said(outcome(MODEL, rows), outcome(RANDOM, surer), statistics) == []


def test_images_that_leave_nothing_else_to_say_raise_none():
    rows = [[1.0, 0.0], [0.0, 1.0]]
    statistics = outcome(STATISTICS, rows, features="statistics")
    assert said(outcome(MODEL, rows), outcome(RANDOM, rows), statistics) == []
    assert len(said(outcome(MODEL, rows), outcome(RANDOM, rows))) == 1
