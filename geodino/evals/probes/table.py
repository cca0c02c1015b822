"""Every probe and every floor by name: which labels it serves, and how to run it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from geodino.data.labelled.sets import Kind
from geodino.errors import RecipeError, suggest
from geodino.evals.probes import constant
from geodino.evals.probes.dense import DenseProtocol, dense_knn, dense_linear
from geodino.evals.probes.dense_ridge import dense_ridge
from geodino.evals.probes.linear import DINOV3_APPROX, SgdProtocol, linear_sgd
from geodino.evals.probes.logistic import (
    DINO_GRID,
    TORCHGEO_GRID,
    logistic_grid,
    multilabel_logistic,
)
from geodino.evals.probes.maps import Part
from geodino.evals.probes.neighbours import Metric, Vote, knn, multilabel_knn, regression_knn
from geodino.evals.probes.prediction import Prediction
from geodino.evals.probes.ridge import ridge

Features = Literal["vectors", "patches"]
"""What a probe reads of an image: one vector, or its grid of patch tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """Features and labels of one set, and what a probe may need to know of it."""

    kind: Kind
    train: Part
    test: Part

    generator: np.random.Generator
    """Whatever a probe draws, it draws from here."""

    val: Part | None = None
    """None, or a part without images: hyper-parameters are chosen on a share of the train part."""

    classes: int = 0
    """How many classes there are; 0 for numbers."""

    views: Mapping[str, slice] | None = None
    """For ``linear-sgd``: see ``linear.linear_inputs``."""

    background: int | None = None
    """Class left out of the mean IoU."""

    sgd: SgdProtocol = DINOV3_APPROX
    """How ``linear-sgd`` trains."""

    dense: DenseProtocol = field(default_factory=DenseProtocol)
    """How ``dense-linear`` trains."""

    metric: Metric = "cosine"
    """What near means to ``knn``."""

    @property
    def choice(self) -> Part | None:
        """The validation part, None where it has no images."""
        return self.val if self.val is not None and len(self.val) else None


Run = Callable[[Problem], dict[str, Prediction]]
"""Returns one prediction a method: several numbers of neighbours are several methods."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probe:
    """One way of reading features."""

    name: str
    kinds: tuple[Kind, ...]
    """Kinds of labels it serves."""
    features: Features
    run: Run
    about: str
    """What it does, in a line."""


def probe_named(name: str, *, kind: Kind, features: Features | None = None) -> Probe:
    """Return a probe by its name or another of its names.

    Raises:
        RecipeError: there is no such probe, or it does not serve such labels or features.
    """
    probe = PROBES.get(ALIASES.get(name, name))
    if probe is None:
        raise RecipeError(
            f"{name!r} is no probe.{suggest(name, PROBES)} There are: {', '.join(PROBES)}."
        )
    fits = [p.name for p in PROBES.values() if kind in p.kinds and features in (None, p.features)]
    if probe.name not in fits:
        instead = ", ".join(fits) or "none"
        raise RecipeError(f"the probe {name!r} does not serve {kind} here; these do: {instead}.")
    return probe


def floor(problem: Problem) -> tuple[str, Prediction]:
    """Return the answer that needs no image, and its name.

    Raises:
        RecipeError: no floor for labels of this kind.
    """
    train, test = problem.train, problem.test
    if problem.kind == "segmentation":
        maps = (train.label_maps(), test.label_maps())
        found = constant.most_frequent_class_map(*maps, classes=problem.classes)
        return "most frequent class", found
    if problem.kind == "regression" and np.ndim(test.labels[0]) == 2:
        return "mean value", constant.mean_map(train.label_maps(), test.label_maps())
    labels = np.asarray(train.labels)
    if problem.kind == "classification":
        found = constant.majority(labels, tests=len(test), classes=problem.classes)
        return "majority class", found
    if problem.kind == "multilabel":
        return "label prevalence", constant.prevalence(labels, tests=len(test))
    if problem.kind == "regression":
        return "mean value", constant.mean_value(labels, tests=len(test))
    raise RecipeError(f"there is no floor for {problem.kind} labels.")


def _rows(part: Part) -> tuple[np.ndarray, np.ndarray]:
    return np.asarray(part.features), np.asarray(part.labels)


def _choice(problem: Problem) -> tuple[np.ndarray, np.ndarray] | None:
    return None if problem.choice is None else _rows(problem.choice)


def _neighbours(
    problem: Problem, wanted: tuple[int, ...], vote: Vote, suffix: str
) -> dict[str, Prediction]:
    x, y = _rows(problem.train)
    test, _ = _rows(problem.test)
    k = [value for value in wanted if value <= len(x)] or [len(x)]
    # DINO's vote is defined for directions alone.
    metric: Metric = "cosine" if vote == "weighted" else problem.metric
    if problem.kind == "classification":
        found = knn(x, y, test, classes=problem.classes, k=k, vote=vote, metric=metric)
    elif problem.kind == "multilabel":
        found = multilabel_knn(x, y, test, k=k, vote=vote, metric=metric)
    else:
        found = regression_knn(x, y, test, k=k, vote=vote, metric=metric)
    return {f"knn{value}{suffix}": prediction for value, prediction in found.items()}


def _knn(problem: Problem) -> dict[str, Prediction]:
    return _neighbours(problem, (5,), "majority", "")


def _knn_as_it_is(problem: Problem) -> dict[str, Prediction]:
    return _knn(replace(problem, metric="l2") if _is_encoded(problem) else problem)


def _is_encoded(problem: Problem) -> bool:
    """Whether the features are a network's; statistics of bands are always standardised."""
    return problem.metric == "cosine"


