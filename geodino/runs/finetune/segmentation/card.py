"""The run card of segmentation: what will be learnt, from what, how long it takes."""

from pathlib import Path
from typing import Any

import torch

from geodino.data.labelled.classes import words_of
from geodino.data.labelled.sets import parts_in_words
from geodino.models.decoders.dense import OwnLoss
from geodino.models.segmentation import SegmentationModel
from geodino.runs.card import RunCard
from geodino.runs.finetune.card import cost_lines, model_line, notes_of, step_flops, weights_line
from geodino.runs.finetune.segmentation.scene import SegmentationScene

_KEPT = 5
"""How often the logits of a step are held: forward, backward, and between them."""


def segmentation_card(scene: SegmentationScene, *, device: torch.device, out: Path) -> RunCard:
    """Describe a run before it starts."""
    prepared, windows = scene.prepared, scene.windows
    config, facts = prepared.config, prepared.data.set.facts
    flops = step_flops(
        prepared,
        scene.crop,
        lambda backbone: SegmentationModel(
            backbone, config.segmentation, classes=scene.network.classes
        ),
    )
    kept = _KEPT * config.train.batch * scene.crop**2 * scene.network.classes
    gsd = "unknown" if facts.gsd_m is None else f"{facts.gsd_m:.3g} m"
    seen = "its own" if config.gsd_m is None else f"resampled to {config.gsd_m:g} m"
    looked = len(windows.looked_at) + len(windows.empty)
    lines = {
        "recipe": config.description,
        "model": model_line(prepared),
        "head": f"{config.segmentation.head.kind}, {len(facts.classes)} classes; "
        + weights_line(scene.model),
        "images": f"{facts.name}: {parts_in_words(prepared.data.set.parts)}; {facts.dtype}, GSD {gsd} ({seen})",
        "classes": _shares(scene),
        "crops": f"{config.train.batch} of {windows.crop} px a step, from {len(windows)} windows of "
        f"{'+'.join(config.sampling.parts)} ({len(windows.looked_at)} of {looked} looked at hold "
        f"labels); {config.sampling.balance:.0%} drawn by class; augment: {config.sampling.augment}",
        "loss": _loss(scene),
        "steps": f"{config.train.steps}, validated every {config.validation.every} on "
        f"{min(config.validation.areas, len(scene.val))} of {len(scene.val)} images or parts of them, "
        f"patience {config.validation.patience}",
        "maps": f"chips of {scene.chips.chip} px, overlap {scene.chips.overlap} px",
        **cost_lines(config, scene.model, flops=flops, kept=kept, device=device),
        "out": str(out),
    }
    notes = notes_of(prepared)
    if windows.missing:
        names = words_of([facts.classes[i] for i in windows.missing])
        notes.append(f"no window that was looked at holds {names}: nothing teaches them")
    if "val" in config.sampling.parts:
        notes.append(
            "the validation part is learnt from too: its scores say nothing about new images"
        )
    if prepared.data.images is not None:
        notes += [f"unusable: {reason}" for _, reason in prepared.data.images.bad[:5]]
    return RunCard.of(lines, notes=notes, facts=_facts(scene, flops))


def _shares(scene: SegmentationScene) -> str:
    """The classes, each with its share of the labels looked at."""
    counts = scene.windows.frequency
    total = max(int(counts.sum()), 1)
    names = scene.prepared.source.classes
    order = sorted(range(len(names)), key=lambda i: -int(counts[i]))
    return words_of([f"{names[i]} {counts[i] / total:.1%}" for i in order], most=20)


def _loss(scene: SegmentationScene) -> str:
    loss, head = scene.prepared.config.loss, scene.network.head
    if isinstance(head, OwnLoss):
        return head.loss_in_words
    text = loss.kind.replace("_", "-")
    if scene.weights is not None:
        text += ", classes weighted " + ", ".join(f"{w:.2g}" for w in scene.weights)
    return text + (f", and {loss.dice:g} x Dice" if loss.dice else "")


def _facts(scene: SegmentationScene, flops: float) -> dict[str, Any]:
    prepared = scene.prepared
    counts = scene.windows.frequency.tolist()
    return {
        "flops_per_crop": flops,
        "windows": len(scene.windows),
        "labelled_pixels": dict(zip(prepared.source.classes, counts, strict=True)),
        "images_by_part": {part: len(k) for part, k in prepared.data.set.parts.items()},
        "recipe_values": prepared.config.model_dump(mode="json"),
    }
