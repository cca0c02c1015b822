"""Nearest neighbours on frozen features: of classes, of sets of classes, of numbers."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from geodino.evals.probes.prediction import Prediction, many_classes, one_class, standardise

Vote = Literal["majority", "weighted"]
"""How neighbours vote: one vote each, or by a softmax of their similarities (DINO)."""

Metric = Literal["cosine", "euclidean", "l2"]
"""Nearness: of directions, of standardised values (each column scaled by the train rows), or of
values as they are."""

_ROWS_AT_ONCE = 1024


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
    and torchgeo-bench (k = 5, ``l2``). ``weighted``: DINO's vote (Wu et al. 2018, "Unsupervised feature
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
    index, weights = neighbour_weights(
        train_x, test_x, k=k, vote=vote, metric=metric, temperature=temperature
    )
    neighbours = train_y[index]
    rows = np.arange(len(test_x))[:, None] * classes
    out = {}
    for value in usable(k, len(train_x)):
        cells = (rows + neighbours[:, :value]).ravel()
        size = len(test_x) * classes
        votes = np.bincount(cells, weights[:, :value].ravel(), minlength=size)
        share = votes.reshape(len(test_x), classes) / (value if vote == "majority" else 1)
        out[value] = one_class(share, chosen={"k": float(value)})
    return out


def multilabel_knn(
    train_x: Float[np.ndarray, "m d"],
    train_y: Bool[np.ndarray, "m k"],
    test_x: Float[np.ndarray, "n d"],
    *,
    k: Sequence[int] = (5,),
    vote: Vote = "majority",
    metric: Metric = "cosine",
    temperature: float = 0.07,
) -> dict[int, Prediction]:
    """Say of each class which share of the neighbours has it; half of them make it present.

    Arguments and errors as :func:`knn`'s; the weights of a weighted vote sum to 1 for every ``k``.
    """
    answers = _averages(train_x, train_y.astype(np.float64), test_x, k, vote, metric, temperature)
    # 5 shares of 1/5 sum to a rounding more than 1.
    return {
        n: many_classes(np.clip(mean, 0.0, 1.0), chosen={"k": float(n)})
        for n, mean in answers.items()
    }


def regression_knn(
    train_x: Float[np.ndarray, "m d"],
    train_y: Float[np.ndarray, " m"],
    test_x: Float[np.ndarray, "n d"],
    *,
    k: Sequence[int] = (5,),
    vote: Vote = "majority",
    metric: Metric = "cosine",
    temperature: float = 0.07,
) -> dict[int, Prediction]:
    """Say the mean of the neighbours' numbers. Arguments and errors as :func:`multilabel_knn`'s."""
    column = np.asarray(train_y, dtype=np.float64)[:, None]
    answers = _averages(train_x, column, test_x, k, vote, metric, temperature)
    return {n: Prediction(values=mean[:, 0], chosen={"k": float(n)}) for n, mean in answers.items()}


def usable(k: Sequence[int], rows: int) -> list[int]:
    """Return the values of ``k`` that ``rows`` training rows allow, ascending.

    Raises:
        ValueError: there is none.
    """
    ks = sorted({value for value in k if 1 <= value <= rows})
    if not ks:
        raise ValueError(f"no k of {tuple(k)} fits {rows} training rows")
    return ks


def neighbour_weights(
    train_x: Float[np.ndarray, "m d"],
    test_x: Float[np.ndarray, "n d"],
    *,
    k: Sequence[int],
    vote: Vote,
    metric: Metric,
    temperature: float,
) -> tuple[Int[np.ndarray, "n k"], Float[np.ndarray, "n k"]]:
    """Return the ``max(k)`` nearest training rows, nearest first, and the weight of each.

    Raises:
        ValueError: no usable ``k``, or a weighted vote over Euclidean distances.
    """
    ks = usable(k, len(train_x))
    if vote == "weighted" and metric != "cosine":
        raise ValueError("the weighted vote is defined for cosine similarities")
    if metric == "cosine":
        # float64: tokens of a hardly trained network are nearly parallel, and cosines that differ
        # by 1e-10 would all be 1 in float32.
        train, test = _unit(train_x.astype(np.float64)), _unit(test_x.astype(np.float64))
    elif metric == "euclidean":
        train, test = standardise(train_x, test_x)
    else:
        train, test = train_x.astype(np.float64), test_x.astype(np.float64)
    index, nearness = _nearest(train, test, ks[-1], metric=metric)
    if vote == "majority":
        return index, np.ones_like(nearness)
    scaled = nearness / temperature
    weights = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return index, weights / weights.sum(axis=1, keepdims=True)


def _averages(
    train_x: Float[np.ndarray, "m d"],
    targets: Float[np.ndarray, "m t"],
    test_x: Float[np.ndarray, "n d"],
    k: Sequence[int],
    vote: Vote,
    metric: Metric,
    temperature: float,
) -> dict[int, Float[np.ndarray, "n t"]]:
    """Weighted means of the neighbours' targets, for each ``k``."""
    index, weights = neighbour_weights(
        train_x, test_x, k=k, vote=vote, metric=metric, temperature=temperature
    )
    out = {}
    for value in usable(k, len(train_x)):
        total = np.zeros((len(test_x), targets.shape[1]))
        for place in range(value):
            total += weights[:, place, None] * targets[index[:, place]]
        out[value] = total / weights[:, :value].sum(axis=1, keepdims=True)
    return out


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
    shift = 0.5 * (train * train).sum(axis=1) if metric != "cosine" else 0.0
    indices, nearness = [], []
    for start in range(0, len(test), _ROWS_AT_ONCE):
        near = test[start : start + _ROWS_AT_ONCE] @ train.T - shift
        part = np.argpartition(-near, k - 1, axis=1)[:, :k]
        values = np.take_along_axis(near, part, axis=1)
        order = np.lexsort((part, -values), axis=1)
        indices.append(np.take_along_axis(part, order, axis=1))
        nearness.append(np.take_along_axis(values, order, axis=1))
    return np.concatenate(indices), np.concatenate(nearness)
