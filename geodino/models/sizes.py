"""Which backbones there are, what timm is asked to build for each, and the recipe's model section."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from geodino.config import Config
from geodino.errors import suggest

Family = Literal["vit", "convnext", "timm"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Size:
    """One row of the table of backbones."""

    architecture: str
    """timm's name of the architecture; exported weights are opened under it."""

    family: Family
    """``vit``: tokens and rotary positions; ``convnext``: a pyramid of stages; ``timm``: any other
    network of timm, for students."""

    depth: int
    """Transformer blocks; 0 for a ConvNeXt."""

    dim: int
    """Width of the output features."""

    stride: int
    """Pixels per patch along each axis."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Arguments that differ from timm's definition of the architecture."""


def _vit(architecture: str, dim: int, depth: int) -> Size:
    return Size(architecture=architecture, family="vit", depth=depth, dim=dim, stride=16)


def _small(dim: int, depth: int, heads: int) -> Size:
    """Size of our own below timm's smallest: its ViT-S/16 with fewer and narrower blocks."""
    return Size(
        architecture="vit_small_patch16_dinov3",
        family="vit",
        depth=depth,
        dim=dim,
        stride=16,
        overrides={"embed_dim": dim, "depth": depth, "num_heads": heads},
    )


def _convnext(name: str, dim: int) -> Size:
    return Size(architecture=f"convnext_{name}", family="convnext", depth=0, dim=dim, stride=32)


_DINOV3 = {
    "small": (384, 12),
    "small_plus": (384, 12),
    "base": (768, 12),
    "large": (1024, 24),
    "huge_plus": (1280, 32),
}

SIZES: dict[str, Size] = {
    "vit_nano": _small(128, 6, 2),
    "vit_tiny": _small(192, 12, 3),
    **{f"vit_{k}_patch16_dinov3": _vit(f"vit_{k}_patch16_dinov3", *v) for k, v in _DINOV3.items()},
    **{
        f"vit_{k}_patch16_dinov3_qkvb": _vit(f"vit_{k}_patch16_dinov3_qkvb", *v)
        for k, v in {"tiny": (192, 12), **_DINOV3}.items()
    },
    "vit_7b_patch16_dinov3": _vit("vit_7b_patch16_dinov3", 4096, 40),
    "convnext_atto": _convnext("atto", 320),
    "convnext_femto": _convnext("femto", 384),
    "convnext_pico": _convnext("pico", 512),
    "convnext_nano": _convnext("nano", 640),
    "convnext_tiny": _convnext("tiny", 768),
    "convnext_small": _convnext("small", 768),
    "convnext_base": _convnext("base", 1024),
    "convnext_large": _convnext("large", 1536),
}
"""Every backbone by the name a recipe uses. Adding one is adding a row."""


def size_of(name: str) -> Size:
    """Return the row of a name; for other networks of timm, what building one tells.

    Raises:
        RecipeError: a network of timm that cannot be a backbone.
    """
    if name in SIZES:
        return SIZES[name]
    from geodino.models.timm_backbone import facts_of

    facts = facts_of(name)
    return Size(
        architecture=name,
        family="timm",
        depth=0,
        dim=facts.dim,
        stride=facts.stride,
        overrides=facts.arguments,
    )


def known_name(name: str) -> str:
    """Return the name of a network that can be built: of the table, or of timm.

    Raises:
        ValueError: there is none, with the nearest names.
    """
    bare = name.removeprefix("timm:")
    if bare in SIZES:
        return bare
    from geodino.models.timm_backbone import timm_names

    names = timm_names()
    if bare in names:
        return bare
    architecture, dot, tag = bare.partition(".")
    if dot and architecture in names:
        raise ValueError(
            f"{name!r} names trained weights ({tag}), but this network begins with fresh ones: "
            f"say {architecture!r}"
        )
    raise ValueError(
        f"unknown model {name!r}.{suggest(bare, SIZES) or suggest(bare, names)} Known: "
        f"{', '.join(SIZES)}, and every architecture of timm"
    )


class RopeConfig(Config):
    """Rotary positions of a ViT (method: DINOv3, section 3.2; ignored by ConvNeXts)."""

    base: float = Field(default=100.0, gt=1)
    """Base of the geometric series of periods; 100 in DINOv3."""

    shift: float = Field(default=0.0, ge=0)
    """Training only: both coordinates move by a uniform draw from [-shift, shift], per axis."""

    jitter: float = Field(default=1.0, ge=1)
    """Training only: each axis is scaled log-uniformly within [1/jitter, jitter]; 1 is off."""

    rescale: float = Field(default=2.0, ge=1)
    """Training only: both axes are scaled log-uniformly within [1/rescale, rescale]; 1 is off."""

    @property
    def augmented(self) -> bool:
        """Whether training draws anything."""
        return self.shift > 0 or self.jitter > 1 or self.rescale > 1


