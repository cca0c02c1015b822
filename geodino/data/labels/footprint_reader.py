"""Which pixels of a window lie in which footprint."""

from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from jaxtyping import Float, Float32, Int64
from numpy.typing import NDArray

from geodino.data.labels.footprints import FootprintIndex, FootprintPairs
from geodino.data.tiles import TileIndex
from geodino.geo.align import positions
from geodino.geo.grid import Grid
from geodino.geo.windows import Window

_EARTH = Grid("OGC:CRS84", Affine.identity(), 1, 1)
"""Places on it are longitude and latitude."""

_ON_EDGE = 1e-6
"""A corner this far out of a window (pixels) is on its edge."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Footprints:
    """Footprints that lie wholly inside a window, and their pixels."""

    numbers: Int64[np.ndarray, "footprints"]
    """Their numbers in the index."""

    height_m: Float32[np.ndarray, "footprints"]
    """Their heights, metres."""

    pixels: Int64[np.ndarray, "pixels"]
    """Pixels of one footprint after the other: ``row * width + column`` in the window."""

    starts: Int64[np.ndarray, "edges"]
    """Footprint ``i`` has ``pixels[starts[i] : starts[i + 1]]``, at least one."""

    def __len__(self) -> int:
        return len(self.numbers)

    def of(self, footprint: int) -> Int64[np.ndarray, "pixels"]:
        """Return the pixels of footprint ``footprint`` of this window."""
        return self.pixels[self.starts[footprint] : self.starts[footprint + 1]]

    def percentiles(
        self, values: Float[np.ndarray, "h w"], percentile: float
    ) -> Float[np.ndarray, "footprints"]:
        """Return a percentile of the values in each footprint, linear between ranks."""
        flat = values.reshape(-1)
        found = [np.percentile(flat[self.of(i)], percentile) for i in range(len(self))]
        return np.array(found, dtype=np.float64)


class FootprintReader:
    """Finds the footprints in windows of images. Safe to call from threads.

    A footprint's pixels are those whose centres lie in it; one that holds no centre, because it is
    smaller than a pixel, has the pixel that its own centre lies in. They do not depend on how
    windows are cut.

    Args:
        labels: the footprints.
        pairs: which of them lie on which image.
        images: the images.
    """

    def __init__(self, labels: FootprintIndex, pairs: FootprintPairs, images: TileIndex) -> None:
        self._labels = labels
        self._pairs = pairs
        self._images = images
        self._centres = shapely.get_coordinates(shapely.centroid(labels.places))

    def __call__(self, image: int, window: Window, grid: Grid | None = None) -> Footprints:
        """Return the footprints that lie wholly in a window of image number ``image``.

        Args:
            image: its number in the index of images.
            window: rows and columns of ``grid``.
            grid: the wanted grid, such as a coarser one; None is the image's own.
        """
        target = self._images.tiles[image].grid if grid is None else grid
        numbers = self._pairs.by_image[image]
        column, row = _pixels_at(target, self._centres[numbers])
        near = (column >= window.left) & (column < window.right)
        near &= (row >= window.top) & (row < window.bottom)
        numbers = numbers[near]
        polygons = shapely.transform(
            self._labels.polygons(numbers),
            lambda lonlat: np.stack(_pixels_at(target, lonlat), axis=-1),
        )
        left, top, right, bottom = shapely.bounds(polygons).reshape(-1, 4).T
        inside = (left >= window.left - _ON_EDGE) & (right <= window.right + _ON_EDGE)
        inside &= (top >= window.top - _ON_EDGE) & (bottom <= window.bottom + _ON_EDGE)
        numbers, polygons = numbers[inside], polygons[inside]
        centres = np.floor(np.stack([row[near][inside], column[near][inside]])).astype(np.int64)
        owner, rows, columns = _centres_in(polygons)
        without = np.setdiff1d(np.arange(len(numbers)), owner)
        owner = np.concatenate([owner, without])
        rows = np.concatenate([rows, centres[0, without]])
        columns = np.concatenate([columns, centres[1, without]])
        order = np.lexsort((columns, rows, owner))
        pixels = (rows[order] - window.top) * window.width + columns[order] - window.left
        return Footprints(
            numbers=numbers,
            height_m=self._labels.height_m[numbers].astype(np.float32),
            pixels=pixels,
            starts=np.searchsorted(owner[order], np.arange(len(numbers) + 1)),
        )


def _pixels_at(
    grid: Grid, lonlat: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return column and row of places given in longitude and latitude."""
    return positions(_EARTH, grid, lonlat[:, 0], lonlat[:, 1])


def _centres_in(
    polygons: NDArray[np.object_],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return polygon, row and column of every pixel centre in a polygon given in pixels."""
    owners, rows, columns = [], [], []
    for i, (left, top, right, bottom) in enumerate(shapely.bounds(polygons).reshape(-1, 4)):
        y = np.arange(np.floor(top), np.ceil(bottom), dtype=np.int64)
        x = np.arange(np.floor(left), np.ceil(right), dtype=np.int64)
        row, column = (places.ravel() for places in np.meshgrid(y, x, indexing="ij"))
        held = shapely.intersects_xy(polygons[i], column + 0.5, row + 0.5)
        owners.append(np.full(int(held.sum()), i))
        rows.append(row[held])
        columns.append(column[held])
    if not owners:
        none = np.zeros(0, dtype=np.int64)
        return none, none, none
    return np.concatenate(owners), np.concatenate(rows), np.concatenate(columns)
