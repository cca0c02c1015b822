"""Logistic regression on frozen features, its strength chosen without the test rows.

``logistic`` is scikit-learn's, one fit a strength. ``logistic_grid`` and ``multilabel_logistic``
are torchgeo-bench's protocol: 40 strengths, chosen on the validation part, then a fit on train and
validation together; all strengths are one descent (``descent.fit_path``).
"""

import warnings
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from geodino.evals.probes.descent import Link, fit_path
from geodino.evals.probes.prediction import (
    HELD_OUT,
    Prediction,
    held_out_rows,
    many_classes,
    one_class,
    standardise,
    stratified,
)
from geodino.metrics.calibration import fitted_temperature
from geodino.metrics.multilabel import micro_map

FAST_GRID: tuple[float, ...] = tuple(10.0**e for e in range(-4, 3))
"""Inverse regularisation tried by default: 1e-4 to 1e2, by decades."""

DINO_GRID: tuple[float, ...] = tuple(float(10.0**e) for e in np.linspace(-6, 5, 45))
"""The 45 values of DINOv3's logistic regression: 10^-6 to 10^5, by quarter decades."""

TORCHGEO_GRID: tuple[float, ...] = tuple(float(10.0**e) for e in np.linspace(-6, 4, 40))
"""The 40 values of torchgeo-bench: 10^-6 to 10^4."""


def logistic(
    train_x: Float[np.ndarray, "m d"],
    train_y: Int[np.ndarray, " m"],
    test_x: Float[np.ndarray, "n d"],
    *,
    classes: int,
    generator: np.random.Generator,
    val: tuple[Float[np.ndarray, "v d"], Int[np.ndarray, " v"]] | None = None,
    grid: Sequence[float] = FAST_GRID,
    scale: bool = True,
    held_out: float = 0.2,
    max_iter: int = 1000,
) -> Prediction:
    """Multinomial logistic regression (L-BFGS, L2), its strength chosen without the test rows.

    C is the value of ``grid`` with the best accuracy on ``val``, or, without one, on
    ``held_out`` of each class of the training rows (the smaller C in a tie); then the model is
    fitted again on all rows that are not test rows.

    Args:
        train_x: training features.
        train_y: their classes, ``0 .. classes-1``.
        test_x: test features.
        classes: how many classes there are.
        generator: draws the held-out rows.
        val: features and classes to choose C on.
        grid: values of scikit-learn's C to try.
        scale: standardise each column by the training rows (DINOv3's protocol does not).
        held_out: share of each class held out where ``val`` is None.
        max_iter: of L-BFGS. ``chosen["converged"]`` tells whether the last fit needed fewer.
    """
    if val is None:
        held = stratified(train_y, held_out, generator)
        fit_x, fit_y, val_x, val_y = train_x[~held], train_y[~held], train_x[held], train_y[held]
        all_x, all_y = train_x, train_y
    else:
        fit_x, fit_y, (val_x, val_y) = train_x, train_y, val
        all_x, all_y = np.concatenate([train_x, val[0]]), np.concatenate([train_y, val[1]])
    strengths = sorted(grid)
    accuracies: list[float] = []
    if len(val_x) and len(strengths) > 1:
        fit_z, val_z = standardise(fit_x, val_x) if scale else (fit_x, val_x)
        for c in strengths:
            model = _fitted(fit_z, fit_y, c=c, max_iter=max_iter)
            accuracies.append(float((model.predict(val_z) == val_y).mean()))
        best = int(np.argmax(accuracies))
    else:
        # Too few images to hold any out (one per class): the middle of the grid, untuned.
        best = len(strengths) // 2
    all_z, test_z = standardise(all_x, test_x) if scale else (all_x, test_x)
    model = _fitted(all_z, all_y, c=strengths[best], max_iter=max_iter)
    probabilities = np.zeros((len(test_x), classes))
    probabilities[:, model.classes_] = model.predict_proba(test_z)
    chosen = {"c": strengths[best], "converged": float(model.n_iter_.max() < max_iter)}
    if accuracies:
        chosen["held_out_accuracy"] = accuracies[best]
    return one_class(probabilities, chosen=chosen)


