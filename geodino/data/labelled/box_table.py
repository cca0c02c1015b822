"""Objects of a vector file on georeferenced images, as boxes in their pixels."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import shapely
from affine import Affine
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray

from geodino.data.labelled.boxes import BoxLabelsConfig, in_window, made_boxes, name_of
from geodino.data.labelled.parts import (
    Parts,
    degrees_of,
    divide,
    image_names,
    keys_of,
    part_of,
    split_facts,
)
from geodino.data.labelled.sets import Boxes, Image, PartName, SetFacts
from geodino.data.labels.footprints import read_table
from geodino.data.splits import SplitConfig
from geodino.data.tiles import TileIndex, read_tile
from geodino.errors import SourceError, suggest
from geodino.files import sha256
from geodino.geo.align import positions
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool

_EDGE_POINTS = 5
"""Points along each side of an object: sides straight in one CRS are curved in another."""


@dataclass(frozen=True, kw_only=True)
class BoxTable:
    """Objects as a vector file holds them."""

    crs: str
    shapes: NDArray[np.object_]
    number: Int64[np.ndarray, " n"]
    """Class of each."""

    difficult: NDArray[np.bool_]
    classes: tuple[str, ...]
    point_m: float | None
    notes: tuple[str, ...]
    sha256: str

    def on(self, grid: Grid) -> tuple[Float[np.ndarray, "n 4"], NDArray[np.int64]]:
        """Return the upright boxes of the objects that touch an image, in its pixels, not clipped.

        Returns:
            Left, top, right, bottom; and the row of each in the table.
        """
        outline = _outline(grid, self.crs)
        rows = np.sort(self._tree.query(outline, predicate="intersects"))
        rows = rows[self._reached(rows, grid)] if rows.size else rows
        if not rows.size:
            return np.zeros((0, 4)), rows
        shapes = self.shapes[rows]
        points = shapely.get_type_id(shapes) == shapely.GeometryType.POINT
        dense = shapely.segmentize(shapes, _longest(shapes) / _EDGE_POINTS)
        at, of = shapely.get_coordinates(dense, return_index=True)
        column, row = positions(_plane(self.crs), grid, at[:, 0], at[:, 1])
        boxes = np.stack(
            [_least(column, of), _least(row, of), -_least(-column, of), -_least(-row, of)], axis=1
        )
        if points.any():
            boxes[points] += self._around(grid)
        return boxes, rows

    @cached_property
    def _tree(self) -> shapely.STRtree:
        return shapely.STRtree(self.shapes)

    def _reached(self, rows: NDArray[np.int64], grid: Grid) -> NDArray[np.bool_]:
        at, of = shapely.get_coordinates(self.shapes[rows], return_index=True)
        x, y = positions(_plane(self.crs), grid, at[:, 0], at[:, 1])
        bad = np.unique(of[~(np.isfinite(x) & np.isfinite(y))])
        return ~np.isin(np.arange(len(rows)), bad)

    def _around(self, grid: Grid) -> Float[np.ndarray, " 4"]:
        gsd = grid.gsd_m
        if gsd is None or self.point_m is None:
            raise ValueError("points need a place on the Earth and a size")
        across, down = (self.point_m / 2 / step for step in gsd)
        return np.array([-across, -down, across, down])


def read_box_table(path: Path | str, config: BoxLabelsConfig) -> BoxTable:
    """Read objects from GeoParquet, GeoJSON, GeoPackage and the like.

    Raises:
        SourceError: the file cannot be read, lacks a column, holds lines, broken or empty shapes,
            points without a size, or a class that is not named.
    """
    frame = read_table(path, what="boxes or polygons of objects")
    shapes = np.asarray(frame.geometry.array, dtype=object)
    kinds = shapely.get_type_id(shapes)
    allowed = {shapely.GeometryType[n].value for n in ("POLYGON", "MULTIPOLYGON", "POINT")}
    for row in np.flatnonzero(~np.isin(kinds, list(allowed))).tolist():
        what = "no shape" if shapes[row] is None else shapes[row].geom_type
        raise SourceError(f"{path}: row {row} is {what}; objects are boxes, polygons or points.")
    broken = shapely.is_empty(shapes)
    broken |= ~np.isfinite(shapely.bounds(shapes)).all(axis=1)
    if broken.any():
        raise SourceError(
            f"{path}: the shape of row {int(np.flatnonzero(broken)[0])} is empty or has a corner that "
            "is no number: mend it, or leave the row out."
        )
    if config.point_m is None and (kinds == shapely.GeometryType.POINT).any():
        raise SourceError(
            f"{path} holds points, which have no size: declare the side of their boxes in metres "
            "(labels.point_m)."
        )
    flat = (kinds != shapely.GeometryType.POINT) & (shapely.area(shapes) <= 0)
    words, classes = _classes(frame, config, path)
    known = np.array([word in classes for word in words], dtype=np.bool_)
    keep = known & ~flat
    notes = [f"{int(keep.sum())} objects of {len(classes)} classes: {', '.join(classes)}"]
    if flat.any():
        notes.append(f"{int(flat.sum())} objects have no area and were left out")
    if not known.all():
        notes.append(f"{int((~known).sum())} objects of other classes are background")
    if not keep.any():
        raise SourceError(f"{path} holds no object of {', '.join(classes)}: check it.")
    chosen = [word for word, kept in zip(words, keep.tolist(), strict=True) if kept]
    return BoxTable(
        crs=str(frame.crs.to_string()),
        shapes=shapes[keep],
        number=np.array([classes.index(word) for word in chosen], dtype=np.int64),
        difficult=_difficult(frame, config, path)[keep],
        classes=classes,
        point_m=config.point_m,
        notes=tuple(notes),
        sha256=sha256(Path(path)),
    )


def _classes(
    frame: Any, config: BoxLabelsConfig, path: Path | str
) -> tuple[list[str], tuple[str, ...]]:
    if config.column is None:
        return ["object"] * len(frame), config.classes or ("object",)
    _column(frame, config.column, path, "labels.column")
    missing = np.flatnonzero(np.asarray(frame[config.column].isna()))
    if missing.size:
        raise SourceError(f"{path}: row {int(missing[0])} has no class ({config.column}): name it.")
    words = [str(word) for word in frame[config.column]]
    classes = config.classes or tuple(sorted(set(words)))
    for row, word in enumerate(words):
        if word not in classes and config.other == "refuse":
            raise SourceError(
                f"{path}: {word!r} in row {row} is not one of the classes {', '.join(classes)}."
                f"{suggest(word, classes)} Mend it, add it to labels.classes, or set labels.other: "
                "ignore."
            )
    return words, classes


def _difficult(frame: Any, config: BoxLabelsConfig, path: Path | str) -> NDArray[np.bool_]:
    if config.difficult is None:
        return np.zeros(len(frame), dtype=np.bool_)
    _column(frame, config.difficult, path, "labels.difficult")
    return np.asarray(frame[config.difficult].fillna(value=False)).astype(np.bool_)


def _column(frame: Any, name: str, path: Path | str, key: str) -> None:
    names = [str(column) for column in frame.columns]
    if name not in names:
        raise SourceError(
            f"{path} has no column {name!r} ({key}).{suggest(name, names)} It has {', '.join(names)}."
        )


@dataclass(kw_only=True)
class TableBoxes:
    """Tiles with objects of a vector file (see :class:`geodino.data.labelled.sets.LabelledSet`).

    A key is ``PART/IMAGE``. Where ground is split, an object belongs to the part that its centre
    lies in; in other parts it is difficult: it is in the picture, yet not to be learnt there.
    """

    facts: SetFacts
    images: TileIndex
    table: BoxTable
    divided: Parts
    pool: HandlePool

    names: tuple[str, ...] = field(init=False)
    """Of each image: its path below the source."""

    parts: Mapping[PartName, tuple[str, ...]] = field(init=False)
    """Keys of each part."""

    def __post_init__(self) -> None:
        self.names = image_names(self.images)
        self.parts = keys_of(self.divided, self.names)
        self._labels: dict[str, Boxes] = {}

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def number(self, key: str) -> int:
        """Return the number of an image.

        Raises:
            KeyError: there is no such key.
        """
        return self._numbers[name_of(key)]

    @cached_property
    def fingerprint(self) -> str:
        """A hash of images, objects, classes, and which ground is for what."""
        said = {
            "images": self.images.fingerprint(),
            "labels": self.table.sha256,
            "classes": self.facts.classes,
            "point_m": self.table.point_m,
            "parts": {part: list(keys) for part, keys in self.parts.items()},
            "split": split_facts(self.divided.split),
        }
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image."""
        tile = self.images.tiles[self.number(key)]
        return tile.height, tile.width

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image, or a window of it, all bands."""
        tile = self.images.tiles[self.number(key)]
        where = window or Window(0, 0, tile.height, tile.width)
        return read_tile(self.pool, tile, where, self.images.rule_of(tile))

    def label(self, key: str, window: Window | None = None) -> Boxes:
        """Return the boxes of an image, or of a window of it, clipped to it.

        Objects less than a quarter of which lies in it are left out.
        """
        if key not in self._labels:  # threads that come at once find the same
            self._labels[key] = self._label(key)
        return in_window(self._labels[key], window)

    def _label(self, key: str) -> Boxes:
        grid = self.images.tiles[self.number(key)].grid
        xyxy, rows = self.table.on(grid)
        hard = self.table.difficult[rows] | ~self.on_ground(key, xyxy)
        found = made_boxes(xyxy, self.table.number[rows].tolist(), hard.tolist())
        # Of an object that reaches over the edge of the image, what lies in it is the object.
        return in_window(found, Window(0, 0, grid.height, grid.width))

    def ground(self, key: str, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of a window lie on the ground of the key's part."""
        split, tile = self.divided.split, self.images.tiles[self.number(key)]
        if split is None:
            return np.ones((window.height, window.width), dtype=np.bool_)
        return split.of_time(tile.datetime).mask(tile.grid, window, part_of(key))

    def on_ground(self, key: str, xyxy: Float[np.ndarray, "n 4"]) -> Bool[np.ndarray, " n"]:
        """Return the boxes, in pixels of the image, whose centre lies on the ground of its part."""
        split, tile = self.divided.split, self.images.tiles[self.number(key)]
        if split is None or not len(xyxy):
            return np.ones(len(xyxy), dtype=np.bool_)
        split, part = split.of_time(tile.datetime), part_of(key)
        centre = (xyxy[:, :2] + xyxy[:, 2:]).astype(np.float64) / 2
        x, y = positions(tile.grid, _plane(split.crs), centre[:, 0], centre[:, 1])
        mine = np.zeros(len(xyxy), dtype=np.bool_)
        open_ = np.ones(len(xyxy), dtype=np.bool_)
        # Where polygons overlap, the first one holds.
        for word, polygon in zip(split.split, split.geometry, strict=True):
            inside = open_ & shapely.intersects_xy(polygon, x, y)
            mine |= inside & (word == part)
            open_ &= ~inside
        return mine

    def traits(self, key: str) -> Mapping[str, str]:
        """Return the date of an image, where it is known."""
        when = self.images.tiles[self.number(key)].datetime
        return {} if when is None else {"date": when[:10]}

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north of an image in degrees."""
        return degrees_of(self.images.tiles[self.number(key)])


def open_box_table(
    images: TileIndex,
    labels: Path | str,
    *,
    config: BoxLabelsConfig,
    split: str | None,
    split_config: SplitConfig,
    pool: HandlePool,
) -> TableBoxes:
    """Bring images and the objects of a vector file together.

    An image without an object has been looked at as well where the file covers it: all images are
    used, those without objects included.

    Args:
        images: tiles with a place on the Earth.
        labels: the vector file.
        config: what is declared of it.
        split: a vector file of polygons with a column ``split``, or a CSV of images; None makes one,
            see :func:`geodino.data.labelled.parts.divide`.
        split_config: how blocks are made.
        pool: where open files are kept.

    Raises:
        SourceError: images have no place, no object lies on any, or the split is wrong.
    """
    for tile in images.tiles:
        if tile.gsd_m is None:
            raise SourceError(
                f"{tile.path} has no place on the Earth, and {labels} says where objects lie there: "
                "give images with a CRS and a transform, or labels in pixels (COCO)."
            )
    table = read_box_table(labels, config)
    counts = [len(table.on(tile.grid)[0]) for tile in images.tiles]
    if not any(counts):
        raise SourceError(
            f"No object of {labels} lies on an image: check that both show one place."
        )
    divided = divide(images, range(len(images.tiles)), split=split, config=split_config)
    bare = sum(count == 0 for count in counts)
    notes = [*table.notes, *divided.notes]
    if bare:
        notes.append(f"{bare} of {len(counts)} images have no object: they are used as such")
    facts = SetFacts(
        name=PurePath(str(labels)).stem, kind="detection", classes=table.classes,
        bands=images.bands, dtype=images.dtype, metric="map50",
        gsd_m=None if images.gsd_m is None else sum(images.gsd_m) / 2, notes=tuple(notes),
        source=str(labels),
    )  # fmt: skip
    return TableBoxes(facts=facts, images=images, table=table, divided=divided, pool=pool)


def _least(values: Float[np.ndarray, " n"], of: NDArray[np.int64]) -> Float[np.ndarray, " k"]:
    """The least value of each shape; shapes come one after the other."""
    starts = np.flatnonzero(np.diff(of, prepend=-1))
    return np.asarray(np.minimum.reduceat(values, starts))


def _longest(shapes: NDArray[np.object_]) -> Float[np.ndarray, " n"]:
    bounds = shapely.bounds(shapes)
    # Points have no side; any positive length leaves them alone.
    return np.asarray(np.maximum((bounds[:, 2:] - bounds[:, :2]).max(axis=1), 1e-9))


def _outline(grid: Grid, crs: str) -> shapely.Polygon:
    t = np.linspace(0.0, 1.0, 33)[:-1]
    column = np.concatenate([t, np.ones_like(t), 1 - t, np.zeros_like(t)]) * grid.width
    row = np.concatenate([np.zeros_like(t), t, np.ones_like(t), 1 - t]) * grid.height
    x, y = positions(grid, _plane(crs), column, row)
    return shapely.Polygon(np.column_stack([x, y]))


def _plane(crs: str) -> Grid:
    """A grid whose places are the coordinates of a CRS."""
    return Grid(crs, Affine.identity(), 1, 1)
