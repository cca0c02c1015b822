"""What a model must beat: probes on frozen features and on bands, and the answer without an image."""

import torch

from geodino.data.labelled.sets import PARTS
from geodino.evals.features import Extracted, Extraction, encoder, extract
from geodino.evals.probes.table import Probe, Problem, floor, probe_named
from geodino.evals.problems import Problems
from geodino.evals.results import STATISTICS, Outcome
from geodino.runs.finetune.classification.scene import ClassificationScene

FROZEN = "linear probe before the run"
"""DINO's probe on the features of the backbone that the run began with."""

_BATCH = 64
"""Images of a forward pass."""


def encoded(scene: ClassificationScene, *, device: torch.device) -> Extracted:
    """Return statistics of the bands of all images, and features of the backbone the run began with.

    Without ``floors.probe`` there are no features, and images are read alone.
    """
    prepared, source = scene.prepared, scene.prepared.source
    networks = {}
    if prepared.config.floors.probe:
        networks = {FROZEN: encoder(prepared.backbone().to(device).eval())}
    return extract(
        networks,
        [key for part in PARTS for key in source.keys(part)],
        reader=lambda key: source.seen(source.set.image(key)),
        how=Extraction(
            patch_size=source.patch_size,
            image_size=source.image_size,
            batch=_BATCH,
            device=device,
            threads=prepared.threads,
        ),
    )


def floors(scene: ClassificationScene, extracted: Extracted) -> list[Outcome]:
    """Return what each floor says of the test images."""
    config, kind = scene.prepared.config, scene.facts.kind
    problems = Problems(scene.prepared.source.set, seed=config.train.seed)
    found: list[Outcome] = []

    def add(encoder: str, features: str, probe: Probe, problem: Problem, dim: int) -> None:
        for method, prediction in probe.run(problem).items():
            found.append(
                Outcome(
                    encoder=encoder, method=method, features=features, dim=dim,
                    prediction=prediction,
                )
            )  # fmt: skip

    name = config.classification.features
    for features in extracted.features.values():
        probe = probe_named("linear-sgd", kind=kind)
        add(FROZEN, name, probe, *problems.of_vectors(features, name, probe))
    statistics = extracted.statistics
    on_bands = problems.of(statistics, metric="euclidean")
    linear = probe_named("linear", kind=kind)
    add(STATISTICS, "statistics", linear, on_bands, statistics.shape[1])
    blind, answer = floor(on_bands)
    constant = Outcome(encoder=blind, method="constant", features="none", dim=0, prediction=answer)
    return [*found, constant]
