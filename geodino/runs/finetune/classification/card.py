"""The run card of classification: what will be learnt, from what, how long it takes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from geodino.data.labelled.classes import words_of
from geodino.data.labelled.sets import PARTS
from geodino.runs.card import RunCard, clock, duration_s, forward_flops
from geodino.runs.finetune.classification.scene import ClassificationScene, spoken
from geodino.runs.memory import in_words


def classification_card(scene: ClassificationScene, *, device: torch.device, out: Path) -> RunCard:
    """Describe a run before it starts."""
    prepared, source = scene.prepared, scene.prepared.source
    config, facts = prepared.config, scene.facts
    learnt = sum(p.numel() for p in scene.model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in scene.model.parameters())
    forward = forward_flops(prepared.opened.loaded.config, prepared.contract, max(scene.sides))
    flops = (3 if config.optim.unfreeze else 1) * forward
    fast, slow = duration_s(flops * config.train.batch * config.train.steps, device)
    passes = config.train.batch * config.train.steps / len(source.keys("train"))
    size = "their own size" if source.image_size is None else f"{source.image_size} px"
    looked = min(config.validation.areas, len(source.keys("val")))
    lines = {
        "recipe": config.description,
        "model": f"{prepared.opened.name} ({prepared.opened.loaded.config.name}), backbone "
        + ("learns" if config.optim.unfreeze else "frozen"),
        "head": f"linear on {config.classification.features}, dropout {config.classification.dropout:g}; "
        f"{learnt / 1e6:.3f} of {whole / 1e6:.1f} M weights learn",
        "images": f"{facts.name}: {_parts(scene)}; {facts.dtype}, "
        + ("GSD unknown" if facts.gsd_m is None else f"GSD {facts.gsd_m:.3g} m"),
        "bands": ", ".join(prepared.contract.band_names),
        "classes": _shares(scene),
        "seen": f"{config.train.batch} images a step at {size}, {passes:.1f} passes; "
        f"{config.sampling.balance:.0%} drawn by class; augment: {config.sampling.augment}",
        "loss": f"cross-entropy, label smoothing {config.loss.label_smoothing:g}",
        "steps": f"{config.train.steps}, validated every {config.validation.every} on {looked} of "
        f"{len(source.keys('val'))} images by {spoken(facts.metric)}, patience {config.validation.patience}",
        "device": str(device),
        "time": f"about {_to(clock(fast), clock(slow))} of steps ({flops / 1e9:.1f} GFLOP an image), "
        "and validation",
        "memory": f"at least {in_words(round(4.0 * (whole + 3 * learnt)))}",
        "out": str(out),
    }
    notes = [*prepared.notes]
    notes += [f"{key} = {d['value']}: {d['reason']}" for key, d in prepared.derived.items()]
    return RunCard.of(lines, notes=notes, facts=_facts(scene, flops))


def _parts(scene: ClassificationScene) -> str:
    source = scene.prepared.source
    return ", ".join(f"{len(source.keys(part))} {part}" for part in PARTS)


def _shares(scene: ClassificationScene) -> str:
    """The classes, each with its share of the training images."""
    source = scene.prepared.source
    counts = source.counts("train")
    names, total = source.classes, len(source.keys("train"))
    order = np.argsort(-counts, kind="stable").tolist()
    return words_of([f"{names[i]} {counts[i] / total:.1%}" for i in order], most=20)


def _facts(scene: ClassificationScene, flops: float) -> dict[str, Any]:
    source = scene.prepared.source
    counts = source.counts("train").tolist()
    return {
        "flops_per_image": flops,
        "images_by_class": dict(zip(source.classes, counts, strict=True)),
        "images_by_part": {part: len(source.keys(part)) for part in PARTS},
        "recipe_values": scene.prepared.config.model_dump(mode="json"),
    }


def _to(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
