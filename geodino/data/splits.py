"""Which ground is for training, validation, calibration and testing.

Neighbouring pixels resemble each other, so a random choice of pixels or chips tests what was
trained on. Here ground is split in blocks, and what lies near a block of another split is not
used at all (:mod:`geodino.data.blocks` makes such a split). A user's own polygons do as well.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import shapely
from affine import Affine
from jaxtyping import Bool, Float, Int32
from numpy.typing import NDArray
from pydantic import Field, field_validator, model_validator

from geodino.config import Config
from geodino.errors import SourceError
from geodino.files import replacing
from geodino.geo.align import positions
from geodino.geo.grid import Grid
from geodino.geo.windows import Window

SplitName = Literal["train", "val", "calibration", "test"]
"""What ground is for. ``calibration`` is for intervals, which need ground that nothing else saw."""

NAMES: tuple[SplitName, ...] = get_args(SplitName)

BUFFER = "buffer"
"""Ground that is not used, because it lies near another split."""

PRECEDENCE = (BUFFER, "test", "calibration", "val", "train")
"""Where rows of a user's file overlap, ground belongs to the first of these."""

_NEEDED: tuple[SplitName, ...] = ("train", "val")

_EDGE_POINTS = 33
"""Points along each edge of an outline: edges straight in one CRS are curved in another."""

_SLIVER = 1e-6
"""Parts of a tile below this are rounding at shared edges."""


class SharesConfig(Config):
    """Shares of the labelled ground; they sum to 1."""

    train: float = Field(default=0.6, gt=0, lt=1)
    """For training."""

    val: float = Field(default=0.1, gt=0, lt=1)
    """For choosing among checkpoints and settings."""

    calibration: float = Field(default=0.15, ge=0, lt=1)
    """For the intervals that go with heights."""

    test: float = Field(default=0.15, ge=0, lt=1)
    """For the results that are reported."""

    @property
    def by_name(self) -> dict[SplitName, float]:
        """The shares by the names of the splits."""
        return {
            "train": self.train, "val": self.val, "calibration": self.calibration,
            "test": self.test,
        }  # fmt: skip

    @model_validator(mode="after")
    def _sum_to_one(self) -> "SharesConfig":
        total = self.train + self.val + self.calibration + self.test
        if abs(total - 1) > 1e-6:
            raise ValueError(f"train, val, calibration and test must sum to 1, not {total:g}")
        return self


class SplitConfig(Config):
    """How labelled ground is split."""

    shares: SharesConfig = Field(default_factory=SharesConfig)
    """How much of the labelled ground each split gets, as nearly as whole blocks allow."""

    block_m: Literal["auto"] | float = "auto"
    """Side of a block, metres. ``auto``: the largest round number that makes at least 20 blocks of
    the labelled ground, and cuts no site where there are at least 10."""

    buffer_m: Literal["auto"] | float = "auto"
    """Ground within this distance of a block of another split is not used, metres. ``auto``: a
    twentieth of the block."""

    seed: int = 0
    """Which blocks go where. Separate from the seed of the run, so that repeats share a split."""

    @field_validator("block_m")
    @classmethod
    def _some_block(cls, value: str | float) -> str | float:
        if isinstance(value, float | int) and value <= 0:
            raise ValueError("must be 'auto' or above 0")
        return value

    @field_validator("buffer_m")
    @classmethod
    def _some_buffer(cls, value: str | float) -> str | float:
        if isinstance(value, float | int) and value < 0:
            raise ValueError("must be 'auto' or at least 0")
        return value


