"""The model folder: weights plain timm opens, and beside them all that is needed to go on.

``model.safetensors`` and ``config.json`` are what ``timm.create_model("local-dir:FOLDER",
pretrained=True)`` reads; ``heads.safetensors`` holds projection heads, mask token and local CLS
norm; ``contract.json``, ``item.json`` and ``README.md`` say what the model is. Only safetensors,
JSON and text: nothing in the folder is ever unpickled.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from geodino import files
from geodino.errors import CheckpointError, ContractError
from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.build import assemble, materialise
from geodino.models.card import VERSION, ModelCard, Parent, readme, stac_item
from geodino.models.heads import HeadConfig, ProjectionHead
from geodino.models.sizes import ModelConfig

WEIGHTS, HEADS = "model.safetensors", "heads.safetensors"
CONFIG, CONTRACT, ITEM, README = "config.json", "contract.json", "item.json", "README.md"

_OURS = "geodino"
"""Key of our section in timm's ``config.json``; timm ignores it."""


_NAMES: dict[str, tuple[str | None, str | None]] = {
    "vit": ("patch_embed.proj", "head"),
    "convnext": ("stem.0", "head.fc"),
    "timm": (None, None),
}
"""What timm calls the first convolution and the classifier, by family."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadedModel:
    """A model folder in memory."""

    backbone: Backbone
    """On the CPU, in evaluation mode."""

    heads: dict[str, ProjectionHead]
    """Projection heads by the names they were saved under; empty if none were."""

    contract: InputContract
    config: ModelConfig
    head_configs: dict[str, HeadConfig]

    license: str
    """Licence the weights carry."""

    lineage: tuple[Parent, ...]
    """Weights they descend from."""


def save_model(
    folder: Path | str,
    *,
    backbone: Backbone,
    heads: Mapping[str, nn.Module] | None,
    contract: InputContract,
    config: ModelConfig,
    head_configs: Mapping[str, HeadConfig] | None,
    card: ModelCard | Mapping[str, Any],
) -> None:
    """Write a model folder; each file is whole or absent.

    Args:
        folder: made if missing; files of an earlier model in it are replaced.
        backbone: with all of its weights in this process.
        heads: projection heads by name, or None.
        contract: what the model demands of its input.
        config: what the backbone was built from.
        head_configs: what each head was built from, by the same names.
        card: what its maker says about it.

    Raises:
        RecipeError: the card has unknown or wrong entries.
        RunError: the folder cannot be written.
        ValueError: heads and their configs do not have the same names.
    """
    folder = Path(folder)
    heads, head_configs = dict(heads or {}), dict(head_configs or {})
    if heads.keys() != head_configs.keys():
        raise ValueError(f"heads {sorted(heads)} but head configs {sorted(head_configs)}")
    if not isinstance(card, ModelCard):
        card = ModelCard.parse(card, source="The model card")
    architecture = config.size.architecture
    parameters = sum(p.numel() for p in backbone.trunk.parameters())
    item = stac_item(
        card,
        contract,
        architecture=architecture,
        parameters=parameters,
        dim=backbone.dim,
        framework_version=str(torch.__version__),
        hyperparameters=config.model_dump(mode="json"),
    )
    files.write_text(folder / CONTRACT, contract.to_json() + "\n")
    files.write_json(folder / ITEM, item)
    page = readme(
        card,
        contract,
        architecture=architecture,
        parameters=parameters,
        stride=backbone.patch_size,
    )
    files.write_text(folder / README, page)
    save_tensors(folder / HEADS, _extras(backbone, heads))
    save_tensors(folder / WEIGHTS, backbone.trunk.state_dict())
    files.write_json(folder / CONFIG, _timm_config(backbone, contract, config, head_configs, card))


def is_model_folder(folder: Path | str) -> bool:
    """Whether geodino wrote a model into a folder."""
    path = Path(folder) / CONFIG
    if not path.is_file():
        return False
    try:
        return _OURS in json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError):
        # A damaged folder of ours is told apart by what only we write.
        return (path.parent / CONTRACT).is_file()


def load_model(folder: Path | str) -> LoadedModel:
    """Read a model folder, strictly: every tensor has its place and every place its tensor.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    ours = _ours(folder)
    try:
        contract = InputContract.from_json(
            read_text(folder / CONTRACT), source=str(folder / CONTRACT)
        )
    except ContractError as error:
        raise CheckpointError(str(error)) from error
    try:
        config = ModelConfig.model_validate(ours["model"])
        head_configs = {k: HeadConfig.model_validate(v) for k, v in ours["heads"].items()}
        lineage = tuple(Parent.model_validate(parent) for parent in ours["lineage"])
    except (ValidationError, KeyError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{folder / CONFIG} does not describe a model this version of geodino "
            f"({VERSION}) knows: {error}. It was written by version "
            f"{ours.get('version', 'unknown')}."
        ) from error
    backbone = assemble(config, mean=contract.mean, std=contract.std)
    materialise(backbone)
    heads = {name: ProjectionHead(backbone.dim, c) for name, c in head_configs.items()}
    load_tensors(folder / WEIGHTS, backbone.trunk.state_dict())
    load_tensors(folder / HEADS, _extras(backbone, heads))
    return LoadedModel(
        backbone=backbone.eval(),
        heads=heads,
        contract=contract,
        config=config,
        head_configs=head_configs,
        license=str(ours.get("license", "unknown")),
        lineage=lineage,
    )


