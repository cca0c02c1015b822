"""What recipes of fine-tuning share, whatever the task."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from pydantic import Field

from geodino.config import Config, merged
from geodino.data.config import DataConfig
from geodino.data.splits import SplitConfig
from geodino.geo.contract import Accept
from geodino.runs.settings import CheckpointConfig, LogConfig
from geodino.tasks.optim import HeadOptimConfig, ValidationConfig

F = TypeVar("F", bound="LabelledConfig")
"""A task's recipe. Not ``Self``: the shape checker of the tests decorates methods one by one."""


class FinetuneTrainConfig(Config):
    """How steps are computed."""

    seed: int = Field(default=0, ge=0)
    """Every random number of the run follows from it, but for the split, which has its own."""

    steps: int = Field(default=10_000, ge=1)
    """Steps of the run, if it is not stopped early."""

    batch: int = Field(default=16, ge=1)
    """Images of a step."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What matrices are multiplied in. auto: bfloat16 on CUDA, float32 elsewhere."""


class StartConfig(Config):
    """Which weights the run began with; written when a run is prepared."""

    model: str
    """The MODEL that --model named; a path is absolute."""

    name: str
    """What the lineage of the result calls it."""

    sha256: str
    """Hash of its backbone's weights."""

    head_sha256: str | None = None
    """Hash of the weights of its head, where they were begun with; None where they were not."""


class LabelledConfig(Config):
    """What every recipe holds that learns from labels."""

    description: str
    """What the recipe is for, in one sentence."""

    start: StartConfig | None = None
    """Which weights the run began with; written when a run is prepared, never by hand."""

    accept: tuple[Accept, ...] = ()
    """Differences between the images and what the backbone was trained on that are taken as they
    are: ``gsd``, ``units``, ``values``."""

    def with_values(self: F, values: Mapping[str, Any]) -> F:
        """Return the configuration with nested values laid on top, validated again."""
        return type(self).parse(merged(self.model_dump(), values), source="The recipe")

    def digest(self) -> str:
        """Return a hash of everything that decides what a step computes.

        Values that are the defaults do not enter, so that keys that a later version adds leave
        older runs their hash.
        """
        decisive = self.model_dump(
            mode="json", exclude={"description", "log", "checkpoint"}, exclude_defaults=True
        )
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


class TiledConfig(LabelledConfig):
    """What recipes hold whose images are tiles of an archive, and whose ground is split."""

    data: DataConfig = DataConfig()
    """How images are read."""

    split: SplitConfig = SplitConfig()
    """Which ground is for what; --split names a file instead."""

    gsd_m: float | None = Field(default=None, gt=0)
    """Pixel of the grid the model sees, metres. ``null``: that of the images (or, where a canopy
    model is recalibrated, its own); else they are resampled to it, and maps back to theirs."""


class FinetuneConfig(LabelledConfig):
    """What every recipe of fine-tuning holds; a task adds a section of its own name."""

    train: FinetuneTrainConfig = FinetuneTrainConfig()
    """Seed, steps, batch."""

    optim: HeadOptimConfig = HeadOptimConfig()
    """Optimiser."""

    validation: ValidationConfig = ValidationConfig()
    """How the head is judged while it learns."""

    checkpoint: CheckpointConfig = CheckpointConfig()
    """Resumable state."""

    log: LogConfig = LogConfig()
    """Metrics."""


class TiledFinetuneConfig(FinetuneConfig, TiledConfig):
    """What recipes hold of heads that learn from labelled tiles, or from the folder of a known set."""
