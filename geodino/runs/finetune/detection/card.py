"""The run card of detection: what will be learnt, from what, how long it takes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geodino.data.labelled.classes import words_of
from geodino.data.labelled.sets import parts_in_words
from geodino.models.detection.faster_rcnn import DetectionModel
from geodino.models.detection.head import CELLS
from geodino.runs.card import RunCard
from geodino.runs.finetune.card import cost_lines, model_line, notes_of, step_flops, weights_line
from geodino.runs.finetune.detection.scene import DetectionScene


def detection_card(scene: DetectionScene, *, device: torch.device, out: Path) -> RunCard:
    """Describe a run before it starts."""
    prepared, places = scene.prepared, scene.places
    config, facts = prepared.config, prepared.source.set.facts
    flops = step_flops(
        prepared,
        config.sampling.crop,
        lambda backbone: DetectionModel(backbone, config.detection, classes=scene.network.classes),
        _forward,
    )
    gsd = "unknown" if facts.gsd_m is None else f"{facts.gsd_m:.3g} m"
    seen = "its own" if config.gsd_m is None else f"resampled to {config.gsd_m:g} m"
    small, large = np.percentile(places.side.max(axis=1), (5, 95)).tolist()
    val = len(prepared.data.set.parts["val"])
    lines = {
        "recipe": config.description,
        "model": model_line(prepared),
        "head": f"Faster R-CNN of {config.detection.channels} channels, {len(facts.classes)} classes; "
        + weights_line(scene.model),
        "images": f"{facts.name}: {parts_in_words(prepared.data.set.parts)}; {facts.dtype}, GSD {gsd} ({seen})"
        + (f", resized to {config.size} px" if config.size else ""),
        "objects": f"{len(places.image):,} to learn from ({_shares(scene)}); 90 % of them are from "
        f"{small:.0f} to {large:.0f} px long",
        "crops": f"{config.train.batch} of {config.sampling.crop} px a step from "
        f"{'+'.join(config.sampling.parts)}; {config.sampling.around:.0%} drawn around an object; "
        f"augment: {config.sampling.augment}",
        "steps": f"{config.train.steps}, validated every {config.validation.every} on "
        f"{min(config.validation.areas, val)} of {val} images, patience {config.validation.patience}",
        "chips": f"{scene.chips.chip} px, overlap {scene.chips.overlap} px",
        **cost_lines(config, scene.model, flops=flops, kept=_kept(scene), device=device),
        "out": str(out),
    }
    notes = notes_of(prepared)
    missing = [n for i, n in enumerate(facts.classes) if not (places.classes == i).any()]
    if missing:
        notes.append(f"no object to learn from is {words_of(missing)}: nothing teaches them")
    if "val" in config.sampling.parts:
        notes.append(
            "the validation part is learnt from too: its scores say nothing about new images"
        )
    if large > scene.chips.overlap and scene.chips.overlap:
        notes.append(
            f"objects longer than the overlap of chips ({scene.chips.overlap} px) may be seen whole by "
            "none, in images larger than a chip: more overlap (maps.overlap) or larger chips help"
        )
    return RunCard.of(lines, notes=notes, facts=_facts(scene, flops))


def _forward(model: Any, image: Tensor) -> None:
    """What a step computes whatever it finds."""
    config = model.config
    maps = model.maps(image, None)
    model.head.proposed(maps)
    boxes = config.drawn_proposals
    model.head.told(image.new_empty(boxes, config.channels, CELLS, CELLS))


def _kept(scene: DetectionScene) -> int:
    """Numbers that the maps of the pyramid and the features of boxes are, forward and backward."""
    config = scene.prepared.config
    head, strides = config.detection, scene.network.head.pyramid.strides
    cells = sum((config.sampling.crop // stride) ** 2 for stride in strides)
    boxes = head.drawn_proposals * CELLS**2
    return 2 * config.train.batch * head.channels * (3 * cells + boxes)


def _shares(scene: DetectionScene) -> str:
    """The classes, each with the number of its objects."""
    counts = np.bincount(scene.places.classes, minlength=len(scene.prepared.source.classes))
    names = scene.prepared.source.classes
    order = np.argsort(-counts, kind="stable").tolist()
    return words_of([f"{int(counts[i])} {names[i]}" for i in order], most=20)


def _facts(scene: DetectionScene, flops: float) -> dict[str, Any]:
    prepared = scene.prepared
    names = prepared.source.classes
    counts = np.bincount(scene.places.classes, minlength=len(names)).tolist()
    return {
        "flops_per_crop": flops,
        "objects_by_class": dict(zip(names, counts, strict=True)),
        "images_by_part": {part: len(k) for part, k in prepared.data.set.parts.items()},
        "recipe_values": prepared.config.model_dump(mode="json"),
    }
