"""Rasters for tests of inspections: any profile, places side by side."""

from pathlib import Path

import numpy as np
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import from_origin

from geodino.data.config import DataConfig
from geodino.data.inspection.found import Inspection
from geodino.data.inspection.source import inspect

GSD_M = 10.0


def write(path: Path, pixels: np.ndarray, *, at=(0, 0), colors=None, names=None, **profile) -> Path:
    """Write a raster ``at`` (column, row) of a grid of tiles of 64 px."""
    count, height, width = pixels.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    east, north = 500_000 + at[0] * 64 * GSD_M, 5_400_000 - at[1] * 64 * GSD_M
    profile = {
        "driver": "GTiff",
        "crs": "EPSG:32632",
        "transform": from_origin(east, north, GSD_M, GSD_M),
    } | profile
    mask = profile.pop("mask", None)
    with rasterio.open(
        path, "w", count=count, height=height, width=width, dtype=pixels.dtype, **profile
    ) as out:
        out.write(pixels)
        if colors:
            out.colorinterp = [ColorInterp[color] for color in colors]
        if names:
            out.descriptions = names
        if mask is not None:
            out.write_mask(mask)
    return path


def noise(count=3, side=64, dtype="uint8", seed=0, low=1, high=200) -> np.ndarray:
    return np.random.default_rng(seed).integers(low, high, (count, side, side)).astype(dtype)


def inspected(src: Path | str, **declared) -> Inspection:
    pixels = declared.pop("pixels", 2**24)
    return inspect(str(src), DataConfig(**declared), pixels=pixels, threads=2)


def topics(found: Inspection) -> list[str]:
    return [question.topic for question in found.all_questions]