def logistic_grid(
    train_x: Float[np.ndarray, "m d"],
    train_y: Int[np.ndarray, " m"],
    test_x: Float[np.ndarray, "n d"],
    *,
    classes: int,
    generator: np.random.Generator,
    val: tuple[Float[np.ndarray, "v d"], Int[np.ndarray, " v"]] | None = None,
    grid: Sequence[float] = TORCHGEO_GRID,
    scale: bool = True,
    held_out: float = HELD_OUT,
) -> Prediction:
    """Multinomial logistic regression by torchgeo-bench's protocol, all strengths in one descent.

    The same optimum as scikit-learn's ``LogisticRegression(C=c)`` for each ``c``, two classes
    included (one logit, so that C means the same). C is the value with the best accuracy on
    ``val`` or on the held-out rows, the smaller one in a tie; the last fit is on all rows that are
    not test rows. Classes without training rows have probability 0.

    At its default tolerance scikit-learn stops far from that optimum where C is large and the
    classes are separable (at C = 1e4 up to a multiple of the loss above it), so published scores
    may be those of unfinished fits: ``logistic(grid=TORCHGEO_GRID)`` repeats them as they are.

    Args:
        train_x: training features.
        train_y: their classes, ``0 .. classes-1``.
        test_x: test features.
        classes: how many classes there are.
        generator: draws the held-out rows.
        val: features and classes to choose C on.
        grid: values of scikit-learn's C to try.
        scale: standardise each column by the training rows (torchgeo-bench does not).
        held_out: share of each class held out where ``val`` is None.
    """

    def fit(
        x: Float[np.ndarray, "m d"],
        y: Int[np.ndarray, " m"],
        ask_x: Float[np.ndarray, "a d"],
        strengths: Sequence[float],
    ) -> tuple[list[Float[np.ndarray, "a k"]], tuple[bool, ...]]:
        known = np.unique(y)
        if len(known) == 1:
            certain = np.zeros((len(ask_x), classes))
            certain[:, known[0]] = 1.0
            return [certain] * len(strengths), (True,) * len(strengths)
        link: Link = "sigmoid" if len(known) == 2 else "softmax"
        columns = known[1:] if len(known) == 2 else known
        path = fit_path(x, (y[:, None] == columns).astype(np.float64), strengths, link=link)
        said = []
        for index in range(len(strengths)):
            probabilities = np.zeros((len(ask_x), classes))
            logits = path.logits(ask_x, index)
            if link == "sigmoid":
                logits = np.concatenate([np.zeros_like(logits), logits], axis=1)
            probabilities[:, known] = _softmax(logits)
            said.append(probabilities)
        return said, path.converged

    def accuracy(y: Int[np.ndarray, " v"], said: Float[np.ndarray, "v k"]) -> float:
        return float((said.argmax(axis=1) == y).mean())

    probabilities, chosen, chosen_on = _chosen_and_refitted(
        train_x, train_y, test_x, val, fit, accuracy, grid, scale, held_out, generator
    )
    if chosen_on is not None:
        # As torchgeo-bench's: fitted on images that the classifier was not.
        chosen["temperature"] = fitted_temperature(*chosen_on)
    return one_class(probabilities, chosen=chosen)


