"""From predictions and truth to scores with intervals, whatever the kind of label."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from geodino.data.labelled.sets import SetFacts
from geodino.evals.probes.prediction import Prediction
from geodino.metrics.bootstrap import Interval
from geodino.metrics.intervals import Score, difference_of_sums, of_rows, of_sums
from geodino.metrics.multilabel import label_counts, macro_f1_of, macro_map, micro_f1_of, micro_map
from geodino.metrics.regression import number_sums, regression_scores
from geodino.metrics.segmentation import segmentation_scores

ERRORS = frozenset({"rmse", "mae"})
"""Scores that are better when lower."""

_RANKINGS = ("micro_map", "macro_map")
"""Scores of several classes an image that are no functions of sums."""

_RANKED = 200
"""Resamples of scores that have to be ranked anew each time."""


@dataclass(frozen=True)
class Judged:
    """A prediction beside the truth.

    Args:
        facts: of the set.
        prediction: of the test images.
        truth: their labels: classes, rows of classes, or numbers; maps are in the prediction's
            confusion matrices and error sums already.
        clusters: site of each image, drawn as a whole; None draws images.
    """

    facts: SetFacts
    prediction: Prediction
    truth: np.ndarray | None
    clusters: Int[np.ndarray, " n"] | None = field(default=None)

    @cached_property
    def sums(self) -> np.ndarray:
        """What the scores are made of, one entry an image."""
        found, kind = self.prediction, self.facts.kind
        if found.confusion is not None:
            return found.confusion
        if found.errors is not None:
            return found.errors
        truth = _known(self.truth)
        if kind == "multilabel":
            return label_counts(truth, np.asarray(found.labels, dtype=bool))
        if kind == "regression":
            return number_sums(_known(found.values), truth)
        return _hits(truth, found.classes, classes=len(self.facts.classes))

    @property
    def scores(self) -> Mapping[str, Score]:
        """Scores that are functions of sums, by name."""
        return _scores(self.facts)

    def value(self, metric: str, rows: Int[np.ndarray, " m"] | None = None) -> float:
        """Return a score of all images, or of some."""
        if metric in self.scores:
            sums = self.sums if rows is None else self.sums[rows]
            return float(self.scores[metric](sums.sum(axis=0)[None])[0])
        chosen = np.arange(len(_known(self.truth))) if rows is None else rows
        return self._ranked(metric)(chosen)

    def intervals(
        self, generator: Callable[[], np.random.Generator], *, resamples: int
    ) -> dict[str, Interval]:
        """Return every score with its interval; each from the same draws."""
        found = {
            name: of_sums(
                self.sums, score, generator=generator(), clusters=self.clusters, resamples=resamples
            )
            for name, score in self.scores.items()
        }
        if self.facts.kind == "multilabel":
            for name in _RANKINGS:
                found[name] = of_rows(
                    len(self.sums),
                    self._ranked(name),
                    generator=generator(),
                    clusters=self.clusters,
                    resamples=min(resamples, _RANKED),
                )
        return found

    def above(self, other: "Judged", *, generator: np.random.Generator, resamples: int) -> Interval:
        """Return the main score minus that of another prediction of the same images, paired.

        For errors the sign is turned: above 0 this one is the better one.
        """
        metric = self.facts.metric
        sign = -1.0 if metric in ERRORS else 1.0
        if metric in self.scores:
            score = self.scores[metric]
            return difference_of_sums(
                self.sums,
                other.sums,
                lambda sums: sign * score(sums),
                generator=generator,
                clusters=self.clusters,
                resamples=resamples,
            )
        ours, theirs = self._ranked(metric), other._ranked(metric)
        return of_rows(
            len(self.sums),
            lambda rows: sign * (ours(rows) - theirs(rows)),
            generator=generator,
            clusters=self.clusters,
            resamples=min(resamples, _RANKED),
        )

    def _ranked(self, metric: str) -> Callable[[Int[np.ndarray, " m"]], float]:
        """A score of rows that needs the probabilities of all of them."""
        truth = _known(self.truth)
        said = _known(self.prediction.probabilities)
        score = {"micro_map": micro_map, "macro_map": macro_map}[metric]
        return lambda rows: score(truth[rows], said[rows])


def per_class(judged: Judged) -> dict[str, list[float | None]]:
    """Return what each class scores: IoU, recall and precision, or F1; None where undefined."""
    kind, sums = judged.facts.kind, judged.sums
    if kind == "segmentation":
        return {"iou": _listed(segmentation_scores(sums.sum(axis=0)).iou)}
    if kind == "multilabel":
        counts = sums.sum(axis=0).astype(np.float64)
        size = 2 * counts[:, 0] + counts[:, 1] + counts[:, 2]
        return {"f1": _listed(_share(2 * counts[:, 0], size))}
    if kind == "classification":
        count = len(judged.facts.classes)
        total = sums.sum(axis=0)
        hits, true, said = (total[i * count : (i + 1) * count] for i in range(3))
        return {"recall": _listed(_share(hits, true)), "precision": _listed(_share(hits, said))}
    return {}


def score_names(facts: SetFacts) -> tuple[str, ...]:
    """Return the names of the scores that labels of such a set have."""
    return (*_scores(facts), *(_RANKINGS if facts.kind == "multilabel" else ()))


def _scores(facts: SetFacts) -> Mapping[str, Score]:
    if facts.kind == "classification":
        count = len(facts.classes)
        return {
            "accuracy": lambda sums: _share(
                sums[..., :count].sum(axis=-1), sums[..., count : 2 * count].sum(axis=-1)
            ),
            "balanced_accuracy": lambda sums: _mean_known(
                _share(sums[..., :count], sums[..., count : 2 * count])
            ),
        }
    if facts.kind == "multilabel":
        return {"micro_f1": micro_f1_of, "macro_f1": macro_f1_of}
    if facts.kind == "segmentation":

        def part(name: str) -> Score:
            return lambda sums: getattr(
                segmentation_scores(sums, background=facts.background), name
            )

        return {name: part(name) for name in ("miou", "pixel_accuracy", "fw_iou")}

    def number(name: str) -> Score:
        return lambda sums: regression_scores(sums)[name]

    return {name: number(name) for name in ("rmse", "mae", "bias", "r2")}


def _hits(
    truth: Int[np.ndarray, " n"], said: Int[np.ndarray, " n"], *, classes: int
) -> Int[np.ndarray, "n c3"]:
    """Per image: hits, images and predictions of each class."""
    sums = np.zeros((len(truth), 3 * classes), dtype=np.int64)
    rows = np.arange(len(truth))
    sums[rows, truth] = truth == said
    sums[rows, classes + truth] = 1
    sums[rows, 2 * classes + said] = 1
    return sums


def _known(values: Any) -> np.ndarray:
    if values is None:
        raise ValueError("this prediction lacks what the set's kind of label needs")
    return np.asarray(values)


def _share(part: np.ndarray, whole: np.ndarray) -> Float[np.ndarray, "*s"]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean_known(values: Float[np.ndarray, "*r k"]) -> Float[np.ndarray, "*r"]:
    known = ~np.isnan(values)
    count = known.sum(axis=-1)
    total = np.where(known, values, 0.0).sum(axis=-1)
    return np.asarray(total / np.where(count > 0, count, np.nan))


def _listed(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else float(value) for value in values]
