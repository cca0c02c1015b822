"""Choosing tiles: by area, by time, by a condition on the columns of the index."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geodino.data.config import DataConfig
from geodino.data.tiles import Tile
from geodino.errors import SourceError, suggest
from geodino.io.area import read_area

_OPEN = ("", "..")

_NOT_UNDERSTOOD = (
    SyntaxError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError,
)  # fmt: skip
"""What pandas raises at a condition that is none."""


def select(tiles: Sequence[Tile], config: DataConfig) -> tuple[list[Tile], list[str]]:
    """Return the tiles that ``aoi``, ``datetime`` and ``where`` let through, and notes.

    Raises:
        SourceError: a filter cannot be read, or lets nothing through.
    """
    kept, notes = list(tiles), []
    for name, choose in (("aoi", _in_area), ("datetime", _in_time), ("where", _where)):
        wanted = getattr(config, name)
        if wanted is None:
            continue
        is_in = choose(kept, wanted)
        left = [tile for tile, inside in zip(kept, is_in, strict=True) if inside]
        if not left:
            raise SourceError(
                f"data.{name} = {wanted} lets none of the {len(kept)} tiles through. {_hint(name, kept)}"
            )
        notes.append(f"{len(left)} of {len(kept)} tiles pass data.{name} = {wanted}")
        kept = left
    return kept, notes


def columns(tiles: Sequence[Tile]) -> dict[str, list[Any]]:
    """Return what a ``where`` condition may ask for, by name."""
    return {
        "path": [t.path for t in tiles],
        "crs": [t.grid.crs for t in tiles],
        "width": [t.width for t in tiles],
        "height": [t.height for t in tiles],
        "gsd_x_m": [t.gsd_m[0] if t.gsd_m else np.nan for t in tiles],
        "gsd_y_m": [t.gsd_m[1] if t.gsd_m else np.nan for t in tiles],
        "dtype": [t.dtype for t in tiles],
        "driver": [t.base.driver for t in tiles],
        "files": [len(t.files) for t in tiles],
        "size": [sum(part.info.size for part in t.parts) for t in tiles],
        "datetime": [t.datetime for t in tiles],
        "datetime_from": [t.datetime_from for t in tiles],
    }


def area_of(path: str, *, key: str) -> Any:
    """Return the union of the geometries of a vector file, in longitude and latitude.

    Raises:
        SourceError: naming the option ``key``, if the file is missing, unreadable or empty.
    """
    frame = read_area(path, option=key)
    area = frame.to_crs("EPSG:4326").union_all()
    shapely.prepare(area)
    return area


def in_time(
    whens: Sequence[str | None], names: Sequence[str], interval: str, *, key: str
) -> NDArray[np.bool_]:
    """Return which ISO 8601 times lie in ``START/END``; unknown ones do not.

    Args:
        whens: the times.
        names: what each belongs to, for messages.
        interval: in ISO 8601, ``..`` for an open end; a day without a time ends with the day.
        key: the option, for messages.

    Raises:
        SourceError: the interval or a time cannot be read.
    """
    parts = interval.split("/")
    if len(parts) != 2:
        raise SourceError(f"{key}: {interval!r} is not START/END, e.g. 2020-01-01/2020-12-31.")
    start, end = (_moment(part, interval, key) for part in parts)
    if end is not None and _is_whole_day(parts[1].strip()):
        end += timedelta(days=1) - datetime.resolution
    known = [
        _moment(when, name, key) if when else None for when, name in zip(whens, names, strict=True)
    ]
    return np.array(
        [
            when is not None and (start is None or when >= start) and (end is None or when <= end)
            for when in known
        ],
        dtype=bool,
    )


def condition(frame: Any, text: str, *, key: str, example: str) -> NDArray[np.bool_]:
    """Return the rows of a pandas table that meet a condition on its columns.

    Args:
        frame: the table.
        text: the condition, as ``pandas.DataFrame.query`` reads it.
        key: the option, for messages.
        example: a condition that could be meant, for messages.

    Raises:
        SourceError: an unknown column, or no condition.
    """
    import pandas as pd

    if "@" in text or "__" in text:
        raise SourceError(f"{key}: {text!r} may name columns and values only.")
    try:
        found = frame.eval(text, engine="python")
    except pd.errors.UndefinedVariableError as error:
        name = str(error).split("'")[1]
        raise SourceError(
            f"{key}: there is no column {name!r}.{suggest(name, frame.columns)} "
            f"Columns: {', '.join(frame.columns)}."
        ) from None
    except _NOT_UNDERSTOOD as error:
        raise SourceError(
            f"{key}: {text!r} cannot be understood ({error}). An example: {example}."
        ) from None
    values = np.asarray(found)
    if values.dtype != bool or values.shape != (len(frame),):
        raise SourceError(f"{key}: {text!r} is no condition: it gives {values.dtype}.")
    return values


def _in_area(tiles: Sequence[Tile], path: str) -> NDArray[np.bool_]:
    area = area_of(path, key="data.aoi")
    places = [tile.grid.footprint_wgs84() for tile in tiles]
    return np.array([place is not None and area.intersects(place) for place in places], dtype=bool)


def _in_time(tiles: Sequence[Tile], interval: str) -> NDArray[np.bool_]:
    whens, names = [tile.datetime for tile in tiles], [tile.path for tile in tiles]
    return in_time(whens, names, interval, key="data.datetime")


def _where(tiles: Sequence[Tile], text: str) -> NDArray[np.bool_]:
    import pandas as pd

    frame = pd.DataFrame(columns(tiles))
    return condition(frame, text, key="data.where", example="gsd_x_m < 1 and width >= 512")


def _moment(text: str, whole: str, key: str) -> datetime | None:
    if text.strip() in _OPEN:
        return None
    try:
        when = datetime.fromisoformat(text.strip())
    except ValueError:
        raise SourceError(
            f"{key}: {text!r} in {whole!r} is no ISO 8601 time, e.g. 2020-07-01."
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _is_whole_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _hint(name: str, tiles: Sequence[Tile]) -> str:
    if name == "aoi":
        placed = sum(t.grid.footprint_wgs84() is not None for t in tiles)
        return f"{placed} of them have a place on the Earth; check the area's CRS."
    if name == "datetime":
        known = sorted(t.datetime for t in tiles if t.datetime)
        return f"Their dates: {known[0]} to {known[-1]}." if known else "No tile has a date."
    return "geodino inspect shows what the columns hold."
