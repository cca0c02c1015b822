"""Batches of whole images, in passes over all of them, or by class where that is asked.

What is drawn depends on the seed and the number of the sample alone, so that a resumed run goes on
with the same images.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Shaped

from geodino import seeds
from geodino.tasks.augment import Move
from geodino.tasks.classification.batch import ImageBatch
from geodino.tasks.classification.config import ImageSamplingConfig
from geodino.tasks.classification.source import ImageSource
from geodino.tasks.feed import DrawnFeed


@dataclass(frozen=True, kw_only=True, slots=True)
class _Drawn:
    pixels: Float32[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"]
    label: Shaped[np.ndarray, " *k"]


class ImageFeed(DrawnFeed[_Drawn, ImageBatch]):
    """Batches of training images from any step on; what is in one depends on seed and step alone.

    Args:
        source: images and labels.
        config: how images are drawn.
        seed: of the run.
        batch: images of a step.
        threads: that read.

    Attributes:
        waited_s: time spent waiting for images.
    """

    def __init__(
        self,
        source: ImageSource,
        config: ImageSamplingConfig,
        *,
        seed: int,
        batch: int,
        threads: int,
    ) -> None:
        super().__init__(seed=seed, batch=batch, threads=threads)
        self._source, self._config = source, config
        self._keys, self._labels = source.keys("train"), source.labels["train"]
        self._present = np.flatnonzero(source.counts("train") > 0)

    def _batched(self, crops: list[_Drawn], step: int) -> ImageBatch:
        return ImageBatch(
            step=step,
            pixels=torch.from_numpy(np.stack([one.pixels for one in crops])),
            valid=torch.from_numpy(np.stack([one.valid for one in crops])),
            labels=torch.from_numpy(np.stack([one.label for one in crops])),
        )

    def _crop(self, sample: int) -> _Drawn:
        generator = seeds.rng(self._seed, "image", sample)
        number = self._number(sample, generator)
        pixels, valid = self._source.read(self._keys[number])
        move = Move.drawn(self._config.augment, generator)
        return _Drawn(
            pixels=move.pixels(pixels),
            valid=move.pixels(valid),
            label=np.asarray(self._labels[number]),
        )

    def _number(self, sample: int, generator: np.random.Generator) -> int:
        """Which image a sample is: one of a drawn class, or the next of its pass."""
        if generator.random() < self._config.balance:
            wanted = self._present[generator.integers(len(self._present))]
            has = self._labels[:, wanted] if self._labels.ndim == 2 else self._labels == wanted
            among = np.flatnonzero(has)
            return int(among[generator.integers(len(among))])
        number, place = divmod(sample, len(self._keys))
        at = np.array([place], dtype=np.int64)
        return int(seeds.permuted(at, len(self._keys), self._seed, "pass", number)[0])
