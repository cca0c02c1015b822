"""CHMv2, Meta's canopy height model: in transformers' layout, or as the release's two files."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from geodino.errors import CheckpointError
from geodino.geo.contract import InputContract
from geodino.models.canopy import CanopyConfig, CanopyModel
from geodino.models.canopy_folder import LoadedCanopy
from geodino.models.card import Parent, license_of
from geodino.models.convert import Rule, convert
from geodino.models.decoders.bins import BinsConfig, Spacing, Weighting
from geodino.models.decoders.dpt import DptConfig, Readout
from geodino.models.foreign.architecture import (
    check_shapes,
    fill,
    filled_backbone,
    model_config,
)
from geodino.models.foreign.dpt_names import REFERENCE_DPT, TRANSFORMERS_DPT
from geodino.models.foreign.hugging_face import (
    attention_heads,
    check_settings,
    folder_contract,
    folder_license,
    folder_lineage,
)
from geodino.models.foreign.layouts import Renamed, rename
from geodino.models.foreign.read import read_file, read_folder, read_json
from geodino.models.foreign.releases import CHMV2, contract_of, license_of_file

MODEL_TYPE = "chmv2"

_SPACINGS: dict[str, Spacing] = {"chmv2_mixlog": "mixlog", "log": "log", "linear": "linear"}

_WEIGHTINGS: dict[str, Weighting] = {
    "chmv2_mixlog": "relu",
    "linear": "relu_floor",
    "softmax": "softmax",
    "sigmoid": "sigmoid",
}

_FIXED: dict[str, Any] = {"min_depth": 0.001, "reassemble_factors": [4, 2, 1, 0.5]}
"""Settings that our head and bins have no choice in."""

_BACKBONE_FIXED: dict[str, Any] = {
    "proj_bias": True,
    "mlp_bias": True,
    "apply_layernorm": True,
    "return_class_token": True,
}

_EPSILONS = (1e-5, 1e-6)
"""Of the backbone's norms. The release computes with 1e-5, and so do we, whatever the file says;
transformers' default for CHMv2 is 1e-6, which on random weights of the whole model moved heights of
about 34 m by up to 0.05 m."""


def is_chmv2_folder(folder: Path) -> bool:
    """Whether a folder holds CHMv2 in transformers' layout."""
    path = folder / "config.json"
    return path.is_file() and read_json(path).get("model_type") == MODEL_TYPE


def open_chmv2_folder(folder: Path, *, name: str) -> LoadedCanopy:
    """Open ``CHMv2ForDepthEstimation`` as transformers saves it.

    Args:
        folder: ``config.json`` and safetensors.
        name: what the model is called, for its lineage.

    Raises:
        CheckpointError: it is damaged, or has settings that our model has no place for.
    """
    config = read_json(folder / "config.json")
    inner = config.get("backbone_config")
    if not isinstance(inner, dict):
        raise CheckpointError(f"{folder / 'config.json'} has no `backbone_config`: get it again.")
    _check(config, inner, folder)
    state = read_folder(folder)
    parts = {"backbone": dict[str, Tensor](), "head": dict[str, Tensor]()}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        if part not in parts:
            raise CheckpointError(
                f"{folder}: {key} belongs to neither backbone nor head: these are no weights of "
                "CHMv2ForDepthEstimation."
            )
        parts[part][rest] = value
    renamed = rename(parts["backbone"], source=str(folder))
    contract = folder_contract(folder, {}, bands=_bands(renamed)) or contract_of(CHMV2, "CHMv2")
    contract = contract.model_copy(update={"gsd_m": CHMV2.gsd_m})
    declared = folder_license(folder)
    lineage = folder_lineage(folder)
    if lineage is None:
        lineage = (Parent(name=name, license=declared, relation="converted from"),)
    bins = BinsConfig(
        ceiling_m=float(config.get("max_depth", 96.0)),
        spacing=_SPACINGS[config.get("bins_strategy", "chmv2_mixlog")],
        weighting=_WEIGHTINGS[config.get("norm_strategy", "chmv2_mixlog")],
    )
    return _assembled(
        renamed,
        parts["head"],
        TRANSFORMERS_DPT,
        source=str(folder),
        contract=contract,
        bins=bins,
        readout=config.get("readout_type", "project"),
        taps=[int(i) - 1 for i in inner.get("out_indices", ())] or None,
        heads=attention_heads(inner, folder),
        base=float(inner.get("rope_theta", 100.0)),
        license=license_of(declared, lineage),
        lineage=lineage,
    )


