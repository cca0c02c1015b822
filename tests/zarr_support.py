"""Small zarr stores that tests write."""

from pathlib import Path

import numpy as np
import zarr

EDGE = 10.0
"""Metres per pixel of the stores made here; the corner is (500_000, 5_400_000) of EPSG:32633."""


def write_array(store, name, values, dims, *, attributes=None, zarr_format=3, **options):
    """Write an array with named dimensions; all of its chunks, also those of zeros."""
    said = dict(attributes or {})
    if zarr_format == 3:
        options["dimension_names"] = dims
    elif dims is not None:
        said["_ARRAY_DIMENSIONS"] = list(dims)
    if zarr_format == 2:
        options.setdefault("fill_value", None)
    values = np.asarray(values)
    group = name.rpartition("/")[0] if name else None
    if name:
        zarr.open_group(store, mode="a", zarr_format=zarr_format).require_group(group or "")
    made = zarr.create_array(
        store,
        name=name or None,
        shape=values.shape,
        dtype=values.dtype,
        attributes=said,
        zarr_format=zarr_format,
        config={"write_empty_chunks": True},
        **{"chunks": tuple(max(1, n) for n in values.shape)} | options,
    )
    made[...] = values
    return made


def write_coordinates(store, height, width, *, group="", y_first=5_400_000.0, down=True, **options):
    """Write x and y, centres of pixels of 10 m, north up unless told otherwise."""
    prefix = f"{group}/" if group else ""
    step = -EDGE if down else EDGE
    y = y_first + step / 2 + step * np.arange(height)
    x = 500_000 + EDGE / 2 + EDGE * np.arange(width)
    write_array(store, f"{prefix}y", y, ("y",), **options)
    write_array(store, f"{prefix}x", x, ("x",), **options)


def coordinate_image(height=48, width=80, dtype="uint16"):
    """Each pixel stores its own (row, column) in two bands: no shift or flip can go unseen."""
    return np.stack(np.mgrid[0:height, 0:width]).astype(dtype)


def chunk_files(store):
    """All files of a store that are not metadata, sorted."""
    metadata = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")
    files = (p for p in Path(store).rglob("*") if p.is_file())
    return sorted(p for p in files if p.name not in metadata)
