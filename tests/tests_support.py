"""Small rasters that tests write, and threads that ask at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TypeVar

import numpy as np
import rasterio
from rasterio.transform import from_origin

from geodino import seeds

Answer = TypeVar("Answer")


def no_report(*_: object, **_more: object) -> Path:
    """Stands in for what writes a report: its plots cost a short run more than its training."""
    return Path("no report was asked for")


def write_tile(path: Path, pixels: np.ndarray, *, nodata: float | None = None) -> Path:
    bands, height, width = pixels.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path, "w", driver="GTiff", width=width, height=height, count=bands, dtype=pixels.dtype,
        crs="EPSG:32632", transform=from_origin(500_000, 5_400_000, 0.6, 0.6), nodata=nodata,
        photometric="RGB" if bands == 3 else "MINISBLACK",
    ) as target:  # fmt: skip
        target.write(pixels)
    return path


def textured(seed: int, *, bands: int = 3, side: int = 96, dtype: str = "uint8") -> np.ndarray:
    """Blocks of colour with noise: enough structure for losses to be different on every tile."""
    rng = seeds.rng(seed, "test tile")
    coarse = rng.integers(20, 230, size=(bands, side // 16, side // 16))
    noise = rng.integers(-20, 20, size=(bands, side, side))
    return (coarse.repeat(16, 1).repeat(16, 2) + noise).clip(1, 250).astype(dtype)


def at_once(ask: Callable[[], Answer], *, threads: int) -> list[Answer]:
    """Return what each of several threads is answered; they begin together."""
    ready = Barrier(threads)

    def asking(_: int) -> Answer:
        ready.wait(timeout=60)
        return ask()

    with ThreadPoolExecutor(threads) as executor:
        return list(executor.map(asking, range(threads)))
