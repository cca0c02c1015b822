"""One raster of a table, and the search for the objects in it."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from geodino.geo.windows import Window
from geodino.infer.boxes import Boxes, chips_for, joined
from geodino.infer.cover import Cover
from geodino.infer.ground import Regrid
from geodino.infer.search import Finder, Search, found_in
from geodino.io.area import Area
from geodino.io.cog.journal import Committed, JournalWriter, read_parts, refuse_missing
from geodino.io.cog.parts import grid_head, parts_folder
from geodino.io.item import item_path
from geodino.runs.mapping.job import MapJob
from geodino.runs.mapping.maps import seen_by
from geodino.runs.mapping.memory import Need, need_of_chips
from geodino.runs.mapping.planned import Planned
from geodino.runs.sources import Source

JOB_PROPERTY = "geodino:job"
"""Property of an item that says which job made a table: it need not be made again."""


@dataclass(frozen=True, kw_only=True)
class Searched(Planned):
    """A raster and what is found in it; its parts are groups of chips."""

    out: Path
    search: Search
    regrid: Regrid | None
    """The model's grid, where it is not the raster's."""

    area: Area | None
    """Where objects are wanted, by their centre; None is everywhere."""

    @property
    def path(self) -> Path:
        """The table, which all rasters share."""
        return self.out

    @property
    def head(self) -> dict[str, Any]:
        """What the parts must agree on."""
        return {"grid": grid_head(self.source.raster.grid), "key": self.key}

    def made_by(self) -> str | None:
        """Return which job made the table, as the item beside it says."""
        item = item_path(self.path)
        if not item.is_file():
            return None
        try:
            said = json.loads(item.read_text(encoding="utf-8"))["properties"].get(JOB_PROPERTY)
        except (json.JSONDecodeError, KeyError, AttributeError, UnicodeDecodeError):
            return None  # not an item of ours
        return said if isinstance(said, str) else None

    def pixels(self, numbers: Sequence[int] | None = None) -> int:
        """Return how many pixels of the raster some groups, or all, have of their own."""
        chosen = self.numbers if numbers is None else numbers
        down, across = self._steps
        return round(sum(map(self.search.pixels, chosen)) * down * across)

    def window(self, number: int) -> Window:
        """Return the pixels of the raster that a group sees."""
        return on_raster(self.search.window(number), self.source, self.regrid)

    def digest(self, number: int, *, threads: Executor) -> str:
        """Return the digest of the pixels that a group sees."""
        return self.search.digest(number)

    def need(self) -> Need:
        """Return what the search takes beside the model."""
        bands, itemsize = self.stored()
        raster, cover = self.source.raster, self.search.cover
        return need_of_chips(raster, self.regrid, cover, bands=bands, itemsize=itemsize)

    def warm_up(self) -> None:
        """Look at one batch of nothing."""
        bands, _ = self.stored()
        finder = self.search.finder
        finder(*self.search.cover.blank(bands, device=finder.device))

    def narrowed(self, columns: int) -> "Searched":
        """Return the same with at most so many groups in memory side by side."""
        return replace(self, search=replace(self.search, columns=columns))

    @contextmanager
    def begun(self, shard: tuple[int, int]) -> Iterator["_Begun"]:
        """Open the groups."""
        yield _Begun(self, JournalWriter(self.parts, head=self.head, shard=shard))

    def boxes(self, committed: Mapping[int, Committed], *, iou: float) -> Boxes:
        """Return the objects of the raster, each once, in its pixels.

        Args:
            committed: finished groups by number.
            iou: chips say the same object where their boxes overlap by more.

        Raises:
            RunError: groups are missing.
        """
        refuse_missing(self.parts, committed, self.numbers)
        noted = ((number, one.facts) for number, one in committed.items())
        found = joined(found_in(noted, across=self.search.across), iou=iou)
        grid, (down, across) = self.source.raster.grid, self._steps
        limits = np.array([grid.width, grid.height] * 2, dtype=np.float64)
        xyxy = np.minimum(found.xyxy * [across, down, across, down], limits)
        found = replace(found, xyxy=xyxy)
        return found if self.area is None else found.at(self.area.holds(found.centres))

    def committed(self) -> dict[int, Committed]:
        """Return the finished groups, by number.

        Raises:
            RunError: they are of another job, or differ.
        """
        return {one.number: one for one, _ in read_parts(self.parts, self.head)}

    @property
    def _steps(self) -> tuple[float, float]:
        """Pixels of the raster per pixel that the model sees, down and across."""
        return (1.0, 1.0) if self.regrid is None else _steps(self.regrid)


@dataclass(frozen=True, slots=True)
class _Begun:
    """Groups that are being looked at."""

    of: Searched
    journal: JournalWriter

    @property
    def committed(self) -> Mapping[int, Committed]:
        return self.journal.committed

    def run(
        self, numbers: Sequence[int], *, threads: Executor, advance: Callable[[int], None]
    ) -> None:
        """Look at groups and note what is found in each."""
        self.of.search.run(
            self.journal,
            numbers,
            threads=threads,
            advance=lambda number: advance(self.of.pixels([number])),
            facts={"source": self.of.content},
        )


def plan_search(
    job: MapJob, source: Source, finder: Finder, *, key: dict[str, Any], beside: Sequence[Path]
) -> Searched:
    """Plan the search of a raster.

    Args:
        job: what was asked.
        source: the raster.
        finder: the model.
        key: what the boxes depend on.
        beside: what else is written.

    Raises:
        ContractError: a resolution is asked of a raster that has none.
        SourceError: the area cannot be read.
    """
    raster, regrid = seen_by(source, key["gsd_m"])
    cover = Cover.of(
        raster.grid.height,
        raster.grid.width,
        chip=key["chip"],
        overlap=key["overlap"],
        align=finder.align,
        group=key["group"],
    )
    search = Search(raster=raster, finder=finder, cover=cover)
    numbers: Sequence[int] = range(cover.rows.count * search.across)
    area = None if job.aoi is None else Area.on(job.aoi, source.raster.grid)
    if area is not None:
        chips = chips_for(cover, lambda window: area.touches(on_raster(window, source, regrid)))
        numbers = sorted({search.number(chip) for chip in chips})
    return Searched(
        source=source,
        out=job.out,
        beside=tuple(beside),
        numbers=tuple(numbers),
        key=key,
        parts_at=parts_folder(job.out) / source.name,
        search=search,
        regrid=regrid,
        area=area,
    )


def on_raster(window: Window, source: Source, regrid: Regrid | None) -> Window:
    """Return the pixels of a raster that a window of the grid a model sees lies on."""
    if regrid is None:
        return window
    (down, across), grid = _steps(regrid), source.raster.grid
    top, left = math.floor(window.top * down), math.floor(window.left * across)
    bottom = min(math.ceil(window.bottom * down), grid.height)
    right = min(math.ceil(window.right * across), grid.width)
    return Window(top, left, max(0, bottom - top), max(0, right - left))


def _steps(regrid: Regrid) -> tuple[float, float]:
    down, across = (axis.step for axis in regrid.down)
    return down, across
