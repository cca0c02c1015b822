"""What metadata says, and files that cannot be used."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from geodino.errors import SourceError
from geodino.io.raster import describe


def write(path, pixels, **profile):
    count, height, width = pixels.shape
    with rasterio.open(
        path, "w", count=count, height=height, width=width, dtype=pixels.dtype,
        **{"driver": "GTiff"} | profile,
    ) as out:  # fmt: skip
        out.write(pixels)
    return path


NOISE = np.random.default_rng(0).integers(0, 255, (3, 256, 256)).astype(np.uint8)
CUT = {
    "strips": {},
    "deflate tiles": {"compress": "deflate", "tiled": True, "blockxsize": 64, "blockysize": 64},
    "bands apart": {"interleave": "band"},
    "BigTIFF": {"BIGTIFF": "YES"},
    "COG": {"driver": "COG", "blocksize": 128},
    "JPEG": {"driver": "JPEG"},
    "PNG": {"driver": "PNG"},
}


@pytest.mark.parametrize("profile", CUT.values(), ids=CUT)
@pytest.mark.parametrize("kept", [0.5, 0.9])
def test_a_file_that_was_cut_off_is_noticed_without_reading_it(tmp_path, profile, kept):
    path = write(tmp_path / "cut.img", NOISE, **profile)
    describe(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(SourceError, match=r"cut\.img cannot be read: it is cut off"):
        describe(path)


def test_one_missing_byte_of_the_last_block_is_noticed(tmp_path):
    path = write(tmp_path / "cut.tif", NOISE, driver="COG", blocksize=128, COMPRESS="NONE")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) - 5])
    with pytest.raises(SourceError, match="its blocks need"):
        describe(path)


def test_empty_text_and_missing_files_are_told_apart(tmp_path):
    (tmp_path / "empty.tif").touch()
    with pytest.raises(SourceError, match=r"empty\.tif cannot be read: it is empty \(0 bytes\)"):
        describe(tmp_path / "empty.tif")
    (tmp_path / "text.tif").write_text("not a picture, but it says it is one")
    with pytest.raises(SourceError, match=r"text\.tif cannot be read as a raster"):
        describe(tmp_path / "text.tif")
    with pytest.raises(SourceError, match=r"none\.tif does not exist"):
        describe(tmp_path / "none.tif")


def test_palettes_and_complex_values_are_refused_with_what_to_do(tmp_path):
    palette = write(tmp_path / "p.png", NOISE[:1], driver="PNG")
    with rasterio.open(
        tmp_path / "q.tif", "w", driver="GTiff", count=1, height=2, width=2, dtype="uint8",
        photometric="palette",
    ) as out:  # fmt: skip
        out.write(NOISE[:1, :2, :2])
        out.write_colormap(1, {0: (255, 0, 0, 255)})
    describe(palette)
    with pytest.raises(SourceError, match="stores palette numbers, not intensities"):
        describe(tmp_path / "q.tif")
    with pytest.raises(SourceError, match=r"stores complex values \(complex64\)"):
        describe(write(tmp_path / "c.tif", NOISE[:1].astype(np.complex64)))


def test_metadata_is_all_there(tmp_path):
    transform = Affine(10, 0, 500_000, 0, -10, 4_500_000)
    path = write(
        tmp_path / "m.tif", NOISE, crs="EPSG:32618", transform=transform, nodata=7,
        tiled=True, blockxsize=64, blockysize=128,
    )  # fmt: skip
    with rasterio.open(path, "r+") as out:
        out.descriptions = ("B02", None, "B04")
        out.scales = (0.1, 1, 1)
        out.update_tags(TIFFTAG_DATETIME="2020:07:01 10:20:30")
    info = describe(path)
    assert (info.count, info.dtype, info.driver) == (3, "uint8", "GTiff")
    assert info.grid.crs == "EPSG:32618"
    assert info.grid.transform == transform
    assert info.block == (128, 64)
    assert info.nodata == (7.0, 7.0, 7.0)
    assert info.descriptions == ("B02", None, "B04")
    assert info.scales[0] == 0.1
    assert (info.datetime, info.datetime_from) == ("2020-07-01T10:20:30", "tiff tag")
    assert (info.size, info.mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)
    assert info.alpha is None


def test_an_acquisition_time_stands_above_the_time_of_writing(tmp_path):
    path = write(tmp_path / "m.tif", NOISE)
    with rasterio.open(path, "r+") as out:
        out.update_tags(TIFFTAG_DATETIME="2020:07:01 10:20:30")
        out.update_tags(ns="IMAGERY", ACQUISITIONDATETIME="2019-05-01T09:00:00")
    info = describe(path)
    assert (info.datetime, info.datetime_from) == ("2019-05-01T09:00:00", "imagery metadata")


def test_a_time_that_is_none_is_left_out(tmp_path):
    path = write(tmp_path / "m.tif", NOISE)
    with rasterio.open(path, "r+") as out:
        out.update_tags(TIFFTAG_DATETIME="Flown on 2019082513")
    assert describe(path).datetime is None
