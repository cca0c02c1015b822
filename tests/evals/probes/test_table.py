import dataclasses

import numpy as np
import pytest

from geodino import seeds
from geodino.errors import RecipeError
from geodino.evals.probes.linear import SgdProtocol
from geodino.evals.probes.maps import Part
from geodino.evals.probes.neighbours import multilabel_knn, regression_knn
from geodino.evals.probes.table import (
    ALIASES,
    PROBES,
    Problem,
    as_they_are,
    floor,
    probe_named,
)
from geodino.metrics.regression import number_sums, regression_scores
from geodino.metrics.segmentation import segmentation_scores

LINE = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])


def test_neighbours_share_their_labels_and_their_numbers():
    labels = np.array([[1, 0], [1, 1], [0, 0], [0, 1]], dtype=bool)
    got = multilabel_knn(LINE, labels, np.array([[1.0, 0.05]]), k=(1, 2))[2]
    np.testing.assert_allclose(got.probabilities, [[1.0, 0.5]])
    assert got.labels.tolist() == [[True, True]]
    numbers = regression_knn(
        LINE, np.array([2.0, 4.0, 10.0, 20.0]), np.array([[0.05, 1.0]]), k=(2,)
    )
    np.testing.assert_allclose(numbers[2].values, [15.0])


def test_the_weighted_mean_of_numbers_is_a_softmax_of_similarities():
    train = np.array([[1, 0], [0.8, 0.6], [-1, 0]])
    got = regression_knn(
        train,
        np.array([1.0, 3.0, 100.0]),
        np.array([[2.0, 0.0]]),
        k=(2,),
        vote="weighted",
        temperature=0.2,
    )
    weight = 1 / (1 + np.exp(-1))  # Similarities 1 and 0.8 at temperature 0.2.
    np.testing.assert_allclose(got[2].values, [weight * 1 + (1 - weight) * 3])


