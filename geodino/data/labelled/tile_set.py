"""Images of any source with a class per pixel, in parts by folder, by a list, or by ground."""

import csv
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath

import numpy as np
from jaxtyping import UInt8

from geodino import seeds
from geodino.data.blocks import make_split
from geodino.data.labelled.class_labels import ClassLabels
from geodino.data.labelled.sets import IGNORED, PARTS, Image, PartName, SetFacts
from geodino.data.split_file import load_split, refuse_undated
from geodino.data.splits import Split, SplitConfig
from geodino.data.tiles import TileIndex, read_tile
from geodino.errors import SourceError, suggest
from geodino.geo.outlines import outlines
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool

_FOLDERS: dict[str, PartName] = {
    "train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of folders that say what their images are for."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What each image, or the ground under it, is for."""

    images: Mapping[PartName, tuple[int, ...]]
    """Numbers of the images of each part; an image may be of several where ground is split."""

    split: Split | None = None
    """How the ground is split; None where whole images are."""

    notes: tuple[str, ...] = ()
    """How it was made, as sentences for the run card."""


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
        self.parts = {
            part: tuple(f"{part}/{self.names[i]}" for i in numbers)
            for part, numbers in self.divided.images.items()
        }

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    @property
    def fingerprint(self) -> str:
        """A hash of images, labels, classes, and which ground is for what."""
        split = self.divided.split
        rows = [] if split is None else [
            [word, site, shape.wkb_hex]
            for word, site, shape in zip(split.split, split.site, split.geometry, strict=True)
        ]  # fmt: skip
        parts = {
            "images": self.images.fingerprint(),
            "labels": self.labels.fingerprint(),
            "classes": self.facts.classes,
            "parts": {part: list(keys) for part, keys in self.parts.items()},
            "split": [None if split is None else split.crs, rows],
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

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image, or a window of it, all bands."""
        tile = self.images.tiles[self.number(key)]
        where = window or Window(0, 0, tile.height, tile.width)
        return read_tile(self.pool, tile, where, self.images.rule_of(tile))

    def label(self, key: str, window: Window | None = None) -> UInt8[np.ndarray, "h w"]:
        """Read the class of each pixel; ``IGNORED`` on ground of other parts."""
        part: PartName = _FOLDERS[key.partition("/")[0]]
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
        shape = self.images.tiles[self.number(key)].grid.footprint_wgs84()
        if shape is None:
            return None
        west, south, east, north = (float(v) for v in shape.bounds)
        return west, south, east, north


def image_names(images: TileIndex) -> tuple[str, ...]:
    """Return the path of each image below the source; the whole path where it lies elsewhere."""
    return tuple(
        PurePath(tile.path).relative_to(images.root).as_posix()
        if PurePath(tile.path).is_relative_to(images.root)
        else tile.path
        for tile in images.tiles
    )


def divide(
    images: TileIndex, labelled: Sequence[int], *, split: str | None, config: SplitConfig
) -> Parts:
    """Decide what each labelled image, or its ground, is for.

    In this order: a file (``split``: polygons, or a CSV of images), folders named train, val and
    test, blocks of ground where all images have a place, else whole images drawn by the seed.

    Raises:
        SourceError: the file is wrong, or there is nothing to learn from or to validate on.
    """
    names = image_names(images)
    if split is not None and Path(split).suffix.lower() == ".csv":
        return _checked(_by_list(names, labelled, split))
    folders = {i: _FOLDERS.get(names[i].partition("/")[0].lower()) for i in labelled}
    if split is None and all(folders.values()):
        found = {part: tuple(i for i in labelled if folders[i] == part) for part in PARTS}
        return _checked(Parts(images=found, notes=("split by folders named after the parts",)))
    if split is None and any(images.tiles[i].gsd_m is None for i in labelled):
        return _checked(_by_chance(labelled, config))
    if split is not None:
        chosen = load_split(split)
        refuse_undated(chosen, [images.tiles[i] for i in labelled], split)
    else:
        ground = outlines([images.tiles[i].grid for i in labelled])
        chosen = make_split(ground, config, pixel_m=max(images.gsd_m or (1.0,)))
    under = {i: chosen.of_time(images.tiles[i].datetime) for i in labelled}
    shares = {i: under[i].shares(images.tiles[i].grid) for i in labelled}
    by_part = {part: tuple(i for i in labelled if part in shares[i]) for part in PARTS}
    notes = [*chosen.notes]
    if chosen.sites("calibration"):
        notes.append("ground for calibration is not used: classes need none (split.shares)")
    return _checked(Parts(images=by_part, split=chosen, notes=tuple(notes)))


def _by_list(names: Sequence[str], labelled: Sequence[int], path: str) -> Parts:
    try:
        with Path(path).open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SourceError(f"{path} cannot be read as a table of images ({error}).") from error
    if not rows or not {"image", "split"} <= rows[0].keys():
        raise SourceError(
            f"{path} needs the columns image and split: the path of an image below --images, and "
            f"one of {', '.join(PARTS)}."
        )
    said: dict[str, str] = {}
    for row in rows:
        if row["split"] not in PARTS:
            raise SourceError(
                f"{path}: {row['split']!r} of {row['image']} is not one of {', '.join(PARTS)}."
                f"{suggest(row['split'], PARTS)}"
            )
        said[row["image"]] = row["split"]
    if strange := sorted(said.keys() - set(names)):
        raise SourceError(
            f"{path} names {strange[0]!r}, which is no image of the source.{suggest(strange[0], names)} "
            f"{len(strange)} name(s) are unknown: write paths below --images, endings included."
        )
    by_part = {p: tuple(i for i in labelled if said.get(names[i]) == p) for p in PARTS}
    return Parts(images=by_part, notes=(f"split by {path}",))


def _by_chance(labelled: Sequence[int], config: SplitConfig) -> Parts:
    """Draw whole images by the seed: at least one for each part, where there are three."""
    shares = config.shares
    wanted = {"train": shares.train, "val": shares.val, "test": shares.test}
    total = sum(wanted.values())
    order = seeds.rng(config.seed, "images").permutation(len(labelled)).tolist()
    count = {part: int(len(labelled) * share / total) for part, share in wanted.items()}
    for part in ("test", "val"):
        if wanted[part] > 0 and len(labelled) > 2:
            count[part] = max(1, count[part])
    if len(labelled) == 2:
        count["val"], count["test"] = 1, 0
    val, test = count["val"], count["test"]
    drawn: dict[PartName, list[int]] = {
        "val": order[:val], "test": order[val : val + test], "train": order[val + test :],
    }  # fmt: skip
    note = (
        "images have no place on the Earth, so whole images are drawn for each part (split.seed): "
        "if several were cut from one scene, name a CSV with the columns image and split (--split)"
    )
    images = {part: tuple(sorted(labelled[i] for i in drawn[part])) for part in PARTS}
    return Parts(images=images, notes=(note,))


def _checked(parts: Parts) -> Parts:
    for part in ("train", "val"):
        if not parts.images[part]:
            raise SourceError(
                f"There is no labelled image for {part}, and training needs both train and val. "
                "Declare other shares (split.shares), or name a file with both (--split)."
            )
    return parts
