"""Foreign weights: every key is renamed, dropped by name, or an error.

A rule is a pattern for the whole key and the names of its parts: one name renames, several cut the
tensor into equal parts along its first axis, and None drops a part on purpose.
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
    return out


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


def _put(out: dict[str, Tensor], name: str, value: Tensor, source: str) -> None:
    if name in out:
        raise CheckpointError(f"{source}: two keys both become {name}.")
    out[name] = value
