"""Objects as vector files hold them, and their boxes in the pixels of an image."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from affine import Affine
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from geodino.data.labelled.boxes import BoxLabelsConfig
from geodino.data.labels.footprints import VECTORS, read_table
from geodino.errors import SourceError, suggest
from geodino.files import sha256
from geodino.geo.align import positions
from geodino.geo.grid import Grid

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


def read_box_table(src: Path | str, config: BoxLabelsConfig) -> BoxTable:
    """Read objects from GeoParquet, GeoJSON, GeoPackage and the like.

    Args:
        src: a vector file, or a folder of them, such as one for each image.
        config: what is declared of them.

    Raises:
        SourceError: a file cannot be read, lacks a column, holds lines, broken or empty shapes,
            points without a size, or a class that is not named; or there is no object.
    """
    files = vector_files(Path(src))
    frames = [_frame(file, config, may_be_empty=len(files) > 1) for file in files]
    frame = _joined([one for one in frames if len(one)], src)
    shapes = np.asarray(frame.geometry.array, dtype=object)
    words = _words(frame, config)
    classes = config.classes or tuple(sorted(set(words)))
    known = np.array([word in classes for word in words], dtype=np.bool_)
    points = shapely.get_type_id(shapes) == shapely.GeometryType.POINT
    flat = ~points & (shapely.area(shapes) <= 0)
    keep = known & ~flat
    notes = [f"{int(keep.sum())} objects of {len(classes)} classes: {', '.join(classes)}"]
    if flat.any():
        notes.append(f"{int(flat.sum())} objects have no area and were left out")
    if not known.all():
        notes.append(f"{int((~known).sum())} objects of other classes are background")
    if not keep.any():
        raise SourceError(f"{src} holds no object of {', '.join(classes)}: check it.")
    chosen = [word for word, kept in zip(words, keep.tolist(), strict=True) if kept]
    hashes = [sha256(file) for file in files]
    return BoxTable(
        crs=str(frame.crs.to_string()),
        shapes=shapes[keep],
        number=np.array([classes.index(word) for word in chosen], dtype=np.int64),
        difficult=_difficult(frame, config)[keep],
        classes=classes,
        point_m=config.point_m,
        notes=tuple(notes),
        sha256=hashes[0]
        if len(files) == 1
        else hashlib.sha256("".join(hashes).encode()).hexdigest(),
    )


def vector_files(src: Path) -> list[Path]:
    """Return a file, or the vector files in a folder and those below it."""
    if not src.is_dir():
        return [src]
    return [p for p in sorted(src.rglob("*")) if p.suffix.lower() in VECTORS and p.is_file()]


def _joined(frames: list[Any], src: Path | str) -> Any:
    """All of them in the CRS of the first."""
    import geopandas
    import pandas as pd

    if not frames:
        raise SourceError(
            f"{src} holds no object. Name vector files of boxes or polygons of objects."
        )
    if len(frames) == 1:
        return frames[0]
    crs = frames[0].crs
    rows = pd.concat([one.to_crs(crs) for one in frames], ignore_index=True)
    return geopandas.GeoDataFrame(rows, crs=crs)


def _frame(path: Path, config: BoxLabelsConfig, *, may_be_empty: bool) -> Any:
    """Read and check one file."""
    frame = read_table(path, what="boxes or polygons of objects", may_be_empty=may_be_empty)
    if not len(frame):
        return frame
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
    for name, key in ((config.column, "labels.column"), (config.difficult, "labels.difficult")):
        if name is not None:
            _column(frame, name, path, key)
    _check_classes(frame, config, path)
    return frame


def _check_classes(frame: Any, config: BoxLabelsConfig, path: Path) -> None:
    if config.column is None:
        return
    missing = np.flatnonzero(np.asarray(frame[config.column].isna()))
    if missing.size:
        raise SourceError(f"{path}: row {int(missing[0])} has no class ({config.column}): name it.")
    if config.classes is None or config.other == "ignore":
        return
    for row, word in enumerate(_words(frame, config)):
        if word not in config.classes:
            raise SourceError(
                f"{path}: {word!r} in row {row} is not one of the classes {', '.join(config.classes)}."
                f"{suggest(word, config.classes)} Mend it, add it to labels.classes, or set "
                "labels.other: ignore."
            )


def _words(frame: Any, config: BoxLabelsConfig) -> list[str]:
    """The class of each row."""
    if config.column is None:
        return [(config.classes or ("object",))[0]] * len(frame)
    return [str(word) for word in frame[config.column]]


def _difficult(frame: Any, config: BoxLabelsConfig) -> NDArray[np.bool_]:
    if config.difficult is None:
        return np.zeros(len(frame), dtype=np.bool_)
    return np.asarray(frame[config.difficult].fillna(value=False)).astype(np.bool_)


def _column(frame: Any, name: str, path: Path | str, key: str) -> None:
    names = [str(column) for column in frame.columns]
    if name not in names:
        raise SourceError(
            f"{path} has no column {name!r} ({key}).{suggest(name, names)} It has {', '.join(names)}."
        )


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
