"""From a run to its model folder; and back, from either to a model in memory."""

from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from geodino.errors import CheckpointError, RecipeError, RunError
from geodino.geo.contract import InputContract
from geodino.models.folder import LoadedModel, save_model
from geodino.pretrain.objective import Network
from geodino.runs.build import build_network
from geodino.runs.models import open_model
from geodino.runs.recipe import RunConfig, load_recorded
from geodino.runs.record import RunFolder

FORMATS = ("timm",)


def load(model: str | Path) -> LoadedModel:
    """Open a model; MODEL may have any of the forms that ``runs.models.open_model`` takes.

    Returns:
        The backbone in evaluation mode with its heads, contract and licence lineage. Its
        ``backbone.tokens(image, valid)`` takes stored values ``[b c h w]``.

    Raises:
        CheckpointError: there is no model there, it is damaged, or it cannot be fetched.
    """
    return open_model(model).loaded


def export_run(run: Path, *, to: str = "timm", out: Path | None = None) -> dict[str, Any]:
    """Write the teacher of a run's newest checkpoint as a model folder.

    Raises:
        RecipeError: an unknown format.
        RunError: no run, or no checkpoint in it.
        CheckpointError: the checkpoint is damaged.
    """
    if to not in FORMATS:
        raise RecipeError(f"--to {to}: formats are {', '.join(FORMATS)}.")
    folder = RunFolder(run)
    folder.require()
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
    target = folder.model if out is None else out
    save_network(network, target, config=config, contract=contract, folder=folder)
    return {"model": str(target), "step": checkpoint["global_step"]}


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
) -> None:
    """Write a network with its heads, contract and card."""
    heads = {"dino": network.dino_head}
    head_configs = {"dino": config.heads.dino}
    if network.ibot_head is not None:
        heads["ibot"] = network.ibot_head
        head_configs["ibot"] = config.heads.ibot
    save_model(
        target,
        backbone=network.backbone,
        heads=heads,
        contract=contract,
        config=config.model,
        head_configs=head_configs,
        card=_card(config, contract, folder),
    )


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
