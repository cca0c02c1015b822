"""A split read from a vector file: ours, a benchmark's, or a user's own polygons."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely

from geodino.data.labels.footprints import read_table
from geodino.data.splits import BUFFER, NAMES, PRECEDENCE, Split, ordered, refuse_empty
from geodino.data.tiles import Tile
from geodino.errors import SourceError, suggest

_YEARS = ("year", "lidar_year")
"""Columns that tell the year whose images a row holds for; Open-Canopy's is the second."""

_POLYGONS = (shapely.GeometryType.POLYGON.value, shapely.GeometryType.MULTIPOLYGON.value)


def load_split(path: str | Path) -> Split:
    """Read a split: ours, or any vector file of polygons with a column ``split``.

    The column says ``train``, ``val``, ``calibration``, ``test`` or ``buffer``; a column ``site``
    tells which rows belong together, else each is a site of its own. A column ``year`` or
    ``lidar_year`` tells of which year the images and labels of a row are: elsewhere in time its
    ground is not used. Where rows overlap, ground belongs to the buffer first, then to test,
    calibration, val and train. Open-Canopy's ``geometries.geojson`` is such a file.

    Raises:
        SourceError: the file cannot be read, lacks the column, has other words in it, years that
            are none or other geometries, or has no row for train or val.
    """
    frame = read_table(path, what="splits")
    columns = [str(name) for name in frame.columns]
    known = ", ".join((*NAMES, BUFFER))
    if "split" not in columns:
        raise SourceError(
            f"{path} has no column 'split'; it has {', '.join(columns)}."
            f"{suggest('split', columns)} Name or add one that says {known} of each polygon."
        )
    words = [str(word) for word in frame["split"]]
    for word in sorted(set(words)):
        if word not in PRECEDENCE:
            raise SourceError(
                f"{path}: {word!r} in the column 'split' is not one of {known}."
                f"{suggest(word, PRECEDENCE)} Rename it."
            )
    shapes = np.asarray(frame.geometry.array, dtype=object)
    good = np.isin(shapely.get_type_id(shapes), _POLYGONS) & shapely.is_valid(shapes)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise SourceError(
            f"{path}: {int((~good).sum())} of {len(good)} geometries are no valid polygons, the first "
            f"in row {row}. Repair them (geopandas: frame.make_valid()), or leave them out."
        )
    named = frame["site"] if "site" in columns else frame.index
    years, notes = _years(path, frame, columns)
    made = ordered(
        str(frame.crs.to_string()), shapes, words, [str(site) for site in named],
        notes=(f"split by {path}", *notes), years=years,
    )  # fmt: skip
    refuse_empty(made.split, f"{path} has no polygon of")
    return made


def refuse_undated(split: Split, tiles: Sequence[Tile], path: str) -> None:
    """Refuse a split that tells years beside images that do not.

    Args:
        split: what was read.
        tiles: the labelled images.
        path: what it was read from.

    Raises:
        SourceError: naming one of them.
    """
    undated = [tile.path for tile in tiles if tile.datetime is None]
    if split.year and undated:
        more = f" (and {len(undated) - 1} more)" if len(undated) > 1 else ""
        raise SourceError(
            f"{path} tells which year's images its rows hold for, and {undated[0]}{more} has no "
            "date. Say where dates are in the names of the files (a descriptor, data.dataset), or "
            "remove the column of years from the split."
        )


def _years(
    path: str | Path, frame: Any, columns: Sequence[str]
) -> tuple[list[int | None], tuple[str, ...]]:
    """Return the year of each row, and a note which column said it."""
    found = [name for name in _YEARS if name in columns]
    if not found:
        return [], ()
    if len(found) > 1:
        raise SourceError(
            f"{path} has both columns {' and '.join(map(repr, found))}: keep the one that tells the "
            "year of a row's images and labels."
        )
    years: list[int | None] = []
    for row, value in enumerate(frame[found[0]]):
        number = _whole(value)
        if number is not None and not 1900 <= number <= 2200:
            raise SourceError(
                f"{path}: {value!r} in the column {found[0]!r} (row {row}) is no year. Write years "
                "as 2021, leave the cell empty for any year, or rename the column."
            )
        years.append(number)
    return years, (f"its column {found[0]!r} tells the year of the images of a row",)


def _whole(value: Any) -> int | None:
    """A cell as a whole number: None where it is empty, 0 (no year) where it is something else."""
    if value is None or value != value:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return 0
    return int(number) if number.is_integer() else 0
