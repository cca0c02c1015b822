"""Foreign weights: every key is renamed, dropped by name, or an error.

A rule is a pattern for the whole key and the names of its parts: one name renames, several cut the
tensor into equal parts along its first axis, and None drops a part on purpose. A name such as
``qkv.weight[0/3]`` is the first of three parts that are joined along the first axis.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from geodino.errors import CheckpointError


@dataclass(frozen=True, slots=True)
class Rule:
    """What becomes of the keys that match ``pattern`` as a whole."""

    pattern: str
    targets: tuple[str | None, ...]
    """Replacement templates (``\\1`` refers to a group), one per equal part of the tensor."""


_LAYER = r"(weight|bias)"
_BLOCK = r"blocks\.(\d+)"

REFERENCE_VIT: tuple[Rule, ...] = (
    Rule(r"cls_token", ("trunk.cls_token",)),
    Rule(r"storage_tokens", ("trunk.reg_token",)),
    Rule(r"mask_token", ("mask_token",)),
    # Recomputed from the base; published files hold them rounded to bfloat16.
    Rule(r"rope_embed\.periods", (None,)),
    Rule(rf"patch_embed\.proj\.{_LAYER}", (r"trunk.patch_embed.proj.\1",)),
    Rule(rf"{_BLOCK}\.norm([12])\.{_LAYER}", (r"trunk.blocks.\1.norm\2.\3",)),
    Rule(rf"{_BLOCK}\.attn\.qkv\.weight", (r"trunk.blocks.\1.attn.qkv.weight",)),
    # The key's third is multiplied with a mask of zeros there, so it never has an effect.
    Rule(
        rf"{_BLOCK}\.attn\.qkv\.bias",
        (r"trunk.blocks.\1.attn.q_bias", None, r"trunk.blocks.\1.attn.v_bias"),
    ),
    Rule(rf"{_BLOCK}\.attn\.qkv\.bias_mask", (None,)),
    Rule(rf"{_BLOCK}\.attn\.proj\.{_LAYER}", (r"trunk.blocks.\1.attn.proj.\2",)),
    Rule(rf"{_BLOCK}\.ls([12])\.gamma", (r"trunk.blocks.\1.gamma_\2",)),
    Rule(rf"{_BLOCK}\.mlp\.fc([12])\.{_LAYER}", (r"trunk.blocks.\1.mlp.fc\2.\3",)),
    Rule(rf"{_BLOCK}\.mlp\.w1\.{_LAYER}", (r"trunk.blocks.\1.mlp.fc1_g.\2",)),
    Rule(rf"{_BLOCK}\.mlp\.w2\.{_LAYER}", (r"trunk.blocks.\1.mlp.fc1_x.\2",)),
    Rule(rf"{_BLOCK}\.mlp\.w3\.{_LAYER}", (r"trunk.blocks.\1.mlp.fc2.\2",)),
    Rule(rf"norm\.{_LAYER}", (r"trunk.norm.\1",)),
    Rule(rf"local_cls_norm\.{_LAYER}", (r"local_cls_norm.\1",)),
    # Heads that EUPE's distillation needed and nothing after it.
    Rule(r"projectors\..*", (None,)),
)
"""From the DINOv3 release's ViT to ours."""

REFERENCE_CONVNEXT: tuple[Rule, ...] = (
    Rule(rf"downsample_layers\.0\.([01])\.{_LAYER}", (r"trunk.stem.\1.\2",)),
    Rule(
        rf"downsample_layers\.([1-3])\.([01])\.{_LAYER}",
        (r"trunk.stages.\1.downsample.\2.\3",),
    ),
    Rule(r"stages\.(\d)\.(\d+)\.gamma", (r"trunk.stages.\1.blocks.\2.gamma",)),
    Rule(rf"stages\.(\d)\.(\d+)\.dwconv\.{_LAYER}", (r"trunk.stages.\1.blocks.\2.conv_dw.\3",)),
    Rule(rf"stages\.(\d)\.(\d+)\.norm\.{_LAYER}", (r"trunk.stages.\1.blocks.\2.norm.\3",)),
    Rule(
        rf"stages\.(\d)\.(\d+)\.pwconv([12])\.{_LAYER}",
        (r"trunk.stages.\1.blocks.\2.mlp.fc\3.\4",),
    ),
    Rule(rf"norm\.{_LAYER}", (r"trunk.head.norm.\1",)),
    # The same tensor as `norm` under a second name.
    Rule(rf"norms\.3\.{_LAYER}", (None,)),
)
"""From the DINOv3 release's ConvNeXt to ours."""

