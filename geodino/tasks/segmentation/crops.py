"""Crops with classes, drawn from windows that hold labels, by class where that is asked.

What is drawn depends on the seed and the number of the sample alone, so that a resumed run goes
on with the same crops.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, Shaped, UInt8
from numpy.typing import NDArray

from geodino import seeds
from geodino.data.labelled.sets import IGNORED
from geodino.data.parallel import in_order
from geodino.errors import SourceError
from geodino.geo.windows import Window
from geodino.tasks.augment import Move
from geodino.tasks.feed import DrawnFeed
from geodino.tasks.segmentation.batch import ClassBatch
from geodino.tasks.segmentation.config import ClassSamplingConfig
from geodino.tasks.segmentation.source import ClassSource

_DRAWS = 8
"""Places that are tried until one holds enough labels; the last is known to."""

_MOST_WEIGHT = 10.0


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassWindows:
    """Windows side by side on all training images, and what was found in those looked at."""

    keys: tuple[str, ...]
    """Images."""

    sizes: tuple[tuple[int, int], ...]
    """Height and width of each image, pixels of the model's grid."""

    image: Int64[np.ndarray, " n"]
    """Number of each window's image."""

    corner: Int64[np.ndarray, "n 2"]
    """First row and column, on the model's grid."""

    crop: int
    """Side, pixels."""

    looked_at: Int64[np.ndarray, " m"]
    """Numbers of the windows that were looked at and hold enough labels."""

    empty: Int64[np.ndarray, " e"]
    """Numbers of those that do not."""

    counts: Int64[np.ndarray, "m k"]
    """Pixels of each class in ``looked_at``."""

    @property
    def frequency(self) -> Int64[np.ndarray, " k"]:
        """Pixels of each class in all of them together."""
        return np.asarray(self.counts.sum(axis=0))

    @property
    def missing(self) -> tuple[int, ...]:
        """Classes that no window looked at holds."""
        return tuple(np.flatnonzero(self.frequency == 0).tolist())

    def weights(self) -> tuple[float, ...]:
        """Return the median frequency of classes over that of each, at most 10; 1 for the missing."""
        share = self.frequency / max(int(self.frequency.sum()), 1)
        usual = float(np.median(share[share > 0])) if (share > 0).any() else 1.0
        found = np.where(share > 0, usual / np.maximum(share, usual / _MOST_WEIGHT), 1.0)
        return tuple(float(w) for w in found)

    def __len__(self) -> int:
        return len(self.image)


def find_windows(
    source: ClassSource, config: ClassSamplingConfig, *, crop: int, seed: int, threads: int
) -> ClassWindows:
    """Lay windows on all training images and look at the labels of some of them.

    Raises:
        SourceError: none of those looked at holds enough labels.
    """
    keys = tuple(key for part in config.parts for key in source.set.parts.get(part, ()))
    grids = in_order(source.grid, keys, threads=threads)
    sizes = tuple((grid.height, grid.width) for grid in grids)
    places = [
        (i, top, left)
        for i, (height, width) in enumerate(sizes)
        for top in _starts(height, crop)
        for left in _starts(width, crop)
    ]
    if not places:
        raise SourceError("There is no image to learn from: check the split.")
    order = np.arange(len(places))
    if len(places) > config.census:
        order = np.sort(seeds.rng(seed, "census").permutation(len(places))[: config.census])
    classes = len(source.classes)

    def look(number: int) -> tuple[Int64[np.ndarray, " k"], float]:
        image, top, left = places[number]
        height, width = sizes[image]
        window = Window(top, left, min(crop, height), min(crop, width))
        label = source.seen_label(keys[image], window)
        counts = np.bincount(label.reshape(-1), minlength=IGNORED + 1)[:classes]
        return counts.astype(np.int64), float(counts.sum() / label.size)

    found = list(in_order(look, order.tolist(), threads=threads))
    enough = np.array([share > 0 and share >= config.min_label_share for _, share in found])
    if not enough.any():
        raise SourceError(
            f"No window of {crop} px holds enough labels for training (sampling.min_label_share = "
            f"{config.min_label_share:g}): check --labels and the split, use smaller crops "
            "(sampling.crop), or lower that share."
        )
    table = np.array(places, dtype=np.int64)
    return ClassWindows(
        keys=keys,
        sizes=sizes,
        image=table[:, 0],
        corner=table[:, 1:],
        crop=crop,
        looked_at=order[enough].astype(np.int64),
        empty=order[~enough].astype(np.int64),
        counts=np.stack([counts for counts, _ in found])[enough],
    )


def _starts(length: int, crop: int) -> list[int]:
    last = max(0, length - crop)
    return sorted({min(at, last) for at in range(0, max(1, length), crop)})


