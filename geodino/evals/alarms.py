"""What a reader of results must see: a model under a floor, fits that failed, copies, leaks."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np

from geodino.evals.results import MODEL, RANDOM, Comparison, Outcome, SetResult


def alarms(result: SetResult) -> list[str]:
    """Return every alarm of a set as a sentence."""
    return [
        *floor_alarms(result.comparisons),
        *fit_alarms(result),
        *same_alarms(result.outcomes),
        *empty_alarms(result),
        *copy_alarms(result),
        *result.leaks,
    ]


def floor_alarms(comparisons: Sequence[Comparison]) -> list[str]:
    """One sentence for each outcome of the model that is not above all of its floors."""
    found = []
    for (method, features), group in groupby(comparisons, key=lambda c: (c.method, c.features)):
        members = list(group)
        parts = []
        for verdict in ("below", "not clearly above"):
            floors = [f"{c.floor} ({c.floor_score:.3f})" for c in members if c.verdict == verdict]
            if floors:
                parts.append(f"{verdict} {' and '.join(floors)}")
        if parts:
            found.append(
                f"{method} on {features}: the model ({members[0].metric} {members[0].model:.3f}) is "
                f"{', '.join(parts)}."
            )
    return found


def fit_alarms(result: SetResult) -> list[str]:
    """One sentence for each fit that stopped before it converged."""
    return [
        f"{o.method} on {o.features} of {o.encoder}: the fit did not converge."
        for o in result.outcomes
        if o.prediction.chosen.get("converged") == 0.0
    ]


def same_alarms(outcomes: Sequence[Outcome]) -> list[str]:
    """A sentence where two encoders say the very same of every image, classes and probabilities.

    Two different networks hardly ever do: one of them was not loaded, or the features collapsed.
    Where a floor that has no network says the same too, the images leave nothing else to say.
    """
    found = []
    floors = [o for o in outcomes if o.encoder not in (MODEL, RANDOM)]
    for i, one in enumerate(outcomes):
        for other in outcomes[i + 1 :]:
            is_pair = one.encoder != other.encoder and one.method == other.method
            if not is_pair or one.features != other.features or not _say_the_same(one, other):
                continue
            if not any(_say_the_same(one, floor) for floor in floors):
                found.append(
                    f"{one.method} on {one.features}: {one.encoder} and {other.encoder} predict "
                    "exactly the same for every image; check that the weights were loaded."
                )
    return found


def _say_the_same(one: Outcome, other: Outcome) -> bool:
    if one.digest != other.digest:
        return False
    mine, theirs = one.prediction.probabilities, other.prediction.probabilities
    if mine is None or theirs is None:
        return mine is theirs
    return np.allclose(mine, theirs, rtol=1e-5, atol=1e-7)


def empty_alarms(result: SetResult) -> list[str]:
    """A sentence if classes have no image in the test part."""
    if result.facts.kind not in ("classification", "segmentation"):
        return []
    outcome = result.outcomes[0]
    judged = result.judged(outcome)
    if result.facts.kind == "segmentation":
        images = judged.sums.sum(axis=(0, 2))
    else:
        count = len(result.facts.classes)
        images = judged.sums.sum(axis=0)[count : 2 * count]
    empty = [name for name, n in zip(result.facts.classes, images, strict=True) if not n]
    if not empty:
        return []
    others = len(images) - len(empty)
    return [
        f"no test image has {', '.join(empty)}: means over classes are taken over the other {others}."
    ]


def copy_alarms(result: SetResult) -> list[str]:
    """A sentence if test images are copies of training images: they measure memory."""
    if not result.copies:
        return []
    test, train = result.copies[0]
    share = f"{len(result.copies)} of {len(result.keys)} test images"
    return [f"{share} are copies of training images ({test} = {train}): the scores are too high."]
