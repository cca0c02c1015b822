"""From the moving averages of students to their model folders."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from geodino.errors import RecipeError, RunError
from geodino.models.card import ModelCard
from geodino.models.folder import save_model
from geodino.pretrain.distill.features import Imitator
from geodino.pretrain.objective import Network
from geodino.runs.checkpoints import read_checkpoint
from geodino.runs.distill.build import build_student
from geodino.runs.distill.prepare import PreparedDistillation
from geodino.runs.distill.students import scales
from geodino.runs.record import RunFolder


def save_students(
    networks: Mapping[str, nn.Module], prepared: PreparedDistillation, folder: RunFolder
) -> None:
    """Write each student to ``students/NAME``, and the first one to ``model`` as well."""
    for number, (name, network) in enumerate(networks.items()):
        places = [folder.students / name, *([folder.model] if number == 0 else [])]
        for place in places:
            save_student(network, name, place, prepared=prepared, folder=folder)


def save_student(
    network: nn.Module,
    name: str,
    target: Path,
    *,
    prepared: PreparedDistillation,
    folder: RunFolder,
) -> None:
    """Write one student with its heads, the teacher's normalisation, and its lineage.

    Projections to the teacher's features are left behind: they serve nobody else.
    """
    config = prepared.config
    heads: dict[str, nn.Module] = {}
    if isinstance(network, Network):
        heads = {"dino": network.dino_head}
        if network.ibot_head is not None:
            heads["ibot"] = network.ibot_head
    elif not isinstance(network, Imitator):
        raise TypeError(f"not a student: {type(network).__name__}")
    save_model(
        target,
        backbone=network.backbone,
        heads=heads,
        contract=prepared.contract,
        config=config.students[name],
        head_configs={kind: getattr(config.heads, kind) for kind in heads},
        card=_card(name, prepared, folder),
    )


def export_distillation(
    prepared: PreparedDistillation, folder: RunFolder, *, out: Path | None = None
) -> dict[str, Any]:
    """Write the students of a run's newest checkpoint.

    Args:
        prepared: the run.
        folder: where it lies.
        out: another place: one folder a student in it.

    Raises:
        RunError: there is no checkpoint.
        CheckpointError: the checkpoint is damaged.
    """
    last = folder.last_checkpoint()
    if last is None:
        raise RunError(f"{folder.root} has no checkpoint yet: there is nothing to export.")
    checkpoint = read_checkpoint(last)
    networks = {name: build_student(prepared, name) for name in prepared.config.students}
    for name, network in networks.items():
        prefix = f"averages.{name}."
        state = checkpoint["state_dict"]
        network.load_state_dict(
            {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        )
    if out is None:
        save_students(networks, prepared, folder)
    else:
        for name, network in networks.items():
            save_student(network, name, out / name, prepared=prepared, folder=folder)
    places = folder.students if out is None else out
    return {
        "model": str(folder.model if out is None else out / next(iter(networks))),
        "students": {name: str(places / name) for name in networks},
        "step": checkpoint["global_step"],
    }


def check_format(to: str) -> None:
    """Check that students can be written in a form.

    Raises:
        RecipeError: only as model folders by now; each of those can be exported further.
    """
    if to != "timm":
        raise RecipeError(
            f"--to {to}: a run of distillation exports model folders. Export one of its students: "
            "`geodino export RUN/students/NAME`."
        )


def _card(name: str, prepared: PreparedDistillation, folder: RunFolder) -> dict[str, Any]:
    config = prepared.config
    steps, batch = config.phases.steps, config.train.batch
    teacher = prepared.teacher
    size = round(config.phases.first.views.global_size * scales(config)[name])
    tiles = prepared.contract.statistics.get("tiles")
    return ModelCard(
        name=f"{folder.root.resolve().name}-{name}",
        description=(
            f"{config.students[name].name} distilled from {teacher.settings.name} for {steps} "
            f"steps of {batch} samples: {config.description}"
        ),
        data=f"{tiles} tiles; their list is tiles.parquet in the run folder.",
        training=(
            f"Targets: {config.distill.targets} of the teacher; the weights are the moving average "
            f"of the student's. Seed {config.train.seed}."
        ),
        lineage=teacher.lineage,
        image_size=size,
    ).model_dump()
