"""Probes on frozen features: nearest neighbours and logistic regression.

Each works on plain arrays and returns class probabilities for the test rows; whatever a probe
chooses, it chooses on the training rows (or on a validation part), never on the test rows.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

Vote = Literal["majority", "weighted"]
"""How neighbours vote: one vote each, or by a softmax of their similarities (DINO)."""

Metric = Literal["cosine", "euclidean"]
"""Nearness: of directions, or of standardised values (each column scaled by the train rows)."""

FAST_GRID: tuple[float, ...] = tuple(10.0**e for e in range(-4, 3))
"""Inverse regularisation tried by default: 1e-4 to 1e2, by decades."""

DINO_GRID: tuple[float, ...] = tuple(float(10.0**e) for e in np.linspace(-6, 5, 45))
"""The 45 values of DINOv3's logistic regression: 10^-6 to 10^5, by quarter decades."""

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a probe says about the test rows."""

    probabilities: Float[np.ndarray, "n c"]
    """One row per test image. DINO's weighted vote sums to less than 1 when k < max(k)."""

    labels: Int[np.ndarray, " n"]
    """The most probable class; the first one in a tie."""

    chosen: dict[str, float]
    """Hyper-parameters: ``k``, or ``c`` and what it was chosen by."""


def knn(
    train_x: Float[np.ndarray, "m d"],
    train_y: Int[np.ndarray, " m"],
    test_x: Float[np.ndarray, "n d"],
    *,
    classes: int,
    k: Sequence[int] = (5,),
    vote: Vote = "majority",
    metric: Metric = "cosine",
    temperature: float = 0.07,
) -> dict[int, Prediction]:
    """Classify by the ``k`` nearest training rows, for several ``k`` at once.

    ``majority``: each neighbour has one vote, and the first class wins a tie, as in scikit-learn
    and torchgeo-bench (k = 5). ``weighted``: DINO's vote (Wu et al. 2018, "Unsupervised feature
    learning via non-parametric instance discrimination"): weights are the softmax of
    similarity / ``temperature`` over the ``max(k)`` nearest; a smaller ``k`` takes its first
    ``k`` weights as they are.

    Args:
        train_x: training features.
        train_y: their classes, ``0 .. classes-1``.
        test_x: test features.
        classes: how many classes there are.
        k: numbers of neighbours; values above the number of training rows are left out.
        vote: how neighbours vote.
        metric: what near means. The weighted vote is defined for ``cosine`` alone.
        temperature: of the weighted vote.

    Raises:
        ValueError: no usable ``k``, or a weighted vote over Euclidean distances.
    """
    ks = sorted({value for value in k if 1 <= value <= len(train_x)})
    if not ks:
        raise ValueError(f"no k of {tuple(k)} fits {len(train_x)} training rows")
    if vote == "weighted" and metric != "cosine":
        raise ValueError("the weighted vote is defined for cosine similarities")
    if metric == "cosine":
        # float64: tokens of a hardly trained network are nearly parallel, and cosines that differ
        # by 1e-10 would all be 1 in float32.
        train, test = _unit(train_x.astype(np.float64)), _unit(test_x.astype(np.float64))
    else:
        train, test = standardise(train_x, test_x)
    index, nearness = _nearest(train, test, ks[-1], metric=metric)
    if vote == "weighted":
        scaled = nearness / temperature
        weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
        weights /= weights.sum(axis=1, keepdims=True)
    else:
        weights = np.ones_like(nearness)
    neighbours = train_y[index]
    rows = np.arange(len(test))[:, None] * classes
    out = {}
    for value in ks:
        cells = (rows + neighbours[:, :value]).ravel()
        votes = np.bincount(cells, weights[:, :value].ravel(), minlength=len(test) * classes)
        share = votes.reshape(len(test), classes) / (value if vote == "majority" else 1)
        out[value] = Prediction(
            probabilities=share, labels=share.argmax(axis=1), chosen={"k": float(value)}
        )
    return out


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
        held = _stratified(train_y, held_out, generator)
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
    return Prediction(
        probabilities=probabilities, labels=probabilities.argmax(axis=1), chosen=chosen
    )


def majority(train_y: Int[np.ndarray, " m"], *, tests: int, classes: int) -> Prediction:
    """Always answer the most frequent training class; its probability is its share."""
    share = np.bincount(train_y, minlength=classes) / len(train_y)
    probabilities = np.tile(share, (tests, 1))
    return Prediction(probabilities=probabilities, labels=probabilities.argmax(axis=1), chosen={})


def standardise(
    train_x: Float[np.ndarray, "m d"], test_x: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "n d"]]:
    """Scale columns to mean 0 and standard deviation 1 over the training rows.

    A column that is constant over the training rows becomes 0 there and says nothing.
    """
    mean = train_x.mean(axis=0, dtype=np.float64)
    std = train_x.std(axis=0, dtype=np.float64)
    informative = std > 1e-12 * np.maximum(1.0, np.abs(mean))
    scale = np.where(informative, 1.0 / np.where(informative, std, 1.0), 0.0)
    return (train_x - mean) * scale, (test_x - mean) * scale


def _fitted(
    x: Float[np.ndarray, "m d"], y: Int[np.ndarray, " m"], *, c: float, max_iter: int
) -> LogisticRegression:
    # One thread: the products are small, and on busy cores a pool of BLAS threads that wait for
    # each other is 20 times slower. It also makes the result independent of their number.
    with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
        # Reported as chosen["converged"] instead: weak regularisation may well not converge.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return LogisticRegression(C=c, solver="lbfgs", max_iter=max_iter).fit(x, y)


def _unit(x: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n d"]:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return np.asarray(x / np.maximum(norms, 1e-12))


def _nearest(
    train: Float[np.ndarray, "m d"],
    test: Float[np.ndarray, "n d"],
    k: int,
    *,
    metric: Metric,
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """Indices of the ``k`` nearest training rows, nearest first, and how near they are.

    |a - b|^2 = |a|^2 - 2 (a.b - |b|^2 / 2): for one test row a, Euclidean nearness has the order
    of a.b - |b|^2 / 2.
    """
    shift = 0.5 * (train * train).sum(axis=1) if metric == "euclidean" else 0.0
    indices, nearness = [], []
    for start in range(0, len(test), _ROWS_AT_ONCE):
        near = test[start : start + _ROWS_AT_ONCE] @ train.T - shift
        part = np.argpartition(-near, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(near, part, axis=1)
        order = np.lexsort((part, -values), axis=1)
        indices.append(np.take_along_axis(part, order, axis=1))
        nearness.append(np.take_along_axis(values, order, axis=1))
    return np.concatenate(indices), np.concatenate(nearness)


def _stratified(
    labels: Int[np.ndarray, " m"], share: float, generator: np.random.Generator
) -> Bool[np.ndarray, " m"]:
    """True for ``share`` of the rows of each class, never for all rows of a class."""
    held = np.zeros(len(labels), dtype=bool)
    for value in np.unique(labels):
        rows = np.flatnonzero(labels == value)
        count = min(round(share * len(rows)), len(rows) - 1)
        held[generator.permutation(rows)[:count]] = True
    return held
