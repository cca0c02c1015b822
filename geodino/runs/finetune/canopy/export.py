"""From a trained head to a model folder that maps can be made with."""

from contextlib import closing
from typing import Any

import numpy as np
import torch

from geodino.evals.results import MODEL
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.models.canopy_folder import save_canopy
from geodino.models.card import ModelCard
from geodino.runs.finetune.canopy.judge import MEAN
from geodino.runs.finetune.canopy.prepare import PreparedGround
from geodino.runs.finetune.canopy.results import Results
from geodino.runs.finetune.canopy.scene import CanopyScene
from geodino.runs.record import RunFolder
from geodino.tasks.canopy.applicability import Applicability, fit_applicability, patch_tokens
from geodino.tasks.canopy.crops import CropFeed
from geodino.tasks.canopy.source import FootprintLabels

_HELD_OUT = 32
"""Validation areas whose patches scale distances."""


def export(scene: CanopyScene, results: Results, folder: RunFolder, *, step: int) -> None:
    """Write the model folder: backbone, head, contract, what was learnt about it, applicability.

    Raises:
        RunError: it cannot be written.
    """
    prepared = scene.prepared
    save_canopy(
        folder.model,
        scene.model,
        contract=prepared.contract,
        card=_card(scene, results, folder, step),
        extra=extra_of(scene, results),
    )
    kept = applicability(scene)
    if kept is not None:
        kept.save(folder.model)


def extra_of(scene: CanopyScene, results: Results) -> dict[str, Any]:
    """Return what is written into ``canopy.json`` beside the head."""
    prepared = scene.prepared
    return {
        "chip": scene.chips.chip,
        "overlap": scene.chips.overlap,
        "gsd_m": prepared.config.gsd_m,
        "intervals": results.facts["intervals"],
        "intervals_missing": results.facts["intervals_missing"],
        "labels": label_facts(prepared),
        "results": {
            "on": results.facts["reported_on"],
            "mae_m": _mae(results.facts, MODEL),
            "mae_of_mean_height_m": _mae(results.facts, MEAN),
        },
        "augment": prepared.config.sampling.augment,
    }


def label_facts(prepared: PreparedGround[Any]) -> dict[str, Any]:
    """Return what the heights it was taught are."""
    labels = prepared.source.labels
    index = labels.index
    shared = {
        "valid": index.found.valid,
        "highest_m": index.found.highest_m,
        "p99_m": index.found.p99_m,
    }
    if isinstance(labels, FootprintLabels):
        return {"kind": "footprints", "percentile": labels.index.percentile, **shared}
    gsd = labels.index.tiles.gsd_m
    return {
        "kind": "rasters",
        "statistic": labels.index.config.statistic,
        "gsd_m": None if gsd is None else list(gsd),
        **shared,
    }


def _mae(facts: dict[str, Any], row: str) -> float | None:
    on = facts["reported_on"]
    scores = facts[on]["scores"].get(row) if on else None
    return None if scores is None else scores["mae_m"]["value"]


def _card(scene: CanopyScene, results: Results, folder: RunFolder, step: int) -> dict[str, Any]:
    prepared = scene.prepared
    config, facts = prepared.config, results.facts
    mae, floor = _mae(facts, MODEL), _mae(facts, MEAN)
    kind = config.canopy.head.kind
    backbone = "fine-tuned" if config.optim.unfreeze else "frozen"
    head = "head that went on from its own" if prepared.begins_with_head else "head"
    evaluation = ""
    if mae is not None and floor is not None:
        evaluation = (
            f"Mean absolute error {mae:.2f} m on the {facts['reported_on']} ground of its run; the "
            f"mean height everywhere would be off by {floor:.2f} m. "
            + ("" if facts["intervals"] else facts["intervals_missing"])
        )
    return ModelCard(
        name=f"{folder.root.resolve().name}-canopy",
        description=f"Canopy height from a {kind} {head} on a {backbone} {prepared.opened.name}.",
        data=f"{len(prepared.source.labelled)} labelled images; lists and splits lie in the run "
        "folder.",
        training=f"{step} steps of {config.train.batch} crops of {scene.crop} px, seed "
        f"{config.train.seed}.",
        evaluation=evaluation,
        limits="Heights on ground unlike the training ground look as trustworthy as any others; "
        "see applicability.safetensors.",
        lineage=prepared.lineage,
        image_size=scene.crop,
    ).model_dump()


def applicability(scene: CanopyScene) -> Applicability | None:
    """Keep patch tokens of training crops; scale distances by those of validation areas."""
    prepared, model = scene.prepared, scene.model
    config = prepared.config
    wanted = config.applicability
    if wanted.tokens == 0:
        return None
    even = config.sampling.model_copy(
        update={"low_share": 0.0, "tall_share": 0.0, "augment": "none"}
    )
    feed = CropFeed(
        prepared.source, scene.windows, even, seed=config.train.seed, batch=1,
        threads=prepared.threads,
    )  # fmt: skip
    count = min(wanted.crops, max(4 * len(scene.windows), 1))
    device = model.bins_m.device
    with closing(feed.batches(0, count)) as batches:
        tokens = [
            patch_tokens(model.backbone, b.pixels.to(device), b.valid.to(device)) for b in batches
        ]
    return fit_applicability(
        torch.cat(tokens), _held_out(scene), tokens=wanted.tokens, seed=config.train.seed
    )


def _held_out(scene: CanopyScene) -> torch.Tensor:
    """Patch tokens of validation ground, in crops around its areas."""
    model, source = scene.model, scene.prepared.source
    device, found = model.bins_m.device, []
    for area in scene.val[:_HELD_OUT]:
        seen, grid = source.seen(area.image), source.grid(area.image)
        own = source.images.tiles[area.image].grid
        scale = grid.height / own.height, grid.width / own.width
        window = _crop_at(area.window.top * scale[0], area.window.left * scale[1], scene.crop, grid)
        pixels, valid = seen.read(window)
        lack = [(0, scene.crop - window.height), (0, scene.crop - window.width)]
        pixels, valid = np.pad(pixels, [(0, 0), *lack]), np.pad(valid, lack)
        found.append(
            patch_tokens(
                model.backbone,
                torch.from_numpy(pixels)[None].to(device),
                torch.from_numpy(valid)[None].to(device),
            )
        )
    return torch.cat(found)


def _crop_at(top: float, left: float, side: int, grid: Grid) -> Window:
    """A crop that begins near a place, inside the grid."""
    first = max(0, min(int(top), grid.height - side)), max(0, min(int(left), grid.width - side))
    return Window(*first, min(side, grid.height), min(side, grid.width))
