"""A query head: Mask2Former (Cheng et al. 2022, arXiv 2112.01527) on a pyramid of a backbone's taps.

Pixel decoder and transformer decoder are those of the library transformers. Queries look at the
image and each answers with a class, or none, and a mask; both together give the class of a pixel.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int64
from pydantic import Field
from torch import Tensor, nn

from geodino.config import Config
from geodino.errors import RecipeError, RunError
from geodino.losses.mask_classification import QueryWeights, query_losses, true_masks
from geodino.models.backbone import Tokens
from geodino.models.decoders.layers import draw, linear
from geodino.models.decoders.pyramid import STRIDES, enlarged, pyramid
from geodino.models.decoders.taps import Tap
from geodino.models.shards import fill

_HEADS = 8
"""Of every attention, as published."""

_MASK_GAIN = 4.0
"""Makes the standard deviation of the logits of untrained masks about 1, measured at 64 to 512
channels."""

_AROUND = ((0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1))
"""Where each head of the deformable attention looks at first, in cells (x, y)."""


class Mask2FormerConfig(Config):
    """A Mask2Former head. The defaults are those published for a ResNet-50."""

    kind: Literal["mask2former"] = "mask2former"
    """Which head: ``mask2former``, queries that each answer with a class and a mask."""

    taps: tuple[int, int, int, int] | None = None
    """Layers of the backbone to look at, counted from 0; None is four evenly spread over a ViT's
    blocks, or the stages of a ConvNeXt."""

    channels: Literal[64, 128, 256, 512] = 256
    """Channels of maps, queries and masks; layers between are 4 and 8 times as wide."""

    queries: int = Field(default=100, ge=1)
    """How many; at least one for each class."""

    layers: int = Field(default=9, ge=1)
    """Of the transformer decoder. Each is taught, and so are the queries before the first one."""

    encoder_layers: int = Field(default=6, ge=1)
    """Of deformable attention in the pixel decoder, over the maps of strides 8, 16 and 32."""

    points: int = Field(default=12_544, ge=4)
    """Pixels of an image in which masks are compared while learning, drawn among those that count;
    all of them where there are fewer."""

    class_weight: float = Field(default=2.0, ge=0)
    """Weight of the classes of queries in the loss and in the matching."""

    mask_weight: float = Field(default=5.0, ge=0)
    """The same of the cross-entropy of masks."""

    dice_weight: float = Field(default=5.0, ge=0)
    """The same of the Dice loss of masks."""

    no_object_weight: float = Field(default=0.1, gt=0)
    """Weight of a query that no class was matched with, in the loss of the classes."""


class Mask2FormerHead(nn.Module):
    r"""Queries that answer with masks and classes; scores of classes at the image's own pixels.

    The score of class c at a pixel is :math:`\sum_q p_q(c)\, m_q`: the probability that query q is
    of the class, "no object" left out, times the query's mask there (Cheng et al. 2021, arXiv
    2107.06278, section 3.4). Scores are divided by their sum. Weights are unset until
    ``init_weights`` or a state dict sets them.

    Args:
        taps: where the tokens come from, shallow to deep.
        config: its widths and losses.
        outputs: how many classes.

    Attributes:
        multiple: sides of images must be multiples of this, pixels.
        loss_in_words: what it is taught with.

    Raises:
        RecipeError: cells that cannot be brought to the strides, or fewer queries than classes.
        RunError: the library transformers is not installed.
    """

    def __init__(self, taps: Sequence[Tap], config: Mask2FormerConfig, *, outputs: int) -> None:
        super().__init__()
        if config.queries < outputs:
            raise RecipeError(
                f"{config.queries} queries for {outputs} classes: an image may hold all of them, and "
                f"each needs its own. Set `head.queries` to at least {outputs}."
            )
        self.config = config
        self.multiple = max(*STRIDES, *(tap.stride for tap in taps))
        self.loss_in_words = (
            f"{config.class_weight:g} x class, {config.mask_weight:g} x mask and "
            f"{config.dice_weight:g} x Dice of matched queries, after each layer"
        )
        self.resize = pyramid(taps, head="Mask2Former")
        self.pixel_decoder, self.transformer = _decoders([tap.dim for tap in taps], config)
        self.of_class = linear(config.channels, outputs + 1)

    def init_weights(self, generator: torch.Generator, *, bias: Float[Tensor, "k"]) -> None:
        """Draw all weights from ``generator``; the classes of queries begin near ``bias``."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
                draw(module, generator)
            elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                _normal(module.weight, generator)
            elif isinstance(module, nn.MultiheadAttention):
                _normal(module.in_proj_weight, generator, deviation=self.config.channels**-0.5)
                nn.init.zeros_(module.in_proj_bias)
        _normal(self.pixel_decoder.level_embed, generator)
        for layer in self.pixel_decoder.encoder.layers:
            _look_around(layer.self_attn)
        # A mask is a sum over channels: its logits shall begin near 1, however many there are.
        embed = self.transformer.decoder.mask_predictor.mask_embedder
        draw(embed.get_submodule("2.0"), generator, gain=_MASK_GAIN * self.config.channels**-0.5)
        with torch.no_grad():
            self.of_class.bias[:-1].copy_(bias)

    def answers(
        self, tokens: Sequence[Tokens]
    ) -> list[tuple[Float[Tensor, "b q k"], Float[Tensor, "b q h w"]]]:
        """Return the logits of classes and masks of each query, after none and after each layer.

        The last class is "no object"; masks have stride 4.
        """
        maps = [layer(tapped.map) for layer, tapped in zip(self.resize, tokens, strict=True)]
        seen = self.pixel_decoder(maps)
        said = self.transformer(seen.multi_scale_features, seen.mask_features)
        return [
            (self.of_class(queries.transpose(0, 1)), masks)
            for queries, masks in zip(
                said.intermediate_hidden_states, said.masks_queries_logits, strict=True
            )
        ]

    def forward(self, tokens: Sequence[Tokens]) -> Float[Tensor, "b k h w"]:
        """Return the logarithm of the scores, for sides that are whole ``multiple``.

        They sum to 1 over the classes: their softmax is the scores again.
        """
        return torch.cat(list(self.slabs(tokens)), dim=2)

    def slabs(self, tokens: Sequence[Tokens]) -> Iterator[Float[Tensor, "b k rows w"]]:
        """Yield the outputs some rows at a time, from the top: all of them need much memory."""
        class_logits, masks = self.answers(tokens)[-1]
        shares = class_logits.float().softmax(dim=-1)[..., :-1]
        for rows in enlarged(masks.float()):
            scores = torch.einsum("bqk,bqhw->bkhw", shares, rows.sigmoid())
            # No query speaks for a pixel where all masks vanish: classes are then alike.
            scores = scores.clamp_min(torch.finfo(torch.float32).tiny)
            yield scores.log() - scores.sum(dim=1, keepdim=True).log()

    def loss(
        self,
        tokens: Sequence[Tokens],
        target: Int64[Tensor, "b h w"],
        valid: Bool[Tensor, "b h w"],
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the losses by name: ``total`` over all layers, the others of the last one.

        Pixels are drawn by a key that is itself drawn from torch's random state, as dropout is:
        the training seeds that by the run's seed and the step.

        Args:
            tokens: of images of whole ``multiple``.
            target: number of the class of each pixel; anything where not ``valid``.
            valid: which pixels count.
        """
        config = self.config
        key = int(torch.randint(2**62, ()))
        generator = torch.Generator(target.device).manual_seed(key)
        weights = QueryWeights(
            classes=config.class_weight, mask=config.mask_weight, dice=config.dice_weight,
            no_object=config.no_object_weight,
        )  # fmt: skip
        answers, truths = self.answers(tokens), true_masks(target, valid)
        total, last = torch.zeros((), device=target.device), {}
        with torch.autocast(target.device.type, enabled=False):
            for class_logits, masks in answers:
                last = query_losses(
                    class_logits, masks, truths, points=config.points, weights=weights,
                    generator=generator,
                )  # fmt: skip
                total = total + weights.classes * last["class"]
                total = total + weights.mask * last["mask"] + weights.dice * last["dice"]
        return {"total": total, **last}


def _decoders(dims: Sequence[int], config: Mask2FormerConfig) -> tuple[Any, Any]:
    """Build the library's two decoders, unset, without a draw from torch's random state."""
    # Imported here: transformers is an extra, and slow to import.
    try:
        from transformers import Mask2FormerConfig as LibraryConfig
        from transformers.models.mask2former.modeling_mask2former import (
            Mask2FormerPixelDecoder,
            Mask2FormerTransformerModule,
        )
    except ImportError as error:
        raise RunError(
            f"The head mask2former needs the package {error.name}: `pip install 'geodino[hub]'`, or "
            "choose another `head.kind`."
        ) from error
    width = config.channels
    theirs = LibraryConfig(
        feature_size=width,
        mask_feature_size=width,
        hidden_dim=width,
        encoder_feedforward_dim=4 * width,
        dim_feedforward=8 * width,
        encoder_layers=config.encoder_layers,
        # The library counts the queries before the first layer as one.
        decoder_layers=config.layers + 1,
        num_queries=config.queries,
        num_attention_heads=_HEADS,
        dropout=0.0,
        feature_strides=list(STRIDES),
    )
    with torch.device("meta"):
        pixels = Mask2FormerPixelDecoder(theirs, list(dims))
        queries = Mask2FormerTransformerModule(width, theirs)
    return pixels.to_empty(device="cpu"), queries.to_empty(device="cpu")


def _normal(parameter: Tensor, generator: torch.Generator, *, deviation: float = 1.0) -> None:
    drawn = torch.empty(parameter.shape, dtype=torch.float32)
    fill(parameter, drawn.normal_(0.0, deviation, generator=generator))


@torch.no_grad()
def _look_around(attention: Any) -> None:
    """Let each head look in a direction of its own, its points ever farther, all weighed alike.

    As Deformable DETR begins (Zhu et al. 2021, arXiv 2010.04159, appendix).
    """
    around = torch.tensor(_AROUND, dtype=torch.float32)
    steps = torch.arange(1.0, attention.n_points + 1)
    offsets = around[:, None, None] * steps[:, None]
    fill(attention.sampling_offsets.bias, offsets.expand(-1, attention.n_levels, -1, -1).flatten())
    nn.init.zeros_(attention.sampling_offsets.weight)
    nn.init.zeros_(attention.attention_weights.weight)
    nn.init.zeros_(attention.attention_weights.bias)
