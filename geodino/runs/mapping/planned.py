"""One raster of a job and what is made of it, part by part: a map, or a table of what is found."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from geodino.geo.windows import Window
from geodino.io.cog.journal import Committed
from geodino.io.cog.parts import parts_folder
from geodino.io.content import content_sample
from geodino.runs.mapping.memory import Need
from geodino.runs.sources import Source


@runtime_checkable
class Begun(Protocol):
    """Parts that are being made."""

    @property
    def committed(self) -> Mapping[int, Committed]:
        """Finished ones by number."""

    def run(
        self, numbers: Sequence[int], *, threads: Executor, advance: Callable[[int], None]
    ) -> None:
        """Make parts and note each.

        Args:
            numbers: of the parts.
            threads: that read.
            advance: told how many pixels of the raster are done.

        Raises:
            SourceError: a block cannot be read; what was noted stays.
            RunError: the disk is full, or a prediction is not finite.
        """


@dataclass(frozen=True, kw_only=True)
class Planned(ABC):
    """One raster and what is made of it."""

    source: Source
    beside: tuple[Path, ...] = ()
    """What else is written."""

    numbers: tuple[int, ...]
    """Parts that hold anything wanted."""

    key: dict[str, Any]
    """What the output depends on, beside the pixels of the raster."""

    parts_at: Path | None = None
    """Where its parts lie, if not in ``FILE.parts``."""

    @property
    @abstractmethod
    def path(self) -> Path:
        """The output."""

    @property
    def written(self) -> tuple[Path, ...]:
        """All files there are at the end."""
        return (self.path, *self.beside)

    @property
    def parts(self) -> Path:
        """Where finished parts lie until the output is whole."""
        return parts_folder(self.path) if self.parts_at is None else self.parts_at

    @property
    def parts_key(self) -> dict[str, Any]:
        """What its parts must agree on."""
        return self.key

    @property
    def identity(self) -> str:
        """A hash of the key: of the model, its chips, and what was asked."""
        return hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()

    @cached_property
    def content(self) -> str:
        """A cheap hash of the raster's files: it changes when one is written anew."""
        digest = hashlib.sha256()
        for path in self.source.files:
            digest.update(repr(content_sample(path)).encode())
        return digest.hexdigest()

    @abstractmethod
    def made_by(self) -> str | None:
        """Return the identity of the job that made what lies at ``path``; None for another file."""

    @abstractmethod
    def pixels(self, numbers: Sequence[int] | None = None) -> int:
        """Return how many pixels of the raster some parts, or all, go through."""

    @abstractmethod
    def window(self, number: int) -> Window:
        """Return the pixels of the raster that a part is of."""

    @abstractmethod
    def digest(self, number: int, *, threads: Executor) -> str:
        """Return the digest of the pixels of a part: what it was committed with."""

    @abstractmethod
    def need(self) -> Need:
        """Return what making parts takes beside the model."""

    @abstractmethod
    def warm_up(self) -> None:
        """Compute one batch of nothing, so that what it takes is known."""

    @abstractmethod
    def narrowed(self, columns: int) -> "Planned":
        """Return the same with at most so many parts in memory side by side."""

    @abstractmethod
    def begun(self, shard: tuple[int, int]) -> AbstractContextManager[Begun]:
        """Open the parts.

        Raises:
            RunError: they are of another job, or the folder cannot be written.
        """

    def stored(self) -> tuple[int, int]:
        """Return bands and bytes per value of what is read."""
        pixels, _ = self.source.raster.read(self.window(self.numbers[0]).corner)
        return len(pixels), pixels.itemsize
