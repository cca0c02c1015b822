"""Which labelled ground is scored, where a protocol leaves some of it out."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import shapely
from jaxtyping import Bool, Float

from geodino.data.config import DataConfig
from geodino.data.index import build_index
from geodino.data.labels.footprints import read_table
from geodino.data.labels.pairs import Pairs, pair
from geodino.data.tiles import TileIndex, read_tile
from geodino.errors import RecipeError, SourceError
from geodino.files import sha256
from geodino.geo.align import aligned
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.area import Polygons
from geodino.io.raster import HandlePool
from geodino.metrics.height_maps import open_canopy_valid
from geodino.tasks.canopy.config import CanopyProtocol, VegetationConfig
from geodino.tasks.canopy.source import FootprintLabels, Labels

_HALF = 0.5
"""Share of the finer class pixels in a label's pixel that must be vegetation."""


@dataclass(frozen=True, kw_only=True)
class ScoredGround:
    """Says which labels are scored. Safe to use from threads."""

    below_m: float | None
    vegetation: VegetationConfig | None
    pool: HandlePool

    classes: TileIndex | None = None
    """Rasters of classes."""

    pairs: Pairs | None = None
    """Which of them lie on which label raster, closest in time first."""

    polygons: Polygons | None = None
    """Where there is vegetation whatever the classes say."""

    polygons_from: Path | None = None
    """File of the polygons."""

    notes: tuple[str, ...] = ()
    """What is scored, as sentences for the run card."""

    def of(
        self, label: int | None, grid: Grid, window: Window, true_m: Float[np.ndarray, "h w"]
    ) -> Bool[np.ndarray, "h w"]:
        """Return the labels of a window that are scored.

        Args:
            label: number of the label raster; None for footprints.
            grid: its grid.
            window: rows and columns of it.
            true_m: the labels; what lies under invalid ones does not matter.
        """
        everywhere = np.ones(true_m.shape, dtype=bool)
        vegetation = everywhere
        if self.vegetation is not None and label is not None:
            vegetation = self._by_class(label, grid, window)
            if self.polygons is not None:
                vegetation = vegetation | self.polygons.inside(grid, window)
        below_m = np.inf if self.below_m is None else self.below_m
        return open_canopy_valid(true_m, vegetation, everywhere, below_m=below_m)

    def fingerprint(self, *, threads: int) -> list[str]:
        """Return hashes of the files that decide."""
        of_classes = [] if self.classes is None else [self.classes.fingerprint(threads=threads)]
        return of_classes + ([] if self.polygons_from is None else [sha256(self.polygons_from)])

    def _by_class(self, label: int, grid: Grid, window: Window) -> Bool[np.ndarray, "h w"]:
        found = np.zeros((window.height, window.width), dtype=bool)
        if self.classes is None or self.pairs is None:
            return found
        known = np.zeros_like(found)
        for number in self.pairs.by_image[label]:
            share, there = aligned(
                partial(self._read, number), source=self.classes.tiles[number].grid, target=grid,
                window=window, statistic="mean",
            )  # fmt: skip
            found |= ~known & there & (share >= _HALF)
            known |= there
            if known.all():
                break
        return found

    def _read(
        self, number: int, window: Window
    ) -> tuple[Float[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        if self.classes is None or self.vegetation is None:
            raise TypeError("there are no rasters of classes")
        tile = self.classes.tiles[number]
        pixels, valid = read_tile(self.pool, tile, window, self.classes.rule_of(tile))
        return np.isin(pixels[0], self.vegetation.classes).astype(np.float32), valid[0]


def scored_ground(
    protocol: CanopyProtocol, labels: Labels, labels_from: str, *, pool: HandlePool, threads: int
) -> ScoredGround | None:
    """Open what a protocol names; None where it leaves nothing out.

    Args:
        protocol: what is scored.
        labels: the labels.
        labels_from: what the user called them.
        pool: where open files are kept.
        threads: how many files are opened at once.

    Raises:
        RecipeError: vegetation is asked for beside footprints.
        SourceError: a file cannot be used, or no raster of classes lies on any label.
    """
    wanted, below_m = protocol.vegetation, protocol.below_m
    if wanted is None and below_m is None:
        return None
    notes = [] if below_m is None else [f"scored: labels below {below_m:g} m (protocol.below_m)"]
    if wanted is None:
        return ScoredGround(below_m=below_m, vegetation=None, pool=pool, notes=tuple(notes))
    if isinstance(labels, FootprintLabels):
        raise RecipeError(
            "protocol.vegetation: labels are footprints, and vegetation is told pixel by pixel of "
            "label rasters. Set protocol.vegetation=null."
        )
    classes, pairs, polygons, path = None, None, None, None
    if wanted.has_rasters:
        classes, pairs = _classes(wanted, labels.index.tiles, labels_from, threads)
        on = sum(bool(numbers) for numbers in pairs.by_image)
        names = ", ".join(map(str, wanted.classes))
        notes.append(
            f"scored: vegetation, class {names} of {len(classes.tiles)} rasters, which lie on {on} "
            f"of {len(labels.index.tiles.tiles)} label rasters"
        )
    if wanted.polygons is not None:
        path = beside(labels_from, wanted.polygons)
        polygons = _polygons(path)
        notes.append(f"scored: vegetation, {len(polygons.shapes):,} polygons of {path}")
    return ScoredGround(
        below_m=below_m, vegetation=wanted, pool=pool, classes=classes, pairs=pairs,
        polygons=polygons, polygons_from=path, notes=tuple(notes),
    )  # fmt: skip


def beside(labels_from: str, name: str) -> Path:
    """Return a file named in a recipe: in the folder of the labels, else as it is called."""
    inside = Path(labels_from) / name
    return inside if inside.is_file() else Path(name)


def _classes(
    wanted: VegetationConfig, labels: TileIndex, labels_from: str, threads: int
) -> tuple[TileIndex, Pairs]:
    source = wanted.rasters or labels_from
    try:
        # Class 0 is a class.
        config = DataConfig(dataset=wanted.dataset, nodata="tag", overlap="all")
        classes = build_index(source, config, threads=threads)
        pairs = pair(labels, classes, order="closest")
    except SourceError as error:
        raise SourceError(
            f"protocol.vegetation: {error} Name the rasters of classes of this ground "
            "(protocol.vegetation.rasters), or set protocol.vegetation=null to score all of it."
        ) from error
    if len(classes.bands) != 1:
        raise SourceError(
            f"protocol.vegetation: {source} has {len(classes.bands)} bands "
            f"({', '.join(band.name for band in classes.bands)}); rasters of classes have one. "
            "Name others (protocol.vegetation.rasters), or a descriptor "
            "(protocol.vegetation.dataset)."
        )
    return classes, pairs


def _polygons(path: Path) -> Polygons:
    frame = read_table(path, what="vegetation (protocol.vegetation.polygons)")
    shapes = np.asarray(frame.geometry.array, dtype=object)
    areal = shapely.get_dimensions(shapes) == 2
    if not areal.all():
        row = int(np.flatnonzero(~areal)[0])
        raise SourceError(
            f"{path}: the geometry in row {row} is no polygon. Leave it out, or name another file "
            "(protocol.vegetation.polygons)."
        )
    return Polygons(shapes=shapes, crs=str(frame.crs.to_string()))