def _knn_dino(problem: Problem) -> dict[str, Prediction]:
    return _neighbours(problem, (10, 20, 100, 200), "weighted", "-dino")


def _logistic(
    problem: Problem, name: str, *, dino: bool = False, scale: bool = True
) -> dict[str, Prediction]:
    x, y = _rows(problem.train)
    test, _ = _rows(problem.test)
    grid = DINO_GRID if dino else TORCHGEO_GRID
    held_out = 0.1 if dino else 0.2
    val, generator = _choice(problem), problem.generator
    if problem.kind == "multilabel":
        found = multilabel_logistic(
            x, y, test, generator=generator, val=val, grid=grid, scale=scale, held_out=held_out
        )
    else:
        found = logistic_grid(
            x,
            y,
            test,
            classes=problem.classes,
            generator=generator,
            val=val,
            grid=grid,
            scale=scale,
            held_out=held_out,
        )
    return {name: found}


def _linear(problem: Problem) -> dict[str, Prediction]:
    return _logistic(problem, "linear")


def _linear_as_it_is(problem: Problem) -> dict[str, Prediction]:
    return _logistic(problem, "linear", scale=not _is_encoded(problem))


def _linear_dino(problem: Problem) -> dict[str, Prediction]:
    return _logistic(problem, "linear-dino", dino=True, scale=False)


def _linear_sgd(problem: Problem) -> dict[str, Prediction]:
    x, y = _rows(problem.train)
    test, _ = _rows(problem.test)
    val = _choice(problem)
    found = linear_sgd(
        x.astype(np.float32, copy=False),
        y,
        test.astype(np.float32, copy=False),
        classes=problem.classes,
        generator=problem.generator,
        views=problem.views,
        protocol=problem.sgd,
        val=None if val is None else (val[0].astype(np.float32, copy=False), val[1]),
    )
    return {"linear-sgd": found}


def _ridge(problem: Problem) -> dict[str, Prediction]:
    x, y = _rows(problem.train)
    test, _ = _rows(problem.test)
    return {"ridge": ridge(x, y, test, generator=problem.generator, val=_choice(problem))}


def _dense_linear(problem: Problem) -> dict[str, Prediction]:
    found = dense_linear(
        problem.train,
        problem.test,
        classes=problem.classes,
        generator=problem.generator,
        val=problem.choice,
        protocol=problem.dense,
        background=problem.background,
    )
    return {"dense-linear": found}


def _dense_knn(problem: Problem) -> dict[str, Prediction]:
    found = dense_knn(
        problem.train,
        problem.test,
        classes=problem.classes,
        generator=problem.generator,
        val=problem.choice,
        background=problem.background,
    )
    return {"dense-knn": found}


def _dense_ridge(problem: Problem) -> dict[str, Prediction]:
    found = dense_ridge(
        problem.train, problem.test, generator=problem.generator, val=problem.choice
    )
    return {"dense-ridge": found}


_CLASSES: tuple[Kind, ...] = ("classification", "multilabel")
_VECTORS: tuple[Kind, ...] = (*_CLASSES, "regression")


def _probe(name: str, kinds: tuple[Kind, ...], features: Features, run: Run, about: str) -> Probe:
    return Probe(name=name, kinds=kinds, features=features, run=run, about=about)


PROBES: dict[str, Probe] = {
    probe.name: probe
    for probe in (
        _probe("knn", _VECTORS, "vectors", _knn, "majority or mean of the 5 nearest, by cosine"),
        _probe("knn-dino", _VECTORS, "vectors", _knn_dino, "weighted vote of 10, 20, 100, 200"),
        _probe("linear", _CLASSES, "vectors", _linear, "logistic regression of torchgeo-bench"),
        _probe("linear-dino", _CLASSES, "vectors", _linear_dino, "DINOv3's, on raw features"),
        _probe("linear-sgd", _CLASSES, "vectors", _linear_sgd, "DINO's heads trained by SGD"),
        _probe("ridge", ("regression",), "vectors", _ridge, "ridge regression"),
        _probe("dense-linear", ("segmentation",), "patches", _dense_linear, "linear head"),
        _probe("dense-knn", ("segmentation",), "patches", _dense_knn, "nearest patches"),
        _probe("dense-ridge", ("regression",), "patches", _dense_ridge, "ridge on patches"),
    )
}
"""Every probe there is. Adding one = its function and its line here."""

_AS_THEY_ARE: dict[str, Run] = {"knn": _knn_as_it_is, "linear": _linear_as_it_is}


def as_they_are(probe: Probe) -> Probe:
    """Return a probe that reads a network's features unscaled, as torchgeo-bench does.

    Neighbours are the nearest by Euclidean distance, and the logistic regression sees no
    standardised columns. Probes that know no scaling stay what they are.
    """
    return replace(probe, run=_AS_THEY_ARE.get(probe.name, probe.run))


ALIASES: dict[str, str] = {
    "knn5": "knn",
    "logistic": "linear",
    "logistic-dino": "linear-dino",
}
"""Other names of probes."""
