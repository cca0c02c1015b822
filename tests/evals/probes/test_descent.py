import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from geodino import seeds
from geodino.evals.probes.descent import fit_path
from geodino.evals.probes.logistic import TORCHGEO_GRID, logistic_grid, multilabel_logistic

STRENGTHS = (1e-3, 1e-2, 0.1, 1.0, 30.0)


def correlated(n, d, classes, *, spread=2.0, seed=0):
    """Rows round a centre per class, with correlated columns whose sizes fall as 1 / j."""
    r = seeds.rng(seed, "correlated")
    sizes = 1.0 / np.arange(1, d + 1)
    turn, _ = np.linalg.qr(r.normal(size=(d, d)))
    centres = r.normal(size=(classes, d)) * sizes
    y = r.integers(0, classes, size=n)
    x = (centres[y] + spread * r.normal(size=(n, d)) * sizes) @ turn
    return (x / x.std(axis=0) + 3.0).astype(np.float32), y


def peer(x, y, c):
    """scikit-learn, converged."""
    return LogisticRegression(C=c, tol=1e-8, max_iter=20_000).fit(x.astype(np.float64), y)


@pytest.mark.parametrize(("n", "d"), [(150, 20), (60, 90)])
def test_every_strength_of_the_grid_is_scikit_learns_optimum(n, d):
    x, y = correlated(n, d, 4)
    path = fit_path(x, (y[:, None] == np.arange(4)).astype(float), STRENGTHS)
    assert all(path.converged)
    for index, c in enumerate(STRENGTHS):
        expected = peer(x, y, c)
        logits = path.logits(x, index)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        got = powers / powers.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(got, expected.predict_proba(x), atol=3e-3)
        size = np.abs(expected.coef_).max()
        np.testing.assert_allclose(path.weights[index].T, expected.coef_, atol=2e-2 * size)


def test_a_tighter_tolerance_comes_closer():
    x, y = correlated(150, 20, 3)
    path = fit_path(x, (y[:, None] == np.arange(3)).astype(float), (1.0,), tolerance=1e-10)
    expected = peer(x, y, 1.0)
    np.testing.assert_allclose(path.weights[0].T, expected.coef_, atol=2e-4)
    np.testing.assert_allclose(
        path.intercepts[0] - path.intercepts[0].mean(),
        expected.intercept_ - expected.intercept_.mean(),
        atol=2e-3,
    )


def test_a_warm_start_ends_where_a_cold_one_does():
    x, y = correlated(120, 15, 3)
    targets = (y[:, None] == np.arange(3)).astype(float)
    warm = fit_path(x, targets, STRENGTHS)
    for index, c in enumerate(STRENGTHS):
        cold = fit_path(x, targets, (c,))
        np.testing.assert_allclose(
            warm.logits(x, index), cold.logits(x, 0), atol=2e-2 * (1 + abs(cold.logits(x, 0)).max())
        )
    assert sum(warm.iterations) < 40 * len(STRENGTHS)


def objective(x, y, weights, intercepts, c):
    """The definition: mean cross-entropy and the penalty."""
    z = x.astype(np.float64) @ weights + intercepts
    top = z.max(axis=1, keepdims=True)
    loss = np.log(np.exp(z - top).sum(axis=1)) + top[:, 0] - z[np.arange(len(y)), y]
    return loss.mean() + (weights**2).sum() / (2 * c * len(x))


def test_the_end_of_the_grid_is_an_optimum_although_the_rows_are_separable():
    # scikit-learn's default tolerance stops at a multiple of the least loss here.
    x, y = correlated(80, 60, 4)
    grid = TORCHGEO_GRID[23::8]
    path = fit_path(x, (y[:, None] == np.arange(4)).astype(float), grid)
    for index, c in enumerate(grid):
        best = LogisticRegression(C=c, tol=1e-9, max_iter=20_000).fit(x.astype(np.float64), y)
        least = objective(x, y, best.coef_.T, best.intercept_, c)
        got = objective(x, y, path.weights[index], path.intercepts[index], c)
        assert got <= least * (1 + 1e-5)


def test_strengths_must_ascend():
    with pytest.raises(ValueError, match="ascend"):
        fit_path(np.zeros((2, 1)), np.eye(2), (1.0, 0.1))


@pytest.mark.parametrize("classes", [2, 5])
def test_the_grid_chooses_what_separate_fits_of_scikit_learn_choose(classes):
    x, y = correlated(260, 12, classes, spread=4.0)
    grid = TORCHGEO_GRID[::3]
    parts = np.split(np.arange(260), [120, 200])
    (train, val, test) = ((x[rows], y[rows]) for rows in parts)
    got = logistic_grid(
        *train,
        test[0],
        classes=classes,
        generator=seeds.rng(0, "held"),
        val=val,
        grid=grid,
        scale=False,
    )
    fits = [peer(*train, c) for c in grid]
    scores = [float((fit.predict(val[0]) == val[1]).mean()) for fit in fits]
    best = int(np.argmax(scores))
    assert got.chosen["held_out_score"] == scores[best]
    assert got.chosen["c"] == grid[best]
    both = (np.concatenate(pair) for pair in zip(train, val, strict=True))
    last = peer(*both, grid[best])
    np.testing.assert_array_equal(got.labels, last.predict(test[0]))
    np.testing.assert_allclose(got.probabilities, last.predict_proba(test[0]), atol=3e-3)


def test_separable_classes_do_not_run_away():
    y = np.arange(60) % 3
    x = (np.eye(3)[y] + 0.01 * seeds.rng(0, "noise").normal(size=(60, 3))).astype(np.float32)
    got = logistic_grid(x, y, x, classes=3, generator=seeds.rng(0, "held"))
    assert (got.labels == y).all()
    assert np.isfinite(got.probabilities).all()


def test_classes_without_training_rows_are_never_said():
    x, y = correlated(60, 5, 3)
    got = logistic_grid(x, y + 1, x, classes=6, generator=seeds.rng(0, "held"))
    assert set(np.unique(got.labels)) <= {1, 2, 3}
    np.testing.assert_array_equal(got.probabilities[:, [0, 4, 5]], 0.0)
    alone = logistic_grid(x, np.full(60, 2), x, classes=6, generator=seeds.rng(0, "held"))
    assert (alone.labels == 2).all()


def test_each_class_of_many_is_a_logistic_regression_of_its_own():
    x, _ = correlated(200, 8, 3)
    r = seeds.rng(1, "labels")
    truth = (x @ r.normal(size=(8, 4)) + 2.0 * r.normal(size=(200, 4))) > np.array([0, 2, -2, 9])
    got = multilabel_logistic(
        x[:100],
        truth[:100],
        x[150:],
        generator=seeds.rng(0, "held"),
        val=(x[100:150], truth[100:150]),
        scale=False,
    )
    assert got.labels.shape == (50, 4)
    for k in range(4):
        if 0 < truth[:150, k].sum() < 150:
            expected = peer(x[:150], truth[:150, k], got.chosen["c"]).predict_proba(x[150:])[:, 1]
            np.testing.assert_allclose(got.probabilities[:, k], expected, atol=5e-3)


def test_a_class_that_no_training_row_has_does_not_stop_the_others():
    x, _ = correlated(60, 4, 2)
    truth = np.stack([x[:, 0] > x[:, 0].mean(), np.zeros(60, dtype=bool)], axis=1)
    got = multilabel_logistic(x, truth, x, generator=seeds.rng(0, "held"))
    assert not got.labels[:, 1].any()
    assert (got.labels[:, 0] == truth[:, 0]).mean() > 0.9
