"""What coordinates and attributes of a zarr array say about its bands, dates and values."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from geodino.errors import SourceError
from geodino.io.zarr.array import dimensions
from geodino.io.zarr.open import ZarrArray, attributes
from geodino.io.zarr.place import Place, values

_NODATA = ("_FillValue", "missing_value", "nodata")


def nodata(array: ZarrArray) -> float | None:
    """Return the value that marks invalid pixels; None if there is none.

    It stands in the attributes ``_FillValue``, ``missing_value`` or ``nodata``. xarray stores
    ``_FillValue`` of format 2 as the array's own fill value: it counts where xarray named the
    dimensions. In format 3 that value only says what unwritten chunks read as.

    Raises:
        SourceError: the attribute is no number.
    """
    said = attributes(array)
    for key in _NODATA:
        if said.get(key) is not None:
            value = said[key]
            return _number(array, key, value[0] if isinstance(value, list) and value else value)
    xarrays = array.metadata.zarr_format == 2 and "_ARRAY_DIMENSIONS" in said
    return float(array.fill_value) if xarrays and array.fill_value is not None else None


def _number(array: ZarrArray, key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    from xarray.backends.zarr import FillValueCoder  # importing xarray takes a second

    try:
        # Format 3: xarray writes floats as eight bytes in base 64.
        return float(FillValueCoder.decode(value, array.dtype))
    except (TypeError, ValueError, struct.error) as error:
        raise SourceError(
            f"{array.path or 'the array'}: its attribute {key} is no number ({value!r}). Write "
            "one, or remove it."
        ) from error


def scale_and_offset(array: ZarrArray) -> tuple[float, float]:
    """Return CF's scale and offset: ``value = stored * scale + offset``; not applied here.

    Raises:
        SourceError: an attribute is no number.
    """
    said = attributes(array)
    return (
        _number(array, "scale_factor", said.get("scale_factor", 1.0)),
        _number(array, "add_offset", said.get("add_offset", 0.0)),
    )


def band_names(place: Place) -> list[str | None]:
    """Return the names of the bands of an array; None for those without.

    They come from the coordinate of the bands, if it holds texts, or a ``long_name`` for each; a
    single band has the name of the array.
    """
    array = place.array
    if array.bands == 1 and array.axes.band is None:
        return [array.path.rpartition("/")[2] or None]
    dim = dimensions(array.array)[array.axes.band or 0]
    coordinate = place.find(str(dim))
    if coordinate is not None and coordinate.shape == (array.bands,):
        names = values(coordinate, place.name)
        if names.dtype.kind not in "iufbM":
            return [n.decode() if isinstance(n, bytes) else str(n) for n in names.tolist()]
    long_names = attributes(array.array).get("long_name")
    if isinstance(long_names, (list, tuple)) and len(long_names) == array.bands:
        return [str(name) for name in long_names]
    return [None] * array.bands


def dates(place: Place) -> tuple[list[str | None], str | None, str | None]:
    """Return the times of an array, ISO 8601, where they came from, and what could not be read.

    Times come from the coordinate of the time axis, or from a single ``time`` coordinate.
    """
    array = place.array
    count = array.times or 1
    name = "time" if array.axes.time is None else dimensions(array.array)[array.axes.time]
    coordinate = place.find(str(name))
    shape = () if array.axes.time is None else (count,)
    if coordinate is None or coordinate.shape != shape:
        return [None] * count, None, None
    stored = np.atleast_1d(values(coordinate, place.name))
    decoded, problem = _decoded(stored, attributes(coordinate))
    if decoded is None:
        return (
            [None] * count,
            None,
            f"{place.name}: its coordinate {name} is not read as dates ({problem}).",
        )
    return decoded, "time coordinate", None


def _decoded(stored: Any, attributes: Mapping[str, Any]) -> tuple[list[str | None] | None, str]:
    if stored.dtype.kind != "M":
        import xarray as xr  # takes a second

        try:
            raw = xr.Dataset({"time": ("time", stored, attributes)})
            stored = xr.decode_cf(raw)["time"].to_numpy()
        except (ValueError, ImportError, OverflowError) as error:
            return None, str(error).splitlines()[0]
    if stored.dtype.kind == "M":
        texts = np.datetime_as_string(stored, unit="s").tolist()
        return [None if text == "NaT" else text for text in texts], ""
    if stored.dtype.kind == "O" and all(hasattr(time, "isoformat") for time in stored):
        return [time.isoformat() for time in stored], ""  # calendars that numpy does not have
    return None, f"values of type {stored.dtype} without units of time"
