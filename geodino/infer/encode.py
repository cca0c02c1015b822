"""Chips to features: batches of one shape through a backbone, in the order the chips came."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped

from geodino.errors import RunError
from geodino.infer.chips import Chip, patch_validity
from geodino.models.backbone import Backbone
from geodino.models.precision import multiplying_in

_WAITING = 8
"""Batches' worth of chips that may wait, most of them without a valid pixel, until a batch that
is not full is encoded all the same: memory must not grow with an empty raster."""


class Encoder:
    """A backbone on its device, fed with batches of one constant shape.

    The last batch is filled up, so the features of a chip do not depend on what else is encoded.

    Args:
        backbone: in evaluation mode, on ``device``.
        device: where it computes.
        batch: chips per forward pass.
        scale: what stored values are multiplied by first.
        dtype: what matrices are multiplied in: float32 or bfloat16.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        device: torch.device,
        batch: int,
        scale: float | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._backbone = backbone
        self._device = device
        self.batch = batch
        self._scale = scale
        self._dtype = dtype
        self.dim = backbone.dim
        self.patch = backbone.patch_size

    @torch.inference_mode()
    def __call__(
        self, pixels: Shaped[np.ndarray, "b c h w"], valid: Bool[np.ndarray, "b h w"]
    ) -> tuple[Float[np.ndarray, "b d"], Float[np.ndarray, "b rows columns d"]]:
        """Encode up to ``batch`` chips; return class tokens and patch tokens, float32.

        Raises:
            RunError: features that are not finite.
        """
        count = len(pixels)
        images = torch.zeros((self.batch, *pixels.shape[1:]), device=self._device)
        masks = torch.zeros((self.batch, *valid.shape[1:]), dtype=torch.bool, device=self._device)
        images[:count] = torch.from_numpy(pixels).to(self._device).float()
        masks[:count] = torch.from_numpy(valid).to(self._device)
        if self._scale is not None:
            images *= self._scale
        with multiplying_in(self._dtype, self._device):
            tokens = self._backbone.tokens(images, masks)
        cls = tokens.cls[:count].float().cpu().numpy()
        patches = tokens.patches[:count].float().cpu().numpy()
        if not (np.isfinite(cls).all() and np.isfinite(patches).all()):
            raise RunError(
                "The model gives features that are not finite: its weights hold NaN or infinity, "
                "or the pixels overflow. Check the checkpoint and the range of the values."
            )
        return cls, patches.reshape(count, *tokens.grid, self.dim)


@dataclass(frozen=True, kw_only=True, slots=True)
class Encoded:
    """What became of a chip."""

    raster: int
    """Number of its raster."""

    row: int
    column: int

    share: float
    """Valid pixels per pixel of the chip that lies within the raster."""

    cls: Float[np.ndarray, "d"] | None
    """Class token; None for a chip without a valid pixel, which is never encoded."""

    patches: Float[np.ndarray, "rows columns d"] | None
    """Patch tokens; None as above."""

    weights: Float[np.ndarray, "rows columns"] | None
    """Share of valid pixels under each patch; a token of weight 0 means nothing. None as above."""

    def pooled(self, how: str) -> Float[np.ndarray, "d"] | None:
        """Return one vector for the chip, or None.

        ``cls`` is the class token, ``mean`` the mean of the patch tokens, each weighted by the
        share of valid pixels under it.
        """
        if self.cls is None or self.patches is None or self.weights is None:
            return None
        if how == "cls":
            return self.cls
        flat = self.patches.reshape(-1, self.patches.shape[-1])
        return np.average(flat, axis=0, weights=self.weights.ravel()).astype(np.float32)

    def tokens(self) -> Float[np.ndarray, "n d"]:
        """Return the patch tokens that lie on a valid pixel, row by row."""
        if self.patches is None or self.weights is None:
            raise ValueError("a chip without a valid pixel has no tokens")
        tokens: Float[np.ndarray, "n d"] = self.patches[self.weights > 0]
        return tokens


def encoded(chips: Iterable[Chip], encoder: Encoder) -> Iterator[Encoded]:
    """Encode chips; the results come in the order of the chips."""
    waiting: list[Chip | Encoded] = []
    full = 0
    for chip in chips:
        if chip.share == 0.0:
            waiting.append(_blank(chip))
        else:
            waiting.append(chip)
            full += 1
        if full in (0, encoder.batch) or len(waiting) == _WAITING * encoder.batch:
            yield from _run(waiting, encoder)
            waiting, full = [], 0
    yield from _run(waiting, encoder)


def _run(waiting: Sequence[Chip | Encoded], encoder: Encoder) -> Iterator[Encoded]:
    chips = [chip for chip in waiting if isinstance(chip, Chip)]
    if chips:
        valid = np.stack([chip.valid for chip in chips])
        cls, patches = encoder(np.stack([chip.pixels for chip in chips]), valid)
        weights = patch_validity(valid, encoder.patch)
    place = 0
    for item in waiting:
        if isinstance(item, Encoded):
            yield item
            continue
        yield Encoded(
            raster=item.raster,
            row=item.row,
            column=item.column,
            share=item.share,
            cls=cls[place],
            patches=patches[place],
            weights=weights[place],
        )
        place += 1


def _blank(chip: Chip) -> Encoded:
    return Encoded(
        raster=chip.raster,
        row=chip.row,
        column=chip.column,
        share=0.0,
        cls=None,
        patches=None,
        weights=None,
    )