def vectors(kind, *, n=60):
    r = seeds.rng(0, "vectors")
    x = r.normal(size=(n, 5)).astype(np.float32)
    labels = {
        "classification": (x[:, 0] > 0).astype(np.int64) + (x[:, 1] > 1),
        "multilabel": x[:, :3] > 0.2,
        "regression": x[:, 0] * 2.0 + 1.0,
    }[kind]
    parts = [
        Part(features=x[a:b], labels=labels[a:b]) for a, b in ((0, n // 2), (n // 2, n - 10))
    ] + [Part(features=x[-10:], labels=labels[-10:])]
    return dict(zip(("train", "val", "test"), parts, strict=True))


@pytest.mark.parametrize("with_val", [True, False])
@pytest.mark.parametrize("kind", ["classification", "multilabel", "regression"])
def test_every_probe_of_vectors_answers_every_test_row(kind, with_val):
    quick = SgdProtocol(name="quick", iterations=20, batch=8, rates=(0.1, 1.0))
    parts = vectors(kind)
    if not with_val:
        parts["val"] = None
    names = [p.name for p in PROBES.values() if kind in p.kinds and p.features == "vectors"]
    assert len(names) >= 3
    for name in names:
        problem = Problem(kind=kind, classes=3, generator=seeds.rng(0, "probe"), sgd=quick, **parts)
        for method, got in probe_named(name, kind=kind).run(problem).items():
            answers = got.values if kind == "regression" else got.labels
            assert len(answers) == 10, method
            if kind == "classification":
                assert got.confidence.shape == (10,)


def maps(kind, *, n=6):
    r = seeds.rng(0, "maps")
    features = r.normal(size=(n, 3, 2, 2)).astype(np.float32)
    large = features[:, 0].repeat(2, axis=1).repeat(2, axis=2)
    labels = (large > 0).astype(np.uint8) if kind == "segmentation" else large.astype(np.float32)
    return Part(features=features, labels=labels)


@pytest.mark.parametrize(
    ("name", "kind"), [("dense-knn", "segmentation"), ("dense-ridge", "regression")]
)
def test_probes_of_maps_answer_every_test_image(name, kind):
    part = maps(kind)
    problem = Problem(
        kind=kind, classes=2, train=part, test=part, val=part, generator=seeds.rng(0, "probe")
    )
    (got,) = probe_named(name, kind=kind, features="patches").run(problem).values()
    assert len(got.confusion if kind == "segmentation" else got.errors) == 6


def test_as_torchgeo_bench_reads_features_nothing_is_scaled():
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier

    generator = np.random.default_rng(0)
    labels = np.arange(90) % 3
    # Long columns of noise beside short ones that tell: directions and standardised values differ.
    rows = generator.normal(size=(90, 6)) * [9, 5, 1, 0.2, 0.2, 0.2] + 2.0
    rows[:, 3:] += 0.35 * np.eye(3)[labels]
    train, val, test = (
        Part(features=rows[at], labels=labels[at])
        for at in (slice(0, 40), slice(40, 60), slice(60, 90))
    )
    problem = Problem(
        kind="classification", train=train, val=val, test=test, classes=3,
        generator=np.random.default_rng(0),
    )  # fmt: skip
    near = KNeighborsClassifier(5).fit(train.features, train.labels)
    got = as_they_are(probe_named("knn", kind="classification")).run(problem)["knn5"]
    np.testing.assert_allclose(got.probabilities, near.predict_proba(test.features))
    assert (got.labels != PROBES["knn"].run(problem)["knn5"].labels).any()
    got = as_they_are(probe_named("linear", kind="classification")).run(problem)["linear"]
    both = np.concatenate([train.features, val.features])
    fitted = LogisticRegression(C=got.chosen["c"], max_iter=10_000, tol=1e-10).fit(
        both, labels[:60]
    )
    np.testing.assert_allclose(got.probabilities, fitted.predict_proba(test.features), atol=2e-3)
    scaled = PROBES["linear"].run(problem)["linear"]
    assert np.abs(scaled.probabilities - got.probabilities).max() > 0.02
    # Statistics of bands stay standardised.
    floors = dataclasses.replace(problem, metric="euclidean")
    same = as_they_are(PROBES["linear"]).run(floors)["linear"]
    np.testing.assert_array_equal(same.labels, PROBES["linear"].run(floors)["linear"].labels)


def test_floors_by_hand():
    def problem(kind, train, test, classes=0):
        part = lambda labels: Part(features=np.zeros((len(labels), 1)), labels=labels)  # noqa: E731
        return Problem(
            kind=kind,
            classes=classes,
            train=part(train),
            test=part(test),
            generator=seeds.rng(0, "floor"),
        )

    name, got = floor(problem("classification", np.array([1, 1, 0]), np.array([0, 1]), 2))
    assert (name, got.labels.tolist()) == ("majority class", [1, 1])
    labels = np.array([[1, 0], [1, 0], [0, 1]], dtype=bool)
    _, got = floor(problem("multilabel", labels, labels[:1]))
    np.testing.assert_allclose(got.probabilities, [[2 / 3, 1 / 3]])
    assert got.labels.tolist() == [[True, False]]
    _, got = floor(problem("regression", np.array([1.0, 3.0]), np.array([2.0, 4.0])))
    np.testing.assert_allclose(got.values, [2.0, 2.0])
    assert float(regression_scores(number_sums(got.values, np.array([1.0, 3.0])).sum(0))["r2"]) == 0
    train = np.array([[[0, 1, 1, 255]]], dtype=np.uint8)
    _, got = floor(problem("segmentation", train, np.array([[[0, 1, 1, 1]]], dtype=np.uint8), 2))
    assert got.chosen == {"class": 1.0}
    assert float(segmentation_scores(got.confusion[0]).miou) == pytest.approx((0 + 3 / 4) / 2)
    heights = np.array([[[1.0, 3.0, np.nan]]])
    _, got = floor(problem("regression", heights, heights))
    assert got.chosen == {"value": 2.0}
    assert got.errors[0, 0] == 2.0


def test_a_wrong_name_or_kind_says_what_would_do():
    with pytest.raises(RecipeError, match="Did you mean 'dense-linear'"):
        probe_named("dense-liner", kind="segmentation")
    with pytest.raises(RecipeError, match="these do: dense-linear, dense-knn"):
        probe_named("linear", kind="segmentation")
    assert all(name in PROBES for name in ALIASES.values())
