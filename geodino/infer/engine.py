"""A map of a raster from a model that sees chips: blended, and streamed from top to bottom.

Memory holds a row of chips at a time, so it does not grow with the raster's height, and the values
of a pixel do not depend on which part of the raster is asked for.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from geodino.errors import RunError
from geodino.geo.windows import Window
from geodino.infer.chips import Pixels
from geodino.infer.cover import ChipAxis, Cover


@runtime_checkable
class Predictor(Protocol):
    """A model that gives every pixel, or every patch of ``stride`` pixels, some values."""

    channels: int
    """Values per pixel."""

    stride: int
    """Pixels per value along each axis."""

    align: int
    """Sides of chips are multiples of it."""

    device: torch.device

    def __call__(
        self, pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
    ) -> Float[Tensor, "b k hh ww"]:
        """Predict chips of stored values; what lies under invalid pixels must not matter."""


@runtime_checkable
class RowSource(Protocol):
    """Rows of a raster, from top to bottom (see :class:`geodino.infer.feed.Feed`)."""

    def pixels(self, top: int, stop: int) -> Pixels:
        """Return rows: stored values, and which of them may be used."""

    def used_columns(self, top: int, stop: int) -> Bool[np.ndarray, "w"]:
        """Return the columns in which some rows hold a pixel to predict."""


@dataclass(frozen=True, slots=True)
class Strip:
    """Rows that are finished."""

    top: int
    """The first of them, in rows of the output."""

    height: int

    values: Float[np.ndarray, "k h w"] | None
    """Predictions, also under invalid pixels, where they mean nothing; None where no pixel of
    these rows is to be predicted."""


def predicted(
    source: RowSource, predictor: Predictor, cover: Cover, window: Window
) -> Iterator[Strip]:
    """Yield the predictions of a window of the output, strip by strip.

    Args:
        source: rows of the pixels ``cover.needed(window)``.
        predictor: the model.
        cover: how chips cover the whole raster.
        window: rows and columns of the output.

    Raises:
        RunError: a prediction that is not finite.
    """
    chips = _ChipRow(source, predictor, cover, window)
    before: Tensor | None = None
    for number in cover.rows.touching(window.top, window.bottom):
        strip = chips.predict(number)
        start = cover.rows.start(number) // predictor.stride
        first, end = cover.rows.first(number), cover.rows.first(number + 1)
        if before is not None and strip is not None:
            fade = torch.from_numpy(cover.rows.fade(number)).to(strip)[:, None]
            rows = slice(first - start, first - start + len(fade))
            torch.lerp(before[:, : len(fade)], strip[:, rows], fade, out=strip[:, rows])
        # What fades into the next row of chips; a row without any fades into nothing used.
        low, high = end - start, cover.rows.full(number + 1) - start
        before = None if strip is None else strip[:, low:high].clone()
        top, stop = max(first, window.top), min(end, window.bottom)
        if top < stop:  # of the first row of chips the window may see the fade alone
            rows = slice(top - start, stop - start)
            yield Strip(top, stop - top, None if strip is None else strip[:, rows].cpu().numpy())


class _ChipRow:
    """Predicts one row of chips after the other and joins each from left to right."""

    def __init__(
        self, source: RowSource, predictor: Predictor, cover: Cover, window: Window
    ) -> None:
        self._source = source
        self._predictor = predictor
        self._cover = cover
        self._width = window.width
        self._chips = {
            chip: _Place.of(cover.columns, chip, window, predictor.device)
            for chip in cover.columns.touching(window.left, window.right)
        }
        self._offset = cover.needed(window).left
        self._batch: tuple[Tensor, Tensor] | None = None

    def predict(self, number: int) -> Tensor | None:
        """Return the values ``[k h w]`` of a row of chips; None where it holds nothing to predict."""
        top = self._cover.rows.start(number)
        stop = top + self._cover.rows.side
        pixels, valid = self._source.pixels(top, stop)
        used = self._source.used_columns(top, stop)
        needed = [chip for chip in self._chips if used[self._columns(chip)].any()]
        if not needed:
            return None
        predictor = self._predictor
        made = torch.empty if len(needed) == len(self._chips) else torch.zeros
        size = predictor.channels, self._cover.rows.out_side, self._width
        strip = made(size, device=predictor.device)
        for group in sorted({chip // self._cover.group for chip in needed}):
            members = self._cover.members(group)
            values = self._predict_group(pixels, valid, group)
            for chip, part in zip(members, values, strict=True):
                if chip in needed:
                    self._chips[chip].join(strip, part)
        return strip

    def _predict_group(
        self, pixels: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"], group: int
    ) -> Float[Tensor, "b k hh ww"]:
        """Predict the chips of a group."""
        if self._batch is None:
            # One for all batches: fresh memory for each would cost as much as filling it.
            self._batch = self._cover.room(pixels, valid)
        chips, masks = self._cover.batch(group, pixels, valid, left=self._offset, into=self._batch)
        device = self._predictor.device
        values = self._predictor(chips.to(device), masks.to(device))
        # A sum is four times cheaper than a look at each value, and rarely overflows.
        if not torch.isfinite(values.sum()) and not torch.isfinite(values).all():
            raise RunError(
                "The model gives values that are not finite: its weights hold NaN or infinity, "
                "or the pixels overflow. Check the checkpoint and the range of the values."
            )
        return values

    def _columns(self, chip: int) -> slice:
        start = self._cover.columns.start(chip) - self._offset
        return slice(start, start + self._cover.columns.side)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a chip goes in its strip: it fades in over its predecessor, and replaces what follows."""

    fading: slice
    """Columns of the strip where it fades in."""

    weight: Float[Tensor, "n"]
    """How much it counts in each of them."""

    alone: slice
    """Columns of the strip that it replaces."""

    left: int
    """Column of the strip that the chip begins at; below 0 where it reaches out."""

    @classmethod
    def of(cls, axis: ChipAxis, chip: int, window: Window, device: torch.device) -> "_Place":
        """Place a chip in strips as wide as a window."""
        first, full = (
            min(max(edge, window.left), window.right)
            for edge in (axis.first(chip), axis.full(chip))
        )
        following = axis.out_length if chip + 1 == axis.count else axis.full(chip + 1)
        stop = min(following, window.right)
        weight = axis.fade(chip)[first - axis.first(chip) : full - axis.first(chip)]
        return cls(
            fading=slice(first - window.left, full - window.left),
            weight=torch.from_numpy(weight).to(device),
            alone=slice(full - window.left, stop - window.left),
            left=axis.start(chip) // axis.stride - window.left,
        )

    def join(self, strip: Float[Tensor, "k h w"], part: Float[Tensor, "k h side"]) -> None:
        """Lay the values of the chip into a strip."""
        if len(self.weight):
            strip[..., self.fading].lerp_(part[..., self._own(self.fading)], self.weight)
        strip[..., self.alone] = part[..., self._own(self.alone)]

    def _own(self, columns: slice) -> slice:
        return slice(columns.start - self.left, columns.stop - self.left)
