"""Batches of real GeoTIFFs: what the files hold, whatever lies under invalid pixels."""

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine

from geodino.data.config import DataConfig
from geodino.data.cuts import shapes_of
from geodino.data.index import build_index
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.data.tiles import TileReader
from geodino.io.raster import HandlePool


def assert_same(a, b):
    assert (a.step, a.first, a.source) == (b.step, b.first, b.source)
    assert torch.equal(a.pixels, b.pixels)
    assert torch.equal(a.valid, b.valid)


def write_tile(path, pixels, *, nodata=None, **options):
    bands, height, width = pixels.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=bands,
        dtype=pixels.dtype,
        nodata=nodata,
        crs="EPSG:32633",
        transform=Affine(10, 0, 500000, 0, -10, 5400000),
        tiled=True,
        blockxsize=32,
        blockysize=32,
        **options,
    ) as file:
        file.write(pixels)


def batches_of(folder, steps=6, **options):
    index = build_index(folder, DataConfig(**options), threads=2)
    config = OrderConfig(
        seed=5, batch=6, chip=32, super_window=64, chips_per_window=4, budget_bytes=0
    )
    with HandlePool() as pool:
        of = Loader(
            Order(shapes_of(index), config),
            TileReader(index, pool),
            LoaderConfig(min_valid=0.5, threads=2, prefetch=2),
        )
        with of:
            return list(of.batches(0, steps))


@pytest.mark.parametrize(
    ("dtype", "fills"),
    [
        ("float32", [0, -9999, np.nan, 65535]),
        ("uint16", [0, 65535, 7]),
        ("float64", [np.nan, -1e9]),
    ],
)
def test_the_value_under_invalid_pixels_changes_no_bit_of_a_batch(tmp_path, dtype, fills):
    random = np.random.default_rng(0)
    values = random.integers(100, 200, (2, 3, 150, 130)).astype(dtype)
    missing = np.zeros((150, 130), dtype=bool)
    missing[:40, :90] = True
    missing[random.random((150, 130)) < 0.05] = True
    results = []
    for fill in fills:
        folder = tmp_path / str(fill)
        folder.mkdir()
        for number, tile in enumerate(values):
            filled = np.where(missing, np.array(fill, dtype=dtype), tile)
            write_tile(folder / f"{number}.tif", filled, nodata=fill, compress="deflate")
        results.append(batches_of(folder, nodata="tag"))
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            assert_same(a, b)
    assert not results[0][0].valid.all()


def test_chips_of_real_files_equal_what_rasterio_reads(tmp_path):
    random = np.random.default_rng(0)
    files = [tmp_path / f"{n}.tif" for n in range(3)]
    for file in files:
        write_tile(file, random.integers(1, 255, (3, 170, 130)).astype(np.uint8))
    for batch in batches_of(tmp_path):
        for pixels, (tile, w) in zip(batch.pixels.numpy(), batch.source, strict=True):
            with rasterio.open(files[tile]) as file:
                window = rasterio.windows.Window(w.left, w.top, w.width, w.height)
                np.testing.assert_array_equal(pixels, file.read(window=window))


def test_a_file_that_vanishes_is_replaced(tmp_path):
    random = np.random.default_rng(0)
    for n in range(3):
        write_tile(tmp_path / f"{n}.tif", random.integers(1, 255, (1, 64, 64)).astype(np.uint8))
    index = build_index(tmp_path, DataConfig(), threads=1)
    (tmp_path / "1.tif").unlink()
    config = OrderConfig(
        seed=5, batch=6, chip=32, super_window=64, chips_per_window=4, budget_bytes=0
    )
    told = []
    with (
        HandlePool() as pool,
        Loader(
            Order(shapes_of(index), config),
            TileReader(index, pool),
            LoaderConfig(min_valid=0.5, threads=2, prefetch=2),
            on_bad=lambda tile, reason: told.append((tile, reason)),
        ) as of,
    ):
        batches = list(of.batches(0, 4))
    assert {tile for batch in batches for tile, _ in batch.source} == {0, 2}
    [(tile, reason)] = told
    assert tile == 1
    assert "1.tif does not exist" in reason
