"""From a recipe (YAML) and overrides to one frozen configuration."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from pydantic import Field, field_validator, model_validator

from geodino.config import Config, fields, merged, number, parse_overrides
from geodino.data.config import DataConfig
from geodino.errors import RecipeError, suggest
from geodino.models.adapt import InitConfig
from geodino.models.sizes import SIZES, ModelConfig
from geodino.pretrain.distill.config import DistillPhasesConfig, TargetsConfig
from geodino.pretrain.objective_config import HeadsConfig
from geodino.pretrain.optim import OptimConfig
from geodino.pretrain.phases import Phases, PhasesConfig
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


R = TypeVar("R", bound="TrainingConfig")
"""A kind of recipe. Not ``Self``: the shape checker of the tests decorates methods one by one."""


class TrainingConfig(Config):
    """What every recipe of a training run holds."""

    description: str
    """What the recipe is for, in one sentence."""

    model: ModelConfig
    """The backbone."""

    heads: HeadsConfig = HeadsConfig()
    """Projection heads of the objective."""

    data: DataConfig = DataConfig()
    """How tiles are read."""

    train: TrainConfig = TrainConfig()
    """Batch, groups, seed, precision."""

    optim: OptimConfig = OptimConfig()
    """Optimiser."""

    phases: Phases
    """What is learnt, in order."""

    health: HealthConfig = HealthConfig()
    """Dense-feature health."""

    checkpoint: CheckpointConfig = CheckpointConfig()
    """Resumable state."""

    log: LogConfig = LogConfig()
    """Metrics."""

    def with_values(self: R, values: Mapping[str, Any]) -> R:
        """Return the configuration with nested values laid on top, validated again."""
        return type(self).parse(merged(self.model_dump(), values), source="The recipe")

    def digest(self) -> str:
        """Return a hash of everything that decides what a step computes.

        Values that are the defaults do not enter: a key that a later version adds, with a default
        that changes nothing, leaves older runs their hash, and they can be resumed.
        """
        decisive = self.model_dump(
            mode="json", exclude={"description", "log", "checkpoint"}, exclude_defaults=True
        )
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()


class RunConfig(TrainingConfig):
    """A complete pretraining recipe."""

    init: InitConfig | None = None
    """Weights of another model to begin with; left out, the run begins with random ones."""

    phases: PhasesConfig
    """What is learnt, in order."""

    @field_validator("model")
    @classmethod
    def _can_be_pretrained(cls, model: ModelConfig) -> ModelConfig:
        if model.name not in SIZES:
            raise ValueError(
                f"{model.name} cannot be pretrained, only taught (`geodino distill`): it has no "
                f"mask token. Known: {', '.join(SIZES)}"
            )
        return model


class TeacherConfig(Config):
    """Which weights teach; written when a run is prepared."""

    model: str
    """The MODEL that --teacher named; a path is absolute."""

    name: str
    """What the lineage of the students calls it."""

    sha256: str
    """Hash of its weights."""


class DistillConfig(TrainingConfig):
    """A complete recipe of distillation."""

    model: ModelConfig = ModelConfig()
    """The teacher's backbone; written when a run is prepared, never by hand."""

    heads: HeadsConfig = HeadsConfig()
    """Heads of teacher and students; written when a run is prepared, never by hand."""

    teacher: TeacherConfig | None = None
    """Which weights teach; written when a run is prepared."""

    distill: TargetsConfig
    """What the teacher asks; the section that makes a recipe one of distillation."""

    students: dict[str, ModelConfig] = Field(default_factory=dict)
    """The students by name, each with the keys of ``model``. --students chooses among them, or
    names others of the table or of timm."""

    phases: DistillPhasesConfig
    """What is learnt, in order."""


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
    """Read a recipe of pretraining, apply ``key.path=value`` overrides, validate.

    Raises:
        RecipeError: unknown recipe, unreadable YAML, unknown key (with the nearest known one), or
            a value out of range, every mistake in one message; or a recipe of distillation.
    """
    path, values = _values(name, overrides)
    if "distill" in values:
        raise RecipeError(
            f"{path.name} is a recipe of distillation: use it with `geodino distill --recipe "
            f"{name}`, or choose another one here."
        )
    return RunConfig.parse(values, source=path.name)


