"""What recipes say about how a run computes, saves and logs, whatever it learns."""

from typing import Literal

from pydantic import Field, model_validator

from geodino.config import Config
from geodino.pretrain.watch import Figure


class TrainConfig(Config):
    """How a step is computed, whatever it learns."""

    seed: int = Field(default=0, ge=0)
    """Every random number of the run follows from it."""

    batch: int | Literal["auto"] = 64
    """Samples of the global batch of the first phase, over all devices. auto: the largest that fits
    the GPU."""

    group: int = Field(default=16, ge=1)
    """Samples that share a draw of masks and drop-path subsets, and KoLeo's neighbourhood. A
    device holds whole groups, so that any number of devices computes the same step."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What matrices are multiplied in. auto: bfloat16 on CUDA, float32 elsewhere."""

    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the transformer blocks. auto: on CUDA only."""

    @model_validator(mode="after")
    def _batch_is_whole_groups(self) -> "TrainConfig":
        if self.batch != "auto" and (self.batch < 2 or self.batch % self.group):
            raise ValueError(
                f"batch {self.batch} must be a multiple of group {self.group}, and at least 2"
            )
        return self


class CheckpointConfig(Config):
    """When the resumable state is saved."""

    every: int = Field(default=1000, ge=1)
    """Steps between two checkpoints."""

    keep: int = Field(default=2, ge=1)
    """How many numbered checkpoints stay, the newest ones."""


class LogConfig(Config):
    """What is written while a run goes on."""

    every: int = Field(default=10, ge=1)
    """Steps between two lines of metrics.jsonl."""

    flush: int = Field(default=50, ge=1)
    """Steps between two looks at the device: the only times the run waits for it."""

    tensorboard: bool = False
    """Also write TensorBoard event files (needs `pip install geodino[loggers]`)."""


class HealthConfig(Config):
    """How the quality of dense features is watched."""

    every: int = Field(default=500, ge=1)
    """Steps between two measurements on the probe tiles."""

    tiles: int = Field(default=16, ge=2)
    """Fixed probe chips, drawn once from the source."""

    watch: Figure = "cls_patch_cosine"
    """What dense features are judged by, for the best Gram teacher and for ``start: auto``."""

    after: Literal["auto"] | int = "auto"
    """Steps before which they are not judged: random weights look healthy too, and are no teacher.
    ``auto``: a tenth of the first phase, and none for a run that begins with a model."""

    tolerance: float = Field(default=0.1, ge=0)
    """How much worse than their best they may become before ``start: auto`` acts: a share of the
    best rank, or of the best cosine's distance to 1."""

    patience: int = Field(default=3, ge=1)
    """Measurements in a row that must be worse."""
