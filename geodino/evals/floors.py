"""What a model must beat to have learnt anything, and the sentences that say it has not."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from jaxtyping import Int

from geodino import seeds
from geodino.evals.folder import FolderSuite, duplicates_across
from geodino.evals.results import MAJORITY, MODEL, RANDOM, STATISTICS, Comparison, Outcome
from geodino.metrics.classification import accuracy_difference


def compare(
    outcomes: Sequence[Outcome], truth: Int[np.ndarray, " n"], *, seed: int, resamples: int = 1000
) -> tuple[Comparison, ...]:
    """Compare each outcome of the model with the floors, image by image.

    Random weights are met with the same method and features; image statistics with the same
    method (k-NN with 5 neighbours stands for every k-NN); the majority class with every outcome.
    """
    return tuple(
        Comparison(
            method=ours.method,
            features=ours.features,
            model=ours.scores.accuracy.value,
            floor=floor.encoder,
            floor_accuracy=floor.scores.accuracy.value,
            difference=accuracy_difference(
                truth,
                ours.labels,
                floor.labels,
                generator=seeds.rng(seed, "bootstrap"),
                resamples=resamples,
            ),
        )
        for ours in outcomes
        if ours.encoder == MODEL
        for floor in outcomes
        if _comparable(ours, floor)
    )


def floor_alarms(comparisons: Sequence[Comparison]) -> list[str]:
    """One sentence for each outcome of the model that is not above all of its floors."""
    alarms = []
    for (method, features), group in groupby(comparisons, key=lambda c: (c.method, c.features)):
        members = list(group)
        parts = []
        for verdict in ("below", "not clearly above"):
            floors = [
                f"{c.floor} ({c.floor_accuracy:.3f})" for c in members if c.verdict == verdict
            ]
            if floors:
                parts.append(f"{verdict} {' and '.join(floors)}")
        if parts:
            alarms.append(
                f"{method} on {features}: the model ({members[0].model:.3f}) is {', '.join(parts)}."
            )
    return alarms


def fit_alarms(outcomes: Sequence[Outcome]) -> list[str]:
    """One sentence for each fit that stopped before it converged."""
    return [
        f"{o.method} on {o.features} of {o.encoder}: L-BFGS did not converge."
        for o in outcomes
        if o.chosen.get("converged") == 0.0
    ]


def copy_alarms(suite: FolderSuite) -> list[str]:
    """A sentence if images of the test part are also in the train part, file by file."""
    twins = duplicates_across(suite.train, suite.test)
    if not twins:
        return []
    first = " = ".join(path.relative_to(suite.root).as_posix() for path in twins[0])
    share = f"{len(twins)} of {len(suite.test)} test images"
    return [f"{share} are copies of training images ({first}): the scores are too high."]


def _comparable(ours: Outcome, floor: Outcome) -> bool:
    if floor.encoder == MAJORITY:
        return True
    if floor.encoder == RANDOM:
        return (floor.method, floor.features) == (ours.method, ours.features)
    if floor.encoder == STATISTICS:
        both_knn = floor.method == "knn5" and ours.method.startswith("knn")
        return both_knn or floor.method == ours.method
    return False
