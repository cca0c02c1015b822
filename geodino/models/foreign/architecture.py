"""Which of our models a set of tensors is: read off the shapes, never guessed."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from geodino.errors import CheckpointError
from geodino.models.backbone import Backbone
from geodino.models.build import assemble, materialise
from geodino.models.foreign.layouts import Renamed
from geodino.models.heads import HeadConfig, ProjectionHead
from geodino.models.rope import rope_periods
from geodino.models.sizes import SIZES, ModelConfig, RopeConfig

_VITS = {
    (128, 6, False): "vit_nano",
    (192, 12, False): "vit_tiny",
    (384, 12, False): "vit_small_patch16_dinov3",
    (384, 12, True): "vit_small_plus_patch16_dinov3",
    (768, 12, False): "vit_base_patch16_dinov3",
    (1024, 24, False): "vit_large_patch16_dinov3",
    (1280, 32, True): "vit_huge_plus_patch16_dinov3",
    (4096, 40, True): "vit_7b_patch16_dinov3",
}
"""By width, blocks and whether the FFN is gated."""

_CONVNEXTS: dict[tuple[int, tuple[int, ...]], str] = {
    (320, (2, 2, 6, 2)): "convnext_atto",
    (384, (2, 2, 6, 2)): "convnext_femto",
    (512, (2, 2, 6, 2)): "convnext_pico",
    (640, (2, 2, 8, 2)): "convnext_nano",
    (768, (3, 3, 9, 3)): "convnext_tiny",
    (768, (3, 3, 27, 3)): "convnext_small",
    (1024, (3, 3, 27, 3)): "convnext_base",
    (1536, (3, 3, 27, 3)): "convnext_large",
}
"""By width of the last stage and blocks of each."""

_HEAD_DIMS = {"vit_7b_patch16_dinov3": 128}
"""Width of an attention head where it is not 64."""

_BFLOAT16_STEP = 2.0**-7
"""Published files hold the periods rounded to bfloat16: two roundings' worth of difference."""


def model_config(
    renamed: Renamed, *, source: str, heads: int | None = None, base: float = 100.0
) -> ModelConfig:
    """Read the model off the shapes of its tensors.

    Args:
        renamed: the tensors under our names.
        source: named in errors.
        heads: attention heads, where a config says so; else the periods or the named size tell.
        base: of the rotary periods, where a config says so.

    Raises:
        CheckpointError: no model of ours has these shapes.
    """
    state = renamed.backbone
    if renamed.layout.family == "convnext":
        return _convnext(state, source)
    if (norm := state.get("trunk.norm.weight")) is None:
        raise CheckpointError(f"{source} lacks its last norm: the file is incomplete.")
    dim = len(norm)
    depth = _count(state, r"trunk\.blocks\.(\d+)\..*")
    gated = "trunk.blocks.0.mlp.fc1_g.weight" in state
    biased = "trunk.blocks.0.attn.q_bias" in state
    if renamed.periods is not None:
        heads = _heads_of(renamed.periods, dim, base, source)
    named = _VITS.get((dim, depth, gated))
    changed: dict[str, int] = {}
    if named is None:
        named = "vit_small_plus_patch16_dinov3" if gated else "vit_small_patch16_dinov3"
        changed = {"dim": dim, "depth": depth}
        if heads is None:
            raise CheckpointError(
                f"{source}: {depth} blocks of width {dim} are no published size, and the file does "
                "not say how many attention heads they have (it holds no rotary periods). Give a "
                "folder with its config.json."
            )
        changed["heads"] = heads
    elif heads not in (None, dim // _HEAD_DIMS.get(named, 64)):
        changed["heads"] = int(heads or 0)
    patch = int(_tensor(state, "trunk.patch_embed.proj.weight", source).shape[-1])
    if patch != 16:
        changed["patch_size"] = patch
    return ModelConfig(
        name=_variant(named, source, changed) if biased else named,
        layer_scale=None if "trunk.blocks.0.gamma_1" in state else 0.0,
        local_cls_norm="local_cls_norm.weight" in state,
        rope=RopeConfig(base=base),
        **changed,
    )


def head_config(state: Mapping[str, Tensor], *, source: str) -> HeadConfig:
    """Read a projection head's config off the shapes of its tensors.

    Raises:
        CheckpointError: they are no head of ours.
    """
    linear = [k for k in state if re.fullmatch(r"mlp\.(\d+\.)?weight", k)]
    if not linear or "last_layer.weight" not in state:
        raise CheckpointError(f"{source}: the projection head is incomplete, it has {min(state)}.")
    prototypes, bottleneck = state["last_layer.weight"].shape
    return HeadConfig(
        prototypes=int(prototypes),
        bottleneck=int(bottleneck),
        hidden=int(state["mlp.0.weight"].shape[0]) if len(linear) > 1 else HeadConfig().hidden,
        layers=len(linear),
    )


def filled_backbone(
    config: ModelConfig,
    state: Mapping[str, Tensor],
    *,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    source: str,
) -> Backbone:
    """Build a backbone and give it the tensors, each of which must have its place.

    A model of timm's or of transformers' ConvNeXts has no mask token; ours then starts from zeros,
    as before any training.

    Raises:
        CheckpointError: a tensor is missing, has no place, or has another shape.
    """
    backbone = assemble(config, mean=mean, std=std)
    state = dict(state)
    if backbone.mask_token is not None and "mask_token" not in state:
        state["mask_token"] = torch.zeros(backbone.mask_token.shape)
    check_shapes(state, backbone.state_dict(), what=config.name, source=source)
    materialise(backbone)
    fill(backbone, state)
    return backbone.eval()


def filled_head(
    config: HeadConfig, state: Mapping[str, Tensor], *, dim: int, source: str
) -> ProjectionHead:
    """Build a projection head with the given tensors.

    Raises:
        CheckpointError: a tensor is missing, has no place, or has another shape.
    """
    head = ProjectionHead(dim, config)
    check_shapes(state, head.state_dict(), what=f"a head on {dim} features", source=source)
    fill(head, state)
    return head.eval()


def check_shapes(
    found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], *, what: str, source: str
) -> None:
    """Refuse tensors that do not fit a model.

    Raises:
        CheckpointError: each kind of misfit with an example.
    """
    missing, orphans = wanted.keys() - found.keys(), found.keys() - wanted.keys()
    wrong = [k for k in wanted.keys() & found.keys() if not _fits(found[k], wanted[k])]
    if not (missing or orphans or wrong):
        return
    parts = [
        f"{len(names)} tensor(s) {kind}, e.g. {min(names)}"
        for kind, names in (("are missing", missing), ("have no place", orphans))
        if names
    ]
    if wrong:
        first = min(wrong)
        parts.append(
            f"{first} has shape {tuple(found[first].shape)} instead of {tuple(wanted[first].shape)}"
        )
    raise CheckpointError(
        f"{source} does not fit {what}, which its shapes come nearest to: {'; '.join(parts)}. The "
        "file is incomplete, or holds another architecture."
    )


