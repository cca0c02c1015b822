"""Labels of images that give every pixel a class: masks of their stem, rasters by place, polygons."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePath
from typing import Any, Protocol, runtime_checkable

import numpy as np
import shapely
from affine import Affine
from jaxtyping import UInt8

from geodino.data.labelled.class_files import ClassFile, class_files, read_classes
from geodino.data.labelled.classes import ClassTable, Value
from geodino.data.labelled.sets import IGNORED
from geodino.data.labels.footprints import read_table
from geodino.data.labels.pairs import no_overlap, overlapping
from geodino.data.tiles import TileIndex
from geodino.errors import SourceError, suggest
from geodino.geo.align import OfClasses, aligned
from geodino.geo.grid import Grid
from geodino.geo.outlines import outlines
from geodino.geo.windows import Window
from geodino.io.content import content_sample
from geodino.io.raster import HandlePool


@runtime_checkable
class ClassLabels(Protocol):
    """Gives the classes of windows of images. Safe to use from threads."""

    @property
    def labelled(self) -> tuple[int, ...]:
        """Numbers of the images that have labels."""

    def classes(self, image: int, window: Window) -> UInt8[np.ndarray, "h w"]:
        """Return the class of each pixel of a window of an image.

        Raises:
            SourceError: a file is damaged, or holds what is no class.
        """

    def fingerprint(self) -> str:
        """Return a hash of the files' content."""


@dataclass(frozen=True, kw_only=True)
class MaskLabels:
    """A mask for each image, with the image's stem and size."""

    files: tuple[ClassFile | None, ...]
    """For every image; None where it has no mask."""

    table: ClassTable
    pool: HandlePool

    @property
    def labelled(self) -> tuple[int, ...]:
        """Numbers of the images that have labels."""
        return tuple(i for i, file in enumerate(self.files) if file is not None)

    def classes(self, image: int, window: Window) -> UInt8[np.ndarray, "h w"]:
        """Return the class of each pixel of a window of an image."""
        file = self.files[image]
        if file is None:
            return np.full((window.height, window.width), IGNORED, np.uint8)
        return read_classes(self.pool, file, self.table, window)

    def fingerprint(self) -> str:
        """Return a hash of the files' content."""
        return hash_of([file.path for file in self.files if file is not None])


def mask_files(
    images: TileIndex, root: str, paths: Sequence[str], *, suffix: str, threads: int
) -> tuple[ClassFile | None, ...] | None:
    """Return the mask of each image: the file whose path below its root is the image's.

    Endings do not count; where paths below the roots differ, a stem that occurs once does.

    Args:
        images: the images.
        root: folder of the masks.
        paths: the masks.
        suffix: what follows the image's stem in the name of its mask.
        threads: that read headers.

    Returns:
        The masks; None where no image has one.
    """
    by_path = {_key(path, root, suffix): path for path in paths}
    stems: dict[str, list[str]] = {}
    for path in paths:
        stems.setdefault(_key(path, root, suffix).rpartition("/")[2], []).append(path)
    found: list[str | None] = []
    for tile in images.tiles:
        key = _key(tile.path, images.root, "")
        alike = stems.get(key.rpartition("/")[2], [])
        found.append(by_path.get(key) or (alike[0] if len(alike) == 1 else None))
    if not any(found):
        return None
    headers = iter(class_files([path for path in found if path is not None], threads=threads))
    return tuple(None if path is None else next(headers) for path in found)


def elsewhere(images: TileIndex, files: Sequence[ClassFile | None]) -> list[ClassFile]:
    """Return the masks that have a place on the Earth which is not that of their image."""
    return [
        file
        for tile, file in zip(images.tiles, files, strict=True)
        if file is not None
        and tile.gsd_m is not None
        and file.grid.gsd_m is not None
        and not _is_same(tile.grid, file.grid)
    ]


def _is_same(one: Grid, other: Grid) -> bool:
    if (one.crs, one.height, one.width) != (other.crs, other.height, other.width):
        return False
    step = max(abs(one.transform.a), abs(one.transform.e), abs(one.transform.b))
    return bool(np.allclose(one.transform[:6], other.transform[:6], rtol=1e-9, atol=1e-3 * step))


