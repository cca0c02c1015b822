"""COGs written from rows: layout, statistics, overviews, whole or absent."""

import os
import subprocess

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.windows import Window

from geodino.errors import RunError
from geodino.geo.grid import Grid
from geodino.io.cog_rows import CogWriter
from geodino.io.metadata import area_or_point

PLACE = Affine(9.6, 0, 500_000, 0, -9.6, 4_500_000)


def write(path, values, *, rows=16, nodata=float("nan"), scales=None, **options):
    count, height, width = values.shape
    grid = Grid("EPSG:32618", PLACE, width=width, height=height)
    valid = values[0] != nodata if nodata == nodata else np.isfinite(values[0])
    with CogWriter(
        path, grid=grid, count=count, dtype=str(values.dtype), nodata=nodata, **options
    ) as writer:
        for top in range(0, height, rows):
            part = slice(top, top + rows)
            writer.write(top, values[:, part], valid[part])
        names = [f"f{i}" for i in range(count)]
        writer.finish(descriptions=names, tags={"GEODINO_X": "y"}, scales=scales)
    return path


def coordinates(height, width, dtype="float32"):
    return np.stack(np.mgrid[0:height, 0:width]).astype(dtype)


def test_pixels_come_back_where_they_were_written(tmp_path):
    values = coordinates(100, 70)
    values[:, 30:40, 20:] = np.nan
    with rasterio.open(write(tmp_path / "a.tif", values)) as found:
        np.testing.assert_array_equal(found.read(), values)
        assert found.crs == "EPSG:32618"
        assert found.transform == PLACE
        assert np.isnan(found.nodata)
        assert found.descriptions == ("f0", "f1")
        assert found.tags()["GEODINO_X"] == "y"
        assert found.profile["compress"] == "zstd"
        assert found.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "3"
        assert found.profile["interleave"] == "band"
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]


@pytest.mark.parametrize(("side", "block"), [(600, 512), (512, 512), (40, 48), (3, 16)])
def test_blocks_are_512_or_the_whole_of_a_smaller_map(tmp_path, side, block):
    with rasterio.open(write(tmp_path / "a.tif", coordinates(side, 7))) as found:
        assert found.block_shapes == [(block, block)] * 2


def test_statistics_are_those_of_the_valid_pixels(tmp_path):
    values = coordinates(50, 60)
    values[:, :, :15] = np.nan
    valid = values[:, :, 15:].astype(np.float64)
    with rasterio.open(write(tmp_path / "a.tif", values, rows=7)) as found:
        for band in (1, 2):
            tags = {k: float(v) for k, v in found.tags(band).items()}
            assert tags["STATISTICS_MINIMUM"] == valid[band - 1].min()
            assert tags["STATISTICS_MAXIMUM"] == valid[band - 1].max()
            assert tags["STATISTICS_MEAN"] == pytest.approx(valid[band - 1].mean())
            assert tags["STATISTICS_STDDEV"] == pytest.approx(valid[band - 1].std())
            assert tags["STATISTICS_VALID_PERCENT"] == 75.0


def directories(path):
    """Offsets of the directories of a TIFF and of the first block of each, in file order."""
    content = path.read_bytes()
    big = content[2] == 43
    size, entry = (8, 20) if big else (4, 12)

    def read(at, n):
        return int.from_bytes(content[at : at + n], "little")

    offset, found = read(8 if big else 4, size), []
    while offset:
        count = read(offset, 8 if big else 2)
        start = offset + (8 if big else 2)
        tags = {read(start + i * entry, 2): start + i * entry for i in range(count)}
        at = tags[324]  # TileOffsets
        many = read(at + 4, size)
        where = at + 4 + size
        first = read(where, size) if many > 1 else where
        kind = read(at + 2, 2)
        found.append((offset, read(first, {4: 4, 16: 8}[kind])))
        offset = read(start + count * entry, size)
    return found


def test_the_layout_is_cloud_optimised(tmp_path):
    path = write(tmp_path / "a.tif", coordinates(1100, 1300))
    with rasterio.open(path) as found:
        assert found.overviews(1) == [2, 4]
    found = directories(path)
    offsets = [offset for offset, _ in found]
    first_blocks = [block for _, block in found]
    # All directories stand before all pixels; the smallest overview comes first.
    assert offsets == sorted(offsets)
    assert max(offsets) < min(first_blocks)
    assert first_blocks == sorted(first_blocks, reverse=True)


