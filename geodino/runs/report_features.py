"""The report's part about features: snapshots of the probe tiles, and nearest neighbours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from geodino import seeds
from geodino.data.tiles import TileIndex
from geodino.errors import SourceError
from geodino.geo.contract import InputContract
from geodino.geo.windows import Window
from geodino.models.backbone import Backbone
from geodino.models.folder import load_model
from geodino.models.pooling import pool_patches
from geodino.pretrain.health import DenseHealth
from geodino.report.content import Features, Neighbours, Picture, Probes
from geodino.report.words import count
from geodino.runs.build import Feed, build_order, loader_config, resolved_chip
from geodino.runs.display import Display
from geodino.runs.recipe import TrainingConfig
from geodino.runs.record import RunFolder
from geodino.runs.snapshots import Snapshots

_CHIPS, _FEWEST = 192, 12
"""Chips that are searched, and the fewest that are worth it."""

_BATCH = 16
_QUERIES, _NEAREST = 5, 6

_FLOPS = {"cpu": 2e12, "cuda": 1e15}
"""Work that the search may cost: under a minute, so that no training waits long for its report."""


def collect_features(
    folder: RunFolder,
    config: TrainingConfig,
    index: TileIndex,
    contract: InputContract,
    *,
    device: torch.device,
) -> Features:
    """Say what the features look like; what is missing is left out, with a note.

    Raises:
        RunError: a snapshot is damaged.
        CheckpointError: the model is damaged.
    """
    display = Display.of(contract)
    probes = _probes(Snapshots(folder.probes, every=config.health.every), display)
    neighbours: tuple[Neighbours, ...] = ()
    if folder.model.is_dir():
        backbone = load_model(folder.model).backbone
        try:
            neighbours, text = _neighbours(backbone, config, index, contract, display, device)
        except SourceError as error:
            text = f"No neighbours: {error}"
    else:
        text = (
            "No neighbours: the run has no model yet. It is written at the end, or by "
            f"`geodino export {folder.root}`."
        )
    return Features(
        probes=probes,
        probes_missing="" if probes else "No snapshot of the probe tiles has been saved yet.",
        neighbours=neighbours,
        neighbours_of=text,
    )


def _probes(snapshots: Snapshots, display: Display) -> Probes | None:
    steps = snapshots.steps()
    if not steps:
        return None
    crops, valid = snapshots.crops()
    return Probes(
        pictures=tuple(
            display.normalised(crop, ok, alt=f"Probe tile {i}")
            for i, (crop, ok) in enumerate(zip(crops.numpy(), valid.numpy(), strict=True), start=1)
        ),
        valid=valid.numpy(),
        steps=tuple(steps),
        patches=tuple(snapshots.patches(step).numpy() for step in steps),
    )


def _neighbours(
    backbone: Backbone,
    config: TrainingConfig,
    index: TileIndex,
    contract: InputContract,
    display: Display,
    device: torch.device,
) -> tuple[tuple[Neighbours, ...], str]:
    # A student's crops are as many patches wide as its teacher's.
    patches = config.phases.first.views.global_size // config.model.stride
    size = patches * backbone.patch_size
    chips = _affordable(backbone, size=size, device=device)
    if chips < _FEWEST:
        return (), (
            "No neighbours: the model is too large to encode enough chips on this device; "
            "`geodino report` with --device cuda does it."
        )
    crops, valid, places = _chips(config, index, contract, chips=chips, size=size)
    vectors = _pooled(backbone.to(device), crops, valid, device)
    near = nearest(vectors, places, most=_NEAREST)

    def shown(i: int, caption: str) -> Picture:
        name = Path(index.tiles[places[i][0]].path).name
        return display.normalised(
            crops[i].numpy(), valid[i].numpy(), alt=f"Chip of {name}", caption=f"{caption}{name}"
        )

    rows = tuple(
        Neighbours(
            query=shown(i, ""),
            nearest=tuple(shown(j, f"{cosine:.3f} ") for j, cosine in near[i]),
        )
        for i in sorted({k * len(crops) // _QUERIES for k in range(_QUERIES)})
        if near[i]
    )
    return rows, (
        f"Left: a chip. Right: the nearest of {count(len(crops), 'chip')} drawn from the source "
        "with the run's seed, by the cosine of their mean patch tokens (mean over the drawn "
        "chips taken off). Chips that overlap it, and those with no likeness (a cosine of 0 or "
        "less), are not shown."
    )


def nearest(
    vectors: Float[np.ndarray, "n d"], places: list[tuple[int, Window]], *, most: int
) -> list[list[tuple[int, float]]]:
    """Return for every chip those with the largest cosine above 0, and the cosines.

    The mean of all vectors is taken off first: it is shared, and tells no two chips apart.

    Args:
        vectors: one per chip.
        places: tile and window of each chip; chips that overlap are no neighbours.
        most: neighbours of a chip.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    unit = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    cosines = unit @ unit.T
    found = []
    for i, row in enumerate(cosines):
        alike = [int(j) for j in np.argsort(-row, kind="stable") if row[j] > 0]
        apart = [j for j in alike if not _overlap(places[i], places[j])]
        found.append([(j, float(row[j])) for j in apart[:most]])
    return found


