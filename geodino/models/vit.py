"""DINOv3's ViT on timm's parameters: crop sets packed, masks, rotary positions, local CLS norm."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool, Float
from timm.models.eva import Eva
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from geodino.models.backbone import Backbone, Tokens
from geodino.models.draws import EncodeDraws
from geodino.models.packed import PackedBlock, Shapes, split
from geodino.models.rope import patch_centres, rope_periods, rope_tables
from geodino.models.sizes import ModelConfig

Place = tuple[tuple[int, int], torch.device]


class VitBackbone(Backbone):
    """A timm ``Eva`` of the DINOv3 kind; its blocks become :class:`PackedBlock` in place.

    Args:
        trunk: timm's network.
        config: what the trunk was built from.
        mean: per band, of stored values.
        std: per band, of stored values.
    """

    mask_token: nn.Parameter

    def __init__(
        self, trunk: Eva, *, config: ModelConfig, mean: Sequence[float], std: Sequence[float]
    ) -> None:
        super().__init__(trunk, config=config, mean=mean, std=std)
        for block in self.trunk.blocks:
            PackedBlock.adopt(block)
        self.mask_token = nn.Parameter(torch.zeros_like(self.trunk.cls_token[0]))
        self.local_cls_norm = None
        if config.local_cls_norm:
            self.local_cls_norm = nn.LayerNorm(
                self.dim, eps=self.trunk.norm.eps, device=self.mask_token.device
            )
        self._head_dim = self.dim // int(self.trunk.blocks[0].attn.num_heads)
        self._geometry: dict[Place, tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def depth(self) -> int:
        """Transformer blocks."""
        return len(self.trunk.blocks)

    @property
    def layers(self) -> int:
        """Taps: one after each block."""
        return self.depth

    @property
    def prefix(self) -> int:
        """Tokens before the patches: CLS and registers."""
        return int(self.trunk.num_prefix_tokens)

    def encode(
        self,
        crops: list[Tensor],
        *,
        masks: list[Tensor | None] | None = None,
        draws: EncodeDraws | None = None,
    ) -> list[Tokens]:
        """Encode crop sets through every block together; see ``Backbone.encode``.

        In training mode the CLS and registers of the second set take ``local_cls_norm`` where the
        model has one: by convention global crops come first, local crops second.
        """
        last = self.depth - 1
        return self._run(crops, masks or [None] * len(crops), draws, taps=[last], norm=True)[last]

    def _tap(self, image: Tensor, layers: Sequence[int], *, norm: bool) -> list[Tokens]:
        tapped = self._run([image], [None], None, taps=layers, norm=norm)
        return [tapped[layer][0] for layer in layers]

    def _run(
        self,
        crops: list[Tensor],
        masks: list[Tensor | None],
        draws: EncodeDraws | None,
        *,
        taps: Sequence[int],
        norm: bool,
    ) -> dict[int, list[Tokens]]:
        """All sets through the blocks up to the last tap; finished tokens per tap and set."""
        grids = [self.grid(crop) for crop in crops]
        anchor = self._anchor(masks)
        parts = [self._embed(crop, mask, anchor) for crop, mask in zip(crops, masks, strict=True)]
        shapes: Shapes = tuple((part.shape[0], part.shape[1]) for part in parts)
        x = torch.cat([part.flatten(0, 1) for part in parts])
        tables = self._tables(grids, x.device, None if draws is None else draws.rope)
        drop = None if draws is None else draws.drop
        tapped = {}
        for i, block in enumerate(self.trunk.blocks[: max(taps) + 1]):
            run: Any = block
            if self.config.activation_checkpointing and torch.is_grad_enabled():
                run = partial(checkpoint, block, use_reentrant=False)
            x = run(
                x,
                [table[i % len(table)] for table in tables],
                shapes=shapes,
                rows=None if drop is None else [rows[i] for rows in drop],
            )
            if i in taps:
                tapped[i] = self._finish(x, shapes, grids, norm=norm)
        return tapped

    def _anchor(self, masks: list[Tensor | None]) -> Tensor | None:
        """Zero times the mask token where nothing is masked in training.

        Distributed training waits for a gradient of every parameter; adding this to the CLS token
        gives the unused mask token one.
        """
        unused = self.training and all(mask is None for mask in masks)
        return 0.0 * self.mask_token if unused else None

    def _embed(
        self,
        crop: Float[Tensor, "b c h w"],
        mask: Bool[Tensor, "b n"] | None,
        anchor: Float[Tensor, "1 d"] | None,
    ) -> Float[Tensor, "b p d"]:
        trunk = self.trunk
        patches = trunk.patch_embed(crop.to(trunk.patch_embed.proj.weight.dtype)).flatten(1, 2)
        if mask is not None:
            patches = torch.where(mask[..., None], self.mask_token.to(patches.dtype), patches)
        cls = trunk.cls_token if anchor is None else trunk.cls_token + anchor
        prefix = torch.cat((cls, trunk.reg_token), dim=1).expand(patches.shape[0], -1, -1)
        return torch.cat((prefix, patches), dim=1)

    def _finish(
        self,
        x: Float[Tensor, "t d"],
        shapes: Shapes,
        grids: list[tuple[int, int]],
        *,
        norm: bool,
    ) -> list[Tokens]:
        normed = self.trunk.norm(x) if norm else x
        finished = []
        sets = zip(split(x, shapes), split(normed, shapes), shapes, grids, strict=True)
        for number, (raw, part, shape, grid) in enumerate(sets):
            tokens = part.view(*shape, self.dim)
            prefix = tokens[:, : self.prefix]
            if self.training and norm and number == 1 and self.local_cls_norm is not None:
                prefix = self.local_cls_norm(raw.view(*shape, self.dim)[:, : self.prefix])
            finished.append(
                Tokens(
                    cls=prefix[:, 0],
                    registers=prefix[:, 1:],
                    patches=tokens[:, self.prefix :],
                    grid=grid,
                )
            )
        return finished

    def _tables(
        self, grids: list[tuple[int, int]], device: torch.device, factors: Tensor | None
    ) -> list[Tensor]:
        """RoPE tables of each set: one per block when factors were drawn, else one for all."""
        tables = []
        for number, grid in enumerate(grids):
            centres, periods, plain = self._geometry_of(grid, device)
            if factors is not None:
                plain = rope_tables(centres, periods, factors[:, number], prefix=self.prefix)
            tables.append(plain)
        return tables

    def _geometry_of(
        self, grid: tuple[int, int], device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Patch centres, periods and the unaugmented table of a grid, kept on the device."""
        if torch.compiler.is_exporting():
            # A graph for any size computes its tables; its grid is no number to keep them under.
            return self._made_geometry(grid, device)
        if (grid, device) not in self._geometry:
            # A table first made while predicting must still be allowed into a later backward pass.
            with torch.inference_mode(mode=False):
                self._geometry[grid, device] = self._made_geometry(grid, device)
        return self._geometry[grid, device]

    def _made_geometry(
        self, grid: tuple[int, int], device: torch.device
    ) -> tuple[Tensor, Tensor, Tensor]:
        centres = patch_centres(grid).to(device)
        periods = rope_periods(self._head_dim, base=self.config.rope.base).to(device)
        return centres, periods, rope_tables(centres, periods, prefix=self.prefix)
