"""Whose names a set of tensors has: recognised by its keys, and brought to ours."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from geodino.errors import CheckpointError
from geodino.models.convert import (
    REFERENCE_CONVNEXT,
    REFERENCE_HEAD,
    REFERENCE_VIT,
    TIMM_CONVNEXT,
    TIMM_VIT,
    TRANSFORMERS_CONVNEXT,
    TRANSFORMERS_GATED_VIT,
    TRANSFORMERS_VIT,
    Rule,
    convert,
)
from geodino.models.sizes import Family

Owner = Literal["reference", "transformers", "timm"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """One way of naming a backbone's tensors."""

    owner: Owner
    family: Family
    marks: tuple[str, ...]
    """Patterns of keys; this layout has a key for each of them."""

    rules: tuple[Rule, ...]


LAYOUTS: tuple[Layout, ...] = (
    Layout(owner="reference", family="vit", marks=("storage_tokens",), rules=REFERENCE_VIT),
    Layout(
        owner="reference",
        family="convnext",
        marks=(r"downsample_layers\.0\.0\.weight",),
        rules=REFERENCE_CONVNEXT,
    ),
    Layout(
        owner="transformers",
        family="vit",
        marks=(r"embeddings\.register_tokens", r".*\.gate_proj\.weight"),
        rules=TRANSFORMERS_GATED_VIT,
    ),
    Layout(
        owner="transformers",
        family="vit",
        marks=(r"embeddings\.register_tokens",),
        rules=TRANSFORMERS_VIT,
    ),
    Layout(
        owner="transformers",
        family="convnext",
        marks=(r"(model\.)?stages\.0\.downsample_layers\.0\.weight",),
        rules=TRANSFORMERS_CONVNEXT,
    ),
    Layout(
        owner="timm",
        family="vit",
        marks=("reg_token", r"blocks\.0\.attn\.qkv\.weight"),
        rules=TIMM_VIT,
    ),
    Layout(
        owner="timm",
        family="convnext",
        marks=(r"stem\.0\.weight", r"head\.norm\.weight"),
        rules=TIMM_CONVNEXT,
    ),
)
"""Every layout, the more particular ones first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Renamed:
    """A foreign model's tensors under our names."""

    layout: Layout
    backbone: dict[str, Tensor]
    """Query and value biases are there only if one of them is not zero."""

    heads: dict[str, dict[str, Tensor]]
    """Tensors of projection heads by ``dino`` and ``ibot``; empty if there are none."""

    periods: Tensor | None
    """Rotary periods, where the file holds them: they tell the number of attention heads."""

    is_noncommercial: bool
    """Whether the file has the extra heads that only EUPE's files have."""


def rename(state: Mapping[str, Tensor], *, source: str) -> Renamed:
    """Recognise a set of tensors by its keys and bring it to our names.

    Raises:
        CheckpointError: the keys are of no known layout, one has no rule, or a key's bias would
            have an effect that our attention cannot give it.
    """
    parts = _parts(state, source)
    backbone = parts.pop("backbone")
    layout = _layout(backbone, source)
    periods = backbone.get("rope_embed.periods")
    is_noncommercial = any(key.startswith("projectors.") for key in backbone)
    if layout.owner == "reference":
        backbone = _with_masked_biases(backbone, source)
    elif layout.owner == "transformers":
        _refuse_key_biases(backbone, r".*\.k_proj\.bias", source)
    ours = _with_whole_biases(convert(backbone, layout.rules, source=source))
    heads = {
        name.removesuffix("_head"): convert(tensors, REFERENCE_HEAD, source=f"{source} ({name})")
        for name, tensors in parts.items()
    }
    return Renamed(
        layout=layout,
        backbone=ours,
        heads=heads,
        periods=periods,
        is_noncommercial=is_noncommercial,
    )


_WRAPPERS = re.compile(r"(?<![^.])(?:module|_orig_mod|_checkpoint_wrapped_module)\.")
"""What wrappers for distributed training and compilation put into names."""


def _parts(state: Mapping[str, Tensor], source: str) -> dict[str, dict[str, Tensor]]:
    """Cut a training checkpoint into backbone and heads; a backbone's file is all backbone."""
    plain = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    if any(key.startswith("teacher.") for key in plain):
        plain = {
            key.removeprefix("teacher."): v
            for key, v in plain.items()
            if key.startswith("teacher.")
        }
    names = ("backbone", "dino_head", "ibot_head")
    if not any(key.startswith("backbone.") for key in plain):
        return {"backbone": plain}
    parts: dict[str, dict[str, Tensor]] = {}
    orphans = []
    for key, value in plain.items():
        part, _, rest = key.partition(".")
        if part in names:
            parts.setdefault(part, {})[rest] = value
        else:
            orphans.append(key)
    if orphans:
        raise CheckpointError(
            f"{source}: {len(orphans)} key(s) of the training checkpoint belong to neither "
            f"{', '.join(names)}, e.g. {orphans[:3]}. Save the teacher's part alone, or add a rule "
            "to geodino/models/foreign/layouts.py."
        )
    return parts


def _layout(keys: Collection[str], source: str) -> Layout:
    for layout in LAYOUTS:
        if all(any(re.fullmatch(mark, key) for key in keys) for mark in layout.marks):
            return layout
    raise CheckpointError(
        f"{source} is no DINOv3 backbone: its keys are neither those of the release, of "
        f"transformers nor of timm, e.g. {sorted(keys)[:3]}. Known are ViTs with register tokens "
        "and ConvNeXts."
    )


def _with_masked_biases(state: Mapping[str, Tensor], source: str) -> dict[str, Tensor]:
    """Multiply biases with their masks, as the release does; what is left of the keys' is zero."""
    out = dict(state)
    for key, mask in state.items():
        if key.endswith(".qkv.bias_mask"):
            bias = key.removesuffix("_mask")
            if torch.isnan(mask).any():
                raise CheckpointError(
                    f"{source}: {key} holds NaN, so the model was saved before its weights were "
                    "set. Save it after initialisation or training."
                )
            # where(), not a product: what is masked may be NaN.
            out[bias] = torch.where(mask == 0, torch.zeros_like(state[bias]), state[bias] * mask)
    _refuse_key_biases(
        {k: v.chunk(3)[1] for k, v in out.items() if k.endswith(".qkv.bias")}, r".*", source
    )
    return out


def _refuse_key_biases(state: Mapping[str, Tensor], pattern: str, source: str) -> None:
    for key, bias in state.items():
        if re.fullmatch(pattern, key) and bool(torch.count_nonzero(bias)):
            raise CheckpointError(
                f"{source}: {key} adds a bias to the keys that is not zero. Rotary positions turn "
                "it with each patch, so that it changes the attention; DINOv3 has none, and "
                "geodino's attention has no place for it."
            )


def _with_whole_biases(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Leave out query and value biases if all are zero; else let each block have both."""
    biases = {k: v for k, v in state.items() if k.endswith((".q_bias", ".v_bias"))}
    if not any(bool(torch.count_nonzero(v)) for v in biases.values()):
        return {k: v for k, v in state.items() if k not in biases}
    for key, value in biases.items():
        other = key[:-6] + ("v_bias" if key.endswith("q_bias") else "q_bias")
        state.setdefault(other, torch.zeros_like(value))
    return state
