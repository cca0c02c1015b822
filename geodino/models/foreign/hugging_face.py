"""Folders in the layout of the Hugging Face hub, local or fetched."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from geodino.errors import CheckpointError, ContractError
from geodino.geo.contract import InputContract
from geodino.models.card import DINOV3_LICENSE, Parent, license_of
from geodino.models.folder import CONTRACT, LoadedModel, is_model_folder, load_model
from geodino.models.foreign.architecture import filled_backbone, model_config
from geodino.models.foreign.layouts import rename
from geodino.models.foreign.read import read_folder, read_json
from geodino.models.foreign.releases import release_contract, release_of, rgb_contract

HUB = "hub:"
"""What names of repositories begin with."""

PREPROCESSOR = "preprocessor_config.json"

LINEAGE = "lineage.json"
"""Weights that a model exported by geodino descends from."""

_WANTED = (
    "config.json",
    PREPROCESSOR,
    CONTRACT,
    LINEAGE,
    "README.md",
    "canopy.json",
    "*.safetensors",
    "*.index.json",
)

_EXPECTED = {
    "dinov3_vit": {"layer_norm_eps": 1e-5, "proj_bias": True, "mlp_bias": True},
    "dinov3_convnext": {"layer_norm_eps": 1e-6},
}
"""Settings that our models have no choice in."""


def fetch(name: str) -> Path:
    """Download a repository of the Hugging Face hub, or find it in its cache.

    Raises:
        CheckpointError: the library is missing, the repository cannot be read, or there is no
            network.
    """
    try:
        import huggingface_hub
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            RepositoryNotFoundError,
        )
    except ImportError:
        raise CheckpointError(
            f"hub:{name} needs huggingface_hub: `pip install geodino[hub]`, or give a folder that "
            "holds the repository."
        ) from None
    try:
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_WANTED)))
    except GatedRepoError as error:
        raise CheckpointError(
            f"hub:{name} is given to those who accepted its licence: open "
            f"https://huggingface.co/{name}, accept, then `hf auth login` on this machine."
        ) from error
    except RepositoryNotFoundError as error:
        raise CheckpointError(
            f"hub:{name}: there is no such repository, or it is private. Names are OWNER/NAME."
        ) from error
    except HFValidationError as error:
        raise CheckpointError(f"hub:{name} is no name of a repository: OWNER/NAME.") from error
    except (HfHubHTTPError, OSError) as error:
        raise CheckpointError(
            f"hub:{name} could not be fetched ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:160]}). Without a network, give a folder that holds "
            "the repository."
        ) from error


def open_folder(folder: Path, *, name: str) -> LoadedModel:
    """Open a folder with ``config.json`` and safetensors: ours, transformers' or timm's.

    Args:
        folder: the files.
        name: what the model is called, for its lineage.

    Raises:
        CheckpointError: it is another kind of model, or damaged.
    """
    if is_model_folder(folder):
        return load_model(folder)
    config = read_json(folder / "config.json")
    kind = str(config.get("model_type", config.get("architecture", "unknown")))
    if kind in _EXPECTED:
        check_settings(config, _EXPECTED[kind], folder)
    elif kind == "chmv2":
        raise CheckpointError(
            f"{folder} holds a canopy height model: give it to a command for canopy heights, or "
            "give the backbone's own repository."
        )
    elif "architecture" not in config:
        raise CheckpointError(
            f"{folder} holds a model of type {kind!r}; geodino opens dinov3_vit and "
            "dinov3_convnext, and timm's DINOv3 models."
        )
    renamed = rename(read_folder(folder), source=str(folder))
    model = model_config(
        renamed,
        source=str(folder),
        heads=attention_heads(config, folder),
        base=float(config.get("rope_theta", 100.0)),
    )
    stem = "trunk.patch_embed.proj.weight" if model.family == "vit" else "trunk.stem.0.weight"
    contract = folder_contract(folder, config, bands=int(renamed.backbone[stem].shape[1]))
    if contract is None:
        contract = release_contract(release_of(model, None, source=name))
    backbone = filled_backbone(
        model, renamed.backbone, mean=contract.mean, std=contract.std, source=str(folder)
    )
    declared = folder_license(folder)
    lineage = folder_lineage(folder)
    if lineage is None:
        lineage = (Parent(name=name, license=declared, relation="converted from"),)
    return LoadedModel(
        backbone=backbone,
        heads={},
        contract=contract,
        config=model,
        head_configs={},
        license=license_of(declared, lineage),
        lineage=lineage,
    )


def check_settings(config: Mapping[str, Any], expected: Mapping[str, Any], folder: Path) -> None:
    """Refuse settings other than those expected.

    Raises:
        CheckpointError: the first that differs.
    """
    activation = "silu" if config.get("use_gated_mlp") else "gelu"
    for key, value in {**expected, "hidden_act": activation}.items():
        found = config.get(key, value)
        if found != value:
            raise CheckpointError(
                f"{folder / 'config.json'}: {key} is {found!r}, but geodino's models of this kind "
                f"have {value!r}; with another one the features would differ."
            )


def attention_heads(config: Mapping[str, Any], folder: Path) -> int | None:
    """Return how many attention heads a config names; None if it does not.

    Raises:
        CheckpointError: it is no number.
    """
    found = config.get("num_attention_heads")
    if found is not None and (not isinstance(found, int) or found < 1):
        raise CheckpointError(
            f"{folder / 'config.json'}: num_attention_heads is {found!r}, expected a number."
        )
    return found


def folder_contract(folder: Path, config: Mapping[str, Any], *, bands: int) -> InputContract | None:
    """The contract beside the weights, or the one their preprocessing says; None without either."""
    if (folder / CONTRACT).is_file():
        text = (folder / CONTRACT).read_text(encoding="utf-8")
        try:
            contract = InputContract.from_json(text, source=str(folder / CONTRACT))
        except ContractError as error:
            raise CheckpointError(str(error)) from error
        if len(contract.bands) != bands:
            raise CheckpointError(
                f"{folder / CONTRACT} describes {len(contract.bands)} bands, but the weights read "
                f"{bands}: the files belong to different models."
            )
        return contract
    mean, std, factor = None, None, 1 / 255
    if (folder / PREPROCESSOR).is_file():
        asked = read_json(folder / PREPROCESSOR)
        mean, std = asked.get("image_mean"), asked.get("image_std")
        factor = (
            float(asked.get("rescale_factor", factor)) if asked.get("do_rescale", True) else 1.0
        )
    elif isinstance(config.get("pretrained_cfg"), dict):
        mean, std = config["pretrained_cfg"].get("mean"), config["pretrained_cfg"].get("std")
    if mean is None or std is None:
        if bands == 3:
            return None
        raise CheckpointError(
            f"{folder} reads {bands} bands but does not say their mean and standard deviation: "
            f"add {PREPROCESSOR} with image_mean, image_std and rescale_factor."
        )
    if len(mean) != bands or len(std) != bands:
        raise CheckpointError(
            f"{folder}: mean and std have {len(mean)} and {len(std)} values for {bands} bands."
        )
    return rgb_contract(
        [v / factor for v in mean],
        [v / factor for v in std],
        dtype="float32" if factor == 1.0 else "uint8",
        origin=f"the configuration in {folder.name}",
    )


def folder_lineage(folder: Path) -> tuple[Parent, ...] | None:
    """What geodino wrote about a model it exported for the hub; None if it did not."""
    if not (folder / LINEAGE).is_file():
        return None
    try:
        parents = read_json(folder / LINEAGE)["lineage"]
        return tuple(Parent.model_validate(parent) for parent in parents)
    except (KeyError, TypeError, ValidationError) as error:
        raise CheckpointError(
            f"{folder / LINEAGE} does not name the parents of the model ({error}): export it again."
        ) from error


def folder_license(folder: Path) -> str:
    """The licence the folder's model card declares, else that of the release."""
    path = folder / "README.md"
    if not path.is_file():
        return DINOV3_LICENSE
    parts = path.read_text(encoding="utf-8").split("---\n")
    try:
        head = yaml.safe_load(parts[1]) if len(parts) > 2 and not parts[0].strip() else {}
    except yaml.YAMLError:
        raise CheckpointError(
            f"{path} begins with YAML that cannot be read, where its licence stands: mend it."
        ) from None
    head = head if isinstance(head, dict) else {}
    declared = str(head.get("license", DINOV3_LICENSE))
    return str(head.get("license_name", DINOV3_LICENSE)) if declared == "other" else declared