def test_overviews_are_means_of_the_valid_pixels(tmp_path):
    values = coordinates(600, 600)
    values[:, 1, 0:2] = np.nan
    with rasterio.open(write(tmp_path / "a.tif", values)) as found:
        small = found.read(out_shape=(2, 300, 300))
    # The first four pixels: rows 0, 0 (row 1 is missing), columns 0, 1.
    np.testing.assert_allclose(small[:, 0, 0], [0.0, 0.5])
    np.testing.assert_allclose(small[:, 5, 7], [10.5, 14.5])


def test_int8_says_what_its_values_mean(tmp_path):
    values = np.array([[[-127, 5], [-128, 127]]], dtype=np.int8)
    with rasterio.open(write(tmp_path / "a.tif", values, nodata=-128.0, scales=[0.5])) as found:
        assert found.scales == (0.5,)
        assert found.offsets == (0.0,)
        assert found.nodata == -128
        np.testing.assert_array_equal(
            found.read(1, masked=True).mask, [[False, False], [True, False]]
        )
        assert float(found.tags(1)["STATISTICS_MINIMUM"]) == -127
        assert found.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"


def test_rows_without_a_valid_pixel_are_nodata(tmp_path):
    values = np.full((1, 48, 20), np.nan, dtype=np.float32)
    values[:, 16:32] = 3.0
    with rasterio.open(write(tmp_path / "a.tif", values)) as found:
        np.testing.assert_array_equal(found.read(), values)


def test_a_raster_without_a_valid_pixel_is_written_all_the_same(tmp_path):
    with rasterio.open(write(tmp_path / "a.tif", np.full((1, 4, 4), np.nan, np.float32))) as found:
        assert np.isnan(found.read()).all()
        assert "STATISTICS_MEAN" not in found.tags(1)


@pytest.mark.parametrize("point", ["Area", "Point"])
def test_what_a_pixel_stands_for_is_kept_without_moving_it(tmp_path, point):
    path = write(tmp_path / "a.tif", coordinates(8, 8), area_or_point=point)
    assert area_or_point(str(path)) == point
    with rasterio.open(path) as found:
        assert found.transform == PLACE


def test_colours_lie_together_in_the_file(tmp_path):
    values = np.full((3, 8, 8), 7, dtype=np.uint8)
    with rasterio.open(write(tmp_path / "a.tif", values, nodata=0.0, colours=True)) as found:
        assert [c.name for c in found.colorinterp] == ["red", "green", "blue"]
        assert found.profile["interleave"] == "pixel"


def test_columns_may_be_written_apart(tmp_path):
    grid = Grid("EPSG:32618", PLACE, width=6, height=4)
    values = np.arange(12, dtype=np.float32).reshape(1, 4, 3)
    with CogWriter(
        tmp_path / "a.tif", grid=grid, count=1, dtype="float32", nodata=float("nan")
    ) as writer:
        writer.write(0, values, np.ones((4, 3), bool), left=3)
        writer.finish(descriptions=["f0"], tags={})
    with rasterio.open(tmp_path / "a.tif") as found:
        np.testing.assert_array_equal(found.read(window=Window(3, 0, 3, 4)), values)
        assert np.isnan(found.read(window=Window(0, 0, 3, 4))).all()


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("size", ["1m", "5m"])  # too small for the rows; for the rearranged file
def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, size):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not allow a small disk to be mounted")
    noise = np.random.default_rng(0).normal(size=(4, 512, 512)).astype(np.float32)  # 4 MiB
    try:
        with pytest.raises(RunError, match=r"a\.tif could not be written.*Free some space"):
            write(disk / "a.tif", noise)
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_job_that_dies_leaves_nothing_and_an_older_file_alone(tmp_path):
    path = write(tmp_path / "a.tif", coordinates(8, 8))
    before = path.read_bytes()

    def job():
        grid = Grid("EPSG:32618", PLACE, width=8, height=8)
        with CogWriter(path, grid=grid, count=2, dtype="float32", nodata=float("nan")) as writer:
            writer.write(0, coordinates(8, 8) * 0, np.ones((8, 8), bool))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.tif"]
