"""The teacher of a distillation: any MODEL, what it can ask, and what it demands of the tiles."""

from dataclasses import dataclass
from typing import Any, Literal

from geodino.errors import BandError, RecipeError, RunError
from geodino.geo.contract import InputContract
from geodino.models.card import Parent
from geodino.models.folder import LoadedModel
from geodino.models.heads import HeadConfig
from geodino.runs.init import model_name
from geodino.runs.models import open_model, tensors_hash
from geodino.runs.recipe import DistillConfig, TeacherConfig

Targets = Literal["heads", "features"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Teacher:
    """A model that teaches, and how it is recorded."""

    loaded: LoadedModel
    settings: TeacherConfig

    @property
    def lineage(self) -> tuple[Parent, ...]:
        """What its students descend from: itself, and whatever it descends from."""
        older, name = self.loaded.lineage, self.settings.name
        if older and older[-1].relation == "converted from":
            # What was converted is the teacher itself.
            older, name = older[:-1], older[-1].name
        itself = Parent(name=name, license=self.loaded.license, relation="distilled from")
        return (*older, itself)


def open_teacher(model: str) -> Teacher:
    """Open the MODEL that --teacher names.

    Raises:
        CheckpointError: there is no model there, or it is damaged.
    """
    opened = open_model(model)
    loaded = opened.loaded
    tensors = {
        **loaded.backbone.state_dict(),
        **{
            f"{name}.{key}": value
            for name, head in loaded.heads.items()
            for key, value in head.state_dict().items()
        },
    }
    settings = TeacherConfig(
        model=model_name(model), name=opened.name, sha256=tensors_hash(tensors)
    )
    return Teacher(loaded=loaded, settings=settings)


def open_recorded_teacher(config: DistillConfig) -> Teacher:
    """Open the teacher of a recorded run.

    Raises:
        RunError: other weights lie there now.
        CheckpointError: there is no model there any more, or it is damaged.
    """
    if config.teacher is None:
        raise RunError("The recipe names no teacher: it was not recorded by a run.")
    teacher = open_teacher(config.teacher.model)
    if teacher.settings.sha256 != config.teacher.sha256:
        raise RunError(
            f"The teacher {config.teacher.model} has other weights than when the run began: put "
            "those back, or start a new run in another --out."
        )
    return teacher


def choose_targets(config: DistillConfig, teacher: Teacher) -> tuple[Targets, str]:
    """Return what the teacher asks of its students, and why.

    Raises:
        RecipeError: heads are asked for, and the teacher has none.
    """
    asked, heads = config.distill.targets, teacher.loaded.heads
    if asked == "heads" and "dino" not in heads:
        raise RecipeError(
            f"distill.targets: {teacher.settings.name} has no DINO head whose assignments students "
            "could learn. Set distill.targets=features, or name a teacher that was trained here."
        )
    if asked != "auto":
        return asked, "as asked"
    if "dino" in heads:
        return "heads", "the teacher has the heads it was trained with"
    return "features", "the teacher has no heads: its tokens are the targets"


def heads_of(config: DistillConfig, teacher: Teacher) -> dict[str, HeadConfig]:
    """Return the heads that teacher and students share.

    Raises:
        RecipeError: the recipe asks for other heads than the teacher has.
    """
    mine = dict(teacher.loaded.head_configs)
    if "heads" in config.model_fields_set:
        for name, theirs in mine.items():
            asked: HeadConfig = getattr(config.heads, name)
            for key in ("prototypes", "bottleneck"):
                if getattr(asked, key) != getattr(theirs, key):
                    raise RecipeError(
                        f"heads.{name}.{key}: the recipe asks for {getattr(asked, key)}, the "
                        f"teacher {teacher.settings.name} has {getattr(theirs, key)}. Students "
                        "take the teacher's: leave `heads` out of the recipe."
                    )
    return mine


def check_recipe(config: DistillConfig, teacher: Teacher) -> None:
    """Check that a recipe that names a teacher's architecture or weights means this teacher.

    Raises:
        RecipeError: it means another one.
    """
    given = config.model_fields_set
    loaded = teacher.loaded
    other = "model" in given and config.model != loaded.config
    recorded = config.teacher
    if other or (recorded is not None and recorded.sha256 != teacher.settings.sha256):
        raise RecipeError(
            f"model, teacher: the recipe was recorded with another teacher than "
            f"{teacher.settings.name}. Leave both out of the recipe; --teacher says who teaches."
        )


def student_contract(measured: InputContract, teacher: Teacher, tiles: str) -> InputContract:
    """Return what students demand of their input: the tiles, normalised as the teacher's were.

    Raises:
        BandError: the tiles have other bands than the teacher, or store them differently.
    """
    theirs = teacher.loaded.contract
    name = teacher.settings.name
    if measured.band_names != theirs.band_names:
        raise BandError(
            f"{tiles} has the bands {', '.join(measured.band_names)}, the teacher {name} was "
            f"trained on {', '.join(theirs.band_names)}. Choose its bands in its order with "
            "data.bands (or name them with data.band_names), or take another teacher."
        )
    if measured.dtype != theirs.dtype:
        raise BandError(
            f"{tiles} stores {measured.dtype}, the teacher {name} was trained on {theirs.dtype}: "
            "its statistics do not fit. Convert the tiles, or take a teacher of such tiles."
        )
    values: dict[str, Any] = {key: getattr(theirs, key) for key in ("mean", "std", "low", "high")}
    values["statistics"] = {**measured.statistics, "normalisation": f"that of the teacher {name}"}
    return measured.model_copy(update=values)
