"""A model on an image folder: features once, every probe on them, floors beside each."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, Int

from geodino import seeds
from geodino.errors import RecipeError, suggest
from geodino.evals.features import Extracted, FeatureName, choose_rule, extract, image_reader
from geodino.evals.floors import compare, copy_alarms, fit_alarms, floor_alarms
from geodino.evals.folder import FolderSuite, Split, find_suite
from geodino.evals.probes.constant import majority
from geodino.evals.probes.logistic import DINO_GRID, FAST_GRID, logistic
from geodino.evals.probes.neighbours import Metric, knn
from geodino.evals.probes.prediction import Prediction
from geodino.evals.results import (
    MAJORITY,
    MODEL,
    RANDOM,
    STATISTICS,
    EvaluationResult,
    Outcome,
)
from geodino.geo.contract import InputContract
from geodino.geo.validity import ReadRule
from geodino.io.raster import HandlePool
from geodino.metrics.classification import score
from geodino.models.backbone import Backbone

ProbeName = Literal["knn", "knn-dino", "linear", "linear-dino"]
"""``knn``: majority of 5 by cosine; ``knn-dino``: weighted vote of 10, 20, 100, 200;
``linear``: logistic regression on standardised features, 7 strengths; ``linear-dino``: on raw
features, 45 strengths. ``logistic`` is another name of ``linear``."""

_ALIASES = {"logistic": "linear", "knn5": "knn", "logistic-dino": "linear-dino"}


@dataclass(frozen=True, kw_only=True, slots=True)
class _Part:
    """One part of a suite."""

    x: Float[np.ndarray, "n d"]
    y: Int[np.ndarray, " n"]


def evaluate_folder(
    model: Backbone,
    random_model: Backbone | None,
    contract: InputContract,
    suite_dir: Path | str,
    *,
    probes: Sequence[str] = ("knn", "linear"),
    features: Sequence[str] = ("cls", "mean", "concat"),
    out: Path | str | None = None,
    seed: int = 0,
    name: str = "model",
    image_size: int | None = None,
    batch: int = 64,
    device: torch.device | str = "cpu",
    rule: ReadRule | None = None,
    resamples: int = 1000,
    test_share: float = 0.3,
    progress: Callable[[int, int], None] | None = None,
) -> EvaluationResult:
    """Evaluate frozen features of ``model`` on a folder of classes, with floors beside them.

    Floors, scored by the same probes on the same images: ``random_model``, the mean and standard
    deviation of each band of each image (standardised; Euclidean for k-NN), and the majority
    class. A model under a floor raises an alarm in the result; so does one that is not above it
    beyond chance (95 % interval of the paired difference).

    Args:
        model: the backbone to judge; it normalises itself.
        random_model: the same architecture with fresh weights, or None to leave that floor out.
        contract: what the model demands of an image.
        suite_dir: see ``folder.find_suite``.
        probes: names of probes, see ``ProbeName``.
        features: which vectors to probe.
        out: folder for ``results.csv``, ``results.json``, ``predictions.parquet``; None writes
            nothing.
        seed: of the bootstrap and of the rows held out to choose C.
        name: how to call the model in the rows.
        image_size: side every image is resized to; None: native size.
        batch: images per forward pass.
        device: where the models live.
        rule: what of the files' tags is believed; None decides from the pixels of the suite.
        resamples: of the bootstrap.
        test_share: share tested on, where the folder has no split of its own.
        progress: called with (images done, images in all).

    Raises:
        RecipeError: an unknown probe or feature, or none.
        SourceError: the folder is no suite, or an image cannot be read.
        ContractError: an image with other bands or another type than the model's.
    """
    wanted = [_known(_ALIASES.get(p, p), get_args(ProbeName), "probe") for p in probes]
    kinds = [_known(f, get_args(FeatureName), "feature") for f in features]
    if not wanted or not kinds:
        raise RecipeError("Name at least one probe and one kind of features to evaluate.")
    suite = find_suite(suite_dir, test_share=test_share)
    encoders = {MODEL: model.tokens}
    if random_model is not None:
        encoders[RANDOM] = random_model.tokens
    parts = [suite.train, *([suite.val] if suite.val else []), suite.test]
    images = [path for part in parts for path in part.paths]
    rule = choose_rule(images) if rule is None else rule
    with HandlePool(max_open=1) as pool:
        extracted = extract(
            encoders,
            images,
            reader=image_reader(pool, rule),
            contract=contract,
            patch_size=model.patch_size,
            image_size=image_size,
            batch=batch,
            device=device,
            progress=None if progress is None else lambda done: progress(done, len(images)),
        )
    outcomes = probe_all(suite, extracted, wanted, kinds, seed=seed, resamples=resamples)
    truth = np.array(suite.test.labels)
    comparisons = compare(outcomes, truth, seed=seed, resamples=resamples)
    result = EvaluationResult(
        suite=_describe(suite, extracted),
        settings={
            "model": name,
            "seed": seed,
            "image_size": image_size,
            "batch": batch,
            "resamples": resamples,
            "probes": wanted,
            "features": kinds,
            "bands": list(contract.band_names),
            "valid": rule.text,
            "reasons": list(rule.reasons),
        },
        outcomes=outcomes,
        comparisons=comparisons,
        alarms=(*floor_alarms(comparisons), *fit_alarms(outcomes), *copy_alarms(suite)),
        paths=tuple(p.relative_to(suite.root).as_posix() for p in suite.test.paths),
        truth=truth,
    )
    if out is not None:
        result.write(out)
    return result


def _known(name: str, names: Sequence[str], what: str) -> Any:
    if name not in names:
        raise RecipeError(
            f"{name!r} is no {what}.{suggest(name, names)} There are: {', '.join(names)}."
        )
    return name


def probe_all(
    suite: FolderSuite,
    extracted: Extracted,
    probes: Sequence[str],
    kinds: Sequence[FeatureName],
    *,
    seed: int,
    resamples: int,
) -> tuple[Outcome, ...]:
    """Run every probe on every encoder's features, then on the statistics and the majority.

    The rows of ``extracted`` are the train, val and test images of ``suite``, in that order.
    """
    tasks: list[tuple[str, str, Float[np.ndarray, "n d"]]] = [
        (encoder, kind, vectors.named(kind))
        for encoder, vectors in extracted.features.items()
        for kind in kinds
    ]
    tasks.append((STATISTICS, "statistics", extracted.statistics))
    classes = len(suite.classes)
    truth = np.array(suite.test.labels)
    found: list[tuple[str, str, int, str, Prediction]] = []
    for encoder, kind, vectors in tasks:
        train, val, test = _part_rows(suite, vectors)
        metric: Metric = "euclidean" if encoder == STATISTICS else "cosine"
        for probe in probes:
            # DINO's vote has no Euclidean form; the majority of 5 is the statistics' k-NN.
            use = "knn" if probe == "knn-dino" and encoder == STATISTICS else probe
            for method, prediction in _run(
                use, train, val, test, classes=classes, metric=metric, seed=seed
            ):
                if (encoder, kind, method) not in {(f[0], f[1], f[3]) for f in found}:
                    found.append((encoder, kind, vectors.shape[1], method, prediction))
    floor = majority(np.array(suite.train.labels), tests=len(truth), classes=classes)
    found.append((MAJORITY, "none", 0, "majority", floor))
    return tuple(
        Outcome(
            encoder=encoder,
            method=method,
            features=kind,
            feature_dim=dim,
            chosen=prediction.chosen,
            scores=score(
                truth,
                prediction.classes,
                classes=classes,
                generator=seeds.rng(seed, "bootstrap"),
                resamples=resamples,
            ),
            labels=prediction.classes,
            confidence=prediction.confidence,
        )
        for encoder, kind, dim, method, prediction in found
    )


def _run(
    probe: str,
    train: _Part,
    val: _Part | None,
    test: _Part,
    *,
    classes: int,
    metric: Metric,
    seed: int,
) -> list[tuple[str, Prediction]]:
    """Fit one probe; several numbers of neighbours are several methods, none is picked."""
    if probe == "knn":
        found = knn(
            train.x, train.y, test.x, classes=classes, k=_neighbours(train, (5,)), metric=metric
        )
        return [(f"knn{k}", prediction) for k, prediction in found.items()]
    if probe == "knn-dino":
        ks = _neighbours(train, (10, 20, 100, 200))
        found = knn(train.x, train.y, test.x, classes=classes, k=ks, vote="weighted")
        return [(f"knn{k}-dino", prediction) for k, prediction in found.items()]
    dino = probe == "linear-dino"
    prediction = logistic(
        train.x,
        train.y,
        test.x,
        classes=classes,
        generator=seeds.rng(seed, "held-out"),
        val=None if val is None else (val.x, val.y),
        grid=DINO_GRID if dino else FAST_GRID,
        scale=not dino,
        held_out=0.1 if dino else 0.2,
    )
    return [(probe, prediction)]


def _neighbours(train: _Part, wanted: Sequence[int]) -> list[int]:
    """The wanted numbers of neighbours; with too few images for any, all there are."""
    fitting = [k for k in wanted if k <= len(train.x)]
    return fitting or [len(train.x)]


def _part_rows(
    suite: FolderSuite, vectors: Float[np.ndarray, "n d"]
) -> tuple[_Part, _Part | None, _Part]:
    """Cut the rows of train, val and test apart, in the order they were extracted."""

    def part(split: Split, start: int) -> _Part:
        return _Part(x=vectors[start : start + len(split)], y=np.array(split.labels))

    n_train = len(suite.train)
    n_val = len(suite.val) if suite.val else 0
    val = part(suite.val, n_train) if suite.val else None
    return part(suite.train, 0), val, part(suite.test, n_train + n_val)


def _describe(suite: FolderSuite, extracted: Extracted) -> dict[str, Any]:
    return {
        "name": suite.root.resolve().name,
        "classes": list(suite.classes),
        "split": suite.split,
        "fingerprint": suite.fingerprint,
        "n_train": len(suite.train),
        "n_val": len(suite.val) if suite.val else 0,
        "n_test": len(suite.test),
        "ignored_files": suite.ignored,
        "sizes": [list(size) for size in extracted.sizes],
    }
