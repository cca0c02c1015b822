"""Generated scenes as zarr cubes that xarray reads without help."""

import os
import shutil
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from geodino.data.generated.tiff import HOME, Placement
from geodino.errors import SourceError
from geodino.files import writing
from geodino.world.scene import Scene

VARIABLE = "image"
"""Name of the array with the pixels."""

_CHUNK = 256


def write_zarr(
    path: Path,
    scenes: Sequence[Scene],
    placement: Placement = HOME,
    *,
    zarr_format: Literal[2, 3] = 3,
    time: bool = True,
) -> Path:
    """Write scenes of one place as a zarr store of ``image(time, band, y, x)``.

    Coordinates are those of pixel centres; ``spatial_ref`` is a CF grid mapping; values are as
    stored, with ``scale_factor``, ``add_offset`` and ``_FillValue`` where the sensor has them, so
    that xarray decodes them. Metadata are consolidated. A store that is there is replaced, once
    the new one is whole.

    Args:
        path: the store, a folder ending in ``.zarr``.
        scenes: one for each date, of one sensor, seed and window.
        placement: where they lie.
        zarr_format: 2 or 3.
        time: False leaves out the time axis of a single scene: ``image(band, y, x)``.

    Raises:
        SourceError: no scene, several without a time axis, or scenes of several grids.
    """
    _check(scenes, time=time)
    data = _cube(scenes, placement, time=time)
    encoding: dict[str, Any] = {
        VARIABLE: {"chunks": tuple(min(_CHUNK, n) for n in data[VARIABLE].shape)},
        "spatial_ref": {"dtype": "int32"},
    }
    if time:
        encoding[VARIABLE]["chunks"] = (1, *encoding[VARIABLE]["chunks"][1:])
        encoding["time"] = {"units": "days since 1970-01-01", "dtype": "int32"}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path), warnings.catch_warnings():
            path.parent.mkdir(parents=True, exist_ok=True)
            # Not yet part of the specification of format 3; xarray and zarr write and read them.
            warnings.filterwarnings("ignore", message="Consolidated metadata is currently not part")
            data.to_zarr(temporary, mode="w", zarr_format=zarr_format, encoding=encoding)
            shutil.rmtree(path, ignore_errors=True)
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return path


def _check(scenes: Sequence[Scene], *, time: bool) -> None:
    if not scenes:
        raise SourceError("A cube needs at least one scene.")
    if len(scenes) > 1 and not time:
        raise SourceError(f"{len(scenes)} scenes need a time axis; only a single one goes without.")
    grids = {(s.seed, s.sensor.name, s.frame) for s in scenes}
    if len(grids) > 1:
        raise SourceError(
            f"A cube holds scenes of one seed, sensor and window, not of {len(grids)}: "
            "write a store for each."
        )


def _cube(scenes: Sequence[Scene], placement: Placement, *, time: bool) -> Any:
    import rioxarray  # noqa: F401  (registers the accessor that writes the grid mapping)
    import xarray

    first = scenes[0]
    sensor, frame = first.sensor, first.frame
    transform = placement.transform(frame)
    coordinates: dict[str, Any] = {
        "band": np.array([band.name for band in sensor.bands], dtype=object),
        "y": transform.f + transform.e * (np.arange(frame.height) + 0.5),
        "x": transform.c + transform.a * (np.arange(frame.width) + 0.5),
    }
    pixels = np.stack([scene.pixels for scene in scenes])
    dims: tuple[str, ...] = ("time", "band", "y", "x")
    if time:
        coordinates["time"] = np.array([scene.date for scene in scenes], dtype="datetime64[ns]")
    else:
        pixels, dims = pixels[0], dims[1:]
    band = sensor.bands[0]
    attributes: dict[str, Any] = {"units": "1", "long_name": f"generated {sensor.name} scene"}
    if (band.scale, band.offset) != (1, 0):
        attributes |= {"scale_factor": band.scale, "add_offset": band.offset}
    if sensor.nodata is not None:
        attributes["_FillValue"] = pixels.dtype.type(sensor.nodata)
    array = xarray.DataArray(pixels, dims=dims, coords=coordinates, name=VARIABLE, attrs=attributes)
    data = array.rio.write_crs(placement.crs).rio.write_transform(transform).to_dataset()
    # As an attribute: what rioxarray leaves in the encoding is lost beside an encoding of ours.
    del data[VARIABLE].encoding["grid_mapping"]
    data[VARIABLE].attrs["grid_mapping"] = "spatial_ref"
    return data