def fill(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy tensors into a module whose shapes they fit."""
    with torch.no_grad():
        for name, target in module.state_dict().items():
            target.copy_(state[name].view(target.shape))


def _fits(found: Tensor, wanted: Tensor) -> bool:
    """Whether two shapes are equal but for axes of length one, which some layouts leave out."""
    return [n for n in found.shape if n != 1] == [n for n in wanted.shape if n != 1]


def _convnext(state: Mapping[str, Tensor], source: str) -> ModelConfig:
    width = len(_tensor(state, "trunk.head.norm.weight", source))
    depths = tuple(_count(state, rf"trunk\.stages\.{s}\.blocks\.(\d+)\..*") for s in range(4))
    name = _CONVNEXTS.get((width, depths))
    if name is None:
        raise CheckpointError(
            f"{source}: a ConvNeXt with {depths} blocks that ends in width {width} is none of "
            f"{', '.join(_CONVNEXTS.values())}."
        )
    gamma = "trunk.stages.0.blocks.0.gamma" in state
    return ModelConfig(name=name, layer_scale=None if gamma else 0.0)


def _variant(name: str, source: str, changed: Mapping[str, int]) -> str:
    """The size with query and value biases."""
    if name == "vit_tiny":
        name = "vit_tiny_patch16_dinov3"
    elif name not in SIZES or f"{name}_qkvb" not in SIZES:
        raise CheckpointError(
            f"{source} has query and value biases that are not zero, but {name} has none in timm "
            f"or here{' (' + str(dict(changed)) + ')' if changed else ''}."
        )
    return f"{name}_qkvb"


def _heads_of(periods: Tensor, dim: int, base: float, source: str) -> int:
    head_dim = 4 * len(periods)
    expected = rope_periods(head_dim, base=base)
    if not torch.allclose(periods.float().cpu(), expected, rtol=_BFLOAT16_STEP):
        raise CheckpointError(
            f"{source}: its rotary periods are not those of base {base:g}, from "
            f"{float(periods[0]):.4g} to {float(periods[-1]):.4g}; geodino builds the release's "
            "(base 100)."
        )
    return dim // head_dim


def _tensor(state: Mapping[str, Tensor], name: str, source: str) -> Tensor:
    if name not in state:
        raise CheckpointError(f"{source} lacks {name}: the file is incomplete.")
    return state[name]


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """One more than the largest number the pattern finds."""
    numbers = [int(match[1]) for key in state if (match := re.fullmatch(pattern, key))]
    return max(numbers, default=-1) + 1
