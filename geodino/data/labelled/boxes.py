"""What the readers of boxes share: checks of what files say, windows, and a set of pictures."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float
from pydantic import Field

from geodino.config import Config
from geodino.data.labelled.common import digest, outline_of
from geodino.data.labelled.sets import PARTS, Boxes, Image, PartName, SetFacts
from geodino.errors import SourceError, suggest
from geodino.geo.bands import Band
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool, describe, read

LEAST_SHARE = 0.25
"""Objects of which less lies in a window are left out of its labels."""

RGB = tuple(Band(name=n, common_name=n) for n in ("red", "green", "blue"))
"""Bands of a picture."""

PICTURES = ReadRule(alpha="mask", nodata="ignore")
"""How pictures are read: no value in them means that there is none."""


Layout = Literal["auto", "table", "coco", "dior", "dota"]

Turned = Literal["refuse", "upright"]
"""What becomes of boxes that are turned: the file is refused, or the upright box around each is
taken."""

Other = Literal["refuse", "ignore"]
"""What becomes of objects of classes that are not named: a sentence, or they count as background."""


class BoxLabelsConfig(Config):
    """How labels that are boxes are read."""

    layout: Layout = "auto"
    """How files lie. ``table``: boxes, polygons or points of a vector file, by place; ``coco``: COCO's
    JSON, one file or one of each part; ``dior``: the folder of that set; ``dota``: that of DOTA, or a
    folder of its text files. ``auto``: the folders of those sets, vector files and JSON by their
    endings."""

    column: str | None = "class"
    """Column of a vector file that names the class of each object; null: all are of one class,
    ``object``."""

    classes: tuple[str, ...] | None = None
    """Names of the classes in order; null: every word of the column, sorted, or the categories of the
    JSON in the order of their ids."""

    other: Other = "refuse"
    """What becomes of objects of classes that ``classes`` does not name: a sentence, or ``ignore``:
    they are left out, and where they lie is background."""

    difficult: str | None = None
    """Column of a vector file that is true for objects that are neither learnt from nor counted as
    missed."""

    point_m: float | None = Field(default=None, gt=0)
    """Side of the box around an object that is a point, metres; null refuses points."""

    turned: Turned = "refuse"
    """What becomes of turned boxes in XML files: they are refused, or the ``upright`` box around each
    is taken."""


@dataclass(kw_only=True)
class BoxCounts:
    """What was changed of the boxes of a set while they were read."""

    boxes: int = 0
    difficult: int = 0
    clipped: int = 0
    """Boxes that reached over the edge of their image."""

    dropped: int = 0
    """Boxes of no area, or outside of their image."""

    other: int = 0
    """Boxes of classes that were not asked for."""

    def words(self) -> tuple[str, ...]:
        """Say it, as sentences for the run card."""
        said = [f"{self.boxes} boxes"]
        if self.difficult:
            said.append(
                f"{self.difficult} of them are difficult: neither learnt from nor counted as missed"
            )
        if self.clipped:
            said.append(f"{self.clipped} boxes reach over the edge of their image and were clipped")
        if self.other:
            said.append(f"{self.other} objects of other classes are background")
        if self.dropped:
            said.append(
                f"{self.dropped} boxes have no area, or lie outside of their image: left out"
            )
        return tuple(said)


def no_boxes() -> Boxes:
    """Return the label of an image without objects."""
    return made_boxes(np.zeros((0, 4)), [], [])


def made_boxes(
    xyxy: Float[np.ndarray, "n 4"], classes: Sequence[int], difficult: Sequence[bool]
) -> Boxes:
    """Return boxes in the types of a label."""
    return Boxes(
        xyxy=xyxy.astype(np.float32),
        classes=np.array(classes, dtype=np.int64).reshape(-1),
        difficult=np.array(difficult, dtype=np.bool_).reshape(-1),
    )


def checked(
    rows: Sequence[Sequence[float]],
    classes: Sequence[int],
    difficult: Sequence[bool],
    *,
    size: tuple[int, int],
    source: str,
    counts: BoxCounts,
) -> Boxes:
    """Return the boxes of an image; the harmless is mended and counted, the rest refused.

    A box over the edge is clipped; one without area, or outside, is left out.

    Args:
        rows: left, top, right, bottom of each.
        classes: number of the class of each.
        difficult: of each.
        size: height and width of the image.
        source: the file, for messages.
        counts: what happened is added to it.

    Raises:
        SourceError: a corner is no number, or lies on the wrong side of the other.
    """
    xyxy = np.array(rows, dtype=np.float64).reshape(-1, 4)
    for row, box in enumerate(xyxy.tolist()):
        if not np.isfinite(box).all():
            raise SourceError(f"{source}: box {row + 1} has a corner that is no number: mend it.")
        if box[2] < box[0] or box[3] < box[1]:
            raise SourceError(
                f"{source}: box {row + 1} is inverted ({box[0]:g}, {box[1]:g} to {box[2]:g}, "
                f"{box[3]:g}): the left upper corner comes first. Mend it, or check the order of its "
                "numbers."
            )
    height, width = size
    inside = xyxy.clip(0, [width, height, width, height])
    keep = (inside[:, 2] > inside[:, 0]) & (inside[:, 3] > inside[:, 1])
    counts.boxes += int(keep.sum())
    counts.dropped += int((~keep).sum())
    counts.clipped += int((inside != xyxy).any(axis=1)[keep].sum())
    hard = np.array(difficult, dtype=np.bool_).reshape(-1)[keep]
    counts.difficult += int(hard.sum())
    number = np.array(classes, dtype=np.int64).reshape(-1)[keep]
    return made_boxes(inside[keep], number.tolist(), hard.tolist())


def in_window(boxes: Boxes, window: Window | None) -> Boxes:
    """Return the boxes of a window, clipped and counted from its corner.

    Objects less than a quarter of which lies in it are left out.
    """
    if window is None:
        return boxes
    shift = np.array([window.left, window.top] * 2, dtype=np.float32)
    limit = np.array([window.width, window.height] * 2, dtype=np.float32)
    moved = (boxes.xyxy - shift).astype(np.float32)
    inside = moved.clip(0, limit)
    keep = _areas(inside) >= np.float32(LEAST_SHARE) * _areas(moved)
    keep &= _areas(inside) > 0
    return Boxes(xyxy=inside[keep], classes=boxes.classes[keep], difficult=boxes.difficult[keep])


def _areas(xyxy: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    sides = (xyxy[:, 2:] - xyxy[:, :2]).clip(0)
    return np.asarray(sides[:, 0] * sides[:, 1])


def name_of(key: str) -> str:
    """Return what a key calls its image: ``PART/NAME`` without its part."""
    return key.partition("/")[2]


def class_number(name: str, classes: Sequence[str], *, source: str) -> int:
    """Return the number of a class by its name.

    Raises:
        SourceError: there is none of that name.
    """
    if name not in classes:
        raise SourceError(
            f"{source}: {name!r} is not one of the classes {', '.join(classes)}."
            f"{suggest(name, classes)} Mend it, or name the classes."
        )
    return classes.index(name)


@runtime_checkable
class DividedGround(Protocol):
    """A set of boxes whose images may lie on ground of several parts."""

    def ground(self, key: str, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of a window lie on the ground of the key's part."""

    def on_ground(self, key: str, xyxy: Float[np.ndarray, "n 4"]) -> Bool[np.ndarray, " n"]:
        """Return the boxes, in pixels of the image, whose centre lies on the ground of its part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxPicture:
    """An image file and what is in it."""

    path: Path
    size: tuple[int, int]
    """Height and width, as the labels say."""

    boxes: Boxes | None
    """None where labels are not there."""


@dataclass(kw_only=True)
class PictureBoxes:
    """Image files with boxes (see :class:`geodino.data.labelled.sets.LabelledSet`)."""

    facts: SetFacts
    parts: Mapping[PartName, tuple[str, ...]]
    pictures: Mapping[str, BoxPicture]
    """By key."""

    label_files: tuple[Path, ...]
    """What the labels were read from."""

    rule: ReadRule
    pool: HandlePool
    unlabelled: frozenset[PartName] = field(default=frozenset())
    """Parts whose labels are not there."""

    @cached_property
    def fingerprint(self) -> str:
        """A hash of images, labels, and of which key is in which part."""
        files = [picture.path for picture in self.pictures.values()]
        paths = [path.absolute() for path in (*files, *self.label_files)]
        root = os.path.commonpath([path.parent for path in paths])
        return digest(paths, self.parts, root=Path(root))

    def divided(self, of: Callable[[str], PartName | None]) -> "PictureBoxes":
        """Return the same images in other parts: ``of`` a key; None leaves the image out."""
        parts: dict[PartName, list[str]] = {part: [] for part in PARTS}
        pictures = {}
        for key, picture in self.pictures.items():
            part = of(key)
            if part is not None:
                new = f"{part}/{name_of(key)}"
                parts[part].append(new)
                pictures[new] = picture
        kept: dict[PartName, tuple[str, ...]] = {p: tuple(keys) for p, keys in parts.items()}
        return replace(self, parts=kept, pictures=pictures)

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image.

        Raises:
            SourceError: the file is missing, or of another size than its labels say.
        """
        picture = self.pictures[key]
        grid = describe(picture.path).grid
        if (grid.height, grid.width) != picture.size:
            raise SourceError(
                f"{picture.path} has {grid.height} x {grid.width} px, its labels were made for "
                f"{picture.size[0]} x {picture.size[1]}: restore the image, or its labels."
            )
        return picture.size

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image, or a window of it, all bands."""
        path = self.pictures[key].path
        bands = list(range(1, len(self.facts.bands) + 1))
        if self.facts.bands == RGB and describe(path).count == 1:
            bands = [1, 1, 1]  # a grey photograph
        return read(self.pool, path, window, bands=bands, rule=self.rule)

    def label(self, key: str, window: Window | None = None) -> Boxes:
        """Return the boxes of an image, or of a window of it.

        Raises:
            SourceError: its part has no labels.
        """
        found = self.pictures[key].boxes
        if found is None:
            raise SourceError(
                f"{self.pictures[key].path} has no labels here. Measure on another part, or unpack the "
                "labels beside the images."
            )
        return in_window(found, window)

    def traits(self, key: str) -> Mapping[str, str]:
        """Files of boxes tell nothing else of their images."""
        return {}

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north in degrees, where the file has a place."""
        return outline_of(self.pictures[key].path)
