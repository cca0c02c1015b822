"""The run card of classification: what will be learnt, from what, how long it takes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from geodino.data.labelled.classes import words_of
from geodino.data.labelled.sets import PARTS, parts_in_words
from geodino.runs.card import RunCard, forward_flops
from geodino.runs.finetune.card import cost_lines, model_line, notes_of, weights_line
from geodino.runs.finetune.classification.scene import ClassificationScene, spoken


def classification_card(scene: ClassificationScene, *, device: torch.device, out: Path) -> RunCard:
    """Describe a run before it starts."""
    prepared, source = scene.prepared, scene.prepared.source
    config, facts = prepared.config, scene.facts
    forward = forward_flops(prepared.opened.loaded.config, prepared.contract, max(scene.sides))
    flops = (3 if config.optim.unfreeze else 1) * forward
    passes = config.train.batch * config.train.steps / len(source.keys("train"))
    size = "their own size" if source.image_size is None else f"{source.image_size} px"
    looked = min(config.validation.areas, len(source.keys("val")))
    lines = {
        "recipe": config.description,
        "model": model_line(prepared),
        "head": f"linear on {config.classification.features}, dropout {config.classification.dropout:g}; "
        + weights_line(scene.model),
        "images": f"{facts.name}: {parts_in_words(source.set.parts)}; {facts.dtype}, "
        + ("GSD unknown" if facts.gsd_m is None else f"GSD {facts.gsd_m:.3g} m"),
        "bands": ", ".join(prepared.contract.band_names),
        "classes": _shares(scene),
        "seen": f"{config.train.batch} images a step at {size}, {passes:.1f} passes; "
        f"{config.sampling.balance:.0%} drawn by class; augment: {config.sampling.augment}",
        "loss": f"cross-entropy, label smoothing {config.loss.label_smoothing:g}",
        "steps": f"{config.train.steps}, validated every {config.validation.every} on {looked} of "
        f"{len(source.keys('val'))} images by {spoken(facts.metric)}, patience {config.validation.patience}",
        **cost_lines(config, scene.model, flops=flops, kept=0, device=device, each="an image"),
        "out": str(out),
    }
    return RunCard.of(lines, notes=notes_of(prepared), facts=_facts(scene, flops))


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
