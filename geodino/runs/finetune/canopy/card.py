"""The run card of fine-tuning: what will be learnt, from what, how long it takes."""

from pathlib import Path
from typing import Any

import torch

from geodino.data.splits import NAMES
from geodino.models.canopy import CanopyModel
from geodino.runs.card import RunCard
from geodino.runs.finetune.canopy.export import label_facts
from geodino.runs.finetune.canopy.prepare import PreparedCanopy
from geodino.runs.finetune.canopy.scene import CanopyScene
from geodino.runs.finetune.card import cost_lines, model_line, notes_of, step_flops, weights_line
from geodino.tasks.canopy.source import FootprintLabels

_KEPT = 5
"""How often the logits of a step are held: forward, backward, and between them."""


def canopy_card(scene: CanopyScene, *, device: torch.device, out: Path) -> RunCard:
    """Describe a run before it starts."""
    prepared = scene.prepared
    config, source = prepared.config, prepared.source
    index, labels = source.images, source.labels
    flops = step_flops(prepared, scene.crop, lambda backbone: CanopyModel(backbone, config.canopy))
    facts = label_facts(prepared)
    windows, found = scene.windows, labels.index.found
    what = "labelled pixels"
    statistic = facts.get("statistic", "")
    if isinstance(labels, FootprintLabels):
        what, statistic = "footprints", f"{labels.index.percentile:g}th percentile"
    gsd = "unknown" if index.gsd_m is None else f"{index.gsd_m[0]:.3g} to {index.gsd_m[1]:.3g} m"
    seen = "its own" if config.gsd_m is None else f"resampled to {config.gsd_m:g} m"
    sites = {name: len(source.split.sites(name)) for name in NAMES}
    lines = {
        "recipe": config.description,
        "model": model_line(prepared),
        "head": f"{config.canopy.head.kind}, {config.canopy.bins.count} bins up to "
        f"{config.canopy.bins.ceiling_m:g} m; {_beginning(prepared)}; {weights_line(scene.model)}",
        "images": f"{len(source.labelled)} labelled of {len(index.tiles)}, {source.values}, GSD "
        f"{gsd} ({seen})",
        "labels": f"{facts['kind']}, metres, {statistic}; 99 % below {found.p99_m:.1f} m, up to "
        f"{found.highest_m:.1f} m",
        "ground": ", ".join(f"{n} sites for {name}" for name, n in sites.items()),
        "crops": f"{config.train.batch} of {windows.crop} px a step, from {len(windows)} windows with "
        f"{windows.labels:,} {what}; {len(windows.low)} low, {len(windows.tall)} tall (from "
        f"{windows.tall_m:.1f} m); augment: {config.sampling.augment}",
        "steps": f"{config.train.steps}, validated every {config.validation.every} on "
        f"{min(config.validation.areas, len(scene.val))} of {len(scene.val)} areas, patience {config.validation.patience}",
        "maps": f"chips of {scene.chips.chip} px, overlap {scene.chips.overlap} px",
        **cost_lines(config, scene.model, flops=flops, kept=_kept(scene), device=device),
        "out": str(out),
    }
    notes = notes_of(prepared)
    notes += [f"unusable: {reason}" for _, reason in index.bad[:5]]
    return RunCard.of(lines, notes=notes, facts=_facts(scene, flops))


def _facts(scene: CanopyScene, flops: float) -> dict[str, Any]:
    source = scene.prepared.source
    return {
        "flops_per_crop": flops,
        "windows": len(scene.windows),
        "sites": {name: len(source.split.sites(name)) for name in NAMES},
        "label_facts": label_facts(scene.prepared),
        "recipe_values": scene.prepared.config.model_dump(mode="json"),
    }


def _beginning(prepared: PreparedCanopy) -> str:
    """What the head's weights begin as."""
    return f"goes on from {prepared.opened.name}" if prepared.begins_with_head else "new"


def _kept(scene: CanopyScene) -> int:
    """Numbers that the logits of a step are."""
    config = scene.prepared.config
    outputs = config.canopy.bins.count * (1 + len(config.canopy.quantiles))
    return _KEPT * config.train.batch * scene.crop**2 * outputs