@dataclass(frozen=True, kw_only=True)
class Split:
    """Polygons and what the ground in them is for. Ground in none of them is not used."""

    crs: str
    """CRS of the polygons."""

    geometry: NDArray[np.object_]
    """Polygon of each row; where rows overlap, the first one holds."""

    split: tuple[str, ...]
    """``train``, ``val``, ``calibration``, ``test`` or ``buffer``, of each row."""

    site: tuple[str, ...]
    """What a row is part of: rows of one site (block) are not independent of each other."""

    notes: tuple[str, ...] = ()
    """How it was made, as sentences for the run card."""

    year: tuple[int | None, ...] = ()
    """Year whose images a row holds for, None for those of any; empty where no row says one."""

    def of_time(self, when: str | None) -> "Split":
        """Return the rows that hold for images of an ISO 8601 time; None is an unknown one."""
        if not self.year:
            return self
        year = None if when is None else int(when[:4])
        found = self._by_year.get(year)
        if found is None:
            kept = [i for i, own in enumerate(self.year) if own is None or own == year]
            found = Split(
                crs=self.crs,
                geometry=self.geometry[kept],
                split=tuple(self.split[i] for i in kept),
                site=tuple(self.site[i] for i in kept),
                notes=self.notes,
            )
            self._by_year[year] = found
        return found

    @cached_property
    def _by_year(self) -> "dict[int | None, Split]":
        return {}

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.geometry)

    def sites(self, which: SplitName) -> tuple[str, ...]:
        """Return the sites of a split, sorted."""
        pairs = zip(self.site, self.split, strict=True)
        return tuple(sorted({site for site, name in pairs if name == which}))

    def rows(self, grid: Grid, window: Window) -> Int32[np.ndarray, "h w"]:
        """Return the row that each pixel's centre lies in; -1 where it lies in none.

        Does not depend on how windows are cut. Safe to call from threads.

        Args:
            grid: the pixels' grid; it needs a CRS.
            window: rows and columns of it.
        """
        found = np.full((window.height, window.width), -1, dtype=np.int32)
        place = _plane(self.crs)
        outline = _outline(grid, window, place)
        near = self._tree.query(outline, predicate="intersects")
        if not near.size:
            return found
        near = np.sort(near)
        # Inside a block, every pixel is: no need to ask one by one.
        if shapely.contains_properly(self.geometry[near[0]], outline):
            found[:] = near[0]
            return found
        column, row = np.meshgrid(
            np.arange(window.left, window.right) + 0.5, np.arange(window.top, window.bottom) + 0.5
        )
        return self._first(near, *positions(grid, place, column, row))

    def holds(
        self,
        grid: Grid,
        column: Float[np.ndarray, " n"],
        row: Float[np.ndarray, " n"],
        which: SplitName,
    ) -> Bool[np.ndarray, " n"]:
        """Return which places of a grid, in pixels from its corner, belong to a split."""
        if not len(column):
            return np.zeros(0, dtype=np.bool_)
        x, y = positions(grid, _plane(self.crs), column, row)
        near = self._tree.query(shapely.box(x.min(), y.min(), x.max(), y.max()))
        return np.asarray(self._is(which)[self._first(np.sort(near), x, y)])

    def _first(
        self,
        near: NDArray[np.int64],
        x: Float[np.ndarray, "*s"],
        y: Float[np.ndarray, "*s"],
    ) -> Int32[np.ndarray, "*s"]:
        """The first row, of some, that each place lies in; -1 where it lies in none."""
        found = np.full(x.shape, -1, dtype=np.int32)
        # GEOS keeps its index of a prepared polygon in the polygon, and threads that use one such
        # polygon crash. Each call prepares copies of its own: they cost far less than the pixels.
        polygons = shapely.force_2d(self.geometry[near])
        for number, polygon in zip(near.tolist(), polygons, strict=True):
            shapely.prepare(polygon)
            open_ = found < 0
            inside = shapely.intersects_xy(polygon, x[open_], y[open_])
            found[open_] = np.where(inside, number, -1)
        return found

    def mask(self, grid: Grid, window: Window, which: SplitName) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of a window, by their centres, belong to a split."""
        return np.asarray(self._is(which)[self.rows(grid, window)])

    def _is(self, which: SplitName) -> Bool[np.ndarray, " n"]:
        """Whether each row is of a split; the last entry is that of row -1: of none."""
        return np.array([*(name == which for name in self.split), False])

    def of(self, grid: Grid) -> SplitName | None:
        """Return the one split that ground of a tile belongs to; None for none or several.

        Ground in the buffer or in no row is not used and does not count.
        """
        shares = self.shares(grid)
        return next(iter(shares)) if len(shares) == 1 else None

    def shares(self, grid: Grid) -> dict[SplitName, float]:
        """Return which part of a tile's ground belongs to each split that has some of it."""
        window = Window(0, 0, grid.height, grid.width)
        outline = _outline(grid, window, _plane(self.crs))
        near = self._tree.query(outline, predicate="intersects")
        shares: dict[SplitName, float] = {}
        for name in NAMES:
            of_name = [i for i in near.tolist() if self.split[i] == name]
            part = shapely.area(shapely.intersection(self.geometry[of_name], outline)).sum()
            if part > _SLIVER * outline.area:
                shares[name] = float(part / outline.area)
        return shares

    def save(self, path: str | Path) -> None:
        """Write it as GeoParquet: ``split``, ``site`` and the polygons; whole or not at all."""
        import geopandas

        columns: dict[str, list[Any]] = {"split": list(self.split), "site": list(self.site)}
        if self.year:
            columns["year"] = list(self.year)
        frame = geopandas.GeoDataFrame(columns, geometry=self.geometry, crs=self.crs)
        with replacing(path) as temporary:
            frame.to_parquet(temporary, index=False, write_covering_bbox=True)


def ordered(
    crs: str,
    shapes: Sequence[shapely.Geometry] | NDArray[np.object_],
    words: Sequence[str],
    sites: Sequence[str],
    *,
    notes: tuple[str, ...],
    years: Sequence[int | None] = (),
) -> Split:
    """Return a split with its rows in the order in which they hold."""
    order = sorted(range(len(words)), key=lambda i: PRECEDENCE.index(words[i]))
    geometry = np.empty(len(words), dtype=object)
    geometry[:] = [shapes[i] for i in order]
    return Split(
        crs=crs,
        geometry=geometry,
        split=tuple(words[i] for i in order),
        site=tuple(sites[i] for i in order),
        notes=notes,
        year=tuple(years[i] for i in order) if any(y is not None for y in years) else (),
    )


def refuse_empty(words: Sequence[str], what: str) -> None:
    """Refuse a split without ground for training or validation.

    Raises:
        SourceError: beginning with ``what``.
    """
    for name in _NEEDED:
        if name not in words:
            raise SourceError(
                f"{what} {name}, and training needs both train and val. Declare other shares "
                "(split.shares), smaller blocks (split.block_m) or a smaller buffer "
                "(split.buffer_m), or name a file with both (--split)."
            )


def _outline(grid: Grid, window: Window, on: Grid) -> shapely.Polygon:
    """Return the outline of a window in the coordinates of another grid."""
    t = np.linspace(0.0, 1.0, _EDGE_POINTS)[:-1]
    column = np.concatenate([t, np.ones_like(t), 1 - t, np.zeros_like(t)]) * window.width
    row = np.concatenate([np.zeros_like(t), t, np.ones_like(t), 1 - t]) * window.height
    x, y = positions(grid, on, column + window.left, row + window.top)
    return shapely.Polygon(np.column_stack([x, y]))


def _plane(crs: str) -> Grid:
    """Return a grid whose places are the coordinates of a CRS."""
    return Grid(crs, Affine.identity(), 1, 1)
