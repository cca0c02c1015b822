"""A ViT block that runs several crop sets at once: one matrix of tokens, attention per set."""

from typing import Any

import torch
from jaxtyping import Float
from timm.models.eva import EvaBlock
from torch import Tensor
from torch.nn import functional as F

from geodino.models.rope import rotate

Shapes = tuple[tuple[int, int], ...]
"""Per crop set: images and tokens per image, prefix included."""


class PackedBlock(EvaBlock):
    """timm's ``EvaBlock`` (its parameters, names and forward) with a second, packed forward.

    Linear layers and norms see the tokens of all crop sets as one matrix, which is what keeps a
    GPU busy with small crops; attention runs once per set. Drop path computes only the rows it
    keeps, as DINOv2 (arXiv 2304.07193, section 5) introduced it. Both forwards go through
    ``__call__``, so hooks, compilation and sharding apply to either.
    """

    @classmethod
    def adopt(cls, block: EvaBlock) -> "PackedBlock":
        """Turn a block timm built into a packed one, in place: no parameter is copied."""
        block.__class__ = cls
        return block  # type: ignore[return-value]

    def forward(
        self,
        x: Float[Tensor, "... d"],
        rope: Any = None,
        attn_mask: Tensor | None = None,
        is_causal: bool = False,
        *,
        shapes: Shapes | None = None,
        rows: list[Tensor] | None = None,
    ) -> Float[Tensor, "... d"]:
        """Run the block: timm's way without ``shapes``, packed with it.

        Args:
            x: with ``shapes`` the tokens ``[t, d]`` of all sets one after the other, image by
                image; without, timm's ``[b n d]``.
            rope: with ``shapes`` one table ``[2 p d2]`` per set (``rope_tables``); without, timm's.
            attn_mask: timm's way only.
            is_causal: timm's way only.
            shapes: images and tokens per image of each set.
            rows: per set int64 ``[2, kept]``, the images the attention half and the FFN half run
                for; the rest pass unchanged. None runs all.
        """
        if shapes is None:
            return super().forward(x, rope=rope, attn_mask=attn_mask, is_causal=is_causal)
        if rows is None:
            x = x + self._attention(x, rope, shapes)
            return x + self._feed_forward(x)
        kept = [r[0] for r in rows]
        few = _few(shapes, kept)
        x = _scatter(x, self._attention(_gather(x, shapes, kept), rope, few), shapes, kept)
        kept = [r[1] for r in rows]
        return _scatter(x, self._feed_forward(_gather(x, shapes, kept)), shapes, kept)

    def _attention(
        self, x: Float[Tensor, "t d"], rope: list[Tensor], shapes: Shapes
    ) -> Float[Tensor, "t d"]:
        attention: Any = self.attn
        bias = None
        if attention.q_bias is not None:
            # The key's third of the bias is zero by construction: softmax cannot see it. timm keeps
            # zeros in a buffer; making them here follows whatever dtype the weights have.
            zeros = torch.zeros_like(attention.q_bias)
            bias = torch.cat((attention.q_bias, zeros, attention.v_bias))
        qkv = F.linear(self.norm1(x), attention.qkv.weight, bias)
        mixed = [
            _attend(part, images, heads=attention.num_heads, table=table)
            for part, (images, _), table in zip(split(qkv, shapes), shapes, rope, strict=True)
        ]
        return self._scaled(attention.proj(_joined(mixed)), self.gamma_1)

    def _feed_forward(self, x: Float[Tensor, "t d"]) -> Float[Tensor, "t d"]:
        return self._scaled(self.mlp(self.norm2(x)), self.gamma_2)

    @staticmethod
    def _scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
        return x if gamma is None else gamma * x


def _attend(
    qkv: Float[Tensor, "t d3"], images: int, *, heads: int, table: Float[Tensor, "2 p d2"]
) -> Float[Tensor, "t d"]:
    """Self-attention of one crop set from its packed queries, keys and values."""
    qkv = qkv.view(images, -1, 3, heads, qkv.shape[-1] // (3 * heads))
    turning, value = torch.split(qkv, [2, 1], dim=2)
    query, key = rotate(turning, table).transpose(1, 3).unbind(2)
    mixed = F.scaled_dot_product_attention(query, key, value.squeeze(2).transpose(1, 2))
    return mixed.transpose(1, 2).reshape(qkv.shape[0] * qkv.shape[1], -1)


def split(x: Float[Tensor, "t d"], shapes: Shapes) -> tuple[Tensor, ...]:
    """Return the tokens of each set, as views."""
    # Not slices: the backward pass of a slice fills a tensor of the whole size with zeros.
    return torch.split(x, [images * tokens for images, tokens in shapes])


def _joined(parts: list[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _few(shapes: Shapes, kept: list[Tensor]) -> Shapes:
    return tuple((len(k), tokens) for k, (_, tokens) in zip(kept, shapes, strict=True))


def _gather(x: Float[Tensor, "t d"], shapes: Shapes, kept: list[Tensor]) -> Float[Tensor, "k d"]:
    """Tokens of the kept images, set by set."""
    parts = [
        part.view(*shape, -1).index_select(0, k).flatten(0, 1)
        for part, shape, k in zip(split(x, shapes), shapes, kept, strict=True)
    ]
    return _joined(parts)


def _scatter(
    x: Float[Tensor, "t d"], update: Float[Tensor, "k d"], shapes: Shapes, kept: list[Tensor]
) -> Float[Tensor, "t d"]:
    """Add the kept images' update, times images / kept, which keeps its expectation."""
    parts = [
        torch.index_add(
            part.view(*shape, -1),
            0,
            k,
            extra.view(len(k), shape[1], -1).to(x.dtype),
            alpha=shape[0] / len(k),
        ).flatten(0, 1)
        for part, extra, shape, k in zip(
            split(x, shapes), split(update, _few(shapes, kept)), shapes, kept, strict=True
        )
    ]
    return _joined(parts)
