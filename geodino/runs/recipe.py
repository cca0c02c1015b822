"""From a recipe (YAML) and overrides to one frozen configuration."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from geodino.config import Config, fields, merged, number, parse_overrides
from geodino.data.config import DataConfig
from geodino.errors import RecipeError, suggest
from geodino.models.adapt import InitConfig
from geodino.models.sizes import ModelConfig
from geodino.pretrain.objective_config import HeadsConfig
from geodino.pretrain.optim import OptimConfig
from geodino.pretrain.phases import PhasesConfig
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

    after: int = Field(default=0, ge=0)
    """Steps before which they are not judged."""

    tolerance: float = Field(default=0.1, ge=0)
    """How much worse than their best they may become before ``start: auto`` acts: a share of the
    best rank, or of the best cosine's distance to 1."""

    patience: int = Field(default=3, ge=1)
    """Measurements in a row that must be worse."""


class RunConfig(Config):
    """A complete pretraining recipe."""

    description: str
    """What the recipe is for, in one sentence."""

    model: ModelConfig
    """The backbone."""

    init: InitConfig | None = None
    """Weights of another model to begin with; left out, the run begins with random ones."""

    heads: HeadsConfig = HeadsConfig()
    """Projection heads of the objective."""

    data: DataConfig = DataConfig()
    """How tiles are read."""

    train: TrainConfig = TrainConfig()
    """Batch, groups, seed, precision."""

    optim: OptimConfig = OptimConfig()
    """Optimiser."""

    phases: PhasesConfig
    """What is learnt, in order."""

    health: HealthConfig = HealthConfig()
    """Dense-feature health."""

    checkpoint: CheckpointConfig = CheckpointConfig()
    """Resumable state."""

    log: LogConfig = LogConfig()
    """Metrics."""

    def with_values(self, values: Mapping[str, Any]) -> "RunConfig":
        """Return the configuration with nested values laid on top, validated again."""
        return RunConfig.parse(merged(self.model_dump(), values), source="The recipe")

    def digest(self) -> str:
        """Return a hash of everything that decides what a step computes.

        Values that are the defaults do not enter: a key that a later version adds, with a default
        that changes nothing, leaves older runs their hash, and they can be resumed.
        """
        decisive = self.model_dump(
            mode="json", exclude={"description", "log", "checkpoint"}, exclude_defaults=True
        )
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


def recipe_folder() -> Path:
    """Return where the recipes that travel with the package lie."""
    packaged = Path(str(files("geodino"))) / "_recipes"
    return packaged if packaged.is_dir() else Path(str(files("geodino"))).parent / "recipes"


def recipe_names() -> list[str]:
    """Return the names of the recipes that travel with the package."""
    return sorted(path.stem for path in recipe_folder().glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """Return the file of a recipe given by name or by path.

    Raises:
        RecipeError: there is neither such a recipe nor such a file.
    """
    if name.endswith((".yaml", ".yml")) or "/" in name:
        path = Path(name)
        if not path.is_file():
            raise RecipeError(f"Recipe file {name} does not exist.")
        return path
    if name not in recipe_names():
        raise RecipeError(
            f"There is no recipe {name!r}.{suggest(name, recipe_names())} "
            f"Recipes: {', '.join(recipe_names())}; or give the path of a YAML file."
        )
    return recipe_folder() / f"{name}.yaml"


def load_recipe(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a recipe, apply ``key.path=value`` overrides, validate; every mistake in one message.

    Raises:
        RecipeError: unknown recipe, unreadable YAML, unknown key (with the nearest known one), or
            a value out of range.
    """
    path = recipe_path(name)
    values = _read(path)
    if (base := values.pop("extends", None)) is not None:
        parent = path.parent / f"{base}.yaml"
        base_values = _read(parent if parent.is_file() else recipe_path(str(base)))
        if "extends" in base_values:
            raise RecipeError(f"{path.name} extends {base}, which itself extends: one level only.")
        values = merged(base_values, values)
    values = merged(values, parse_overrides(overrides))
    return RunConfig.parse(values, source=path.name)


def load_recorded(path: Path) -> RunConfig:
    """Read the complete configuration a run folder holds.

    Raises:
        RecipeError: it is not one, or was written by a version with other keys.
    """
    return RunConfig.parse(_read(path), source=str(path))


def dump(config: RunConfig) -> str:
    """Return the complete configuration as YAML, defaults included."""
    stream = io.StringIO()
    yaml.safe_dump(config.model_dump(mode="json"), stream, sort_keys=False, width=100)
    return stream.getvalue()


def differences(a: RunConfig, b: RunConfig) -> list[str]:
    """Return ``key: a -> b`` for every leaf in which two configurations differ."""
    left, right = dict(_leaves(a.model_dump(mode="json"))), dict(_leaves(b.model_dump(mode="json")))
    keys = [*left, *(k for k in right if k not in left)]
    return [
        f"{k}: {left.get(k)!r} -> {right.get(k)!r}" for k in keys if left.get(k) != right.get(k)
    ]


def explain() -> list[tuple[str, str, str]]:
    """Return (key, default, meaning) of every key a recipe may hold."""
    rows = []
    for key, field in fields(RunConfig):
        default = "required" if field.is_required() else repr(field.get_default())
        rows.append((key, default, " ".join((field.description or "").split())))
    return rows


def _leaves(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    out: list[tuple[str, Any]] = []
    for key, value in values.items():
        path = f"{prefix}{key}"
        out += _leaves(value, f"{path}.") if isinstance(value, Mapping) else [(path, value)]
    return out


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise RecipeError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{path} holds no keys; a recipe is a YAML mapping.")
    return {key: _numbers(value) for key, value in values.items()}


def _numbers(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; the recipe's author meant a number."""
    if isinstance(value, dict):
        return {k: _numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_numbers(v) for v in value]
    return number(value) if isinstance(value, str) else value