REFERENCE_HEAD: tuple[Rule, ...] = (
    Rule(rf"mlp\.{_LAYER}", (r"mlp.\1",)),
    Rule(rf"mlp\.(\d+)\.{_LAYER}", (r"mlp.\1.\2",)),
    Rule(r"last_layer\.weight", ("last_layer.weight",)),
)
"""From a DINO or iBOT head of the release's training code to ours."""

_HF_LAYER = r"(?:model\.)?layer\.(\d+)"

_TRANSFORMERS_VIT: tuple[Rule, ...] = (
    Rule(r"embeddings\.cls_token", ("trunk.cls_token",)),
    Rule(r"embeddings\.register_tokens", ("trunk.reg_token",)),
    Rule(r"embeddings\.mask_token", ("mask_token",)),
    Rule(rf"embeddings\.patch_embeddings\.{_LAYER}", (r"trunk.patch_embed.proj.\1",)),
    Rule(rf"{_HF_LAYER}\.norm([12])\.{_LAYER}", (r"trunk.blocks.\1.norm\2.\3",)),
    *(
        Rule(
            rf"{_HF_LAYER}\.attention\.{name}_proj\.weight",
            (rf"trunk.blocks.\1.attn.qkv.weight[{part}/3]",),
        )
        for part, name in enumerate("qkv")
    ),
    Rule(
        rf"{_HF_LAYER}\.attention\.([qv])_proj\.bias",
        (r"trunk.blocks.\1.attn.\2_bias",),
    ),
    # Only zeros get here: see `foreign.layouts`.
    Rule(rf"{_HF_LAYER}\.attention\.k_proj\.bias", (None,)),
    Rule(rf"{_HF_LAYER}\.attention\.o_proj\.{_LAYER}", (r"trunk.blocks.\1.attn.proj.\2",)),
    Rule(rf"{_HF_LAYER}\.layer_scale([12])\.lambda1", (r"trunk.blocks.\1.gamma_\2",)),
    Rule(rf"{_HF_LAYER}\.mlp\.gate_proj\.{_LAYER}", (r"trunk.blocks.\1.mlp.fc1_g.\2",)),
    Rule(rf"{_HF_LAYER}\.mlp\.down_proj\.{_LAYER}", (r"trunk.blocks.\1.mlp.fc2.\2",)),
    Rule(rf"norm\.{_LAYER}", (r"trunk.norm.\1",)),
)

TRANSFORMERS_VIT: tuple[Rule, ...] = (
    *_TRANSFORMERS_VIT,
    Rule(rf"{_HF_LAYER}\.mlp\.up_proj\.{_LAYER}", (r"trunk.blocks.\1.mlp.fc1.\2",)),
)
"""From transformers' ``DINOv3ViTModel`` with a plain MLP to ours."""

TRANSFORMERS_GATED_VIT: tuple[Rule, ...] = (
    *_TRANSFORMERS_VIT,
    Rule(rf"{_HF_LAYER}\.mlp\.up_proj\.{_LAYER}", (r"trunk.blocks.\1.mlp.fc1_x.\2",)),
)
"""From transformers' ``DINOv3ViTModel`` with ``use_gated_mlp`` to ours."""

_HF_STAGE = r"(?:model\.)?stages\.(\d)"

