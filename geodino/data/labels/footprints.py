"""Labels that are single footprints on the ground, such as those of GEDI: a table of heights."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from jaxtyping import Float
from numpy.typing import NDArray
from pyproj import Geod

from geodino.data.filters import area_of, condition, in_time
from geodino.data.labels.config import FootprintsConfig, LabelsConfig
from geodino.data.labels.heights import TO_M, HeightSurvey, clean, refuse_doubtful, survey
from geodino.data.labels.pairs import gap_days, gap_note, no_overlap, overlapping, unlabelled
from geodino.data.tiles import TileIndex
from geodino.errors import BandError, SourceError, suggest
from geodino.geo.outlines import outlines
from geodino.io.vector import read_vector

VECTORS = (".parquet", ".geojson", ".gpkg", ".fgb", ".shp")
"""Endings of vector files."""

_HEIGHTS = ("rh98", "rh_98", "height")
_OF_GEDI = ("rh98", "rh_98")
"""Columns that GEDI defines to be in metres."""

_DATES = ("datetime", "date", "acquired")

_CORNERS = 32
"""Corners of the polygon that stands for a circle; its area is 0.6 % short of the circle's."""

_WGS84 = Geod(ellps="WGS84")


@dataclass(frozen=True, kw_only=True, slots=True)
class FootprintIndex:
    """All usable footprints of a source."""

    places: NDArray[np.object_]
    """Points or polygons in longitude and latitude."""

    height_m: Float[np.ndarray, "footprints"]
    """Height of each, metres, at least 0."""

    datetime: tuple[str | None, ...]
    """ISO 8601 time of each, as far as known."""

    rows: NDArray[np.int64]
    """Row of each in the table."""

    config: LabelsConfig
    """What was declared."""

    found: HeightSurvey
    """What was found of the heights."""

    notes: tuple[str, ...] = ()
    """Decisions, as sentences for the run card."""

    @property
    def percentile(self) -> float:
        """Percentile of the heights in a footprint that its label is."""
        return self.config.footprints.percentile

    def polygons(self, numbers: NDArray[np.int64]) -> NDArray[np.object_]:
        """Return footprints as polygons in longitude and latitude; a point becomes a circle.

        The circle is geodesic: every corner lies at half of ``footprint_m`` from the point, as in
        a metric CRS of its own.
        """
        shapes = self.places[numbers].copy()
        points = shapely.get_type_id(shapes) == shapely.GeometryType.POINT
        if points.any():
            at = shapely.get_coordinates(shapes[points])
            azimuth = np.arange(_CORNERS) * (360.0 / _CORNERS)
            lon, lat = (np.repeat(at[:, i], _CORNERS) for i in (0, 1))
            away = np.full(lon.shape, self.config.footprints.footprint_m / 2)
            lon, lat, _ = _WGS84.fwd(lon, lat, np.tile(azimuth, len(at)), away)
            shapes[points] = shapely.polygons(
                np.stack([lon, lat], axis=-1).reshape(len(at), _CORNERS, 2)
            )
        return np.asarray(shapes)


@dataclass(frozen=True, kw_only=True, slots=True)
class FootprintPairs:
    """The footprints on each image."""

    by_image: tuple[NDArray[np.int64], ...]
    """Numbers of footprints, for every image."""

    notes: tuple[str, ...]
    """What was found, as sentences for the run card."""

    @property
    def labelled(self) -> tuple[int, ...]:
        """Numbers of the images with at least one footprint."""
        return tuple(i for i, numbers in enumerate(self.by_image) if numbers.size)


def is_vector(src: str | Path) -> bool:
    """Whether a source is a vector file by its ending; a tile index of ours is not."""
    path = Path(src)
    if path.suffix.lower() not in VECTORS or not path.is_file():
        return False
    if path.suffix.lower() != ".parquet":
        return True
    import pyarrow.parquet as pq

    return b"geodino" not in (pq.read_schema(path).metadata or {})


