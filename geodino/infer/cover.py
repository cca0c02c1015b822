"""How overlapping chips cover a raster, and how much each counts where they overlap.

Chips are anchored to the raster's first pixel, so a pixel lies in the same chips whatever part of
the raster is asked for. The output may be coarser than the pixels: a patch of ``stride`` pixels a
value.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped

from geodino.geo.windows import Window

_BATCH_PIXELS = {"cpu": 512 * 512, "cuda": 2048 * 2048}
"""Pixels of a batch: enough to keep the device busy."""

_MARGIN = 0.25
"""Share of an overlap that the outer end of each chip gives up: a network sees least there."""


@dataclass(frozen=True)
class ChipAxis:
    """Chips along the rows, or along the columns, of a raster.

    Chips begin every ``chip - overlap`` pixels. The last one is moved back so that it ends with the
    raster (with its last value, where the output is coarser), and no chip is longer than the raster
    in whole ``align``: the borders are seen with as many pixels as there are. Where two chips overlap, one fades into the next by a raised cosine
    over the middle half of the overlap; the outer quarter at each end of a chip counts for nothing,
    except at the ends of the raster.

    Args:
        length: pixels of the raster.
        chip: pixels of a chip, a multiple of ``align``.
        overlap: pixels that neighbours share, a multiple of ``align``, at most half a chip.
        align: sides of chips are multiples of it: the side of a patch, in pixels.
        stride: pixels per value of the output; divides ``align``.
    """

    length: int
    chip: int
    overlap: int
    align: int
    stride: int = 1

    def __post_init__(self) -> None:
        if self.chip % self.align or self.overlap % self.align or self.align % self.stride:
            raise ValueError(f"chip and overlap of {self} are not whole numbers of its alignment")
        if not 0 <= self.overlap <= self.chip // 2:
            raise ValueError(f"the overlap of {self} is not between 0 and half a chip")

    @cached_property
    def side(self) -> int:
        """Pixels of each chip: ``chip``, or all of a shorter raster in whole ``align``."""
        return min(self.chip, -(-self.length // self.align) * self.align)

    @cached_property
    def count(self) -> int:
        """How many chips there are."""
        return 1 + -(-self._last // (self.chip - self.overlap))

    @property
    def out_length(self) -> int:
        """Values of the output."""
        return -(-self.length // self.stride)

    @property
    def out_side(self) -> int:
        """Values of a chip."""
        return self.side // self.stride

    def start(self, number: int) -> int:
        """Return the first pixel of a chip."""
        return min(number * (self.chip - self.overlap), self._last)

    def first(self, number: int) -> int:
        """Return the first value of the output that a chip counts for; the end for one too many."""
        if number <= 0:
            return 0
        if number >= self.count:
            return self.out_length
        return math.floor(self._cut(number) - self._reach)

    def full(self, number: int) -> int:
        """Return the first value from which on a chip counts alone, its predecessor no more."""
        return 0 if number <= 0 else math.ceil(self._cut(number) + self._reach)

    def fade(self, number: int) -> Float[np.ndarray, "n"]:
        """Return how much a chip counts against its predecessor from ``first`` to ``full``."""
        places = np.arange(self.first(number), self.full(number)) + 0.5 - self._cut(number)
        if self._reach == 0:
            part = 0.5 * (1 + np.sign(places))
        else:
            part = np.clip(places / (2 * self._reach) + 0.5, 0, 1)
        weights: Float[np.ndarray, n] = (0.5 - 0.5 * np.cos(np.pi * part)).astype(np.float32)
        return weights

    def span(self, number: int) -> tuple[int, int]:
        """Return the first value of the output that a chip counts for, and the one after its last."""
        last = number + 1 == self.count
        return self.first(number), self.out_length if last else self.full(number + 1)

    def is_cut(
        self, number: int, low: Float[np.ndarray, " n"], high: Float[np.ndarray, " n"]
    ) -> Bool[np.ndarray, " n"]:
        """Return which stretches end at a border of a chip, and well within what a neighbour sees.

        It sees all that the chip does and may see more: what is cut here is whole there. And it
        counts for the middle of the whole. What ends at a border of both is cut by neither.

        Args:
            number: of the chip.
            low: first ends, pixels of the raster.
            high: last ends.
        """
        start, end = self.start(number), self.start(number) + self.side
        # Were it longer, the middle of a stretch could lie where the neighbour counts no more.
        near = min(self.overlap / 8, 2 * self._reach * self.stride)
        cut = np.zeros(len(low), dtype=bool)
        if number > 0:
            cut |= (low <= start + near) & (high < self.start(number - 1) + self.side - near)
        if number + 1 < self.count:
            cut |= (high >= end - near) & (low > self.start(number + 1) + near)
        return cut

    def overlapping(self, number: int) -> range:
        """Return the chips that share a pixel with a chip, itself among them."""
        start = self.start(number)
        low, high = number, number + 1
        while low > 0 and self.start(low - 1) + self.side > start:
            low -= 1
        while high < self.count and self.start(high) < start + self.side:
            high += 1
        return range(low, high)

    def touching(self, first: int, stop: int) -> range:
        """Return the chips that count for any value from ``first`` to ``stop - 1``."""
        step = self.chip - self.overlap
        low = max(0, first * self.stride // step - 2)
        while low + 1 < self.count and self.full(low + 1) <= first:
            low += 1
        high = low + 1
        while high < self.count and self.first(high) < stop:
            high += 1
        return range(low, high)

    @cached_property
    def _last(self) -> int:
        """First pixel of the last chip."""
        return max(0, self.out_length * self.stride - self.side)

    def _cut(self, number: int) -> float:
        """Where a chip and its predecessor count the same: the middle of what they share."""
        return (self.start(number) + self.start(number - 1) + self.side) / 2 / self.stride

    @cached_property
    def _reach(self) -> float:
        """Half the width of a fade. The last chips may lie close: fades must not run together."""
        fade = self.overlap * (1 - 2 * _MARGIN) / 2
        if self.count > 2:
            spacing = (self._last - self.start(self.count - 3)) / 2
            fade = min(fade, spacing / 2 - self.stride)
        return max(0.0, fade) / self.stride


@dataclass(frozen=True)
class Cover:
    """All chips of a raster, and the groups that they are computed in.

    A group is ``group`` neighbouring chips of one row of chips, always the same ones, however much
    of the raster is asked for: arithmetic on a device may differ in the last bit with a chip's
    place in a batch, and a map must not.

    Args:
        rows: chips down.
        columns: chips across.
        group: chips that are computed together.
    """

    rows: ChipAxis
    columns: ChipAxis
    group: int

    @classmethod
    def of(
        cls,
        height: int,
        width: int,
        *,
        chip: int,
        overlap: int,
        align: int,
        stride: int = 1,
        group: int = 1,
    ) -> "Cover":
        """Cover a raster of ``height`` x ``width`` pixels with square chips.

        Groups are about equal, of at most ``group`` chips each.
        """
        rows, columns = (
            ChipAxis(length, chip=chip, overlap=overlap, align=align, stride=stride)
            for length in (height, width)
        )
        batches = -(-columns.count // group)
        return cls(rows, columns, -(-columns.count // batches))

    def groups(self, columns: range) -> range:
        """Return the groups that hold any of the chips ``columns`` of a row."""
        return range(columns.start // self.group, -(-columns.stop // self.group))

    def members(self, group: int) -> range:
        """Return the chips of a group; the last group may have fewer than the others."""
        first = group * self.group
        return range(first, min(first + self.group, self.columns.count))

    def batch(
        self,
        group: int,
        pixels: Shaped[np.ndarray, "c h w"],
        valid: Bool[np.ndarray, "h w"],
        *,
        left: int,
        into: tuple[Shaped[torch.Tensor, "most c h side"], Bool[torch.Tensor, "most h side"]]
        | None = None,
    ) -> tuple[Shaped[torch.Tensor, "b c h side"], Bool[torch.Tensor, "b h side"]]:
        """Return the chips of a group.

        Args:
            group: its number.
            pixels: a row of chips.
            valid: which of them may be used.
            left: first column of ``pixels`` in the raster.
            into: where to, overwritten (see :meth:`room`); None takes fresh memory.
        """
        members, side = self.members(group), self.columns.side
        room = self.room(pixels, valid) if into is None else into
        batch = room[0][: len(members)], room[1][: len(members)]
        chips, masks = (tensor.numpy() for tensor in batch)
        for place, chip in enumerate(members):
            start = self.columns.start(chip) - left
            columns = slice(start, start + side)
            chips[place], masks[place] = pixels[:, :, columns], valid[:, columns]
        return batch

    def room(
        self, pixels: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "h w"]
    ) -> tuple[Shaped[torch.Tensor, "most c h side"], Bool[torch.Tensor, "most h side"]]:
        """Return memory for the chips of the largest group."""
        side = self.columns.side
        chips = np.empty((self.group, len(pixels), len(valid), side), dtype=pixels.dtype)
        masks = np.empty((self.group, len(valid), side), dtype=bool)
        return torch.from_numpy(chips), torch.from_numpy(masks)

    def blank(
        self, bands: int, *, device: torch.device
    ) -> tuple[Float[torch.Tensor, "b c h w"], Bool[torch.Tensor, "b h w"]]:
        """Return a batch of nothing but valid zeros: what it takes to compute one can be tried."""
        size = self.rows.side, self.columns.side
        pixels = torch.zeros((self.group, bands, *size), device=device)
        return pixels, torch.ones((self.group, *size), dtype=torch.bool, device=device)

    def needed(self, window: Window) -> Window:
        """Return the pixels, some beyond the raster's edge, that a window of the output needs."""
        down = self.rows.touching(window.top, window.bottom)
        across = self.groups(self.columns.touching(window.left, window.right))
        left = self.columns.start(self.members(across[0])[0])
        right = self.columns.start(self.members(across[-1])[-1]) + self.columns.side
        top, bottom = self.rows.start(down[0]), self.rows.start(down[-1]) + self.rows.side
        return Window(top, left, bottom - top, right - left)


def chip_group(wanted: int | None, *, chip: int, device: torch.device, most: int = 64) -> int:
    """Return how many chips are computed together: part of the result, to the last bit.

    Args:
        wanted: what was asked for; None is what fits the device.
        chip: side of a chip, pixels.
        device: that computes.
        most: at most so many, however small they are.
    """
    fitting = _BATCH_PIXELS[device.type] // (chip * chip)
    return wanted or max(1, min(most, fitting))