def check_sizes(images: TileIndex, files: Sequence[ClassFile | None]) -> None:
    """Refuse masks of another size than their images.

    Raises:
        SourceError: naming the first.
    """
    for tile, file in zip(images.tiles, files, strict=True):
        if file is not None and (file.grid.height, file.grid.width) != (tile.height, tile.width):
            raise SourceError(
                f"{file.path} has {file.grid.height} x {file.grid.width} px, its image {tile.path} "
                f"{tile.height} x {tile.width}: a mask lies on its image's pixels. Resample it "
                "(nearest), or, where both have a place on the Earth, set labels.layout: rasters."
            )


def _key(path: str, root: str, suffix: str) -> str:
    """A path below its root, without the ending and the suffix of masks."""
    whole = PurePath(path)
    below = whole.relative_to(root) if whole.is_relative_to(root) else PurePath(whole.name)
    return below.with_suffix("").as_posix().removesuffix(suffix)


@dataclass(frozen=True, kw_only=True)
class RasterClasses:
    """Class rasters on any grid, brought to the images by place."""

    files: tuple[ClassFile, ...]
    by_image: tuple[tuple[int, ...], ...]
    """Numbers of the files on each image; the first that knows a pixel tells its class."""

    images: TileIndex
    table: ClassTable
    statistic: OfClasses
    pool: HandlePool

    @property
    def labelled(self) -> tuple[int, ...]:
        """Numbers of the images that have labels."""
        return tuple(i for i, files in enumerate(self.by_image) if files)

    def classes(self, image: int, window: Window) -> UInt8[np.ndarray, "h w"]:
        """Return the class of each pixel of a window of an image."""
        grid = self.images.tiles[image].grid
        found = np.full((window.height, window.width), IGNORED, np.uint8)
        for number in self.by_image[image]:
            file = self.files[number]

            def stored(part: Window, file: ClassFile = file) -> tuple[Any, Any]:
                classes = read_classes(self.pool, file, self.table, part)
                return classes.astype(np.float32), classes != IGNORED

            values, known = aligned(
                stored, source=file.grid, target=grid, window=window, statistic=self.statistic
            )
            np.copyto(found, values.astype(np.uint8), where=known & (found == IGNORED))
            if (found != IGNORED).all():
                break
        return found

    def fingerprint(self) -> str:
        """Return a hash of the files' content."""
        return hash_of([file.path for file in self.files])


def pair_rasters(images: TileIndex, files: Sequence[ClassFile]) -> tuple[tuple[int, ...], ...]:
    """Return the numbers of the class rasters that overlap each image, in the order of their paths.

    Raises:
        SourceError: none lies on any image.
    """
    of_images = outlines([tile.grid for tile in images.tiles])
    of_files = outlines([file.grid for file in files])
    image, label = overlapping(of_images, of_files)
    if not image.size:
        raise SourceError(no_overlap(images, of_images, of_files, f"{len(files)} class rasters"))
    found: list[list[int]] = [[] for _ in images.tiles]
    for i, j in zip(image.tolist(), label.tolist(), strict=True):
        found[i].append(j)
    return tuple(tuple(sorted(numbers, key=lambda j: files[j].path)) for numbers in found)