def footprint_index(src: str | Path, config: LabelsConfig) -> FootprintIndex:
    """Read footprints from a vector file: GeoParquet, GeoJSON, GeoPackage and the like.

    Args:
        src: the file.
        config: what is declared about it.

    Raises:
        SourceError: the file cannot be read, has no CRS, or holds no usable footprint.
        BandError: no column of heights, an undeclared unit, or heights that can hardly be true.
    """
    frame = read_table(src, what="labels")
    _refuse_keys_of_rasters(src, config)
    count = len(frame)
    columns = [str(name) for name in frame.columns if name != frame.geometry.name]
    height = _column(src, columns, config.footprints.height, _HEIGHTS, "height")
    if height is None:
        raise BandError(
            f"{src} has no column {', '.join(_HEIGHTS)}. Declare which holds the heights "
            f"(labels.footprints.height); it has {', '.join(columns)}."
        )
    factor = _factor(src, height, config)
    shapes = np.asarray(frame.to_crs("OGC:CRS84").geometry.array, dtype=object)
    date = _column(src, columns, config.footprints.date, _DATES, "date")
    times = _times(frame, date)
    keep, notes = _chosen(src, frame[columns], shapes, times, config)
    stored = np.asarray(frame[height], dtype=np.float64)
    known = keep & _usable(src, shapes) & np.isfinite(stored)
    if isinstance(config.nodata, float):
        known &= stored != config.nodata
    heights = (stored * (config.scale or 1.0) + (config.offset or 0.0)) * factor
    if not known.any():
        raise SourceError(f"{src}: none of the {count} footprints has a place and a height.")
    found = survey(
        [(str(src), heights[known])], looked_at=count, of=count, ceiling_m=config.ceiling_m
    )
    if "range" not in config.accept:
        refuse_doubtful(found, source=str(src), factors=(factor,), ceiling_m=config.ceiling_m)
    heights, usable = clean(heights, known, config.ceiling_m)
    rows = np.flatnonzero(usable)
    return FootprintIndex(
        places=shapes[rows],
        height_m=heights[rows],
        datetime=tuple(times[row] for row in rows),
        rows=rows,
        config=config,
        found=found,
        notes=(*notes, _how(height, config.footprints), found.text),
    )


def pair_footprints(images: TileIndex, labels: FootprintIndex) -> FootprintPairs:
    """Find the footprints on each image, across CRSs.

    Raises:
        SourceError: none lies on any image; the message tells where both are.
    """
    of_images = outlines([tile.grid for tile in images.tiles])
    image, footprint = overlapping(of_images, labels.places)
    if not image.size:
        words = f"{len(labels.places)} footprints"
        raise SourceError(no_overlap(images, of_images, labels.places, words))
    edges = np.searchsorted(image, np.arange(len(images.tiles) + 1))
    by_image = tuple(footprint[a:b] for a, b in pairwise(edges.tolist()))
    gaps = [
        gap_days(images.tiles[i].datetime, labels.datetime[j])
        for i, j in zip(image.tolist(), footprint.tolist(), strict=True)
    ]
    unused = len(labels.places) - len(np.unique(footprint))
    notes = [unlabelled([numbers.tolist() for numbers in by_image], "footprint")]
    if unused:
        notes.append(f"{unused} of {len(labels.places)} footprints lie on no image")
    is_doubtful = any(tile.datetime_from == "tiff tag" for tile in images.tiles)
    return FootprintPairs(by_image=by_image, notes=(*notes, gap_note(gaps, is_doubtful)))


def read_table(src: str | Path, *, what: str, may_be_empty: bool = False) -> Any:
    """Read a vector file as a GeoDataFrame with a CRS.

    Args:
        src: the file.
        what: what it should hold, for messages.
        may_be_empty: whether a file without a row is one as well.

    Raises:
        SourceError: it is missing, unreadable, has no CRS or no row.
    """
    path = Path(src)
    if not path.is_file():
        raise SourceError(f"{src} does not exist. Name a vector file of {what}.")
    frame = read_vector(path, called=str(src), what=f"a vector file of {what}")
    if frame.empty and not may_be_empty:
        raise SourceError(f"{src} holds no row. Name a file of {what}.")
    return frame.reset_index(drop=True)


