"""Crops to learn from: where there are labels, balanced by height, a function of seed and step.

Balance is for training alone: what is reported is measured on whole areas.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64, Shaped
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.labels.footprint_reader import Footprints
from geodino.data.parallel import in_order
from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.tasks.augment import Move
from geodino.tasks.canopy.batch import CanopyBatch, FootprintBatch
from geodino.tasks.canopy.config import SamplingConfig
from geodino.tasks.canopy.source import CanopySource, FootprintLabels
from geodino.tasks.feed import DrawnFeed

_USUAL = 95.0
"""Percentile of a window's heights that it is sorted by."""

_TALL_PART = 0.1
"""Part of the windows that are tall under ``tall_m: auto``."""

_DRAWS = 8
"""Places that are tried around a window until one holds enough labels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Windows:
    """Windows that hold labels for training, and how tall these are."""

    image: Int64[np.ndarray, "n"]
    corner: Int64[np.ndarray, "n 2"]
    """First row and column, on the model's grid."""

    usual_m: Float[np.ndarray, "n"]
    """95th percentile of the labels in each."""

    crop: int
    """Side, pixels."""

    low: Int64[np.ndarray, "l"]
    """Numbers of the low ones."""

    tall: Int64[np.ndarray, "t"]
    """Numbers of the tall ones."""

    tall_m: float
    """From which height on they are tall."""

    labels: int
    """Labelled pixels, or footprints, in all of them together."""

    def __len__(self) -> int:
        return len(self.image)


def find_windows(
    source: CanopySource, config: SamplingConfig, *, crop: int, threads: int
) -> Windows:
    """Look at the labels of all training ground in windows side by side.

    Raises:
        SourceError: no window holds enough labels.
    """
    places = [(i, w) for i in source.labelled for w in _cells(source.grid(i), crop)]
    rows, labels = [], 0
    counted = in_order(lambda place: _heights_at(source, *place), places, threads=threads)
    for (image, window), (heights, share) in zip(places, counted, strict=True):
        if heights.size and share >= config.min_label_share:
            rows.append((image, window.top, window.left, float(np.percentile(heights, _USUAL))))
            labels += heights.size
    if not rows:
        raise SourceError(
            f"No window of {crop} px holds enough labels for training (sampling.min_label_share = "
            f"{config.min_label_share:g}): check --labels and the split, use smaller crops "
            "(sampling.crop), or lower that share."
        )
    table = np.array(rows)
    usual = table[:, 3]
    tall_m = config.tall_m
    if tall_m == "auto":
        tall_m = float(np.quantile(usual, 1 - _TALL_PART))
    return Windows(
        image=table[:, 0].astype(np.int64),
        corner=table[:, 1:3].astype(np.int64),
        usual_m=usual,
        crop=crop,
        low=np.flatnonzero(usual < config.low_m),
        tall=np.flatnonzero((usual >= tall_m) & (usual >= config.low_m)),
        tall_m=float(tall_m),
        labels=labels,
    )


def _cells(grid: Grid, crop: int) -> Iterator[Window]:
    """Windows side by side; the last of a row or column is moved back into the raster."""
    for top in _starts(grid.height, crop):
        for left in _starts(grid.width, crop):
            yield Window(top, left, min(crop, grid.height), min(crop, grid.width))


def _starts(length: int, crop: int) -> list[int]:
    last = max(0, length - crop)
    return sorted({min(at, last) for at in range(0, max(1, length), crop)})


