"""One door for models that were not made here."""

from pathlib import Path

from geodino.errors import CheckpointError
from geodino.models.card import Parent
from geodino.models.folder import LoadedModel, is_model_folder
from geodino.models.foreign.architecture import (
    filled_backbone,
    filled_head,
    head_config,
    model_config,
)
from geodino.models.foreign.hugging_face import fetch, open_folder
from geodino.models.foreign.layouts import rename
from geodino.models.foreign.read import SUFFIXES, read_file
from geodino.models.foreign.releases import license_of_file, release_contract, release_of

_TIMM, _HUB = "timm:", "hub:"


def is_foreign(model: str | Path) -> bool:
    """Whether ``open_foreign`` is what opens ``model``; else it is a run or a model folder."""
    text = str(model)
    if text.startswith((_TIMM, _HUB)) or _file(text)[0].suffix in SUFFIXES:
        return True
    folder = Path(text)
    return (folder / "config.json").is_file() and not is_model_folder(folder)


def open_foreign(model: str) -> LoadedModel:
    """Open a model that was not made by geodino.

    Args:
        model: ``timm:NAME.TAG``, ``hub:OWNER/NAME``, a folder in the layout of the Hugging Face
            hub, or a file of Meta's, transformers' or timm's, recognised by its keys. After a
            file, ``@lvd1689m`` or ``@sat493m`` says which images it was trained on, where its
            tensors do not.

    Returns:
        The model with the statistics of its release, its licence and its lineage. Training
        checkpoints bring their heads.

    Raises:
        CheckpointError: it cannot be fetched or read, or is no model that geodino can build.
    """
    if model.startswith(_TIMM):
        from geodino.models.foreign.timm_tag import open_tag

        return open_tag(model.removeprefix(_TIMM))
    if model.startswith(_HUB):
        name = model.removeprefix(_HUB)
        return open_folder(fetch(name), name=name)
    path, images = _file(model)
    if path.suffix in SUFFIXES:
        return _open_file(path, images)
    folder = Path(model)
    if not folder.is_dir():
        raise CheckpointError(
            f"{model} is no model: give a run or model folder, timm:NAME.TAG, hub:OWNER/NAME, or a "
            f"weights file ({', '.join(SUFFIXES)})."
        )
    return open_folder(folder, name=folder.resolve().name)


def _file(model: str) -> tuple[Path, str | None]:
    """The path, and the images named after its last ``@``."""
    path, at, images = model.rpartition("@")
    if at and Path(path).suffix in SUFFIXES:
        return Path(path), images
    return Path(model), None


def _open_file(path: Path, images: str | None) -> LoadedModel:
    source = str(path)
    renamed = rename(read_file(path), source=source)
    config = model_config(renamed, source=source)
    contract = release_contract(release_of(config, images, source=source))
    backbone = filled_backbone(
        config, renamed.backbone, mean=contract.mean, std=contract.std, source=source
    )
    head_configs = {
        name: head_config(state, source=source) for name, state in renamed.heads.items()
    }
    heads = {
        name: filled_head(head_configs[name], state, dim=backbone.dim, source=source)
        for name, state in renamed.heads.items()
    }
    license = license_of_file(is_noncommercial=renamed.is_noncommercial)
    parent = Parent(name=path.name, license=license, relation="converted from")
    return LoadedModel(
        backbone=backbone,
        heads=heads,
        contract=contract,
        config=config,
        head_configs=head_configs,
        license=license,
        lineage=(parent,),
    )
