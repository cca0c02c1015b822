"""What an evaluation found on one set: predictions, scores, floors, and what is alarming in them."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from jaxtyping import Int

from geodino import seeds
from geodino.data.labelled.sets import SetFacts
from geodino.evals.probes.maps import Items
from geodino.evals.probes.prediction import Prediction
from geodino.evals.scoring import ERRORS, Judged, per_class
from geodino.metrics.bootstrap import Interval
from geodino.metrics.calibration import BINS, calibration_errors, tempered
from geodino.metrics.intervals import by_group

MODEL = "model"
"""Encoder name of the rows of the model under evaluation; the other encoders are floors."""

RANDOM = "random weights"
"""The same architecture, never trained."""

STATISTICS = "image statistics"
"""Mean and standard deviation of each band of each image."""

CONSTANT = "constant"
"""Method of the answer that needs no image."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """One probe on one encoder's features."""

    encoder: str
    """``MODEL``, or a floor: ``RANDOM``, ``STATISTICS``, or the answer that needs no image."""

    method: str
    """``knn5``, ``linear``, ``dense-linear``; ``constant`` for the answer that needs no image."""

    features: str
    """``cls``, ``mean``, ``concat``, ``patches``; ``statistics`` and ``none`` for floors."""

    dim: int
    """Length of the feature vector."""

    prediction: Prediction
    seed: int = 0
    """Of what the probe drew."""

    @property
    def digest(self) -> str:
        """A hash of what was predicted."""
        found = self.prediction
        digest = hashlib.sha256()
        for values in (found.labels, found.values, found.confusion, found.errors):
            if values is not None:
                digest.update(np.ascontiguousarray(values).tobytes())
        return digest.hexdigest()

    @property
    def is_floor(self) -> bool:
        """Whether it is not the model's."""
        return self.encoder != MODEL


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """The model against one floor, on the same images."""

    method: str
    features: str
    metric: str
    model: float
    """Score of the model."""

    floor: str
    """Which floor."""

    floor_score: float
    difference: Interval
    """How much better the model is, with the interval of the paired bootstrap; for errors, how
    much lower."""

    @property
    def verdict(self) -> Literal["above", "not clearly above", "below"]:
        """``above`` means beyond chance: the whole interval is above 0."""
        if self.difference.low > 0:
            return "above"
        return "below" if self.difference.value < 0 else "not clearly above"


@dataclass(frozen=True, kw_only=True)
class SetResult:
    """Everything an evaluation of one model on one set found."""

    set: dict[str, Any]
    """Name, kind, classes, fingerprint, numbers of images, bands."""

    settings: dict[str, Any]
    """Model, protocol, bands, seed."""

    outcomes: tuple[Outcome, ...]
    """The model first, then the floors; all of the first seed."""

    keys: tuple[str, ...]
    """Test images, in the order of the predictions."""

    labels: Items
    """Their labels."""

    facts: SetFacts
    clusters: Int[np.ndarray, " n"] | None
    groups: Mapping[str, Sequence[str]]
    """By trait, the group of each test image."""

    seed: int
    resamples: int
    copies: tuple[tuple[str, str], ...] = ()
    """Test images that are copies of training images, and those."""

    repeats: tuple[Outcome, ...] = ()
    """Probes that draw something, with other seeds."""

    leaks: tuple[str, ...] = ()
    """What of the test part the model may have seen."""

    def judged(self, outcome: Outcome) -> Judged:
        """Return an outcome beside the truth."""
        truth = self.labels if isinstance(self.labels, np.ndarray) else None
        return Judged(self.facts, outcome.prediction, truth, self.clusters)

    @cached_property
    def scores(self) -> tuple[dict[str, Interval], ...]:
        """The scores of each outcome."""
        return tuple(map(self.scores_of, self.outcomes))

    def scores_of(self, outcome: Outcome) -> dict[str, Interval]:
        """Return every score of an outcome with its interval over images or sites."""
        return self.judged(outcome).intervals(self._generator, resamples=self.resamples)

    @cached_property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The model against each floor it can be compared with.

        Random weights are met with the same method and features; image statistics with the same
        method (5 neighbours stand for every number of them); the blind answer with every outcome.
        """
        metric = self.facts.metric
        found = []
        for ours in self.outcomes:
            for floor in self.outcomes:
                if ours.is_floor or not _comparable(ours, floor):
                    continue
                one, other = self.judged(ours), self.judged(floor)
                difference = one.above(other, generator=self._generator(), resamples=self.resamples)
                found.append(
                    Comparison(
                        method=ours.method,
                        features=ours.features,
                        metric=metric,
                        model=one.value(metric),
                        floor=floor.encoder,
                        floor_score=other.value(metric),
                        difference=difference,
                    )
                )
        return tuple(found)

    @property
    def group_scores(self) -> dict[str, list[dict[str, Any]]]:
        """By trait, for each of the model's outcomes: the score of each group, and the worst."""
        metric = self.facts.metric
        found: dict[str, list[dict[str, Any]]] = {}
        for trait, names in self.groups.items():
            found[trait] = []
            for outcome in self.outcomes:
                if outcome.is_floor:
                    continue
                judged = self.judged(outcome)
                scores = by_group(names, _of(judged, metric), higher_is_better=metric not in ERRORS)
                found[trait].append(
                    {
                        "method": outcome.method,
                        "features": outcome.features,
                        "metric": metric,
                        "scores": scores.scores,
                        "images": scores.images,
                        "worst": scores.worst,
                    }
                )
        return found

    def calibration(self, outcome: Outcome) -> dict[str, float]:
        """Return the calibration errors of a classification; nothing for others.

        With ``_ts`` behind their names: after the temperature that was fitted where C was chosen.
        """
        found = outcome.prediction
        if self.facts.kind != "classification" or found.probabilities is None:
            return {}
        right = found.classes == np.asarray(self.labels)
        errors = calibration_errors(np.clip(found.confidence, 0.0, 1.0), right)
        said = {**asdict(errors), "calibration_n_bins": BINS}
        if "temperature" in found.chosen:
            cooled = tempered(found.probabilities, found.chosen["temperature"])
            scaled = calibration_errors(cooled.max(axis=1), right)
            said |= {f"{name}_ts": value for name, value in asdict(scaled).items()}
            said["temperature"] = found.chosen["temperature"]
        return said

    def per_class(self, outcome: Outcome) -> dict[str, dict[str, float | None]]:
        """Return what each class scores, by the name of the score and of the class."""
        found = per_class(self.judged(outcome))
        return {
            name: dict(zip(self.facts.classes, values, strict=True))
            for name, values in found.items()
        }

    def _generator(self) -> np.random.Generator:
        return seeds.rng(self.seed, "bootstrap")


def _of(judged: Judged, metric: str) -> Callable[[Int[np.ndarray, " m"]], float]:
    return lambda rows: judged.value(metric, rows)


def _comparable(ours: Outcome, floor: Outcome) -> bool:
    if floor.encoder == MODEL:
        return False
    if floor.encoder == RANDOM:
        return (floor.method, floor.features) == (ours.method, ours.features)
    if floor.encoder == STATISTICS:
        both_knn = floor.method == "knn5" and ours.method.startswith("knn")
        both_linear = floor.method == "linear" and ours.method.startswith("linear")
        return both_knn or both_linear or floor.method == ours.method
    return True
