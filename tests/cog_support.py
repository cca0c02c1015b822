"""Maps written through the one-pass COG writer, and the slow definition of an overview."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from affine import Affine

from geodino.geo.grid import Grid
from geodino.io.cog.assemble import assemble
from geodino.io.cog.layout import Layer, Layout
from geodino.io.cog.parts import PartsWriter, parts_folder

PLACE = Affine(9.6, 0, 500_000, 0, -9.6, 4_500_000)


def grid_of(values: np.ndarray, *, crs: str | None = "EPSG:32618", transform=PLACE) -> Grid:
    return Grid(crs, transform, width=values.shape[2], height=values.shape[1])


def layer_of(values: np.ndarray, *, nodata: float | None, name: str = "map", **fields) -> Layer:
    return Layer(name=name, count=values.shape[0], dtype=values.dtype.name, nodata=nodata, **fields)


def layout_of(values: np.ndarray, *, block: int, side: int, **grid) -> Layout:
    """Blocks and supertiles smaller than those that are chosen for real maps."""
    levels = 0
    while max(values.shape[1:]) > block << levels:
        levels += 1
    return Layout(grid_of(values, **grid), block, side, levels)


def spool(
    folder: Path,
    layout: Layout,
    maps: dict[str, tuple[Layer, np.ndarray]],
    *,
    numbers: Iterable[int] | None = None,
    key: dict | None = None,
    shard: tuple[int, int] = (1, 1),
) -> None:
    """Write supertiles, all of them unless told, that are not committed yet."""
    layers = [layer for layer, _ in maps.values()]
    with PartsWriter(folder, layout=layout, layers=layers, key=key or {}, shard=shard) as parts:
        for number in range(len(layout)) if numbers is None else numbers:
            if number in parts.committed:
                continue
            supertile = parts.open_supertile(number)
            for row in range(layout.block_rows(number)):
                rows, columns = layout.block_window(number, row).slices
                supertile.write(row, {n: v[:, rows, columns] for n, (_, v) in maps.items()})
            supertile.commit(f"digest of {number}", seconds=1.5)


def write_map(path: Path, values: np.ndarray, layer: Layer, layout: Layout, **options) -> Path:
    """Spool and assemble one layer."""
    spool(parts_folder(path), layout, {layer.name: (layer, values)})
    assemble(parts_folder(path), path, layer, layout=layout, **options)
    return path


def slow_halve(band: np.ndarray, nodata: float | None, resampling: str) -> np.ndarray:
    """The definition, one pixel at a time; slow and obviously right."""
    height, width = band.shape
    out = np.empty(((height + 1) // 2, (width + 1) // 2), dtype=band.dtype)
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            four = band[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].ravel().tolist()
            valid = [v for v in four if v == v and v != nodata]
            if not valid:
                out[y, x] = np.nan if nodata is None else nodata
            elif resampling == "mode":
                out[y, x] = Counter(valid).most_common(1)[0][0]  # of equals the first seen
            else:
                mean = sum(valid) / len(valid)
                out[y, x] = mean if band.dtype.kind == "f" else round(mean)  # halves to even
    return out
