"""From a run to its model folder; and back, from either to a model in memory."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from geodino.errors import RecipeError, RunError, suggest
from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.card import ModelCard
from geodino.models.folder import LoadedModel, save_model
from geodino.models.foreign.to_onnx import save_onnx
from geodino.models.foreign.to_transformers import save_transformers
from geodino.models.heads import HeadConfig
from geodino.models.init import restore_buffers
from geodino.models.shards import is_spread, whole
from geodino.models.sizes import ModelConfig
from geodino.pretrain.objective import Network
from geodino.runs.checkpoints import read_checkpoint
from geodino.runs.finetune.config import LabelledConfig
from geodino.runs.finetune.deliver import delivered_of, export_headed
from geodino.runs.finetune.finished import export_finished
from geodino.runs.init import descent
from geodino.runs.models import open_model
from geodino.runs.networks import assemble_network
from geodino.runs.recipe import DistillConfig, RunConfig, load_recorded, load_recorded_any
from geodino.runs.record import RunFolder

FORMATS = ("timm", "hub", "onnx")
"""timm: geodino's own model folder, which timm opens. hub: a folder that transformers opens. onnx: a
file for any batch and size."""


def load(model: str | Path) -> LoadedModel:
    """Open a model; MODEL may have any of the forms that ``runs.models.open_model`` takes.

    Returns:
        The backbone in evaluation mode with its heads, contract and licence lineage. Its
        ``backbone.tokens(image, valid)`` takes stored values ``[b c h w]``.

    Raises:
        CheckpointError: there is no model there, it is damaged, or it cannot be fetched.
    """
    return open_model(model).loaded


def export_model(model: str | Path, *, to: str = "timm", out: Path | None = None) -> dict[str, Any]:
    """Write a model in another form: a run's newest checkpoint, or any other MODEL as it is.

    Raises:
        RecipeError: an unknown format, or a model that the format has no place for.
        RunError: no checkpoint, no ``out`` for a model that is no run, or a library is missing.
        CheckpointError: there is no model, or it is damaged.
    """
    if RunFolder(Path(model)).recipe.is_file():
        return export_run(Path(model), to=to, out=out)
    _check_format(to)
    if delivered_of(model) is not None:
        return export_headed(Path(model), to=to, out=None if out is None else _placed(out, to))
    opened = open_model(model)
    if out is None:
        raise RunError(f"{model} is no run folder: say with --out where the export goes.")
    loaded = opened.loaded
    card = {
        "name": opened.name,
        "description": f"{loaded.config.name}, converted from {opened.name}.",
        "license": loaded.license,
        "lineage": [parent.model_dump() for parent in loaded.lineage],
        "image_size": opened.image_size or ModelCard().image_size,
    }
    target = _placed(out, to)
    facts = _write(
        to, target, backbone=loaded.backbone, contract=loaded.contract, config=loaded.config,
        heads=loaded.heads, head_configs=loaded.head_configs, card=card,
    )  # fmt: skip
    return {"model": str(target), **facts}


def export_run(run: Path, *, to: str = "timm", out: Path | None = None) -> dict[str, Any]:
    """Write the teacher of a run's newest checkpoint as a model folder or file.

    Raises:
        RecipeError: an unknown format.
        RunError: no run, or no checkpoint in it.
        CheckpointError: the checkpoint is damaged.
    """
    _check_format(to)
    folder = RunFolder(run)
    folder.require()
    recorded = load_recorded_any(folder.recipe)
    if isinstance(recorded, LabelledConfig):
        placed = None if out is None else _placed(out, to)
        return export_finished(folder, recorded, to=to, out=placed)
    if isinstance(recorded, DistillConfig):
        # Imported here: they stand on training, which exports by this module.
        from geodino.runs.distill.export import check_format, export_distillation
        from geodino.runs.distill.job import read_distillation

        check_format(to)
        return export_distillation(read_distillation(folder), folder, out=out)
    config = load_recorded(folder.recipe)
    contract = InputContract.from_json(
        folder.contract.read_text(encoding="utf-8"), source=folder.contract
    )
    last = folder.last_checkpoint()
    if last is None:
        raise RunError(f"{run} has no checkpoint yet: there is nothing to export.")
    prefix = "teacher."
    checkpoint = read_checkpoint(last, only=prefix)
    network = _empty_network(config, contract)
    state = checkpoint["state_dict"]
    network.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    places = {"timm": folder.model, "hub": run / "hub", "onnx": run / "model.onnx"}
    target = places[to] if out is None else _placed(out, to)
    facts = save_network(network, target, config=config, contract=contract, folder=folder, to=to)
    return {"model": str(target), "step": checkpoint["global_step"], **facts}


def _placed(out: Path, to: str) -> Path:
    """Return where an export goes: an ONNX file lies in the folder, unless ``out`` names a file."""
    return out / "model.onnx" if to == "onnx" and out.suffix != ".onnx" else out


def _check_format(to: str) -> None:
    if to not in FORMATS:
        raise RecipeError(f"--to {to}: formats are {', '.join(FORMATS)}.{suggest(to, FORMATS)}")


def whole_network(network: Network, config: RunConfig, contract: InputContract) -> Network:
    """Return a network with all of its weights in this process.

    Where it is spread all processes call this together; a copy on the CPU is made, one
    parameter after the other, in the first process only; the others get back what they gave.
    """
    if not any(is_spread(p) for p in network.parameters()):
        return network
    first = dist.get_rank() == 0
    copy = _empty_network(config, contract) if first else network
    with torch.no_grad():
        for mine, spread in zip(copy.parameters(), network.parameters(), strict=True):
            values = whole(spread)
            if first:
                mine.copy_(values)
    return copy


def _empty_network(config: RunConfig, contract: InputContract) -> Network:
    """Build a network on the CPU whose parameters hold anything yet."""
    network = assemble_network(config, contract).to_empty(device="cpu")
    restore_buffers(network.backbone)
    return network


def save_network(
    network: Network,
    target: Path,
    *,
    config: RunConfig,
    contract: InputContract,
    folder: RunFolder,
    to: str = "timm",
) -> dict[str, Any]:
    """Write a network with its contract and card, and its heads where the format has a place."""
    heads = {"dino": network.dino_head}
    head_configs = {"dino": config.heads.dino}
    if network.ibot_head is not None:
        heads["ibot"] = network.ibot_head
        head_configs["ibot"] = config.heads.ibot
    card = _card(config, contract, folder) | descent(folder)
    return _write(
        to, target, backbone=network.backbone, contract=contract, config=config.model,
        heads=heads, head_configs=head_configs, card=card,
    )  # fmt: skip


def _write(
    to: str,
    target: Path,
    *,
    backbone: Backbone,
    contract: InputContract,
    config: ModelConfig,
    heads: Mapping[str, nn.Module],
    head_configs: Mapping[str, HeadConfig],
    card: Mapping[str, Any],
) -> dict[str, Any]:
    """Write one form of a model; return what is worth telling."""
    if to == "timm":
        save_model(
            target, backbone=backbone, heads=heads, contract=contract, config=config,
            head_configs=head_configs, card=card,
        )  # fmt: skip
        return {}
    parsed = ModelCard.parse(card, source="The model card")
    if to == "hub":
        save_transformers(target, backbone=backbone, contract=contract, card=parsed)
        return {}
    differences = save_onnx(target, backbone=backbone, contract=contract, card=parsed)
    return {"difference_to_torch": differences}


def _card(config: RunConfig, contract: InputContract, folder: RunFolder) -> dict[str, Any]:
    tiles = contract.statistics.get("tiles")
    steps = config.phases.steps
    return {
        "name": folder.root.resolve().name,
        "description": (
            f"{config.model.name} pretrained without labels for {steps} steps of "
            f"{config.train.batch} samples: {config.description}"
        ),
        "data": f"{tiles} tiles; their list is tiles.parquet in the run folder.",
        "image_size": config.phases.first.views.global_size,
    }