TRANSFORMERS_CONVNEXT: tuple[Rule, ...] = (
    Rule(rf"(?:model\.)?stages\.0\.downsample_layers\.([01])\.{_LAYER}", (r"trunk.stem.\1.\2",)),
    Rule(
        rf"{_HF_STAGE}\.downsample_layers\.([01])\.{_LAYER}",
        (r"trunk.stages.\1.downsample.\2.\3",),
    ),
    Rule(rf"{_HF_STAGE}\.layers\.(\d+)\.gamma", (r"trunk.stages.\1.blocks.\2.gamma",)),
    Rule(
        rf"{_HF_STAGE}\.layers\.(\d+)\.depthwise_conv\.{_LAYER}",
        (r"trunk.stages.\1.blocks.\2.conv_dw.\3",),
    ),
    Rule(
        rf"{_HF_STAGE}\.layers\.(\d+)\.layer_norm\.{_LAYER}",
        (r"trunk.stages.\1.blocks.\2.norm.\3",),
    ),
    Rule(
        rf"{_HF_STAGE}\.layers\.(\d+)\.pointwise_conv([12])\.{_LAYER}",
        (r"trunk.stages.\1.blocks.\2.mlp.fc\3.\4",),
    ),
    Rule(rf"layer_norm\.{_LAYER}", (r"trunk.head.norm.\1",)),
)
"""From transformers' ``DINOv3ConvNextModel`` to ours."""

_OUR_LAYER = r"trunk\.blocks\.(\d+)"

TO_TRANSFORMERS_VIT: tuple[Rule, ...] = (
    Rule(r"trunk\.cls_token", ("embeddings.cls_token",)),
    Rule(r"trunk\.reg_token", ("embeddings.register_tokens",)),
    Rule(r"mask_token", ("embeddings.mask_token",)),
    Rule(rf"trunk\.patch_embed\.proj\.{_LAYER}", (r"embeddings.patch_embeddings.\1",)),
    Rule(rf"{_OUR_LAYER}\.norm([12])\.{_LAYER}", (r"layer.\1.norm\2.\3",)),
    Rule(
        rf"{_OUR_LAYER}\.attn\.qkv\.weight",
        tuple(rf"layer.\1.attention.{name}_proj.weight" for name in "qkv"),
    ),
    Rule(rf"{_OUR_LAYER}\.attn\.([qv])_bias", (r"layer.\1.attention.\2_proj.bias",)),
    Rule(rf"{_OUR_LAYER}\.attn\.proj\.{_LAYER}", (r"layer.\1.attention.o_proj.\2",)),
    Rule(rf"{_OUR_LAYER}\.gamma_([12])", (r"layer.\1.layer_scale\2.lambda1",)),
    Rule(rf"{_OUR_LAYER}\.mlp\.fc1_g\.{_LAYER}", (r"layer.\1.mlp.gate_proj.\2",)),
    Rule(rf"{_OUR_LAYER}\.mlp\.fc1(?:_x)?\.{_LAYER}", (r"layer.\1.mlp.up_proj.\2",)),
    Rule(rf"{_OUR_LAYER}\.mlp\.fc2\.{_LAYER}", (r"layer.\1.mlp.down_proj.\2",)),
    Rule(rf"trunk\.norm\.{_LAYER}", (r"norm.\1",)),
    # transformers has no place for it; it acts in training alone.
    Rule(rf"local_cls_norm\.{_LAYER}", (None,)),
)
"""From our ViT to transformers' ``DINOv3ViTModel``."""

TO_TRANSFORMERS_CONVNEXT: tuple[Rule, ...] = (
    Rule(rf"trunk\.stem\.([01])\.{_LAYER}", (r"stages.0.downsample_layers.\1.\2",)),
    Rule(
        rf"trunk\.stages\.(\d)\.downsample\.([01])\.{_LAYER}",
        (r"stages.\1.downsample_layers.\2.\3",),
    ),
    Rule(r"trunk\.stages\.(\d)\.blocks\.(\d+)\.gamma", (r"stages.\1.layers.\2.gamma",)),
    Rule(
        rf"trunk\.stages\.(\d)\.blocks\.(\d+)\.conv_dw\.{_LAYER}",
        (r"stages.\1.layers.\2.depthwise_conv.\3",),
    ),
    Rule(
        rf"trunk\.stages\.(\d)\.blocks\.(\d+)\.norm\.{_LAYER}",
        (r"stages.\1.layers.\2.layer_norm.\3",),
    ),
    Rule(
        rf"trunk\.stages\.(\d)\.blocks\.(\d+)\.mlp\.fc([12])\.{_LAYER}",
        (r"stages.\1.layers.\2.pointwise_conv\3.\4",),
    ),
    Rule(rf"trunk\.head\.norm\.{_LAYER}", (r"layer_norm.\1",)),
)
"""From our ConvNeXt to transformers' ``DINOv3ConvNextModel``."""

