"""The run card of segmentation: what will be learnt, from what, how long it takes."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from geodino.data.labelled.classes import words_of
from geodino.models.build import assemble
from geodino.models.segmentation import SegmentationModel
from geodino.runs.card import RunCard, clock, duration_s, forward_flops
from geodino.runs.finetune.segmentation.scene import SegmentationScene
from geodino.runs.memory import in_words

_KEPT = 5
"""How often the logits of a step are held: forward, backward, and between them."""


def segmentation_card(scene: SegmentationScene, *, device: torch.device, out: Path) -> RunCard:
    """Describe a run before it starts."""
    prepared, windows = scene.prepared, scene.windows
    config, facts = prepared.config, prepared.data.set.facts
    learnt = sum(p.numel() for p in scene.model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in scene.model.parameters())
    flops = flops_per_crop(scene)
    fast, slow = duration_s(flops * config.train.batch * config.train.steps, device)
    parts = ", ".join(f"{len(keys)} {part}" for part, keys in prepared.data.set.parts.items())
    gsd = "unknown" if facts.gsd_m is None else f"{facts.gsd_m:.3g} m"
    looked = len(windows.looked_at) + len(windows.empty)
    lines = {
        "recipe": config.description,
        "model": f"{prepared.opened.name} ({prepared.opened.loaded.config.name}), backbone "
        + ("learns" if config.optim.unfreeze else "frozen"),
        "head": f"{config.segmentation.head.kind}, {len(facts.classes)} classes; {learnt / 1e6:.2f} of "
        f"{whole / 1e6:.1f} M weights learn",
        "images": f"{facts.name}: {parts}; {facts.dtype}, GSD {gsd}",
        "classes": _shares(scene),
        "crops": f"{config.train.batch} of {windows.crop} px a step, from {len(windows)} windows of "
        f"{'+'.join(config.sampling.parts)} ({len(windows.looked_at)} of {looked} looked at hold "
        f"labels); {config.sampling.balance:.0%} drawn by class; augment: {config.sampling.augment}",
        "loss": _loss(scene),
        "steps": f"{config.train.steps}, validated every {config.validation.every} on "
        f"{min(config.validation.areas, len(scene.val))} of {len(scene.val)} images or parts of them, "
        f"patience {config.validation.patience}",
        "maps": f"chips of {scene.chips.chip} px, overlap {scene.chips.overlap} px",
        "device": str(device),
        "time": f"about {_to(clock(fast), clock(slow))} of steps ({flops / 1e9:.1f} GFLOP a crop), "
        "and validation",
        "memory": f"at least {in_words(round(_memory_bytes(scene, whole, learnt)))}",
        "out": str(out),
    }
    notes = [*prepared.notes]
    notes += [f"{key} = {d['value']}: {d['reason']}" for key, d in prepared.derived.items()]
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
    loss = scene.prepared.config.loss
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


def flops_per_crop(scene: SegmentationScene) -> float:
    """Return the floating-point operations of a step for one crop, counted on the meta device.

    Forward through all, backward (twice as much) through what learns.
    """
    loaded, config = scene.prepared.opened.loaded, scene.prepared.config
    bands = len(loaded.contract.bands)
    backbone = assemble(loaded.config, mean=(0.0,) * bands, std=(1.0,) * bands)
    twin = SegmentationModel(backbone, config.segmentation, classes=scene.network.classes)
    twin = twin.to("meta").eval()
    crop = torch.empty(1, bands, scene.crop, scene.crop, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(crop)
    forward = float(counter.get_total_flops())
    below = forward_flops(loaded.config, loaded.contract, scene.crop)
    return 3 * forward if config.optim.unfreeze else 3 * forward - 2 * below


def _memory_bytes(scene: SegmentationScene, whole: int, learnt: int) -> float:
    logits = scene.prepared.config.train.batch * scene.crop**2 * scene.network.classes
    return 4.0 * (whole + 3 * learnt + _KEPT * logits)


def _to(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