@dataclass(frozen=True, kw_only=True, slots=True)
class _Crop:
    pixels: Shaped[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"]
    classes: UInt8[np.ndarray, "h w"]


class ClassFeed(DrawnFeed[_Crop, ClassBatch]):
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
        source: ClassSource,
        windows: ClassWindows,
        config: ClassSamplingConfig,
        *,
        seed: int,
        batch: int,
        threads: int,
    ) -> None:
        self._source = source
        self._windows = windows
        self._config = config
        super().__init__(seed=seed, batch=batch, threads=threads)
        self._usable = np.setdiff1d(np.arange(len(windows)), windows.empty)
        self._present = np.flatnonzero(windows.frequency > 0)

    def _batched(self, crops: list[_Crop], step: int) -> ClassBatch:
        classes = np.stack([crop.classes for crop in crops])
        return ClassBatch(
            step=step,
            pixels=torch.from_numpy(np.stack([crop.pixels for crop in crops])),
            valid=torch.from_numpy(np.stack([crop.valid for crop in crops])),
            classes=torch.from_numpy(classes.astype(np.int64)),
            known=torch.from_numpy(classes != IGNORED),
        )

    def _crop(self, sample: int) -> _Crop:
        generator = seeds.rng(self._seed, "crop", sample)
        number, found = 0, None
        for draw in range(_DRAWS):
            is_last = draw == _DRAWS - 1
            # A window that nobody looked at may hold nothing, so each try draws another.
            number, wanted = (self._known(generator), None) if is_last else self._drawn(generator)
            found = self._labelled(self._near(number, wanted, generator, still=is_last), number)
            if found is not None:
                break
        if found is None:
            raise ValueError("a window without labels was among those with labels")
        move = Move.drawn(self._config.augment, generator)
        return _Crop(
            pixels=move.pixels(found.pixels),
            valid=move.pixels(found.valid),
            classes=move.pixels(found.classes),
        )

    def _known(self, generator: np.random.Generator) -> int:
        looked_at = self._windows.looked_at
        return int(looked_at[generator.integers(len(looked_at))])

    def _drawn(self, generator: np.random.Generator) -> tuple[int, int | None]:
        """A window and the class that it was drawn for, or any window."""
        if generator.random() < self._config.balance:
            wanted = int(self._present[generator.integers(len(self._present))])
            among = self._windows.looked_at[self._windows.counts[:, wanted] > 0]
            return int(among[generator.integers(len(among))]), wanted
        return int(self._usable[generator.integers(len(self._usable))]), None

    def _near(
        self, number: int, wanted: int | None, generator: np.random.Generator, *, still: bool
    ) -> Window:
        """A crop near a window: one that holds a pixel of the wanted class, else anywhere."""
        windows = self._windows
        image, side = int(windows.image[number]), windows.crop
        lengths = windows.sizes[image]
        size = min(side, lengths[0]), min(side, lengths[1])
        corner = [int(at) for at in windows.corner[number]]
        whole = Window(corner[0], corner[1], size[0], size[1])
        if still:
            return whole
        if wanted is None:
            shift = generator.integers(-(side // 2), side // 2 + 1, size=2)
            places = [at + by for at, by in zip(corner, shift.tolist(), strict=True)]
        else:
            label = self._source.seen_label(windows.keys[image], whole)
            pixels = np.argwhere(label == wanted)
            pixel = pixels[generator.integers(len(pixels))].tolist()
            back = generator.integers(0, size).tolist()
            places = [at + on - by for at, on, by in zip(corner, pixel, back, strict=True)]
        top, left = (
            int(np.clip(at, 0, length - extent))
            for at, length, extent in zip(places, lengths, size, strict=True)
        )
        return Window(top, left, *size)

    def _labelled(self, window: Window, number: int) -> _Crop | None:
        """The crop, or None where it has too few labels."""
        windows = self._windows
        key, side = windows.keys[int(windows.image[number])], windows.crop
        classes = self._source.seen_label(key, window)
        known = float((classes != IGNORED).mean())
        if known == 0 or known < self._config.min_label_share:
            return None
        pixels, valid = self._source.seen(key).read(window)
        lack = [(0, side - window.height), (0, side - window.width)]
        return _Crop(
            pixels=_padded(pixels, [(0, 0), *lack], 0),
            valid=_padded(valid, lack, 0),
            classes=_padded(classes, lack, IGNORED),
        )


def _padded(array: NDArray[Any], lack: list[tuple[int, int]], fill: int) -> NDArray[Any]:
    if not any(after for _, after in lack):
        return array
    return np.pad(array, lack, constant_values=fill)
