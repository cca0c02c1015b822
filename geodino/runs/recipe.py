"""From a recipe (YAML) and overrides to one frozen configuration."""

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml
from pydantic import Field, field_validator

from geodino.config import Config, fields, merged, number, parse_overrides
from geodino.data.config import DataConfig
from geodino.errors import RecipeError, suggest
from geodino.models.adapt import InitConfig
from geodino.models.sizes import SIZES, ModelConfig
from geodino.pretrain.distill.config import DistillPhasesConfig, TargetsConfig
from geodino.pretrain.objective_config import HeadsConfig
from geodino.pretrain.optim import OptimConfig
from geodino.pretrain.phases import Phases, PhasesConfig
from geodino.runs.finetune.canopy.config import CanopyFinetuneConfig
from geodino.runs.finetune.classification.config import ClassificationFinetuneConfig
from geodino.runs.finetune.config import LabelledConfig
from geodino.runs.finetune.detection.config import DetectionFinetuneConfig
from geodino.runs.finetune.segmentation.config import SegmentationFinetuneConfig
from geodino.runs.recalibrate.config import RecalibrateConfig
from geodino.runs.settings import CheckpointConfig, HealthConfig, LogConfig, TrainConfig

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


AnyConfig = (
    RunConfig
    | DistillConfig
    | CanopyFinetuneConfig
    | SegmentationFinetuneConfig
    | ClassificationFinetuneConfig
    | DetectionFinetuneConfig
    | RecalibrateConfig
)
"""Every kind of recipe."""

K = TypeVar("K", bound=Config)
F = TypeVar("F", bound=LabelledConfig)


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
            a value out of range, every mistake in one message; or a recipe of another command.
    """
    return _load(RunConfig, name, overrides)


def load_distill_recipe(name: str, overrides: Sequence[str] = ()) -> DistillConfig:
    """Read a recipe of distillation, as ``load_recipe``."""
    return _load(DistillConfig, name, overrides)


def load_finetune_recipe(config: type[F], name: str, overrides: Sequence[str] = ()) -> F:
    """Read a recipe of fine-tuning for the task of ``config``, as ``load_recipe``."""
    return _load(config, name, overrides)


def kind_of_recipe(name: str) -> type[Any]:
    """Return the config of a recipe's kind, by its sections alone.

    Raises:
        RecipeError: unknown recipe, or unreadable YAML.
    """
    return _kind(_values(name, ())[1]).config


def kind_of_recorded(path: Path) -> type[Any]:
    """Return the config of a recorded run's kind, by its sections alone."""
    return _kind(_read(path)).config


def load_any_recipe(name: str, overrides: Sequence[str] = ()) -> AnyConfig:
    """Read a recipe of any kind.

    Raises:
        RecipeError: as ``load_recipe``.
    """
    path, values = _values(name, overrides)
    return _parsed(values, source=path.name)


def _load(config: type[K], name: str, overrides: Sequence[str]) -> K:
    path, values = _values(name, overrides)
    found, wanted = _kind(values), _kind_of(config)
    if found.config is not config:
        section = f" Recipes of {wanted.what} have a section `{wanted.section}`."
        raise RecipeError(
            f"{path.name} is a recipe of {found.what}: use it with `geodino {found.command} "
            f"--recipe {name}`, or choose another one here.{section if wanted.section else ''}"
        )
    return config.parse(values, source=path.name)


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


@dataclass(frozen=True, slots=True)
class _Kind:
    """A kind of recipe, told by a section that only it has."""

    config: type[Any]
    what: str
    command: str
    section: str = ""


_KINDS = (
    _Kind(DistillConfig, "distillation", "distill", "distill"),
    _Kind(RecalibrateConfig, "recalibration", "finetune canopy", "recalibrate"),
    _Kind(CanopyFinetuneConfig, "canopy heights", "finetune canopy", "canopy"),
    _Kind(SegmentationFinetuneConfig, "segmentation", "finetune segmentation", "segmentation"),
    _Kind(
        ClassificationFinetuneConfig, "classification", "finetune classification", "classification"
    ),
    _Kind(DetectionFinetuneConfig, "detection", "finetune detection", "detection"),
    _Kind(RunConfig, "pretraining", "pretrain"),
)
"""Every kind of recipe; the last one is told by having no section of another."""


def _parsed(values: dict[str, Any], *, source: str) -> AnyConfig:
    found: AnyConfig = _kind(values).config.parse(values, source=source)
    return found


def _kind(values: Mapping[str, Any]) -> _Kind:
    return next(kind for kind in _KINDS if not kind.section or kind.section in values)


def _kind_of(config: type[Any]) -> _Kind:
    return next(kind for kind in _KINDS if kind.config is config)


def load_recorded(path: Path) -> RunConfig:
    """Read the complete configuration that a run folder of pretraining holds.

    Raises:
        RecipeError: it is not one, or was written by a version with other keys.
    """
    return _recorded(RunConfig, path)


def load_recorded_distill(path: Path) -> DistillConfig:
    """Read the complete configuration of a run of distillation, as ``load_recorded``."""
    return _recorded(DistillConfig, path)


def load_recorded_finetune(config: type[F], path: Path) -> F:
    """Read the complete configuration of a run of fine-tuning, as ``load_recorded``."""
    return _recorded(config, path)


def load_recorded_any(path: Path) -> AnyConfig:
    """Read the complete configuration that a run folder of any kind holds.

    Raises:
        RecipeError: as ``load_recorded``.
    """
    return _parsed(_read(path), source=str(path))


def load_recorded_training(path: Path) -> TrainingConfig:
    """Read the complete configuration of a run of pretraining or distillation.

    Raises:
        RecipeError: as ``load_recorded``.
    """
    config = load_recorded_any(path)
    if isinstance(config, LabelledConfig):
        raise RecipeError(
            f"{path.parent} is a run of `geodino finetune`: that command with `--resume` writes its "
            "model and report again."
        )
    return config


def _recorded(config: type[K], path: Path) -> K:
    values = _read(path)
    found = _kind(values)
    if found.config is not config:
        raise RecipeError(
            f"{path.parent} is a run of `geodino {found.command}`: go on with that command, or "
            "choose another --out."
        )
    return config.parse(values, source=str(path))


def dump(config: TrainingConfig | LabelledConfig) -> str:
    """Return the complete configuration as YAML, defaults included."""
    stream = io.StringIO()
    yaml.safe_dump(config.model_dump(mode="json"), stream, sort_keys=False, width=100)
    return stream.getvalue()


def differences(
    a: TrainingConfig | LabelledConfig, b: TrainingConfig | LabelledConfig
) -> list[str]:
    """Return ``key: a -> b`` for every leaf in which two configurations differ."""
    left, right = dict(_leaves(a.model_dump(mode="json"))), dict(_leaves(b.model_dump(mode="json")))
    keys = [*left, *(k for k in right if k not in left)]
    return [
        f"{k}: {left.get(k)!r} -> {right.get(k)!r}" for k in keys if left.get(k) != right.get(k)
    ]


def explain() -> list[tuple[str, str, str]]:
    """Return (key, default, meaning) of every key a recipe may hold."""
    rows: dict[str, tuple[str, str, str]] = {}
    for kind in get_args(AnyConfig):
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
