"""The folder ``FILE.parts``: compressed tiles and a journal, written by shards, read by assembly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from geodino.io.cog.layout import Layer, Layout


def parts_folder(path: Path) -> Path:
    """Return the folder beside ``path`` where its parts lie: ``FILE.parts``."""
    return path.with_name(f"{path.name}.parts")


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """A finished supertile, as the journal tells."""

    number: int
    digest: str
    facts: Mapping[str, Any]
    """What the caller wanted to remember: JSON."""


class PartsWriter:
    """Takes the pixels of supertiles and keeps compressed tiles; a context manager.

    Each shard writes two files of its own, ``1-of-4.tiles`` and ``1-of-4.jsonl``; nothing is
    ever rewritten, so killing the process at any moment costs the supertiles not committed yet.
    Opening a folder again goes on where it stopped.

    Args:
        folder: made where it is missing.
        layout: how the map is cut.
        layers: what is stored; each becomes a file.
        key: what the pixels depend on (sources, model, options), as JSON; layout and layers are
            added to it.
        shard: number from 1, and how many there are.
        threads: that compress; the caller's thread waits for them.

    Raises:
        RunError: the folder holds parts of another job, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        *,
        layout: Layout,
        layers: Sequence[Layer],
        key: Mapping[str, Any],
        shard: tuple[int, int] = (1, 1),
        threads: int = 2,
    ) -> None:
        raise NotImplementedError

    @property
    def committed(self) -> Mapping[int, Committed]:
        """Finished supertiles by number: those of all shards when opened, and this one's since."""
        raise NotImplementedError

    def open_supertile(self, number: int) -> "SupertileWriter":
        """Begin a supertile; several may be open at once, one left without commit is forgotten."""
        raise NotImplementedError


class SupertileWriter:
    """Takes the rows of blocks of one supertile, from the top."""

    def write(
        self, block_row: int, values: Mapping[str, Shaped[np.ndarray, "c h w"]]
    ) -> None:
        """Compress and spool one row of blocks, and the rows of overviews it completes.

        The arrays may be changed once this returns.

        Args:
            block_row: counted from 0 in the supertile; rows come in order.
            values: of each layer by name, stored values of ``Layout.block_window``, nodata where
                there is nothing.
        """
        raise NotImplementedError

    def commit(self, digest: str, **facts: Any) -> None:
        """Note the supertile as finished, after its tiles are safe on the disk.

        Args:
            digest: of what the supertile was made from or of its pixels; one that is committed
                twice (by two shards) must have the same.
            facts: to be remembered with it; JSON.
        """
        raise NotImplementedError