def _column(
    src: str | Path, columns: Sequence[str], declared: str | None, usual: Sequence[str], what: str
) -> str | None:
    """Return the declared column, or the one of the usual names that there is."""
    if declared is not None:
        if declared not in columns:
            raise BandError(
                f"{src} has no column {declared!r} (labels.footprints.{what})."
                f"{suggest(declared, columns)} It has {', '.join(columns)}."
            )
        return declared
    by_name = {name.lower(): name for name in columns}
    found = [by_name[name] for name in usual if name in by_name]
    if len(found) > 1 and what == "height":
        raise BandError(
            f"{src} has several columns that may hold the heights ({', '.join(found)}). Declare "
            f"one: labels.footprints.height: {found[0]}."
        )
    return found[0] if found else None


def _factor(src: str | Path, height: str, config: LabelsConfig) -> float:
    if config.unit is not None:
        return TO_M[config.unit]
    if height.lower() in _OF_GEDI:
        return TO_M["m"]
    raise BandError(
        f"{src} does not say in which unit its column {height!r} is. Declare it: "
        "--set labels.unit=m (or dm, cm, ft)."
    )


def _usable(src: str | Path, shapes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Where there is a place on the Earth; refuses lines and collections."""
    kinds = shapely.get_type_id(shapes)
    allowed = (
        shapely.GeometryType.POINT, shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON,
    )  # fmt: skip
    others = ~np.isin(kinds, [kind.value for kind in allowed]) & (kinds >= 0)
    if others.any():
        name = shapes[np.flatnonzero(others)[0]].geom_type
        raise SourceError(
            f"{src} holds {int(others.sum())} geometries that are neither points nor polygons, "
            f"e.g. a {name}. Leave them out."
        )
    bounds = shapely.bounds(shapes)
    return np.asarray(np.isfinite(bounds).all(axis=1))


def _times(frame: Any, column: str | None) -> list[str | None]:
    if column is None:
        return [None] * len(frame)
    import pandas as pd

    times = pd.to_datetime(frame[column], errors="coerce", utc=True)
    return [None if pd.isna(when) else when.isoformat() for when in times]


def _chosen(
    src: str | Path,
    frame: Any,
    shapes: NDArray[np.object_],
    times: Sequence[str | None],
    config: LabelsConfig,
) -> tuple[NDArray[np.bool_], list[str]]:
    """Return which footprints the filters let through, and notes."""
    keep = np.ones(len(frame), dtype=bool)
    notes = []
    for name in ("aoi", "datetime", "where"):
        wanted, key = getattr(config, name), f"labels.{name}"
        if wanted is None:
            continue
        if name == "aoi":
            passed = shapely.intersects(area_of(wanted, key=key), shapes)
        elif name == "datetime":
            passed = in_time(times, [str(src)] * len(frame), wanted, key=key)
        else:
            passed = condition(frame, wanted, key=key, example="quality_flag == 1")
        keep &= passed
        if not keep.any():
            raise SourceError(f"{key} = {wanted} lets none of the {len(frame)} footprints through.")
        notes.append(f"{passed.sum()} of {len(frame)} footprints pass {key} = {wanted}")
    return keep, notes


def _refuse_keys_of_rasters(src: str | Path, config: LabelsConfig) -> None:
    for name in ("band", "dataset", "mask"):
        if getattr(config, name) is not None:
            raise BandError(
                f"labels.{name} is about rasters, but {src} holds footprints. Leave it out; "
                "labels.footprints.height names the column of the heights, labels.where filters."
            )


def _how(height: str, config: FootprintsConfig) -> str:
    return (
        f"heights are of column {height}, the {config.percentile:g}th percentile of a footprint; a "
        f"point stands for a circle {config.footprint_m:g} m across"
    )