def open_chmv2_files(backbone: Path, head: Path) -> LoadedCanopy:
    """Open the release's backbone and canopy head, each a file of tensors.

    Raises:
        CheckpointError: one is damaged, is something else, or they do not fit each other.
    """
    source = f"{backbone}+{head}"
    renamed = rename(read_file(backbone), source=str(backbone))
    if renamed.layout.family != "vit":
        raise CheckpointError(f"{backbone} holds a ConvNeXt; CHMv2's head stands on a ViT.")
    license = license_of_file(is_noncommercial=renamed.is_noncommercial)
    lineage = tuple(
        Parent(name=path.name, license=license, relation="converted from")
        for path in (backbone, head)
    )
    return _assembled(
        renamed,
        read_file(head),
        REFERENCE_DPT,
        source=source,
        contract=contract_of(CHMV2, "CHMv2"),
        bins=BinsConfig(),
        readout="project",
        taps=None,
        license=license,
        lineage=lineage,
    )


def _assembled(
    renamed: Renamed,
    head: Mapping[str, Tensor],
    rules: tuple[Rule, ...],
    *,
    source: str,
    contract: InputContract,
    bins: BinsConfig,
    readout: Readout,
    taps: list[int] | None,
    license: str,
    lineage: tuple[Parent, ...],
    heads: int | None = None,
    base: float = 100.0,
) -> LoadedCanopy:
    """Put a backbone and a head together whose tensors are known but whose sizes are not."""
    ours = convert(head, rules, source=f"{source} (head)")
    size = model_config(renamed, source=source, heads=heads, base=base)
    config = _canopy_config(ours, bins=bins, readout=readout, taps=taps, source=source)
    backbone = filled_backbone(
        size, renamed.backbone, mean=contract.mean, std=contract.std, source=source
    )
    model = CanopyModel(backbone, config)
    what = f"a canopy head on {backbone.dim} features"
    check_shapes(ours, model.head.state_dict(), what=what, source=f"{source} (head)")
    fill(model.head, ours)
    model.freeze()
    return LoadedCanopy(
        model=model.eval(), contract=contract, license=license, lineage=lineage, extra={}
    )


def _canopy_config(
    head: Mapping[str, Tensor],
    *,
    bins: BinsConfig,
    readout: Readout,
    taps: list[int] | None,
    source: str,
) -> CanopyConfig:
    """Read the widths off the shapes of a head's tensors."""
    needed = {f"project.{i}.weight" for i in range(4)} | {"reduce.0.weight", "out.weight"}
    needed |= {"readout.0.weight"} if readout == "project" else set()
    if lacking := needed - head.keys():
        raise CheckpointError(
            f"{source}: the head lacks {min(lacking)} and more: it is not CHMv2's but that of "
            "another task, or incomplete."
        )
    first, second, third, fourth = (len(head[f"project.{i}.weight"]) for i in range(4))
    outputs, hidden = head["out.weight"].shape[:2]
    dpt = DptConfig(
        taps=None if taps is None else (taps[0], taps[1], taps[2], taps[3]),
        readout=readout,
        channels=(first, second, third, fourth),
        fusion=len(head["reduce.0.weight"]),
        hidden=int(hidden),
        enlarge="corners",
    )
    return CanopyConfig(head=dpt, bins=bins.model_copy(update={"count": int(outputs)}))


def _bands(renamed: Renamed) -> int:
    return int(renamed.backbone["trunk.patch_embed.proj.weight"].shape[1])


def _check(config: Mapping[str, Any], inner: Mapping[str, Any], folder: Path) -> None:
    """Refuse settings that change the heights and that we cannot give."""
    path = folder / "config.json"
    if inner.get("model_type", "dinov3_vit") != "dinov3_vit":
        raise CheckpointError(f"{path}: its backbone is of type {inner['model_type']!r}, no ViT.")
    check_settings(inner, _BACKBONE_FIXED, folder)
    epsilon = inner.get("layer_norm_eps", _EPSILONS[0])
    if epsilon not in _EPSILONS:
        raise CheckpointError(
            f"{path}: layer_norm_eps is {epsilon!r}, but CHMv2's is one of {_EPSILONS}."
        )
    for key, value in _FIXED.items():
        if config.get(key, value) != value:
            raise CheckpointError(
                f"{path}: {key} is {config[key]!r}, but a canopy head of geodino has {value!r}."
            )
    spacing = config.get("bins_strategy", "chmv2_mixlog")
    weighting = config.get("norm_strategy", "chmv2_mixlog")
    readout = config.get("readout_type", "project")
    known = spacing in _SPACINGS and weighting in _WEIGHTINGS
    # transformers takes bins for eighths in one of the two places, and back in the other.
    agree = (spacing == "chmv2_mixlog") == (weighting == "chmv2_mixlog")
    if not known or not agree or readout not in ("project", "add", "ignore"):
        raise CheckpointError(
            f"{path}: bins_strategy {spacing!r}, norm_strategy {weighting!r} and readout_type "
            f"{readout!r} are no canopy model that geodino can give the same heights for."
        )
    taps = inner.get("out_indices")
    if taps is not None and len(taps) != 4:
        raise CheckpointError(f"{path}: out_indices are {taps}, but a canopy head has four taps.")
