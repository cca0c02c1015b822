"""Intervals of height scores over sites, and of the difference of two models on the same sites."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int

from geodino import seeds
from geodino.errors import RunError
from geodino.metrics.bootstrap import Interval, interval, resampled_rows
from geodino.metrics.height import HeightSums, Totals, flat_scores, scores_of

MIN_SITES = 2
"""With one site every resample is the same one."""


def site_intervals(
    sites: Mapping[str, HeightSums], *, seed: int, resamples: int = 1000, level: float = 0.95
) -> dict[str, Interval]:
    """Return each score of ``HeightSums.named`` over all sites, with its bootstrap interval.

    Whole sites are drawn again with replacement, never pixels: neighbouring pixels repeat each
    other. The interval says what another draw of as many sites would give; with fewer than about 10
    it is a rough and rather narrow one. A score undefined in a resample (a height class that none
    of its sites has) is left out there.

    Args:
        sites: sums per site, by name.
        seed: of the draws.
        resamples: how many times to draw.
        level: coverage of the interval.

    Raises:
        RunError: fewer than two sites, or sums of different protocols.
    """
    return _bootstrapped([sites], seed=seed, resamples=resamples, level=level)


def site_differences(
    first: Mapping[str, HeightSums],
    second: Mapping[str, HeightSums],
    *,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return scores of ``first`` minus those of ``second`` on the same sites, resampled together.

    Pairing takes out what both owe to easy and hard sites.

    Raises:
        RunError: fewer than two sites, or the two were not scored on the same pixels.
    """
    if alone := sorted(set(first) ^ set(second)):
        raise RunError(
            f"{len(alone)} site(s) were scored for one model only, e.g. {alone[0]!r}: "
            "score both models on the same sites before comparing them."
        )
    for name in first:
        ours, theirs = (
            np.stack([side[name].totals[k] for k in ("n", "true")]) for side in (first, second)
        )
        if not np.allclose(ours, theirs, rtol=1e-9, atol=0):
            raise RunError(
                f"site {name!r} has {ours[0]:.0f} scored pixels for one model and "
                f"{theirs[0]:.0f} for the other, or other heights under them: score both under "
                "the same mask before comparing them."
            )
    return _bootstrapped([first, second], seed=seed, resamples=resamples, level=level)


def _bootstrapped(
    sides: list[Mapping[str, HeightSums]], *, seed: int, resamples: int, level: float
) -> dict[str, Interval]:
    """Intervals of the scores of one side, or of the differences of two."""
    names = sorted(sides[0])
    if len(names) < MIN_SITES:
        raise RunError(
            f"an interval over sites needs at least {MIN_SITES}, found {len(names)}: "
            "score more sites, or report the value without an interval."
        )
    protocol = sides[0][names[0]].protocol
    if any(side[name].protocol != protocol for side in sides for name in names):
        raise RunError("the sites were scored under different protocols: score them all under one.")
    stacks = [
        {key: np.stack([side[name].totals[key] for name in names]) for key in side[names[0]].totals}
        for side in sides
    ]

    def score(draws: Int[np.ndarray, "r n"]) -> Totals:
        """Scores of each resample, given how often it holds each site."""
        found = [
            scores_of({key: np.tensordot(draws, sums, 1) for key, sums in stack.items()})
            for stack in stacks
        ]
        named = [dict(flat_scores(f, protocol)) for f in found]
        return named[0] if len(named) == 1 else {k: v - named[1][k] for k, v in named[0].items()}

    drawn = [
        score(np.stack([np.bincount(row, minlength=len(names)) for row in rows]))
        for rows in resampled_rows(len(names), resamples, seeds.rng(seed, "sites"))
    ]
    whole = score(np.ones((1, len(names)), dtype=np.int64))
    return {k: interval(float(v[0]), [d[k] for d in drawn], level) for k, v in whole.items()}
