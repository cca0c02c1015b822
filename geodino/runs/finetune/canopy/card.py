"""The run card of fine-tuning: what will be learnt, from what, how long it takes."""

from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from geodino.data.splits import NAMES
from geodino.models.build import assemble
from geodino.models.canopy import CanopyModel
from geodino.runs.card import RunCard, clock, duration_s, forward_flops
from geodino.runs.finetune.canopy.export import label_facts
from geodino.runs.finetune.canopy.prepare import PreparedCanopy
from geodino.runs.finetune.canopy.scene import CanopyScene
from geodino.runs.memory import in_words
from geodino.tasks.canopy.source import FootprintLabels

_KEPT = 5
"""How often the logits of a step are held: forward, backward, and between them."""


def canopy_card(scene: CanopyScene, *, device: torch.device, out: Path) -> RunCard:
    """Describe a run before it starts."""
    prepared = scene.prepared
    config, source = prepared.config, prepared.source
    index, labels = source.images, source.labels
    learnt = sum(p.numel() for p in scene.model.parameters() if p.requires_grad)
    whole = sum(p.numel() for p in scene.model.parameters())
    flops = flops_per_crop(scene)
    fast, slow = duration_s(flops * config.train.batch * config.train.steps, device)
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
        "model": f"{prepared.opened.name} ({prepared.opened.loaded.config.name}), backbone "
        + ("learns" if config.optim.unfreeze else "frozen"),
        "head": f"{config.canopy.head.kind}, {config.canopy.bins.count} bins up to "
        f"{config.canopy.bins.ceiling_m:g} m; {_beginning(prepared)}; {learnt / 1e6:.2f} of {whole / 1e6:.1f} M weights learn",
        "images": f"{len(source.labelled)} labelled of {len(index.tiles)}, {index.dtype}, GSD {gsd} "
        f"({seen})",
        "labels": f"{facts['kind']}, metres, {statistic}; 99 % below {found.p99_m:.1f} m, up to "
        f"{found.highest_m:.1f} m",
        "ground": ", ".join(f"{n} sites for {name}" for name, n in sites.items()),
        "crops": f"{config.train.batch} of {windows.crop} px a step, from {len(windows)} windows with "
        f"{windows.labels:,} {what}; {len(windows.low)} low, {len(windows.tall)} tall (from "
        f"{windows.tall_m:.1f} m); augment: {config.sampling.augment}",
        "steps": f"{config.train.steps}, validated every {config.validation.every} on "
        f"{min(config.validation.areas, len(scene.val))} of {len(scene.val)} areas, patience {config.validation.patience}",
        "maps": f"chips of {scene.chips.chip} px, overlap {scene.chips.overlap} px",
        "device": str(device),
        "time": f"about {_to(clock(fast), clock(slow))} of steps ({flops / 1e9:.1f} GFLOP a crop), "
        "and validation",
        "memory": f"at least {in_words(round(_memory_bytes(scene, whole, learnt)))}",
        "out": str(out),
    }
    notes = [*prepared.notes]
    notes += [f"{key} = {d['value']}: {d['reason']}" for key, d in prepared.derived.items()]
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


def flops_per_crop(scene: CanopyScene) -> float:
    """Return the floating-point operations of a step for one crop, counted on the meta device.

    Forward through all, backward (twice as much) through what learns.
    """
    loaded = scene.prepared.opened.loaded
    bands = len(loaded.contract.bands)
    backbone = assemble(loaded.config, mean=(0.0,) * bands, std=(1.0,) * bands)
    twin = CanopyModel(backbone, scene.prepared.config.canopy).to("meta").eval()
    crop = torch.empty(1, bands, scene.crop, scene.crop, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        twin(crop)
    forward = float(counter.get_total_flops())
    below = forward_flops(loaded.config, loaded.contract, scene.crop)
    return 3 * forward if scene.prepared.config.optim.unfreeze else 3 * forward - 2 * below


def _beginning(prepared: PreparedCanopy) -> str:
    """What the head's weights begin as."""
    return f"goes on from {prepared.opened.name}" if prepared.begins_with_head else "new"


def _memory_bytes(scene: CanopyScene, whole: int, learnt: int) -> float:
    config = scene.prepared.config
    outputs = config.canopy.bins.count * (1 + len(config.canopy.quantiles))
    logits = config.train.batch * scene.crop**2 * outputs
    return 4.0 * (whole + 3 * learnt + _KEPT * logits)


def _to(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"
