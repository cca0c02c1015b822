"""Before the first step of a distillation: teacher, students and tiles are brought together."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from geodino.config import parse_overrides
from geodino.data.fit import enlarged
from geodino.data.index import build_index
from geodino.data.parallel import thread_count
from geodino.data.sources.find import absolute
from geodino.data.tiles import TileIndex
from geodino.errors import RecipeError
from geodino.runs.build import check_sizes, resolved_chip
from geodino.runs.distill.students import check_grids, choose_students, scales
from geodino.runs.distill.teacher import (
    Teacher,
    check_recipe,
    choose_targets,
    heads_of,
    open_teacher,
    student_contract,
)
from geodino.runs.prepare import (
    PreparedTraining,
    check_groups,
    fingerprint_of,
    look_at_tiles,
    with_batches,
    with_chips,
    with_recorded_sizes,
)
from geodino.runs.recipe import DistillConfig, load_distill_recipe

DEFAULT_RECIPE = "distill-sat"


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedDistillation(PreparedTraining):
    """Everything a distillation is, before it runs."""

    config: DistillConfig
    teacher: Teacher


def prepare(
    tiles: str,
    teacher: str,
    students: Sequence[str] | None,
    recipe: str | None,
    overrides: Sequence[str],
    *,
    devices: int = 1,
) -> PreparedDistillation:
    """Read the recipe, open the teacher, look at the tiles, settle what depends on them.

    Args:
        tiles: what the user called the tiles.
        teacher: MODEL.
        students: names; None takes those of the recipe.
        recipe: name or file; None is ``distill-sat``.
        overrides: ``key.path=value``.
        devices: how many devices share a batch.

    Raises:
        GeodinoError: whatever is wrong with recipe, teacher, students or tiles.
    """
    config = load_distill_recipe(recipe or DEFAULT_RECIPE, overrides)
    chosen = choose_students(config, students)
    opened = open_teacher(teacher)
    check_recipe(config, opened)
    derived: dict[str, Any] = {}
    config = _settled(config, opened, chosen, derived)
    check_sizes(config)
    check_grids(config)
    config, index = _tiles(tiles, config, opened, derived)
    index, measured = look_at_tiles(config, index)
    contract = student_contract(measured, opened, tiles)
    largest = max(1.0, *scales(config).values())
    config = with_chips(config, index, derived, scale=largest)
    shown = enlarged(index.tiles, resolved_chip(config))
    index = replace(index, notes=(*index.notes, *shown))
    if config.train.batch == "auto":
        raise RecipeError("train.batch: distillation has no automatic batch; give a number.")
    config = with_batches(config, devices, derived)
    check_groups(config, devices)
    return PreparedDistillation(
        config=config,
        index=index,
        contract=contract,
        source=absolute(tiles),
        fingerprint=fingerprint_of(config, index),
        derived=derived,
        teacher=opened,
    )


def asked_again(
    like: PreparedDistillation,
    students: Sequence[str] | None,
    recipe: str | None,
    overrides: Sequence[str],
) -> PreparedDistillation:
    """Return a recorded run as another command line asks for it, with what was derived then."""
    if recipe is None:
        values = parse_overrides(overrides)
        return replace(like, config=like.config.with_values(values))
    config = load_distill_recipe(recipe, overrides)
    chosen = dict(like.config.students)
    if students is not None:
        chosen = choose_students(config, students)
    config = _settled(config, like.teacher, chosen, {})
    if config.data.bands is None:
        config = config.with_values({"data": {"bands": like.config.data.bands}})
    return replace(like, config=with_recorded_sizes(config, like.config))


def _settled(
    config: DistillConfig, teacher: Teacher, chosen: dict[str, Any], derived: dict[str, Any]
) -> DistillConfig:
    """The recipe with teacher, students and the kind of targets written into it."""
    targets, reason = choose_targets(config, teacher)
    if config.distill.targets == "auto":
        derived["distill.targets"] = {"value": targets, "reason": reason}
    heads = heads_of(config, teacher) if targets == "heads" else {}
    values = {
        **config.model_dump(),
        "model": teacher.loaded.config.model_dump(),
        "heads": {name: settings.model_dump() for name, settings in heads.items()},
        "teacher": teacher.settings.model_dump(),
        "students": {name: model.model_dump() for name, model in chosen.items()},
        "distill": {**config.distill.model_dump(), "targets": targets},
    }
    settled = DistillConfig.parse(values, source="The recipe")
    phases: dict[str, Any] = {}
    for name, phase in settled.phases.all():
        if "ibot" not in heads and phase.objective.ibot > 0:
            phases.setdefault(name, {})["objective"] = {"ibot": 0.0}
            derived[f"phases.{name}.objective.ibot"] = {
                "value": 0.0,
                "reason": "patches are compared as features"
                if targets == "features"
                else "the teacher has no iBOT head",
            }
        if targets == "features" and phase.views.local_count:
            phases.setdefault(name, {})["views"] = {"local_count": 0}
            derived[f"phases.{name}.views.local_count"] = {
                "value": 0,
                "reason": "features are compared on the crops that the teacher saw",
            }
    return settled.with_values({"phases": phases}) if phases else settled


def _tiles(
    tiles: str, config: DistillConfig, teacher: Teacher, derived: dict[str, Any]
) -> tuple[DistillConfig, TileIndex]:
    """List the tiles; where they hold more bands than the teacher read, take the teacher's."""
    threads = thread_count("auto")
    index = build_index(tiles, config.data, threads=threads)
    wanted = teacher.loaded.contract.band_names
    have = tuple(band.name for band in index.bands)
    if config.data.bands is None and have != wanted and set(wanted) <= set(have):
        config = config.with_values({"data": {"bands": wanted}})
        derived["data.bands"] = {"value": list(wanted), "reason": "those the teacher reads"}
        index = build_index(tiles, config.data, threads=threads)
    return config, index
