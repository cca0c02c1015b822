"""The lightest dense head: one linear map per cell, enlarged to pixels."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geodino.config import Config
from geodino.models.backbone import Tokens
from geodino.models.decoders.layers import OUT_GAIN, conv, draw
from geodino.models.decoders.taps import Tap


class LinearHeadConfig(Config):
    """A linear head, without norms: for probing features, or where speed is all."""

    kind: Literal["linear"] = "linear"
    """Which head: ``dpt``, convolutions that fuse four layers, or ``linear``, one map per patch."""

    taps: tuple[int, int, int, int] | None = None
    """Layers of the backbone to look at, counted from 0; None is the usual four."""

    use: Literal["four", "last"] = "four"
    """Read all four taps, or the last one alone."""


class LinearHead(nn.Module):
    """A 1x1 convolution over the joined taps; its outputs are enlarged bilinearly to pixels.

    What is enlarged are the outputs (logits of bins), not heights. Taps of different strides each
    have their own part of the convolution at their own stride and are added on the finest one's
    grid, which for equal strides is the same. Weights are unset until ``init_weights`` or a state
    dict sets them.

    Args:
        taps: where the tokens come from, shallow to deep.
        config: what to use of them.
        outputs: channels of the result.

    Attributes:
        multiple: sides of images must be multiples of this, pixels.
    """

    def __init__(self, taps: Sequence[Tap], config: LinearHeadConfig, *, outputs: int) -> None:
        super().__init__()
        self.config = config
        used = taps if config.use == "four" else taps[-1:]
        self.multiple = max(tap.stride for tap in taps)
        self.stride = min(tap.stride for tap in used)
        last = len(used) - 1
        self.out = nn.ModuleList(
            conv(tap.dim, outputs, kernel=1, bias=i == last) for i, tap in enumerate(used)
        )

    def init_weights(self, generator: torch.Generator, *, bias: Float[Tensor, "k"]) -> None:
        """Draw small weights from ``generator``; the outputs begin near ``bias``."""
        for layer in self.out:
            draw(layer, generator, gain=OUT_GAIN * len(self.out) ** -0.5)  # type: ignore[arg-type]
        with torch.no_grad():
            self.out[-1].bias.copy_(bias)  # type: ignore[operator]

    def cells(self, tokens: Sequence[Tokens]) -> Float[Tensor, "b k h w"]:
        """Return the outputs per cell of the finest tap."""
        used = tokens[-len(self.out) :]
        parts = [layer(tapped.map) for layer, tapped in zip(self.out, used, strict=True)]
        size = max(part.shape[-2:] for part in parts)
        return torch.stack(
            [
                part
                if part.shape[-2:] == size
                else F.interpolate(part, size, mode="bilinear", align_corners=False)
                for part in parts
            ]
        ).sum(0)

    def forward(self, tokens: Sequence[Tokens]) -> Float[Tensor, "b k h w"]:
        """Return the outputs at the image's own pixels."""
        return torch.cat(list(self.slabs(tokens)), dim=2)

    def slabs(self, tokens: Sequence[Tokens]) -> Iterator[Float[Tensor, "b k rows w"]]:
        """Yield the outputs some rows at a time, from the top: all of them need much memory."""
        cells = self.cells(tokens)
        height, width = cells.shape[-2:]
        wide = F.interpolate(
            cells, (height, width * self.stride), mode="bilinear", align_corners=False
        )
        for above in range(-1, height):
            # Rows whose centres lie between those of this row of cells and the next.
            start, stop = (math.ceil((i + 0.5) * self.stride - 0.5) for i in (above, above + 1))
            rows = torch.arange(max(start, 0), min(stop, height * self.stride), device=cells.device)
            first, second = (wide[:, :, min(max(i, 0), height - 1)] for i in (above, above + 1))
            if len(rows):
                share = ((rows + 0.5) / self.stride - 0.5 - above).to(wide)[:, None]
                yield torch.lerp(first[:, :, None], second[:, :, None], share)
