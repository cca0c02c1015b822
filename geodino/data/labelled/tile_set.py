"""Images of any source with a class per pixel, in parts by folder, by a list, or by ground."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from jaxtyping import UInt8

from geodino.data.labelled.class_labels import ClassLabels
from geodino.data.labelled.parts import (
    Parts,
    degrees_of,
    image_names,
    keys_of,
    part_of,
    split_facts,
)
from geodino.data.labelled.sets import IGNORED, Image, PartName, SetFacts
from geodino.data.tiles import TileIndex, read_tile
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool


@dataclass(kw_only=True)
class TileSet:
    """Tiles with a class per pixel.

    A key is ``PART/IMAGE``: where ground is split, the labels of a key are hidden on ground of
    other parts.
    """

    facts: SetFacts
    images: TileIndex
    labels: ClassLabels
    divided: Parts
    pool: HandlePool
    """Where open files are kept."""

    names: tuple[str, ...] = field(init=False)
    """Of each image: its path below the source."""

    parts: Mapping[PartName, tuple[str, ...]] = field(init=False)
    """Keys of each part."""

    def __post_init__(self) -> None:
        self.names = image_names(self.images)
        self.parts = keys_of(self.divided, self.names)

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    @property
    def fingerprint(self) -> str:
        """A hash of images, labels, classes, and which ground is for what."""
        parts = {
            "images": self.images.fingerprint(),
            "labels": self.labels.fingerprint(),
            "classes": self.facts.classes,
            "parts": {part: list(keys) for part, keys in self.parts.items()},
            "split": split_facts(self.divided.split),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def number(self, key: str) -> int:
        """Return the number of an image.

        Raises:
            KeyError: there is no such key.
        """
        return self._numbers[key.partition("/")[2]]

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

    def label(self, key: str, window: Window | None = None) -> UInt8[np.ndarray, "h w"]:
        """Read the class of each pixel; ``IGNORED`` on ground of other parts."""
        part = part_of(key)
        number = self.number(key)
        tile = self.images.tiles[number]
        where = window or Window(0, 0, tile.height, tile.width)
        split = self.divided.split
        if split is None:
            return self.labels.classes(number, where)
        mine = split.of_time(tile.datetime).mask(tile.grid, where, part)
        if not mine.any():
            return np.full(mine.shape, IGNORED, np.uint8)
        found: UInt8[np.ndarray, "h w"] = np.where(
            mine, self.labels.classes(number, where), np.uint8(IGNORED)
        )
        return found

    def traits(self, key: str) -> Mapping[str, str]:
        """Return the date of an image, where it is known."""
        when = self.images.tiles[self.number(key)].datetime
        return {} if when is None else {"date": when[:10]}

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north in degrees; None where it has no place."""
        return degrees_of(self.images.tiles[self.number(key)])
