"""Which students there are: names from the command line, settings from the recipe."""

import re
from collections.abc import Sequence

from geodino.errors import RecipeError
from geodino.models.sizes import ModelConfig
from geodino.models.timm_backbone import check_side
from geodino.runs.recipe import DistillConfig

_NAME = re.compile(r"[A-Za-z0-9_-]+")


def choose_students(config: DistillConfig, names: Sequence[str] | None) -> dict[str, ModelConfig]:
    """Return the students by name.

    Args:
        config: its ``students`` have settings of their own.
        names: those that are wanted; None takes all of the recipe.

    Raises:
        RecipeError: none is named, one twice, or an unknown one.
    """
    if names is None and not config.students:
        raise RecipeError(
            "--students names nobody: give names of the table or of timm, with commas, such as "
            "vit_tiny,convnext_atto,timm:resnet18."
        )
    wanted = list(config.students) if names is None else [_bare(name) for name in names]
    if not wanted or "" in wanted:
        raise RecipeError(
            "--students has an empty name: give names of the table or of timm, with commas, such "
            "as vit_tiny,convnext_atto,timm:resnet18."
        )
    twice = sorted({name for name in wanted if wanted.count(name) > 1})
    if twice:
        raise RecipeError(
            f"--students names {', '.join(twice)} more than once: a student learns the same each "
            "time. Leave the others out, or give them settings of their own under `students` in "
            "the recipe."
        )
    chosen = {name: _settings(config, name) for name in wanted}
    odd = [name for name in chosen if not _NAME.fullmatch(name)]
    if odd:
        raise RecipeError(
            f"students.{odd[0]}: a student's name becomes a folder; use letters, digits, _ and -."
        )
    return chosen


def scales(config: DistillConfig) -> dict[str, float]:
    """Return the sides of each student's crops as multiples of the teacher's.

    Student and teacher then have the same grid of patches on the same ground.
    """
    stride = config.model.stride
    return {name: model.stride / stride for name, model in config.students.items()}


def check_grids(config: DistillConfig) -> None:
    """Check that each student lays the grid of its teacher over every crop.

    Raises:
        RecipeError: a network of timm that does not.
    """
    for name, scale in scales(config).items():
        model = config.students[name]
        if model.family != "timm":
            continue
        for _, phase in config.phases.active():
            sides = {sizes.global_size for sizes in phase.choices}
            if phase.views.local_count:
                sides |= {sizes.local_size for sizes in phase.choices}
            for side in sorted(sides):
                check_side(model.name, round(side * scale), side // config.model.stride)


def _bare(name: str) -> str:
    return name.strip().removeprefix("timm:")


def _settings(config: DistillConfig, name: str) -> ModelConfig:
    if name in config.students:
        return config.students[name]
    return ModelConfig.parse({"name": name}, source=f"--students {name}")
