"""What is tried on a set: every probe on every encoder's features, and the floors.

Probes that draw something (held-out rows, initial weights, the order of batches) are tried again
with other seeds where several were asked for; the others would say the same again.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from geodino.data.labelled.sets import LabelledSet
from geodino.evals.features import Extracted
from geodino.evals.probes.prediction import Prediction
from geodino.evals.probes.table import Probe, Problem, floor
from geodino.evals.problems import Problems
from geodino.evals.results import STATISTICS, Outcome
from geodino.models.pooling import FeatureName


@dataclass(frozen=True, kw_only=True, slots=True)
class _Trial:
    """One probe on the features of one encoder."""

    encoder: str
    features: str
    probe: Probe
    problem: Callable[[Problems], tuple[Problem, int]]
    """Returns the problem and the length of a feature vector."""

    def run(self, problems: Problems) -> tuple[list[Outcome], bool]:
        """Return what the probe says, and whether it drew anything to say it."""
        problem, dim = self.problem(problems)
        # As text: states of generators hold arrays.
        before = repr(problem.generator.bit_generator.state)
        outcomes = [
            Outcome(
                encoder=self.encoder, method=method, features=self.features, dim=dim,
                prediction=prediction, seed=problems.seed,
            )
            for method, prediction in self.probe.run(problem).items()
        ]  # fmt: skip
        return outcomes, repr(problem.generator.bit_generator.state) != before


def outcomes_of(
    data: LabelledSet,
    extracted: Extracted,
    probes: Sequence[Probe],
    kinds: Sequence[FeatureName],
    *,
    seed: int,
    count: int,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[tuple[Outcome, ...], tuple[Outcome, ...]]:
    """Run every probe on every encoder's features, then on the statistics, then the blind answer.

    Args:
        data: the set.
        extracted: features of its images.
        probes: what is tried.
        kinds: which vectors of an encoder.
        seed: of what probes draw.
        count: seeds in all, ``seed`` the first one.
        progress: called with ("probes", done, in all), anew for the other seeds.

    Returns:
        The outcomes of the first seed, and those of the others.
    """
    problems = Problems(data, seed=seed)
    first: list[Outcome] = []
    drawn: list[_Trial] = []
    tried = [(problems, trial) for trial in _trials(extracted, probes, kinds)]
    for _, trial in _told(tried, progress):
        outcomes, has_drawn = trial.run(problems)
        first += outcomes
        drawn += [trial] if has_drawn else []
    blind, answer = floor(problems.of(extracted.statistics))
    first.append(_constant(blind, answer, seed))
    others = [problems.drawn_with(other) for other in range(seed + 1, seed + count)]
    tried = list(itertools.product(others, drawn))
    again = [one for other, trial in _told(tried, progress) for one in trial.run(other)[0]]
    return tuple(first), tuple(again)


def _told(
    tried: Sequence[tuple[Problems, _Trial]], progress: Callable[[str, int, int], None] | None
) -> Iterator[tuple[Problems, _Trial]]:
    """Yield what is tried, and say how much is done: before the first, and after each."""
    if progress is None or not tried:
        yield from tried
        return
    for done, one in enumerate(tried):
        progress("probes", done, len(tried))
        yield one
    progress("probes", len(tried), len(tried))


def _constant(name: str, answer: Prediction, seed: int) -> Outcome:
    return Outcome(
        encoder=name, method="constant", features="none", dim=0, prediction=answer, seed=seed
    )


def _trials(
    extracted: Extracted, probes: Sequence[Probe], kinds: Sequence[FeatureName]
) -> Iterator[_Trial]:
    vectors = [probe for probe in probes if probe.features == "vectors"]
    maps = [probe for probe in probes if probe.features == "patches"]
    for name in extracted.features:
        for kind in kinds:
            for probe in vectors:
                yield _of_vectors(extracted, name, kind, probe)
        for probe in maps:
            yield _of_patches(extracted, name, probe)
    for probe in vectors:
        # DINO's vote is of directions, and its heads of tokens: statistics have neither.
        if probe.name in ("knn", "linear", "ridge"):
            yield _of_statistics(extracted, probe)


def _of_vectors(extracted: Extracted, name: str, kind: FeatureName, probe: Probe) -> _Trial:
    features = extracted.features[name]
    return _Trial(
        encoder=name, features=kind, probe=probe,
        problem=lambda problems: problems.of_vectors(features, kind, probe),
    )  # fmt: skip


def _of_patches(extracted: Extracted, name: str, probe: Probe) -> _Trial:
    patches = extracted.patches[name]
    return _Trial(
        encoder=name, features="patches", probe=probe,
        problem=lambda problems: (problems.of(patches), patches.shape[1]),
    )  # fmt: skip


def _of_statistics(extracted: Extracted, probe: Probe) -> _Trial:
    values = extracted.statistics
    return _Trial(
        encoder=STATISTICS, features="statistics", probe=probe,
        problem=lambda problems: (problems.of(values, metric="euclidean"), values.shape[1]),
    )  # fmt: skip
