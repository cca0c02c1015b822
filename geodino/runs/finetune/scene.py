"""What a task hands to the training of its head."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from geodino.models.headed import HeadedModel
from geodino.runs.finetune.prepared import PreparedFinetune
from geodino.tasks.module import Better, Feed, Objective

P = TypeVar("P", bound=PreparedFinetune[Any])


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """Which score of validation decides which weights are the best."""

    score: str
    """Its name among the scores."""

    better: Better
    """Which of two is the better one."""

    words: str
    """How it is said, such as ``MAE {:.2f} m``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """How a training ended."""

    step: int
    """After how many steps the best weights were there; the model has them."""

    stopped_early: str
    """Why it ended before its last step; empty where it did not."""


@dataclass(frozen=True, kw_only=True)
class Scene(ABC, Generic[P]):
    """What a prepared run is made of once its labels were looked at."""

    prepared: P

    @property
    @abstractmethod
    def model(self) -> HeadedModel:
        """What learns."""

    @property
    @abstractmethod
    def judgement(self) -> Judgement:
        """How its weights are judged."""

    @abstractmethod
    def objective(self) -> Objective:
        """Return the losses."""

    @abstractmethod
    def feed(self) -> Feed[Any]:
        """Return what draws the batches."""

    @abstractmethod
    def validate(self, threads: Executor) -> dict[str, float]:
        """Return the scores of the model on the validation part; it trains on afterwards."""

    @contextmanager
    def readers(self) -> Iterator[Executor]:
        """Yield threads that read images."""
        with ThreadPoolExecutor(self.prepared.threads, "geodino-read") as executor:
            yield executor