def _extras(backbone: Backbone, heads: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """Tensors that are not timm's: heads by name, mask token, local CLS norm."""
    extras = {
        f"{name}.{k}": v for name, head in heads.items() for k, v in head.state_dict().items()
    }
    own = {k: v for k, v in backbone.state_dict().items() if not k.startswith("trunk.")}
    return extras | own


def _timm_config(
    backbone: Backbone,
    contract: InputContract,
    config: ModelConfig,
    head_configs: Mapping[str, HeadConfig],
    card: ModelCard,
) -> dict[str, Any]:
    args = config.timm_args(bands=backbone.bands)
    del args["num_classes"]
    # timm's loaders scale uint8 images to 0..1 before they normalise; other types stay as stored.
    scale = 255.0 if contract.dtype == "uint8" else 1.0
    vit = config.family == "vit"
    names = _NAMES[config.family]
    return {
        "architecture": config.size.architecture,
        "num_classes": 0,
        "num_features": backbone.dim,
        **({} if config.family == "timm" else {"global_pool": "token" if vit else "avg"}),
        "model_args": args,
        "pretrained_cfg": {
            "tag": "geodino",
            "custom_load": False,
            "input_size": [backbone.bands, card.image_size, card.image_size],
            "fixed_input_size": False,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": [value / scale for value in contract.mean],
            "std": [value / scale for value in contract.std],
            "num_classes": 0,
            "pool_size": None,
            "first_conv": names[0],
            "classifier": names[1],
            "license": card.effective_license,
        },
        _OURS: {
            "version": VERSION,
            "model": config.model_dump(mode="json"),
            "heads": {name: c.model_dump(mode="json") for name, c in head_configs.items()},
            "license": card.effective_license,
            "lineage": [parent.model_dump(mode="json") for parent in card.lineage],
        },
    }


def _ours(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG
    try:
        config = json.loads(read_text(path))
        ours = config[_OURS]
    except json.JSONDecodeError as error:
        raise CheckpointError(
            f"{path} is not JSON ({error}): export the model again, or restore the file."
        ) from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} has no {_OURS!r} section: this folder holds a model of another program. "
            "Open it with timm, or give a folder that geodino exported."
        ) from error
    if not isinstance(ours, dict):
        raise CheckpointError(f"{path}: its {_OURS!r} section is not an object; export it again.")
    return ours


def read_text(path: Path) -> str:
    """Read a text file of a model folder.

    Raises:
        CheckpointError: it is not there.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent} is not a model folder: it has no {path.name}. Give the `model` folder "
            "of a run, or export the run again."
        ) from error


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors; without any, remove what an earlier model left there."""
    if not tensors:
        path.unlink(missing_ok=True)
        return
    whole = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    files.write_with(path, lambda temporary: save_file(whole, temporary, {"format": "pt"}))


def load_tensors(path: Path, targets: Mapping[str, Tensor], *, described_in: str = CONFIG) -> None:
    """Copy a file's tensors into ``targets`` one by one; names and shapes must match exactly.

    Args:
        path: a safetensors file; it may be absent where nothing is wanted of it.
        targets: by the names in the file.
        described_in: the file beside it that says what it should hold.

    Raises:
        CheckpointError: the file is missing, damaged, or holds something else.
    """
    if not targets and not path.exists():
        return
    try:
        with safe_open(path, framework="pt") as stored:
            shapes = {k: tuple(stored.get_slice(k).get_shape()) for k in stored.keys()}  # noqa: SIM118
            wanted = {k: tuple(v.shape) for k, v in targets.items()}
            _check(path, shapes, wanted, described_in=described_in)
            with torch.no_grad():
                for name, target in targets.items():
                    target.copy_(stored.get_tensor(name))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path.parent} has no {path.name}: the model folder is incomplete. Export the run "
            "again, or restore the file."
        ) from error
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): restore it from a copy, or export the run again."
        ) from error


def _check(
    path: Path,
    found: Mapping[str, tuple[int, ...]],
    wanted: Mapping[str, tuple[int, ...]],
    *,
    described_in: str,
) -> None:
    missing, orphans = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    wrong = [k for k in wanted.keys() & found.keys() if wanted[k] != found[k]]
    if not (missing or orphans or wrong):
        return
    parts = [
        f"{len(names)} tensor(s) {what}, e.g. {min(names)}"
        for what, names in (("are missing", missing), ("have no place in the model", orphans))
        if names
    ]
    if wrong:
        first = min(wrong)
        parts.append(f"{first} has shape {found[first]} where the model has {wanted[first]}")
    raise CheckpointError(
        f"{path} does not fit the model its {described_in} describes: {'; '.join(parts)}. The files of "
        "the folder belong to different models; export the run again."
    )
