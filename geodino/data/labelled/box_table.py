"""Objects of a vector file on georeferenced images, as boxes in their pixels."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import Bool, Float

from geodino.data.labelled.box_file import BoxTable, read_box_table
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
from geodino.data.splits import SplitConfig
from geodino.data.tiles import TileIndex, read_tile
from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool


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

    def grid(self, key: str) -> Grid:
        """Return the georeference of an image."""
        return self.images.tiles[self.number(key)].grid

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
        centre = (xyxy[:, :2] + xyxy[:, 2:]).astype(np.float64) / 2
        split = split.of_time(tile.datetime)
        return split.holds(tile.grid, centre[:, 0], centre[:, 1], part_of(key))

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
    seen_m: float | None = None,
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
        seen_m: pixel of the grid a model sees, metres; None is the images'.

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
    divided = divide(
        images, range(len(images.tiles)), split=split, config=split_config, pixel_m=seen_m
    )
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