def multilabel_logistic(
    train_x: Float[np.ndarray, "m d"],
    train_y: Bool[np.ndarray, "m k"],
    test_x: Float[np.ndarray, "n d"],
    *,
    generator: np.random.Generator,
    val: tuple[Float[np.ndarray, "v d"], Bool[np.ndarray, "v k"]] | None = None,
    grid: Sequence[float] = TORCHGEO_GRID,
    scale: bool = True,
    held_out: float = HELD_OUT,
) -> Prediction:
    """One logistic regression a class, one C for all, chosen by micro-mAP.

    As :func:`logistic_grid`; a class that no training row has (or every one) keeps a probability
    near 0 (or 1).
    """

    def fit(
        x: Float[np.ndarray, "m d"],
        y: Bool[np.ndarray, "m k"],
        ask_x: Float[np.ndarray, "a d"],
        strengths: Sequence[float],
    ) -> tuple[list[Float[np.ndarray, "a k"]], tuple[bool, ...]]:
        # The unpenalised intercept of a class that all rows share would run off: it is fixed.
        share = y.mean(axis=0)
        open_ = (share > 0) & (share < 1)
        said = [np.tile(share, (len(ask_x), 1)) for _ in strengths]
        if not open_.any():
            return said, (True,) * len(strengths)
        path = fit_path(x, y[:, open_].astype(np.float64), strengths, link="sigmoid")
        for index, probabilities in enumerate(said):
            logits = path.logits(ask_x, index)
            probabilities[:, open_] = 0.5 * (1.0 + np.tanh(0.5 * logits))
        return said, path.converged

    probabilities, chosen, _ = _chosen_and_refitted(
        train_x, train_y, test_x, val, fit, micro_map, grid, scale, held_out, generator
    )
    return many_classes(probabilities, chosen=chosen)


_Fit = Callable[
    [np.ndarray, np.ndarray, np.ndarray, Sequence[float]],
    tuple[list[np.ndarray], tuple[bool, ...]],
]


def _chosen_and_refitted(
    train_x: Float[np.ndarray, "m d"],
    train_y: Shaped[np.ndarray, "m *k"],
    test_x: Float[np.ndarray, "n d"],
    val: tuple[np.ndarray, np.ndarray] | None,
    fit: _Fit,
    score: Callable[[np.ndarray, np.ndarray], float],
    grid: Sequence[float],
    scale: bool,
    held_out: float,
    generator: np.random.Generator,
) -> tuple[Float[np.ndarray, "n k"], dict[str, float], tuple[np.ndarray, np.ndarray] | None]:
    """Choose a strength, fit it again on everything but the test rows, and say what was chosen.

    Also what the fit with that strength says of the rows it was chosen on, and their labels.
    """
    if val is None:
        held = held_out_rows(train_y, held_out, generator)
        fit_x, fit_y, val_x, val_y = train_x[~held], train_y[~held], train_x[held], train_y[held]
        all_x, all_y = train_x, train_y
    else:
        fit_x, fit_y, (val_x, val_y) = train_x, train_y, val
        all_x, all_y = np.concatenate([train_x, val[0]]), np.concatenate([train_y, val[1]])
    strengths = sorted(grid)
    chosen: dict[str, float] = {}
    chosen_on: tuple[np.ndarray, np.ndarray] | None = None
    best = len(strengths) // 2  # Too few rows to hold any out: the middle of the grid, untuned.
    with threadpool_limits(1, user_api="blas"):
        if len(val_x) and len(strengths) > 1:
            fit_z, val_z = standardise(fit_x, val_x) if scale else (fit_x, val_x)
            said, _ = fit(fit_z, fit_y, val_z, strengths)
            scores = np.array([score(val_y, one) for one in said])
            if not np.isnan(scores).all():
                best = int(np.nanargmax(scores))
                chosen["held_out_score"] = float(scores[best])
                chosen_on = said[best], val_y
        all_z, test_z = standardise(all_x, test_x) if scale else (all_x, test_x)
        (probabilities,), (converged,) = fit(all_z, all_y, test_z, strengths[best : best + 1])
    chosen = {"c": strengths[best], "converged": float(converged), **chosen}
    return probabilities, chosen, chosen_on


def _softmax(logits: Float[np.ndarray, "n k"]) -> Float[np.ndarray, "n k"]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _fitted(
    x: Float[np.ndarray, "m d"], y: Int[np.ndarray, " m"], *, c: float, max_iter: int
) -> LogisticRegression:
    # One thread: the products are small, and on busy cores a pool of BLAS threads that wait for
    # each other is 20 times slower. It also makes the result independent of their number.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        # Reported as chosen["converged"] instead: weak regularisation may well not converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=c, solver="lbfgs", max_iter=max_iter).fit(x, y)
