"""Batches of drawn crops, whatever the task: a function of seed and step, read ahead by threads."""

import time
from abc import ABC, abstractmethod
from collections.abc import Generator
from contextlib import closing
from typing import Generic, TypeVar

from geodino.data.parallel import in_order

C = TypeVar("C")
"""A crop with its labels."""

B = TypeVar("B")
"""What one step learns from."""


class DrawnFeed(ABC, Generic[C, B]):
    """Batches from any step on; what is in one depends on the seed and the step alone.

    Args:
        seed: of the run.
        batch: crops of a step.
        threads: that read.

    Attributes:
        waited_s: time spent waiting for crops.
    """

    def __init__(self, *, seed: int, batch: int, threads: int) -> None:
        self._seed = seed
        self._batch = batch
        self._threads = threads
        self.waited_s = 0.0

    @abstractmethod
    def _crop(self, sample: int) -> C:
        """Draw and read crop number ``sample`` of the run; called from threads."""

    @abstractmethod
    def _batched(self, crops: list[C], step: int) -> B:
        """Put the crops of a step together."""

    def batches(self, step: int, stop: int) -> Generator[B, None, None]:
        """Yield the batches of steps ``step`` to ``stop - 1``; threads read ahead."""
        samples = range(step * self._batch, stop * self._batch)
        crops: list[C] = []
        drawn = in_order(self._crop, samples, threads=self._threads)
        with closing(drawn):
            for _ in samples:
                began = time.perf_counter()
                crops.append(next(drawn))
                self.waited_s += time.perf_counter() - began
                if len(crops) == self._batch:
                    yield self._batched(crops, step)
                    crops, step = [], step + 1
