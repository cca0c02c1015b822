"""The boxes of a raster, group of chips by group: streamed from top to bottom, like a map."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Shaped
from torch import Tensor

from geodino.geo.windows import Window
from geodino.infer.boxes import Boxes, Chip, taken
from geodino.infer.chips import ContentHash, Pixels, Raster
from geodino.infer.cover import Cover
from geodino.infer.feed import Feed
from geodino.infer.render import rectangles
from geodino.models.detection.faster_rcnn import DetectionModel, Found
from geodino.models.precision import multiplying_in


@runtime_checkable
class Finder(Protocol):
    """A model that finds objects."""

    align: int
    """Sides of chips are multiples of it."""

    device: torch.device

    def __call__(
        self, pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
    ) -> list[Found]:
        """Find the objects of chips of stored values."""


@runtime_checkable
class Parts(Protocol):
    """Where finished groups are noted (see :class:`geodino.io.cog.journal.JournalWriter`)."""

    def note(self, number: int, digest: str, facts: Mapping[str, Any]) -> None:
        """Note a group as finished."""


class BoxFinder:
    """A detection model on a device.

    Args:
        model: the model.
        device: where it computes.
        scale: what stored values are multiplied by first; None leaves them alone.
        dtype: what matrices are multiplied in: float32 or bfloat16.
        least_score: boxes that are less sure are left out.
    """

    def __init__(
        self,
        model: DetectionModel,
        *,
        device: torch.device,
        scale: float | None = None,
        dtype: torch.dtype = torch.float32,
        least_score: float = 0.0,
    ) -> None:
        self._model = model.to(device).eval()
        self._scale = scale
        self._dtype = dtype
        self._least_score = least_score
        self.device = device
        self.align = model.backbone.patch_size

    @torch.inference_mode()
    def __call__(
        self, pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
    ) -> list[Found]:
        """Return the boxes of each chip.

        Raises:
            RunError: values that are not finite.
        """
        pixels = pixels.float()
        if self._scale is not None:
            pixels = pixels * self._scale
        with multiplying_in(self._dtype, self.device):
            every = self._model(pixels, valid)
        return [self._sure(found) for found in every]

    def _sure(self, found: Found) -> Found:
        keep = found.scores >= self._least_score
        return Found(
            boxes=found.boxes[keep], classes=found.classes[keep], scores=found.scores[keep]
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """Everything the boxes of a raster are found with.

    Args:
        raster: the pixels, as the model sees them.
        finder: the model.
        cover: how chips cover the raster. Its groups are the parts of the work, numbered row by
            row.
        columns: most groups side by side that memory allows; no box depends on it.
    """

    raster: Raster
    finder: Finder
    cover: Cover
    columns: int = 1 << 30

    @property
    def across(self) -> int:
        """Groups of a row of chips."""
        return -(-self.cover.columns.count // self.cover.group)

    def number(self, chip: Chip) -> int:
        """Return the group of a chip."""
        return chip[0] * self.across + chip[1] // self.cover.group

    def window(self, number: int) -> Window:
        """Return the pixels of the raster that a group sees."""
        row, group = divmod(number, self.across)
        region, grid = self._region(range(row, row + 1), range(group, group + 1)), self.raster.grid
        bottom, right = min(region.bottom, grid.height), min(region.right, grid.width)
        return Window(region.top, region.left, bottom - region.top, right - region.left)

    def pixels(self, number: int) -> int:
        """Return how many pixels are a group's own: all groups together have each pixel once."""
        row, group = divmod(number, self.across)
        rows, columns, members = self.cover.rows, self.cover.columns, self.cover.members(group)
        height = rows.first(row + 1) - rows.first(row)
        return height * (columns.first(members.stop) - columns.first(members.start))

    def run(
        self,
        parts: Parts,
        numbers: Sequence[int],
        *,
        threads: Executor,
        advance: Callable[[int], None],
        facts: Mapping[str, Any],
    ) -> None:
        """Look at groups and note what is found in each.

        Args:
            parts: where it is noted: for each chip its column and its boxes, each as left, top,
                right, bottom, class and score.
            numbers: of the groups.
            threads: that read.
            advance: told the number of each group that is done.
            facts: noted with every group.

        Raises:
            SourceError: a block cannot be read; what was noted stays.
            RunError: the disk is full, or the model gives values that are not finite.
        """
        rows = self.cover.rows
        for down, across in rectangles(numbers, self.across, self.columns):
            region = self._region(down, across)
            feed = Feed(self.raster, region, threads=threads)
            for row in down:
                top, stop = rows.start(row), rows.start(row) + rows.side
                feed.ask(top, stop)
                seen = feed.pixels(top, stop)
                for group in across:
                    number = row * self.across + group
                    found = self._found((row, group), seen, left=region.left)
                    digest = self._digest(seen, self.window(number), left=region.left)
                    parts.note(number, digest, {**facts, "boxes": found})
                    advance(number)

    def digest(self, number: int) -> str:
        """Return the digest of the pixels of a group: what it was noted with."""
        window = self.window(number)
        return self._digest(self.raster.read(window), window, left=window.left)

    def _found(self, place: tuple[int, int], seen: Pixels, *, left: int) -> list[Any]:
        row, group = place
        pixels, valid = self.cover.batch(group, *seen, left=left)
        if not valid.any():
            return []
        finder = self.finder
        said = finder(pixels.to(finder.device), valid.to(finder.device))
        found = []
        members = self.cover.members(group)
        for column, one in zip(members, said, strict=True):
            boxes = taken(self.cover, (row, column), one)
            if len(boxes):
                found.append([column, boxes.as_rows()])
        return found

    def _digest(self, seen: Pixels, window: Window, *, left: int) -> str:
        pixels, valid = seen
        rows, columns = slice(window.height), slice(window.left - left, window.right - left)
        found = ContentHash()
        found.add(pixels[:, rows, columns], valid[rows, columns])
        return found.hexdigest()

    def _region(self, rows: range, groups: range) -> Window:
        """Return the pixels under some groups; they may reach over the raster's edge."""
        down, across = self.cover.rows, self.cover.columns
        top, left = down.start(rows[0]), across.start(self.cover.members(groups[0])[0])
        bottom = down.start(rows[-1]) + down.side
        right = across.start(self.cover.members(groups[-1])[-1]) + across.side
        return Window(top, left, bottom - top, right - left)


def found_in(
    committed: Iterable[tuple[int, Mapping[str, Any]]], *, across: int
) -> dict[Chip, Boxes]:
    """Return what is taken of each chip, as groups were noted.

    Args:
        committed: number of each group, and the facts it was noted with.
        across: groups of a row of chips.
    """
    return {
        (number // across, column): Boxes.from_rows(rows)
        for number, facts in committed
        for column, rows in facts["boxes"]
    }