class VectorClasses:
    """Polygons with a class, drawn on a window when it is asked for.

    A pixel is of the polygon that holds its centre; where polygons overlap, of the last in the
    file.

    Args:
        path: the vector file.
        frame: its table.
        numbers: class of each row, ``IGNORED`` for rows that do not count.
        images: the images.
        elsewhere: class of pixels in no polygon; ``IGNORED`` for none.
    """

    def __init__(
        self,
        path: str,
        frame: Any,
        numbers: UInt8[np.ndarray, " n"],
        images: TileIndex,
        *,
        elsewhere: int,
    ) -> None:
        self._path = path
        self._numbers = numbers
        self._images = images
        self._elsewhere = elsewhere
        in_crs = lru_cache(maxsize=16)(lambda crs: _shapes(frame, crs))
        self._in_crs = in_crs
        on = outlines([tile.grid for tile in images.tiles])
        place = frame.to_crs("OGC:CRS84").geometry.array
        near = shapely.STRtree(np.asarray(place)).query(on, predicate="intersects")[0]
        self.labelled = tuple(np.unique(near).tolist())
        if not self.labelled:
            text = f"{len(frame)} polygons of {path}"
            raise SourceError(no_overlap(images, on, np.asarray(place), text))

    def classes(self, image: int, window: Window) -> UInt8[np.ndarray, "h w"]:
        """Return the class of each pixel of a window of an image."""
        from rasterio.features import rasterize

        grid = self._images.tiles[image].grid
        shapes, tree = self._in_crs(grid.crs)
        placed = grid.transform @ Affine.translation(window.left, window.top)
        corners = [placed @ (x, y) for x in (0, window.width) for y in (0, window.height)]
        box = shapely.MultiPoint(corners).envelope
        near = np.sort(tree.query(box, predicate="intersects"))
        found = np.full((window.height, window.width), self._elsewhere, np.uint8)
        if near.size:
            drawn = ((shapes[i], int(self._numbers[i])) for i in near.tolist())
            rasterize(drawn, out=found, transform=placed)
        return found

    def fingerprint(self) -> str:
        """Return a hash of the file's content."""
        return hash_of([self._path])


def _shapes(frame: Any, crs: str) -> tuple[Any, shapely.STRtree]:
    shapes = np.asarray(frame.to_crs(crs).geometry.array, dtype=object)
    return shapes, shapely.STRtree(shapes)


def open_polygons(path: str, column: str) -> tuple[Any, Mapping[str, Value]]:
    """Read a vector file of polygons; return its table and the classes that its column names.

    Raises:
        SourceError: it cannot be read, lacks the column, or holds other geometries.
    """
    frame = read_table(path, what="polygons with a class")
    if column not in frame.columns:
        names = ", ".join(str(name) for name in frame.columns)
        raise SourceError(
            f"{path} has no column {column!r} (labels.column).{suggest(column, map(str, frame.columns))} "
            f"It has {names}."
        )
    kinds = set(frame.geometry.geom_type.dropna().unique())
    if not kinds <= {"Polygon", "MultiPolygon"}:
        raise SourceError(
            f"{path} holds {', '.join(sorted(kinds - {'Polygon', 'MultiPolygon'}))}: classes of pixels "
            "need polygons. Buffer them, or leave them out."
        )
    if frame.geometry.isna().any() or frame.geometry.is_empty.any():
        frame = frame[~(frame.geometry.isna() | frame.geometry.is_empty)].reset_index(drop=True)
    values = sorted({_value(v) for v in frame[column].dropna()}, key=lambda v: (str(type(v)), v))
    return frame, {str(value): value for value in values}


def numbers_of(
    frame: Any, column: str, table: ClassTable, *, source: str
) -> UInt8[np.ndarray, " n"]:
    """Return the class of each row of a table of polygons.

    Raises:
        SourceError: a word or number that is no class.
    """
    known: dict[Value, int] = dict.fromkeys(table.ignored, IGNORED)
    for number, values in enumerate(table.values):
        known |= dict.fromkeys(values, number)
    found = np.full(len(frame), IGNORED, np.uint8)
    for row, word in enumerate(frame[column]):
        if word is None or word != word:  # a row without a class
            continue
        value = _value(word)
        if value in known:
            found[row] = known[value]
        elif table.other == "refuse":
            raise SourceError(
                f"{source}: {word!r} in row {row} of its class column is not named by labels.classes."
                f"{suggest(str(word), [str(k) for k in known])} Add it to a class, list it in "
                "labels.ignored, or set labels.other: ignore."
            )
    return found


def _value(word: Any) -> Value:
    """A cell as a value: whole numbers as such, everything else as text."""
    if isinstance(word, int | np.integer) or (isinstance(word, float) and word.is_integer()):
        return int(word)
    return str(word)


def hash_of(paths: Sequence[str]) -> str:
    """Return a hash of files: their names and samples of their content."""
    digest = hashlib.sha256()
    for path in sorted(paths):
        digest.update(f"{Path(path).name}\0{content_sample(path)!r}\n".encode())
    return digest.hexdigest()