TIMM_VIT: tuple[Rule, ...] = (
    Rule(r"cls_token|reg_token|patch_embed\..+|blocks\..+|norm\..+", (r"trunk.\g<0>",)),
)
"""From timm's names to ours."""

TIMM_CONVNEXT: tuple[Rule, ...] = (Rule(r"stem\..+|stages\..+|head\.norm\..+", (r"trunk.\g<0>",)),)
"""From timm's names to ours."""


def convert(
    state: Mapping[str, Tensor], rules: Iterable[Rule], *, source: str
) -> dict[str, Tensor]:
    """Rename a foreign state dict by ``rules``; the first rule that matches a key decides.

    Args:
        state: the foreign tensors.
        rules: see :class:`Rule`.
        source: named in errors.

    Raises:
        CheckpointError: keys without a rule, or two keys that end up under one name.
    """
    compiled = [(re.compile(rule.pattern), rule.targets) for rule in rules]
    out: dict[str, Tensor] = {}
    orphans = []
    for key, value in state.items():
        for pattern, targets in compiled:
            if match := pattern.fullmatch(key):
                for target, part in zip(targets, value.chunk(len(targets)), strict=True):
                    if target is not None:
                        _put(out, match.expand(target), part, source)
                break
        else:
            orphans.append(key)
    if orphans:
        raise CheckpointError(
            f"{source}: {len(orphans)} key(s) match no rule, e.g. {orphans[:3]}. These weights are "
            "of another architecture or release; add a rule to geodino/models/convert.py, or drop "
            "them on purpose with a rule whose target is None."
        )
    return _joined(out, source)


def drop_zero_biases(state: Mapping[str, Tensor], *, source: str) -> dict[str, Tensor]:
    """Leave out query and value biases for a model built without them, if they are all zero.

    The distilled DINOv3 models come with zero biases; timm names them with and without ``_qkvb``.

    Raises:
        CheckpointError: a bias that is not zero, so that leaving it out would change the model.
    """
    kept = {}
    for key, value in state.items():
        if not key.endswith((".q_bias", ".v_bias")):
            kept[key] = value
        elif torch.count_nonzero(value):
            raise CheckpointError(
                f"{source}: {key} is not zero, but the model has no query and value biases. "
                "Build the model's `_qkvb` variant."
            )
    return kept


_PART = re.compile(r"(.+)\[(\d+)/(\d+)\]")


def _joined(state: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """Join parts ``name[i/n]`` along their first axis; other tensors stay."""
    whole: dict[str, Tensor] = {}
    parts: dict[str, dict[int, Tensor]] = {}
    counts: dict[str, int] = {}
    for key, value in state.items():
        if match := _PART.fullmatch(key):
            name, number, count = match[1], int(match[2]), int(match[3])
            parts.setdefault(name, {})[number] = value
            counts[name] = count
        else:
            whole[key] = value
    for name, found in parts.items():
        if len(found) != counts[name]:
            raise CheckpointError(
                f"{source}: {name} has {len(found)} of its {counts[name]} parts: the file is "
                "incomplete. Get it again."
            )
        whole[name] = torch.cat([found[i] for i in range(counts[name])])
    return whole


def _put(out: dict[str, Tensor], name: str, value: Tensor, source: str) -> None:
    if name in out:
        raise CheckpointError(f"{source}: two keys both become {name}.")
    out[name] = value
