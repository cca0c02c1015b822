"""From a run to its model folder; and back, from either to a model in memory."""

from collections.abc import Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from geodino.errors import CheckpointError, RecipeError, RunError, suggest
from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.card import ModelCard
from geodino.models.folder import LoadedModel, save_model
from geodino.models.foreign.to_onnx import save_onnx
from geodino.models.foreign.to_transformers import save_transformers
from geodino.models.heads import HeadConfig
from geodino.models.sizes import ModelConfig
from geodino.pretrain.objective import Network
from geodino.runs.build import build_network
from geodino.runs.init import descent
from geodino.runs.models import open_model
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
    facts = _write(
        to, out, backbone=loaded.backbone, contract=loaded.contract, config=loaded.config,
        heads=loaded.heads, head_configs=loaded.head_configs, card=card,
    )  # fmt: skip
    return {"model": str(out), **facts}


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
    if isinstance(load_recorded_any(folder.recipe), DistillConfig):
        # Imported here: what distils opens its teacher with `load` above.
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
    checkpoint = read_checkpoint(last)
    network = build_network(config, contract)
    state = checkpoint["state_dict"]
    prefix = "teacher."
    network.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    places = {"timm": folder.model, "hub": run / "hub", "onnx": run / "model.onnx"}
    target = places[to] if out is None else out
    facts = save_network(network, target, config=config, contract=contract, folder=folder, to=to)
    return {"model": str(target), "step": checkpoint["global_step"], **facts}


def _check_format(to: str) -> None:
    if to not in FORMATS:
        raise RecipeError(f"--to {to}: formats are {', '.join(FORMATS)}.{suggest(to, FORMATS)}")


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a resumable state; only tensors and plain values are ever unpickled.

    Raises:
        CheckpointError: the file is damaged or is no checkpoint of a run.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise RunError(f"{path} does not exist.") from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, UnpicklingError) as error:
        raise CheckpointError(
            f"{path} is damaged ({type(error).__name__}: {' '.join(str(error).split())[:200]}). "
            "Use an older step-*.ckpt beside it: copy it over last.ckpt."
        ) from error
    if not isinstance(state, dict) or "geodino" not in state:
        raise CheckpointError(f"{path} is not a checkpoint of a geodino run.")
    return state


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
