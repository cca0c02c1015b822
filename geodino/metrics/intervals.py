"""Intervals of any score over images or sites, of differences, and over many data sets.

Scores that are functions of sums over images (a confusion matrix, counts, squared errors) are
resampled as sums, which costs next to nothing; others by the rows of each resample.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from geodino.metrics.bootstrap import Interval, interval, resampled_rows

Score = Callable[[np.ndarray], np.ndarray]
"""Maps sums ``[r ...]`` to scores ``[r]``."""


def of_sums(
    sums: Shaped[np.ndarray, "n *s"],
    score: Score,
    *,
    generator: np.random.Generator,
    clusters: Int[np.ndarray, " n"] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return a score of the sum over all images with its percentile bootstrap interval.

    Args:
        sums: what the score is made of, one entry an image.
        score: maps sums with one leading axis to one score each.
        generator: draws the resamples.
        clusters: site (scene, region) of each image: whole sites are drawn, for images of one site
            repeat each other. None draws images.
        resamples: how many times to draw.
        level: coverage of the interval.

    Raises:
        ValueError: nothing to score.
    """
    return _of_sums([sums], score, clusters, generator, resamples, level)


def difference_of_sums(
    first: Shaped[np.ndarray, "n *s"],
    second: Shaped[np.ndarray, "m *t"],
    score: Score,
    *,
    generator: np.random.Generator,
    clusters: Int[np.ndarray, " n"] | None = None,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return the score of ``first`` minus that of ``second``, the same images drawn for both.

    Arguments and errors as :func:`of_sums`'s. Pairing takes out what both owe to the same easy or
    hard images.
    """
    return _of_sums([first, second], score, clusters, generator, resamples, level)


def of_rows(
    count: int,
    score: Callable[[Int[np.ndarray, " m"]], float],
    *,
    generator: np.random.Generator,
    clusters: Int[np.ndarray, " n"] | None = None,
    resamples: int = 200,
    level: float = 0.95,
) -> Interval:
    """Return any score of rows with its interval; ``score`` is called for each resample.

    For scores that are no function of sums, such as average precision. A paired difference is a
    ``score`` that returns the difference of two.

    Raises:
        ValueError: no rows.
    """
    members = _members(count, clusters)
    drawn = [
        np.array([score(np.concatenate([members[i] for i in row])) for row in rows])
        for rows in resampled_rows(len(members), resamples, generator)
    ]
    return interval(float(score(np.arange(count))), drawn, level)


def _of_sums(
    sides: list[np.ndarray],
    score: Score,
    clusters: Int[np.ndarray, " n"] | None,
    generator: np.random.Generator,
    resamples: int,
    level: float,
) -> Interval:
    if any(side.shape != sides[0].shape for side in sides):
        raise ValueError(f"two models were scored on different images: {[len(s) for s in sides]}")
    members = _members(len(sides[0]), clusters)
    stacks = [np.stack([side[rows].sum(axis=0) for rows in members]) for side in sides]

    def scored(draws: Int[np.ndarray, "r g"]) -> Float[np.ndarray, " r"]:
        found = [score(np.tensordot(draws, stack, 1)) for stack in stacks]
        return np.asarray(found[0] if len(found) == 1 else found[0] - found[1], dtype=np.float64)

    drawn = [
        scored(np.stack([np.bincount(row, minlength=len(members)) for row in rows]))
        for rows in resampled_rows(len(members), resamples, generator)
    ]
    whole = scored(np.ones((1, len(members)), dtype=np.int64))
    return interval(float(whole[0]), drawn, level)


def _members(count: int, clusters: Int[np.ndarray, " n"] | None) -> list[Int[np.ndarray, " m"]]:
    """The rows of each thing that is drawn."""
    if not count:
        raise ValueError("nothing to score")
    if clusters is None:
        return list(np.arange(count)[:, None])
    return [np.flatnonzero(clusters == site) for site in np.unique(clusters)]


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupScores:
    """A score of each group of images."""

    scores: dict[str, float]
    """By group, sorted by name; NaN where the score is undefined."""

    images: dict[str, int]
    """How many images each group has."""

    worst: str | None
    """The group with the worst score; None if no group has one."""


def by_group(
    groups: Sequence[str],
    score: Callable[[Int[np.ndarray, " m"]], float],
    *,
    higher_is_better: bool = True,
) -> GroupScores:
    """Score each group of rows alone, as in worst-group accuracy.

    Args:
        groups: name of the group of each row: region, sensor, season.
        score: maps the rows of a group to its score.
        higher_is_better: False for errors.
    """
    names = np.asarray(groups)
    rows = {str(name): np.flatnonzero(names == name) for name in np.unique(names)}
    scores = {name: float(score(of)) for name, of in rows.items()}
    known = {name: value for name, value in scores.items() if not np.isnan(value)}
    sign = 1.0 if higher_is_better else -1.0
    return GroupScores(
        scores=scores,
        images={name: len(of) for name, of in rows.items()},
        worst=min(known, key=lambda name: sign * known[name]) if known else None,
    )


def iqm(values: Float[np.ndarray, "*r n"]) -> Float[np.ndarray, "*r"]:
    """Return the interquartile mean along the last axis: of what a quarter at each end leaves.

    A quarter is rounded down to whole values (as ``scipy.stats.trim_mean`` does).
    """
    cut = values.shape[-1] // 4
    ordered = np.sort(values, axis=-1)
    return np.asarray(ordered[..., cut : values.shape[-1] - cut].mean(axis=-1))


def stratified_iqm(
    scores: Sequence[Float[np.ndarray, " _"]],
    *,
    generator: np.random.Generator,
    resamples: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Return the IQM over data sets and seeds, with its stratified bootstrap interval.

    Agarwal et al. 2021, "Deep reinforcement learning at the edge of the statistical precipice":
    seeds are drawn again within each data set, all data sets stay.

    Args:
        scores: normalised scores of one model, one array of seeds a data set.
        generator: draws the resamples.
        resamples: how many times to draw.
        level: coverage of the interval.

    Raises:
        ValueError: no data set, or one without a score.
    """
    if not scores or any(not len(seeds) for seeds in scores):
        raise ValueError("every data set needs at least one score")
    drawn = [
        seeds[generator.integers(0, len(seeds), size=(resamples, len(seeds)))] for seeds in scores
    ]
    value = float(iqm(np.concatenate(list(scores))))
    return interval(value, [iqm(np.concatenate(drawn, axis=1))], level)


@dataclass(frozen=True, kw_only=True, slots=True)
class NormalisedScores:
    """Scores from 0 (worst of the pool) to 1 (best), and the pool that says what they mean."""

    scores: dict[str, dict[str, Float[np.ndarray, " _"]]]
    """Model, then data set, then seeds."""

    pool: tuple[str, ...]
    """The models between which 0 and 1 lie. Another pool gives other scores to the same model."""

    low: dict[str, float]
    """By data set: what became 0."""

    high: dict[str, float]
    """By data set: what became 1."""


def min_max_normalised(
    scores: Mapping[str, Mapping[str, Float[np.ndarray, " _"]]],
    *,
    pool: Sequence[str] | None = None,
    errors: Sequence[str] = (),
) -> NormalisedScores:
    """Scale each data set so that the worst run of the pool is 0 and the best is 1.

    As GEO-Bench and GEO-Bench-2 do. Models outside the pool may lie outside 0 to 1; so adding a
    model to a table need not move the others.

    Args:
        scores: model, then data set, then one value a seed.
        pool: models that span the scale; None takes all of them.
        errors: data sets whose score is better when lower.

    Raises:
        ValueError: an unknown model in the pool, models with different data sets, or a data set on
            which the pool does not differ.
    """
    names = tuple(scores if pool is None else pool)
    if not names or (unknown := [name for name in names if name not in scores]):
        raise ValueError(f"the pool names models without scores: {unknown if names else 'none'}")
    sets = sorted(scores[names[0]])
    for model, found in scores.items():
        if sorted(found) != sets:
            raise ValueError(f"{model!r} has scores of {sorted(found)}, the pool of {sets}")
    low, high = {}, {}
    for data in sets:
        every = np.concatenate([scores[name][data] for name in names])
        if every.min() == every.max():
            raise ValueError(f"all of the pool have {every.min()} on {data!r}: nothing to scale by")
        ends = (float(every.min()), float(every.max()))
        low[data], high[data] = ends[::-1] if data in errors else ends
    return NormalisedScores(
        scores={
            model: {d: (found[d] - low[d]) / (high[d] - low[d]) for d in sets}
            for model, found in scores.items()
        },
        pool=names,
        low=low,
        high=high,
    )
