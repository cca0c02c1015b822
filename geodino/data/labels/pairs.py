"""Which labels lie on which images, and how far apart in time they were taken."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
import shapely
from numpy.typing import NDArray

from geodino.data.labels.config import Order
from geodino.data.tiles import Tile, TileIndex
from geodino.errors import SourceError
from geodino.geo.outlines import outlines

_DAY_S = 86_400.0

_TOUCH = 1e-6
"""Overlaps below this share of the smaller outline are rounding at shared edges."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pairs:
    """The label rasters of each image, in the order in which they are asked."""

    by_image: tuple[tuple[int, ...], ...]
    """Numbers of label rasters, for every image."""

    gap_days: tuple[float, ...]
    """Days between image and label, of the pairs whose times are both known."""

    notes: tuple[str, ...]
    """What was found, as sentences for the run card."""

    @property
    def labelled(self) -> tuple[int, ...]:
        """Numbers of the images with at least one label raster."""
        return tuple(i for i, labels in enumerate(self.by_image) if labels)


def pair(images: TileIndex, labels: TileIndex, *, order: Order) -> Pairs:
    """Find the label rasters that overlap each image, across CRSs.

    Several labels on one image and several images on one label are fine.

    Args:
        images: tiles of the images.
        labels: tiles of the labels.
        order: which label comes first where several cover a pixel.

    Raises:
        SourceError: no label lies on any image; the message tells where both are.
    """
    of_images, of_labels = _outlines(images.tiles), _outlines(labels.tiles)
    image, label = overlapping(of_images, of_labels)
    if not image.size:
        raise SourceError(no_overlap(images, of_images, of_labels, f"{len(labels.tiles)} labels"))
    found: list[list[int]] = [[] for _ in images.tiles]
    for i, j in zip(image.tolist(), label.tolist(), strict=True):
        found[i].append(j)
    by_image = tuple(
        tuple(_ranked(numbers, images.tiles[i], labels.tiles, order))
        for i, numbers in enumerate(found)
    )
    gaps = [
        gap_days(images.tiles[i].datetime, labels.tiles[j].datetime)
        for i, numbers in enumerate(by_image)
        for j in numbers
    ]
    unused = len(labels.tiles) - len(np.unique(label))
    notes = [unlabelled(by_image, "label raster")]
    if unused:
        notes.append(f"{unused} of {len(labels.tiles)} label rasters lie on no image")
    notes.append(gap_note(gaps, _doubtful([*images.tiles, *labels.tiles])))
    return Pairs(
        by_image=by_image,
        gap_days=tuple(gap for gap in gaps if gap is not None),
        notes=tuple(notes),
    )


def labelled_ground(images: TileIndex, labels: TileIndex, pairs: Pairs) -> NDArray[np.object_]:
    """Return the part of every labelled image that labels cover, in longitude and latitude."""
    of_images, of_labels = _outlines(images.tiles), _outlines(labels.tiles)
    ground = np.empty(len(pairs.labelled), dtype=object)
    for place, image in enumerate(pairs.labelled):
        covered = shapely.union_all(of_labels[list(pairs.by_image[image])])
        ground[place] = shapely.intersection(of_images[image], covered)
    return ground


def overlapping(
    one: NDArray[np.object_], other: NDArray[np.object_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the pairs of outlines that share ground: numbers in ``one``, numbers in ``other``."""
    tree = shapely.STRtree(other)
    i, j = tree.query(one, predicate="intersects")
    shared = shapely.area(shapely.intersection(one[i], other[j]))
    smaller = np.minimum(shapely.area(one[i]), shapely.area(other[j]))
    # A point has no area, and lies on an image or does not.
    keep = shared >= _TOUCH * smaller
    keep &= (shared > 0) | (smaller == 0)
    order = np.lexsort((j[keep], i[keep]))
    return i[keep][order], j[keep][order]


def unlabelled(by_image: Sequence[Sequence[int]], what: str) -> str:
    """Say how many images have labels, and how many have none."""
    with_labels = sum(bool(numbers) for numbers in by_image)
    text = f"{with_labels} of {len(by_image)} images have at least one {what}"
    without = len(by_image) - with_labels
    return f"{text}; {without} without are not used" if without else text


def no_overlap(
    images: TileIndex,
    of_images: NDArray[np.object_],
    of_labels: NDArray[np.object_],
    labels: str,
) -> str:
    """Say that no label lies on an image, and where both are."""
    return (
        f"None of the {labels} lies on any of the {len(images.tiles)} images: images are at "
        f"{_extent(of_images)}, labels at {_extent(of_labels)}. Check that both are of one place "
        "and that their CRSs are declared rightly."
    )


def gap_days(one: str | None, other: str | None) -> float | None:
    """Return the days between two ISO 8601 times; None where one is not known."""
    if one is None or other is None:
        return None
    return abs((_moment(one) - _moment(other)).total_seconds()) / _DAY_S


def gap_note(gaps: Sequence[float | None], doubtful: bool) -> str:
    """Say how far apart in time images and labels were taken."""
    known = [gap for gap in gaps if gap is not None]
    if not known:
        return "the time between images and labels is not known: one of them has no dates"
    text = (
        f"labels were taken up to {max(known):.0f} days from their image (median "
        f"{float(np.median(known)):.0f})"
    )
    if len(known) < len(gaps):
        text += f"; of {len(gaps) - len(known)} of {len(gaps)} pairs it is not known"
    if doubtful:
        text += "; some dates come from TIFF tags, which often tell the time of writing"
    return text


def _doubtful(tiles: Iterable[Tile]) -> bool:
    return any(tile.datetime is not None and tile.datetime_from == "tiff tag" for tile in tiles)


def _moment(text: str) -> datetime:
    when = datetime.fromisoformat(text)
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _outlines(tiles: Sequence[Tile]) -> NDArray[np.object_]:
    return outlines([tile.grid for tile in tiles])


def _ranked(numbers: Sequence[int], image: Tile, labels: Sequence[Tile], order: Order) -> list[int]:
    def rank(number: int) -> tuple[float, str]:
        tile = labels[number]
        if order == "closest":
            gap = gap_days(image.datetime, tile.datetime)
            return (np.inf if gap is None else gap), tile.path
        if order == "newest":
            when = tile.datetime
            return (np.inf if when is None else -_moment(when).timestamp()), tile.path
        if order == "finest":
            return (np.inf if tile.gsd_m is None else tile.gsd_m[0] * tile.gsd_m[1]), tile.path
        return 0.0, tile.path

    return sorted(numbers, key=rank)


def _extent(shapes: NDArray[np.object_]) -> str:
    placed = shapes[shapes != None]  # noqa: E711  (elementwise)
    if not placed.size:
        return "no place (they have no CRS)"
    west, south, east, north = shapely.total_bounds(placed)
    text = f"longitude {west:.4f} to {east:.4f}, latitude {south:.4f} to {north:.4f}"
    without = shapes.size - placed.size
    return f"{text} ({without} have no CRS)" if without else text
