"""``geodino demo``: the main job on generated tiles, or on the user's own, in a minute or two."""

from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import from_origin

from geodino.runs.pretrain import PretrainJob, pretrain
from geodino.world.scene import Scene, scene

_SCENES = 6
_SIDE = 512
_STEPS = 40


def demo(*, out: Path, tiles: str | None, device: str) -> dict[str, Any]:
    """Pretrain a small model for a few dozen steps; return what ``pretrain`` returns.

    Args:
        out: gets ``tiles/`` (where they are generated) and ``run/``.
        tiles: the user's own source instead of generated tiles.
        device: see ``--device``.
    """
    if tiles is None:
        tiles = str(write_tiles(out / "tiles"))
    job = PretrainJob(
        tiles=tiles,
        out=out / "run",
        recipe="laptop",
        overrides=(f"phases.pretrain.steps={_STEPS}", "checkpoint.every=20", "health.every=20"),
        device=device,
    )
    return pretrain(job)


def write_tiles(folder: Path) -> Path:
    """Write a few generated RGB scenes at 0.6 m as GeoTIFFs; the same ones every time."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(_SCENES):
        path = folder / f"scene_{number}.tif"
        if not path.exists():
            _write(path, scene(number, height=_SIDE, width=_SIDE), number)
    return folder


def _write(path: Path, made: Scene, number: int) -> None:
    bands, height, width = made.pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=bands,
        dtype=made.pixels.dtype,
        crs="EPSG:32632",
        transform=from_origin(500_000 + number * width * 0.6, 5_400_000, 0.6, 0.6),
        tiled=True,
        blockxsize=256,
        blockysize=256,
        compress="zstd",
        photometric="RGB",
    ) as target:
        target.write(np.ascontiguousarray(made.pixels))
