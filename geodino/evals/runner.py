"""One model on one set: features once, every probe on them, floors beside each."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from geodino import __version__, seeds
from geodino.data.labelled.sets import PARTS, BandStatistics, LabelledSet
from geodino.errors import RecipeError, SourceError, suggest
from geodino.evals.cache import cached
from geodino.evals.features import Extracted, Extraction, encoder, extract
from geodino.evals.meeting import Meeting, meet
from geodino.evals.probes.table import ALIASES, PROBES, Probe, as_they_are, probe_named
from geodino.evals.problems import has_maps, labels_of
from geodino.evals.protocols import Protocol
from geodino.evals.results import MODEL, RANDOM, SetResult
from geodino.evals.statistics import measured
from geodino.evals.trials import outcomes_of
from geodino.models.backbone import Backbone
from geodino.models.build import build_backbone
from geodino.models.folder import LoadedModel
from geodino.models.pooling import FeatureName
from geodino.models.widen import widened

_BLOCKS = 4
"""Class tokens of so many last blocks are kept for DINO's linear probe."""

FEATURES: tuple[FeatureName, ...] = ("cls", "mean", "concat")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a suite is run, whatever the set."""

    protocol: Protocol
    bands: str
    """See :data:`geodino.evals.meeting.WORDS`."""

    probes: tuple[str, ...] = ()
    """Names of probes; empty: those of the protocol."""

    features: tuple[str, ...] = ()
    """Names of features; empty: those of the protocol."""

    image_size: int | None = None
    """Side every image is resized to; None: as the protocol says."""

    seed: int = 0
    resamples: int = 1000
    batch: int = 64
    threads: int = 2
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    by: tuple[str, ...] = ()
    """Traits that scores are grouped by."""

    seeds: int = 1
    """How many seeds probes that draw something are run with, ``seed`` the first one."""

    cache: Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Judge:
    """The model under evaluation."""

    loaded: LoadedModel
    name: str
    sha256: str


def evaluate_set(
    data: LabelledSet,
    judge: Judge,
    settings: Settings,
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> SetResult:
    """Probe frozen features of a model on a set, with floors beside them.

    Floors, scored by the same probes on the same images: the same architecture with random
    weights; the mean and deviation of each band of each image; and the answer that needs no
    image. Nothing is chosen on the test part.

    Args:
        data: images and labels.
        judge: the model.
        settings: protocol, probes, seeds.
        progress: called with ("images", done, in all) while features are extracted, and with
            ("probes", done, in all) as they are tried.

    Raises:
        RecipeError: a probe or features that do not serve the set.
        SourceError: a part is missing, or an image cannot be read.
        BandError: the set lacks bands of the model.
        ContractError: its values cannot be brought to the model's.
    """
    facts, protocol = data.facts, settings.protocol
    _refuse_lacking(data)
    probes = _probes(data, settings)
    patches = any(probe.features == "patches" for probe in probes)
    kinds = _features(settings)
    statistics = facts.statistics
    if statistics is None and protocol.values != "contract":
        statistics = measured(data, threads=settings.threads)
    met = meet(
        judge.loaded.contract, facts, bands=settings.bands, values=protocol.values,
        statistics=statistics,
    )  # fmt: skip
    size = _image_size(judge, settings, patches=patches)
    extracted, was_cached = _extracted(data, judge, met, settings, size, patches, progress)
    outcomes, repeats = outcomes_of(
        data, extracted, probes, kinds, seed=settings.seed, count=settings.seeds,
        progress=progress,
    )  # fmt: skip
    return SetResult(
        set=_about(data, extracted, met, statistics),
        settings={**_said(judge, met, settings, was_cached), "image_size": size},
        outcomes=outcomes,
        repeats=repeats,
        keys=tuple(data.parts["test"]),
        labels=labels_of(data, "test"),
        facts=facts,
        clusters=clusters_of(data),
        groups={
            trait: [data.traits(k).get(trait, "") for k in data.parts["test"]]
            for trait in settings.by
        },
        seed=settings.seed,
        resamples=settings.resamples,
        copies=copies_across(data, extracted),
    )


def copies_across(data: LabelledSet, extracted: Extracted) -> tuple[tuple[str, str], ...]:
    """Test images whose pixels are those of a training image, with that one."""
    keys = [key for part in PARTS for key in data.parts.get(part, ())]
    train = len(data.parts["train"])
    first = dict(zip(extracted.digests[train - 1 :: -1], keys[train - 1 :: -1], strict=True))
    test = len(keys) - len(data.parts["test"])
    return tuple(
        (key, first[digest])
        for key, digest in zip(keys[test:], extracted.digests[test:], strict=True)
        if digest in first
    )


def _refuse_lacking(data: LabelledSet) -> None:
    for part in ("train", "test"):
        if not data.parts.get(part):
            raise SourceError(
                f"{data.facts.name} has no {part} part: a probe is fitted on train and judged on "
                "test. Name such images in its split, or leave the set out."
            )
    if data.facts.kind == "detection":
        raise RecipeError(
            f"{data.facts.name} holds boxes, which no probe reads: `geodino finetune detection` "
            "trains a head on them and reports AP50 and COCO AP."
        )


def _probes(data: LabelledSet, settings: Settings) -> list[Probe]:
    """The probes that serve this set."""
    kind = data.facts.kind
    names = settings.probes or settings.protocol.probes[kind]
    found = [probe_named(name, kind=kind) for name in names if _serves(name, kind)]
    if settings.protocol.unscaled:
        found = [as_they_are(probe) for probe in found]
    if not found:
        raise RecipeError(
            f"None of the probes {', '.join(names)} serves {kind} ({data.facts.name}). Those of "
            f"the protocol are {', '.join(settings.protocol.probes[kind])}."
        )
    if kind != "regression":
        return found
    wanted = "patches" if has_maps(data) else "vectors"
    return [probe for probe in found if probe.features == wanted] or [
        probe_named("dense-ridge" if wanted == "patches" else "ridge", kind=kind)
    ]


def _serves(name: str, kind: Any) -> bool:
    probe = PROBES.get(ALIASES.get(name, name))
    if probe is None:
        raise RecipeError(
            f"{name!r} is no probe.{suggest(name, list(PROBES))} There are: {', '.join(PROBES)}."
        )
    return kind in probe.kinds


def _features(settings: Settings) -> list[FeatureName]:
    names = settings.features or settings.protocol.features
    found: list[FeatureName] = [name for name in FEATURES if name in names]
    unknown = [name for name in names if name not in FEATURES]
    if unknown or not found:
        raise RecipeError(
            f"{', '.join(unknown) or 'nothing'} is no feature. There are: {', '.join(FEATURES)}."
        )
    return found


def _image_size(judge: Judge, settings: Settings, *, patches: bool) -> int | None:
    """Side that images are resized to: as asked, else the protocol's in whole patches."""
    protocol, patch = settings.protocol, judge.loaded.backbone.patch_size
    size = protocol.map_size if patches else protocol.image_size
    if settings.image_size is not None or size is None:
        return settings.image_size
    return -(-size // patch) * patch


def _extracted(
    data: LabelledSet,
    judge: Judge,
    met: Meeting,
    settings: Settings,
    size: int | None,
    patches: bool,
    progress: Callable[[str, int, int], None] | None,
) -> tuple[Extracted, bool]:
    keys = [key for part in PARTS for key in data.parts.get(part, ())]
    key = {
        "version": __version__,
        "model": judge.sha256,
        "set": data.fingerprint,
        "bands": list(met.positions),
        "scale": met.scale.tolist(),
        "shift": met.shift.tolist(),
        "clipped": met.clipped,
        "contract": met.contract.model_dump(mode="json"),
        "image_size": size,
        "encoders": [MODEL, RANDOM],
        "seed": settings.seed,
        "patches": patches,
        "device": settings.device.type,
    }

    def make(place: Path) -> Extracted:
        networks = _networks(judge, met, settings)
        how = Extraction(
            patch_size=judge.loaded.backbone.patch_size,
            image_size=size,
            batch=settings.batch,
            device=settings.device,
            threads=settings.threads,
            patches=place if patches else None,
        )
        return extract(
            {name: encoder(network, blocks=_BLOCKS) for name, network in networks.items()},
            keys,
            reader=lambda key: met.seen(data.image(key)),
            how=how,
            progress=None
            if progress is None
            else (lambda done: progress("images", done, len(keys))),
        )

    return cached(settings.cache, key, make)


def _networks(judge: Judge, met: Meeting, settings: Settings) -> dict[str, Backbone]:
    """The model, adapted where the bands demand it, and the same with random weights."""
    backbone = judge.loaded.backbone
    if met.adapted is not None:
        backbone = widened(backbone, met.contract, met.adapted)
    generator = torch.Generator().manual_seed(seeds.integer(settings.seed, "random weights"))
    fresh = build_backbone(judge.loaded.config, met.contract, generator=generator)
    return {
        MODEL: backbone.to(settings.device).eval(),
        RANDOM: fresh.to(settings.device).eval(),
    }


def clusters_of(data: LabelledSet) -> np.ndarray | None:
    """Sites of the test images, where the set names them."""
    names = [data.traits(key).get("site", "") for key in data.parts["test"]]
    if not any(names):
        return None
    return np.unique(names, return_inverse=True)[1]


def _about(
    data: LabelledSet, extracted: Extracted, met: Meeting, statistics: BandStatistics | None
) -> dict[str, Any]:
    facts = data.facts
    return {
        "name": facts.name,
        "kind": facts.kind,
        "metric": facts.metric,
        "partition": facts.partition,
        "classes": list(facts.classes),
        "fingerprint": data.fingerprint,
        **{f"n_{part}": len(data.parts.get(part, ())) for part in PARTS},
        "sizes": [list(size) for size in extracted.sizes],
        "bands": [facts.bands[i].name for i in met.positions],
        "source": facts.source,
        "notes": list(facts.notes),
        "published_statistics": facts.statistics is not None,
        "statistics": None if statistics is None else [list(statistics.mean), list(statistics.std)],
    }


def _said(judge: Judge, met: Meeting, settings: Settings, was_cached: bool) -> dict[str, Any]:
    protocol = settings.protocol
    return {
        "model": judge.name,
        "sha256": judge.sha256,
        "protocol": protocol.name,
        "values": protocol.values,
        "values_in_words": met.words,
        "adapted": met.adapted.words if met.adapted is not None else "",
        "bands": settings.bands,
        "seed": settings.seed,
        "seeds": settings.seeds,
        "resamples": settings.resamples,
        "batch": settings.batch,
        "features_were_cached": was_cached,
    }