def _overlap(a: tuple[int, Window], b: tuple[int, Window]) -> bool:
    (tile, one), (other_tile, two) = a, b
    return (
        tile == other_tile
        and one.top < two.bottom
        and two.top < one.bottom
        and one.left < two.right
        and two.left < one.right
    )


def _affordable(backbone: Backbone, *, size: int, device: torch.device) -> int:
    """How many chips may be encoded: two operations per weight and patch, attention left out."""
    weights = sum(p.numel() for p in backbone.trunk.parameters())
    patches = (size // backbone.patch_size) ** 2
    return min(_CHIPS, int(_FLOPS[device.type] / (2 * weights * patches)))


def _chips(
    config: TrainingConfig, index: TileIndex, contract: InputContract, *, chips: int, size: int
) -> tuple[Float[Tensor, "n c s s"], Bool[Tensor, "n s s"], list[tuple[int, Window]]]:
    """Draw chips from places as different as the source allows; return their normalised middles."""
    chip = resolved_chip(config)
    # Each from a decoded part of its own: the order of training cuts many from one.
    drawn = config.with_values(
        {"data": {"super_window": chip, "chips_per_super_window": 1, "memory_mb": 1}}
    )
    seed = seeds.integer(config.train.seed, "report neighbours") >> 1
    order = build_order(drawn, index, seed=seed, batch=_BATCH, chip=chip)
    wanted = min(chips, order.samples_per_epoch)
    feed = Feed(
        drawn, contract, index, order=order, loader=replace(loader_config(drawn), prefetch=1)
    )
    parts: list[DenseHealth] = []
    places: list[tuple[int, Window]] = []
    try:
        for batch in feed.batches(0):
            parts.append(
                DenseHealth.from_chips(
                    batch.pixels, batch.valid, mean=contract.mean, std=contract.std, size=size
                )
            )
            places += batch.source
            if len(places) >= wanted:
                break
    finally:
        feed.close()
    keep = _distinct(places)[:wanted]
    crops, valid = (
        torch.cat([getattr(p, name) for p in parts])[keep] for name in ("crops", "valid")
    )
    return crops, valid, [(places[i][0], _middle(places[i][1], size)) for i in keep]


def _middle(chip: Window, size: int) -> Window:
    """The part of a chip that the crop shows; all of a smaller one."""
    size = min(size, chip.height)
    inset = (chip.height - size) // 2
    return Window(chip.top + inset, chip.left + inset, size, size)


def _distinct(places: list[tuple[int, Window]]) -> list[int]:
    first = {place: i for i, place in reversed(list(enumerate(places)))}
    return sorted(first.values())


@torch.inference_mode()
def _pooled(
    backbone: Backbone,
    crops: Float[Tensor, "n c s s"],
    valid: Bool[Tensor, "n s s"],
    device: torch.device,
) -> Float[np.ndarray, "n d"]:
    vectors = []
    for start in range(0, len(crops), _BATCH):
        some = slice(start, start + _BATCH)
        (tokens,) = backbone([crops[some].to(device)])
        usable = valid[some].to(device)
        vectors.append(pool_patches(tokens.patches.float(), usable, grid=tokens.grid).cpu())
    return torch.cat(vectors).numpy()
