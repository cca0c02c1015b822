"""What training draws at random inside the backbone, drawn on the host before the step.

Drop path leaves out samples per group of consecutive samples and RoPE factors belong to the whole
step, each from its own key, so any number of ranks draws the same step.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geodino.models.sizes import ModelConfig, RopeConfig
from geodino.seeds import rng

SHIFT_ROWS, SHIFT_COLUMNS, JITTER_ROWS, JITTER_COLUMNS, RESCALE = range(5)
"""Columns of the RoPE factors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EncodeDraws:
    """One step's random choices inside the backbone, for one rank."""

    drop: tuple[Tensor, ...] | None
    """Per crop set int64 ``[blocks, 2, rows kept]``: the rows whose attention half (0) and FFN half
    (1) run, ascending within a group. None without drop path."""

    rope: Tensor | None
    """Float32 ``[blocks, sets, 5]``: shift of rows and columns, jitter of rows and columns,
    rescale. None without augmentation."""

    def to(self, device: torch.device | str, *, non_blocking: bool = True) -> "EncodeDraws":
        """Return the draws on ``device``."""
        return EncodeDraws(
            drop=None
            if self.drop is None
            else tuple(rows.to(device, non_blocking=non_blocking) for rows in self.drop),
            rope=None if self.rope is None else self.rope.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> "EncodeDraws":
        """Return the draws in page-locked memory, so that ``to`` can overlap with computing."""
        return EncodeDraws(
            drop=None if self.drop is None else tuple(rows.pin_memory() for rows in self.drop),
            rope=None if self.rope is None else self.rope.pin_memory(),
        )


def kept_rows(rows: int, *, drop_path: float) -> int:
    """Return how many of ``rows`` samples a half block runs: ``max(floor(rows (1 - p)), 1)``."""
    # 10 * (1 - 0.4) must give 6: the guard absorbs the rounding of 1 - p.
    return max(math.floor(rows * (1.0 - drop_path) + 1e-9), 1)


def draw_encode(
    config: ModelConfig,
    *,
    depth: int,
    seed: int,
    step: int,
    first_group: int,
    groups: int,
    group: int,
    crops_per_set: tuple[int, ...],
) -> EncodeDraws:
    """Draw one step's drop-path subsets and RoPE factors for the groups one rank holds.

    Rows are crop-major: sample ``i`` of crop ``j`` of a set with ``b`` local samples is row
    ``j * b + i``. A group's rows in a set are all its samples in all crops of the set.

    Args:
        config: which model; its drop-path rate and RoPE ranges are used.
        depth: transformer blocks that take draws (``Backbone.depth``).
        seed: of the run.
        step: optimiser step, counted over the whole run.
        first_group: number within the step's global batch of the first group held here.
        groups: groups held here.
        group: samples per group.
        crops_per_set: crops per sample in each crop set, e.g. ``(2, 8)``.
    """
    drop = None
    if config.drop_path > 0:
        parts = [
            _group_subsets(
                (depth, config.drop_path),
                key=(seed, "drop", step, first_group + g),
                samples=(g * group, group, groups * group),
                crops_per_set=crops_per_set,
            )
            for g in range(groups)
        ]
        drop = tuple(
            torch.from_numpy(np.concatenate(rows, axis=-1)) for rows in zip(*parts, strict=True)
        )
    rope = None
    if config.family == "vit" and config.rope.augmented:
        shape = (depth, len(crops_per_set), 5)
        rope = torch.from_numpy(_rope_factors(config.rope, shape, key=(seed, "rope", step)))
    return EncodeDraws(drop=drop, rope=rope)


def _group_subsets(
    depth_and_rate: tuple[int, float],
    *,
    key: tuple[int | str, ...],
    samples: tuple[int, int, int],
    crops_per_set: tuple[int, ...],
) -> list[NDArray[np.int64]]:
    """Rows kept of one group, per set ``[blocks, 2, kept]``, numbered within the rank's batch."""
    first, group, local = samples
    depth, drop_path = depth_and_rate
    generator = rng(*key)
    subsets = []
    for crops in crops_per_set:
        rows = group * crops
        kept = kept_rows(rows, drop_path=drop_path)
        order = np.argsort(generator.random((depth, 2, rows)), axis=-1, kind="stable")
        chosen = np.sort(order[..., :kept], axis=-1)
        crop, sample = np.divmod(chosen, group)
        subsets.append((crop * local + first + sample).astype(np.int64))
    return subsets


def _rope_factors(
    config: RopeConfig, shape: tuple[int, int, int], *, key: tuple[int | str, ...]
) -> NDArray[np.float32]:
    uniform = rng(*key).uniform(-1.0, 1.0, shape)
    factors = np.empty_like(uniform)
    factors[..., :2] = uniform[..., :2] * config.shift
    factors[..., 2:4] = np.exp(uniform[..., 2:4] * math.log(config.jitter))
    factors[..., 4] = np.exp(uniform[..., 4] * math.log(config.rescale))
    return factors.astype(np.float32)