def _heights_at(
    source: CanopySource, image: int, window: Window
) -> tuple[Float32[np.ndarray, "n"], float]:
    """The labels of a window for training, and on what share of it they are."""
    if isinstance(source.labels, FootprintLabels):
        found = source.footprints(image, window, "train")
        return found.height_m, float(len(found) > 0)
    heights, known = source.heights(image, window, "train")
    return heights[known], float(known.mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class _Crop:
    pixels: Shaped[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"]
    height_m: Float32[np.ndarray, "h w"]
    known: Bool[np.ndarray, "h w"]
    footprints: Footprints | None


class CropFeed(DrawnFeed[_Crop, CanopyBatch]):
    """Batches of crops from any step on; what is in a batch depends on seed and step alone.

    Args:
        source: images and labels.
        windows: where to look.
        config: how crops are drawn.
        seed: of the run.
        batch: crops of a step.
        threads: that read.

    Attributes:
        waited_s: time spent waiting for crops.
    """

    def __init__(
        self,
        source: CanopySource,
        windows: Windows,
        config: SamplingConfig,
        *,
        seed: int,
        batch: int,
        threads: int,
    ) -> None:
        self._source = source
        self._windows = windows
        self._config = config
        super().__init__(seed=seed, batch=batch, threads=threads)

    def _batched(self, crops: list[_Crop], step: int) -> CanopyBatch:
        footprints = None
        if crops[0].footprints is not None:
            footprints = _footprints(crops)

        def stacked(name: str) -> torch.Tensor:
            return torch.from_numpy(np.stack([getattr(crop, name) for crop in crops]))

        return CanopyBatch(
            step=step,
            pixels=stacked("pixels"),
            valid=stacked("valid"),
            height_m=stacked("height_m"),
            known=stacked("known"),
            footprints=footprints,
        )

    def _crop(self, sample: int) -> _Crop:
        generator = seeds.rng(self._seed, "crop", sample)
        number = self._drawn(generator)
        image = int(self._windows.image[number])
        corner = self._windows.corner[number]
        for draw in range(_DRAWS):
            # The last try is the window itself, which is known to hold labels.
            window = self._near(image, corner, generator, still=draw == _DRAWS - 1)
            crop = self._labelled(image, window)
            if crop is not None:
                break
        else:
            raise ValueError("a window without labels was among those with labels")
        return _moved(self._filled(crop), self._config, generator)

    def _drawn(self, generator: np.random.Generator) -> int:
        """A window: low, tall, or any."""
        kind, config, windows = generator.random(), self._config, self._windows
        among = np.arange(len(windows))
        if kind < config.low_share:
            among = windows.low if windows.low.size else among
        elif kind < config.low_share + config.tall_share:
            among = windows.tall if windows.tall.size else among
        return int(among[generator.integers(len(among))])

    def _near(
        self,
        image: int,
        corner: NDArray[np.int64],
        generator: np.random.Generator,
        *,
        still: bool,
    ) -> Window:
        grid, side = self._source.grid(image), self._windows.crop
        size = min(side, grid.height), min(side, grid.width)
        shift = generator.integers(-(side // 2), side // 2 + 1, size=2)
        top, left = (
            int(at) if still else int(np.clip(at + by, 0, length - extent))
            for at, by, length, extent in zip(
                corner, shift, (grid.height, grid.width), size, strict=True
            )
        )
        return Window(top, left, *size)

    def _labelled(self, image: int, window: Window) -> _Crop | None:
        """The crop, or None where it has too few labels."""
        source, shape = self._source, (window.height, window.width)
        heights, known = np.zeros(shape, np.float32), np.zeros(shape, dtype=bool)
        footprints: Footprints | None = None
        if isinstance(source.labels, FootprintLabels):
            footprints = source.footprints(image, window, "train")
            enough = len(footprints) > 0
        else:
            heights, known = source.heights(image, window, "train")
            enough = known.mean() >= self._config.min_label_share
        if not enough:
            return None
        pixels, valid = source.seen(image).read(window)
        return _Crop(
            pixels=pixels, valid=valid, height_m=heights, known=known, footprints=footprints
        )

    def _filled(self, crop: _Crop) -> _Crop:
        """Fill a crop of a small image up with invalid pixels, at the right and bottom."""
        side = self._windows.crop
        height, width = crop.valid.shape
        if (height, width) == (side, side):
            return crop

        def padded(array: NDArray[Any]) -> NDArray[Any]:
            lack = [(0, 0)] * (array.ndim - 2) + [(0, side - height), (0, side - width)]
            return np.pad(array, lack)

        footprints = crop.footprints
        if footprints is not None:
            row, column = np.divmod(footprints.pixels, width)
            footprints = _at(footprints, row * side + column)
        return _Crop(
            pixels=padded(crop.pixels),
            valid=padded(crop.valid),
            height_m=padded(crop.height_m),
            known=padded(crop.known),
            footprints=footprints,
        )


def _moved(crop: _Crop, config: SamplingConfig, generator: np.random.Generator) -> _Crop:
    move = Move.drawn(config.augment, generator)
    footprints = crop.footprints
    if footprints is not None:
        footprints = _at(footprints, move.places(footprints.pixels, len(crop.valid)))
    return _Crop(
        pixels=move.pixels(crop.pixels),
        valid=move.pixels(crop.valid),
        height_m=move.pixels(crop.height_m),
        known=move.pixels(crop.known),
        footprints=footprints,
    )


def _at(footprints: Footprints, pixels: NDArray[np.int64]) -> Footprints:
    return Footprints(
        numbers=footprints.numbers,
        height_m=footprints.height_m,
        pixels=pixels,
        starts=footprints.starts,
    )


def _footprints(crops: list[_Crop]) -> FootprintBatch:
    """Gather footprints whose pixels are all valid, with places counted through the batch."""
    places: list[NDArray[np.int64]] = []
    heights: list[float] = []
    for number, crop in enumerate(crops):
        found, valid = crop.footprints, crop.valid.reshape(-1)
        if found is None:
            continue
        for i in range(len(found)):
            if valid[found.of(i)].all():
                places.append(found.of(i) + number * valid.size)
                heights.append(float(found.height_m[i]))
    longest = max((len(p) for p in places), default=1)
    index = np.zeros((len(places), longest), dtype=np.int64)
    for row, p in zip(index, places, strict=True):
        row[:] = p[0]
        row[: len(p)] = p
    return FootprintBatch(
        index=torch.from_numpy(index),
        count=torch.tensor([len(p) for p in places], dtype=torch.int64),
        height_m=torch.tensor(heights, dtype=torch.float32),
    )