class ModelConfig(Config):
    """Which backbone is built. Its number of bands comes from the input contract."""

    name: str = "vit_small_patch16_dinov3"
    """A timm DINOv3 ViT or ConvNeXt by name, or `vit_nano` or `vit_tiny`; for a student of
    distillation, any architecture of timm."""

    patch_size: int | None = Field(default=None, ge=1)
    """Side of a patch in pixels; None is the architecture's own (16). A ConvNeXt's patch is its
    stride: 32, or 16 or 8 with dilated last stages."""

    dim: int | None = Field(default=None, ge=8)
    """Width of a ViT, instead of the named size's; for experiments."""

    depth: int | None = Field(default=None, ge=1)
    """Number of blocks of a ViT, instead of the named size's; for experiments."""

    heads: int | None = Field(default=None, ge=1)
    """Number of attention heads of a ViT, instead of the named size's; for experiments."""

    layer_scale: float | None = Field(default=None, ge=0)
    """Initial value of LayerScale; None is the paper's (1e-5 for ViTs, 1e-6 for ConvNeXts), 0
    builds without LayerScale."""

    init: Literal["paper", "unit"] = "paper"
    """Standard deviation of the initial weights of linear maps and convolutions: ``paper`` 0.02;
    ``unit`` 1 / sqrt(inputs), which keeps the scale of what passes at any width. For widths far
    below a thousand 0.02 makes every block next to the identity; short runs then learn little."""

    drop_path: float = Field(default=0.0, ge=0, lt=1)
    """Share of the samples each half block leaves out in training; the same at every depth. ViTs
    only, as in the reference."""

    rope: RopeConfig = RopeConfig()
    """Rotary positions and their augmentation."""

    local_cls_norm: bool = False
    """Give the CLS token of local crops its own last norm while training, as the SAT ViT-L and the
    7B have. ViTs only."""

    activation_checkpointing: bool = False
    """Recompute each block's activations in the backward pass: less memory, about a third more
    time."""

    @field_validator("name")
    @classmethod
    def _known(cls, name: str) -> str:
        return known_name(name)

    @model_validator(mode="after")
    def _fits_the_family(self) -> "ModelConfig":
        if self.family == "timm":
            own = {"init": "paper", "activation_checkpointing": False, "patch_size": None,
                   "layer_scale": None}  # fmt: skip
            asked = [k for k, default in own.items() if getattr(self, k) != default]
            if asked:
                raise ValueError(f"{', '.join(asked)} cannot be set for {self.name} of timm")
        if self.family != "vit":
            vit_only = ("dim", "depth", "heads")
            asked = [k for k in vit_only if getattr(self, k) is not None]
            asked += [k for k in ("drop_path", "local_cls_norm") if getattr(self, k)]
            if asked:
                raise ValueError(f"{', '.join(asked)} cannot be set for {self.name}, only for ViTs")
            if self.family == "convnext" and self.patch_size not in (None, 8, 16, 32):
                raise ValueError(
                    f"patch_size {self.patch_size} of {self.name}: a ConvNeXt's is 32, 16 or 8"
                )
        return self

    @property
    def size(self) -> Size:
        """The named row of the table, or what timm tells of the network."""
        return size_of(self.name)

    @property
    def family(self) -> Family:
        """``vit``, ``convnext``, or ``timm`` for its other networks."""
        return self.size.family

    @property
    def blocks(self) -> int:
        """Transformer blocks, hence drop-path and RoPE draws; 0 for a ConvNeXt."""
        return self.depth or self.size.depth

    @property
    def stride(self) -> int:
        """Pixels per patch along each axis."""
        return self.patch_size or self.size.stride

    @property
    def width(self) -> int:
        """Width of the features."""
        return self.dim or self.size.dim

    @property
    def initial_layer_scale(self) -> float | None:
        """What LayerScale starts from; None where there is none."""
        if self.layer_scale is None:
            return 1e-5 if self.family == "vit" else 1e-6 if self.family == "convnext" else None
        return self.layer_scale or None

    def timm_args(self, *, bands: int) -> dict[str, Any]:
        """Return what timm needs beside the architecture's name to build this model.

        The same arguments go into the ``model_args`` of an exported ``config.json``, so that plain
        timm builds the same network.
        """
        args: dict[str, Any] = {"in_chans": bands, "num_classes": 0, **self.size.overrides}
        if self.family == "timm":
            return args
        if self.family == "convnext":
            args["ls_init_value"] = self.initial_layer_scale
            if self.patch_size not in (None, 32):
                args["output_stride"] = self.patch_size
            return args
        args["init_values"] = self.initial_layer_scale
        args |= {"global_pool": "token", "rope_temperature": self.rope.base}
        changed = {
            "patch_size": self.patch_size,
            "embed_dim": self.dim,
            "depth": self.depth,
            "num_heads": self.heads,
        }
        return args | {k: v for k, v in changed.items() if v is not None}
