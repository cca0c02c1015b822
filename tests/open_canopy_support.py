"""A few tiles in exactly the layout of Open-Canopy, with truth from the generated world."""

import geopandas
import numpy as np
import rasterio
from affine import Affine
from shapely import box

from geodino.world.scene import scene

SIDE = 96
"""Pixels of a tile: 144 m for the benchmark's 1 km."""

PIXEL_M = 1.5
WEST, NORTH = 652_000.0, 6_862_000.0
WORDS = ("train", "train", "val", "test", "test", "buffer")
YEARS = (2021, 2022)


def write_open_canopy(root):
    """``canopy_height`` with one picture a year, side by side tiles in it, and both masks.

    Both years cover the same ground. A tile's row names the year whose heights are right; in the
    files of the other year its heights are 0, as where no laser scanned.
    """
    top = root / "canopy_height"
    tiles = [tile(number) for number in range(len(WORDS))]
    years = [YEARS[number % 2] for number in range(len(WORDS))]
    for year in YEARS:
        of_year = [t for t, y in zip(tiles, years, strict=True) if y == year]
        assert of_year
        stamp = f"{year}0406{371164 + year}"
        pixels, heights, classes = (
            np.concatenate([t[i] for t in tiles], axis=-1) for i in range(3)
        )
        heights, classes = heights.copy(), classes.copy()
        for number, own in enumerate(years):
            if own != year:
                columns = slice(number * SIDE, (number + 1) * SIDE)
                heights[:, columns] = classes[:, columns] = 0
        write(top / f"{year}/spot/compressed_pansharpened_{stamp}.tif", pixels)
        write(top / f"{year}/lidar/compressed_lidar_{stamp}.tif", heights[None])
        write(
            top / f"{year}/lidar_classification/compressed_lidar_classification_{stamp}.tif",
            classes[None],
        )
    frame = geopandas.GeoDataFrame(
        {"split": list(WORDS), "lidar_year": years, "lidar_acquisition_date": "20210501"},
        geometry=[outline(number) for number in range(len(WORDS))],
        crs="EPSG:2154",
    )
    frame.to_file(top / "geometries.geojson")
    forest().to_parquet(top / "forest_mask.parquet")
    return top


def tile(number):
    """Four bands uint8, heights in whole decimetres, classes: 2 ground, 5 high vegetation."""
    made = scene(number, height=SIDE, width=SIDE, sensor="rgbn", top=-300, left=-700)
    heights = np.round(10 * np.nan_to_num(made.height_m)).astype(np.uint16)
    classes = np.where(heights >= 15, 5, 2).astype(np.uint8)
    return np.asarray(made.pixels), heights, classes


def outline(number):
    west = WEST + number * SIDE * PIXEL_M
    return box(west, NORTH - SIDE * PIXEL_M, west + SIDE * PIXEL_M, NORTH)


def forest():
    """A forest over the upper quarter of every tile, whatever stands there."""
    end = WEST + len(WORDS) * SIDE * PIXEL_M
    return geopandas.GeoDataFrame(
        geometry=[box(WEST, NORTH - SIDE * PIXEL_M / 4, end, NORTH)], crs="EPSG:2154"
    )


def write(path, layers):
    path.parent.mkdir(parents=True, exist_ok=True)
    place = Affine(PIXEL_M, 0, WEST, 0, -PIXEL_M, NORTH)
    with rasterio.open(
        path, "w", driver="GTiff", crs="EPSG:2154", transform=place, count=len(layers),
        height=layers.shape[1], width=layers.shape[2], dtype=layers.dtype, compress="deflate",
        tiled=True, blockxsize=256, blockysize=256,
    ) as file:  # fmt: skip
        file.write(layers)
