"""timm's published DINOv3 models, opened by name and tag."""

from typing import Any

import timm
from timm.models import get_pretrained_cfg

from geodino.errors import CheckpointError, suggest
from geodino.geo.contract import InputContract
from geodino.models.build import wrap
from geodino.models.card import Parent
from geodino.models.folder import LoadedModel
from geodino.models.foreign.releases import RELEASES, rgb_contract
from geodino.models.init import restore_buffers
from geodino.models.sizes import SIZES, ModelConfig

_MARKS = ("dinov3", "eupe")


def tags() -> list[str]:
    """Return every ``NAME.TAG`` of timm's that can be opened."""
    return [
        name
        for name in timm.list_models(pretrained=True)
        if any(mark in name for mark in _MARKS) and name.partition(".")[0] in SIZES
    ]


def open_tag(name: str) -> LoadedModel:
    """Let timm fetch and load a model, and put it behind our interface.

    The mask token is not part of timm's models: it starts from zeros.

    Raises:
        CheckpointError: an unknown name, or weights that timm cannot fetch or load.
    """
    known = tags()
    if name not in known:
        raise CheckpointError(
            f"timm:{name} is no DINOv3 model of timm's.{suggest(name, known)} Known: "
            f"{', '.join(known)}."
        )
    architecture = name.partition(".")[0]
    config = ModelConfig(name=architecture)
    try:
        trunk = _create(name, **config.timm_args(bands=3))
    except (OSError, RuntimeError, ValueError) as error:
        raise CheckpointError(
            f"timm:{name} could not be loaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}). It comes from the Hugging Face hub: check the "
            f"network, and that you accepted its licence; or fetch https://huggingface.co/timm/"
            f"{name} elsewhere and give the folder."
        ) from error
    contract = tag_contract(name)
    backbone = wrap(trunk, config=config, mean=contract.mean, std=contract.std)
    restore_buffers(backbone)
    license = str(_cfg(name).license)
    parent = Parent(name=f"timm/{name}", license=license, relation="converted from")
    return LoadedModel(
        backbone=backbone.eval(),
        heads={},
        contract=contract,
        config=config,
        head_configs={},
        license=license,
        lineage=(parent,),
    )


def tag_contract(name: str) -> InputContract:
    """Return the contract of a tag: the statistics timm lists, for bytes."""
    cfg = _cfg(name)
    images = next((images for images in RELEASES if images in name), None)
    return rgb_contract(
        [255 * v for v in cfg.mean],
        [255 * v for v in cfg.std],
        gsd_m=RELEASES[images].gsd_m if images else None,
        origin=f"timm's configuration of {name}",
    )


def _cfg(name: str) -> Any:
    return get_pretrained_cfg(name)


def _create(name: str, **args: Any) -> Any:
    return timm.create_model(name, pretrained=True, **args)