def load_distill_recipe(name: str, overrides: Sequence[str] = ()) -> DistillConfig:
    """Read a recipe of distillation, apply ``key.path=value`` overrides, validate.

    Raises:
        RecipeError: as ``load_recipe``; or a recipe of pretraining.
    """
    path, values = _values(name, overrides)
    if "distill" not in values:
        raise RecipeError(
            f"{path.name} is a recipe of pretraining: use it with `geodino pretrain --recipe "
            f"{name}`. Recipes of distillation have a section `distill`."
        )
    return DistillConfig.parse(values, source=path.name)


def load_any_recipe(name: str, overrides: Sequence[str] = ()) -> TrainingConfig:
    """Read a recipe of either kind.

    Raises:
        RecipeError: as ``load_recipe``.
    """
    path, values = _values(name, overrides)
    return _kind(values).parse(values, source=path.name)


def _values(name: str, overrides: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """The file of a recipe, and what it and the overrides say."""
    path = recipe_path(name)
    values = _read(path)
    if (base := values.pop("extends", None)) is not None:
        parent = path.parent / f"{base}.yaml"
        base_values = _read(parent if parent.is_file() else recipe_path(str(base)))
        if "extends" in base_values:
            raise RecipeError(f"{path.name} extends {base}, which itself extends: one level only.")
        values = merged(base_values, values)
    return path, merged(values, parse_overrides(overrides))


def _kind(values: Mapping[str, Any]) -> type[RunConfig] | type[DistillConfig]:
    return DistillConfig if "distill" in values else RunConfig


def load_recorded(path: Path) -> RunConfig:
    """Read the complete configuration that a run folder of pretraining holds.

    Raises:
        RecipeError: it is not one, or was written by a version with other keys.
    """
    return RunConfig.parse(_recorded(path, DistillConfig), source=str(path))


def load_recorded_distill(path: Path) -> DistillConfig:
    """Read the complete configuration that a run folder of distillation holds.

    Raises:
        RecipeError: as ``load_recorded``.
    """
    return DistillConfig.parse(_recorded(path, RunConfig), source=str(path))


def load_recorded_any(path: Path) -> TrainingConfig:
    """Read the complete configuration that a run folder of either kind holds.

    Raises:
        RecipeError: as ``load_recorded``.
    """
    values = _read(path)
    return _kind(values).parse(values, source=str(path))


def _recorded(path: Path, other: type[TrainingConfig]) -> dict[str, Any]:
    values = _read(path)
    if _kind(values) is other:
        command = "distill" if other is DistillConfig else "pretrain"
        raise RecipeError(
            f"{path.parent} is a run of `geodino {command}`: go on with that command, or choose "
            "another --out."
        )
    return values


def dump(config: TrainingConfig) -> str:
    """Return the complete configuration as YAML, defaults included."""
    stream = io.StringIO()
    yaml.safe_dump(config.model_dump(mode="json"), stream, sort_keys=False, width=100)
    return stream.getvalue()


def differences(a: TrainingConfig, b: TrainingConfig) -> list[str]:
    """Return ``key: a -> b`` for every leaf in which two configurations differ."""
    left, right = dict(_leaves(a.model_dump(mode="json"))), dict(_leaves(b.model_dump(mode="json")))
    keys = [*left, *(k for k in right if k not in left)]
    return [
        f"{k}: {left.get(k)!r} -> {right.get(k)!r}" for k in keys if left.get(k) != right.get(k)
    ]


def explain() -> list[tuple[str, str, str]]:
    """Return (key, default, meaning) of every key a recipe may hold."""
    rows: dict[str, tuple[str, str, str]] = {}
    for kind in (RunConfig, DistillConfig):
        for key, field in fields(kind):
            default = "required" if field.is_required() else repr(field.get_default())
            text = " ".join((field.description or "").split())
            rows.setdefault(key, (key, default, text))
    return list(rows.values())


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
