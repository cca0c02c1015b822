"""Images with their labels and their split, read in windows of the grid the model works on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from jaxtyping import Bool, Float

from geodino.data.labels.footprint_reader import FootprintReader, Footprints
from geodino.data.labels.footprints import FootprintIndex, FootprintPairs
from geodino.data.labels.index import LabelIndex
from geodino.data.labels.pairs import Pairs
from geodino.data.labels.reader import LabelReader
from geodino.data.splits import Split, SplitName
from geodino.data.tiles import TileIndex, TileReader
from geodino.geo.contract import InputContract
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.infer.chips import Pixels, Raster
from geodino.io.raster import HandlePool
from geodino.tasks.seen import SeenSource

Scored = Callable[[int | None, Grid, Window, Float[np.ndarray, "h w"]], Bool[np.ndarray, "h w"]]
"""Which labels of a window are scored: number of the label raster (None for footprints), its grid,
the window and the labels, as :meth:`geodino.tasks.canopy.scored.ScoredGround.of`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RasterLabels:
    """Labels that are rasters, and the images they lie on."""

    index: LabelIndex
    pairs: Pairs


@dataclass(frozen=True, kw_only=True, slots=True)
class FootprintLabels:
    """Labels that are footprints, and the images they lie on."""

    index: FootprintIndex
    pairs: FootprintPairs


Labels = RasterLabels | FootprintLabels


@dataclass(frozen=True, kw_only=True)
class CanopySource(SeenSource[int]):
    """Everything that is read, whether to learn from it or to be judged by it.

    Safe to use from threads.
    """

    images: TileIndex
    contract: InputContract
    """Of the model: how invalid bands are filled."""

    labels: Labels
    split: Split

    pool: HandlePool
    """Where open files are kept."""

    scale: float | None = None
    """What stored values of images are multiplied by before anything sees them."""

    scored: Scored | None = None
    """Which labels are scored; None scores all. What is learnt from does not depend on it."""

    def read_image(self, image: int, window: Window) -> Pixels:
        """Read a window of an image, in the values of the model."""
        pixels, valid = self._read_stored(image, window)
        if self.scale is None:
            return pixels, valid
        return pixels.astype(np.float32) * np.float32(self.scale), valid

    @cached_property
    def _read_stored(self) -> TileReader:
        contract, scale = self.contract, self.scale or 1.0
        fill = [mean / scale for mean in contract.mean]
        return TileReader(self.images, self.pool, valid=contract.valid, fill=fill)

    @cached_property
    def read_rasters(self) -> LabelReader:
        """Reads labels that are rasters."""
        if not isinstance(self.labels, RasterLabels):
            raise TypeError("the labels are footprints")
        return LabelReader(self.labels.index, self.labels.pairs, self.images, self.pool)

    @cached_property
    def find_footprints(self) -> FootprintReader:
        """Finds labels that are footprints."""
        if not isinstance(self.labels, FootprintLabels):
            raise TypeError("the labels are rasters")
        return FootprintReader(self.labels.index, self.labels.pairs, self.images)

    @property
    def values(self) -> str:
        """What is read of images, in words: ``float32 times 1``."""
        return self.images.dtype + ("" if self.scale is None else f" times {self.scale:g}")

    @property
    def labelled(self) -> tuple[int, ...]:
        """Numbers of the images that have labels."""
        return self.labels.pairs.labelled

    def split_of(self, image: int) -> Split:
        """Return the split of the ground under an image, of the rows of its year."""
        return self.split.of_time(self.images.tiles[image].datetime)

    def raster(self, image: int) -> Raster:
        """Return an image on its own grid."""
        return self._raster(image, self.read_image)

    def stored(self, image: int) -> Raster:
        """Return an image on its own grid, in stored values."""
        return self._raster(image, self._read_stored)

    def _raster(self, image: int, read: Callable[[int, Window], Pixels]) -> Raster:
        tile = self.images.tiles[image]
        return Raster(name=tile.path, grid=tile.grid, read=partial(read, image), block=tile.block)

    def heights(
        self, image: int, window: Window, which: SplitName
    ) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """Return the heights of a window of the model's grid, and where they are of a split."""
        grid = self.grid(image)
        of_split = self.split_of(image).mask(grid, window, which)
        if not of_split.any():
            return np.zeros(of_split.shape, np.float32), of_split
        heights, known = self.read_rasters(image, window, grid)
        return heights, known & of_split

    def footprints(self, image: int, window: Window, which: SplitName) -> Footprints:
        """Return the footprints wholly inside a window of the model's grid, and of a split."""
        grid = self.grid(image)
        found = self.find_footprints(image, window, grid)
        if not len(found):
            return found
        of_split = self.split_of(image).mask(grid, window, which).reshape(-1)
        inside = np.array([bool(of_split[found.of(i)].all()) for i in range(len(found))])
        return chosen(found, np.flatnonzero(inside).tolist())


def chosen(found: Footprints, places: Sequence[int]) -> Footprints:
    """Return some of the footprints of a window, by their places among them."""
    pixels = [found.of(i) for i in places]
    ends = np.cumsum([0, *(len(p) for p in pixels)])
    return Footprints(
        numbers=found.numbers[list(places)],
        height_m=found.height_m[list(places)],
        pixels=np.concatenate(pixels) if pixels else found.pixels[:0],
        starts=ends.astype(np.int64),
    )
