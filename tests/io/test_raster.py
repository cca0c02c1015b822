"""Reading windows: the right pixels, and validity as the files say it."""

import threading

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from geodino.errors import SourceError
from geodino.geo.validity import ReadRule, combine
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool, describe, read

PLACE = Affine(10, 0, 500_000, 0, -10, 4_500_000)
TAGS = ReadRule()
NOTHING = ReadRule(alpha="band", nodata="ignore")


def write(path, pixels, *, colors=None, mask=None, tags=None, **profile):
    count, height, width = pixels.shape
    profile = {"driver": "GTiff", "crs": "EPSG:32618", "transform": PLACE} | profile
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK="NO" if profile.pop("sidecar", False) else "YES"),
        rasterio.open(
            path, "w", count=count, height=height, width=width, dtype=pixels.dtype, **profile
        ) as out,
    ):
        out.write(pixels)
        if colors:
            out.colorinterp = [ColorInterp[c] for c in colors]
        if mask is not None:
            out.write_mask(mask)
        if tags:
            out.update_tags(**tags)
    return path


def coordinates(height=48, width=80, dtype="uint16"):
    """Each pixel stores its own (row, column): a shift, flip or swap cannot go unseen."""
    return np.stack(np.mgrid[0:height, 0:width]).astype(dtype)


@pytest.fixture
def pool():
    with HandlePool(4) as opened:
        yield opened


LAYOUTS = {
    "strips": {},
    "one strip": {"blockysize": 48},
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 32},
    "tiles, bands apart": {"tiled": True, "blockxsize": 16, "blockysize": 16, "interleave": "band"},
    "deflate with predictor": {"compress": "deflate", "predictor": 2},
    "zstd tiles": {"compress": "zstd", "tiled": True, "blockxsize": 32, "blockysize": 32},
    "big endian": {"ENDIANNESS": "BIG"},
    "BigTIFF": {"BIGTIFF": "YES"},
    "sparse": {"SPARSE_OK": "TRUE", "tiled": True, "blockxsize": 16, "blockysize": 16},
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_a_window_lands_where_it_should_in_every_internal_layout(tmp_path, pool, layout):
    path = write(tmp_path / "c.tif", coordinates(), **layout)
    pixels, valid = read(pool, path, Window(8, 16, 5, 7), rule=TAGS)
    np.testing.assert_array_equal(pixels[0, :, 0], np.arange(8, 13))
    np.testing.assert_array_equal(pixels[1, 0], np.arange(16, 23))
    assert valid.all()
    np.testing.assert_array_equal(read(pool, path, rule=TAGS)[0], coordinates())
    assert describe(path).block[1] <= 80


@pytest.mark.parametrize(
    "dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"]
)
def test_every_type_comes_as_stored(tmp_path, pool, dtype):
    pixels = coordinates(16, 16, dtype)
    path = write(tmp_path / "c.tif", pixels)
    got, _ = read(pool, path, rule=TAGS)
    assert got.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(got, pixels)
    assert describe(path).dtype == dtype


def test_bands_come_in_the_order_asked_for(tmp_path, pool):
    pixels = np.arange(13, dtype=np.uint16)[:, None, None] * np.ones((1, 4, 4), dtype=np.uint16)
    path = write(tmp_path / "c.tif", pixels)
    got, valid = read(pool, path, bands=(13, 1, 4), rule=TAGS)
    assert got[:, 0, 0].tolist() == [12, 0, 3]
    assert valid.shape == (3, 4, 4)


def test_a_window_that_leaves_the_raster_is_our_own_mistake(tmp_path, pool):
    path = write(tmp_path / "c.tif", coordinates())
    with pytest.raises(ValueError, match="reaches out of"):
        read(pool, path, Window(40, 0, 20, 20), rule=TAGS)


MASK = np.array([[255, 0, 255, 255]], dtype=np.uint8).repeat(2, axis=0)
RGB = np.array([[[9, 9, 0, 5]], [[9, 9, 0, 6]], [[9, 9, 0, 0]]], dtype=np.uint8).repeat(2, axis=1)


@pytest.mark.parametrize("sidecar", [False, True], ids=["in the file", "in .msk"])
def test_a_mask_beside_the_pixels_stands_above_the_nodata_tag(tmp_path, pool, sidecar):
    path = write(tmp_path / "c.tif", RGB, mask=MASK, sidecar=sidecar, nodata=0)
    assert (tmp_path / "c.tif.msk").exists() == sidecar
    _, valid = read(pool, path, rule=TAGS)
    assert describe(path).mask == "shared"
    for band in valid:
        np.testing.assert_array_equal(band, MASK > 0)
    _, valid = read(pool, path, Window(0, 1, 1, 2), rule=ReadRule(nodata="ignore"))
    np.testing.assert_array_equal(valid[0], [[False, True]])


def test_nodata_is_tested_band_by_band_on_stored_values(tmp_path, pool):
    path = write(tmp_path / "c.tif", RGB, nodata=0)
    with rasterio.open(path, "r+") as out:
        out.scales, out.offsets = (0.5,) * 3, (-4.5,) * 3  # 9 decodes to 0, and stays valid
    _, valid = read(pool, path, rule=TAGS)
    np.testing.assert_array_equal(valid[:, 0], [[1, 1, 0, 1], [1, 1, 0, 1], [1, 1, 0, 0]])
    assert read(pool, path, rule=NOTHING)[1].all()
    _, valid = read(pool, path, rule=ReadRule(nodata=9.0))
    np.testing.assert_array_equal(combine(valid, "all")[0], [0, 0, 1, 1])
    assert describe(path).scales == (0.5, 0.5, 0.5)


def test_nodata_values_mark_a_pixel_where_all_bands_hold_theirs(tmp_path, pool):
    path = write(tmp_path / "c.tif", RGB, tags={"NODATA_VALUES": "0 0 0"})
    assert describe(path).mask == "nodata_values"
    _, valid = read(pool, path, rule=TAGS)
    np.testing.assert_array_equal(valid[:, 0], [[1, 1, 0, 1]] * 3)
    assert read(pool, path, rule=ReadRule(nodata="ignore"))[1].all()


def test_a_true_alpha_band_counts_even_beside_a_nodata_tag(tmp_path, pool):
    pixels = np.concatenate([RGB, MASK[None]])
    colors = ("red", "green", "blue", "alpha")
    path = write(tmp_path / "c.tif", pixels, colors=colors, nodata=0)
    got, valid = read(pool, path, rule=TAGS)
    assert got.shape[0] == 3
    np.testing.assert_array_equal(valid[0, 0], [1, 0, 0, 1])
    np.testing.assert_array_equal(valid[2, 0], [1, 0, 0, 0])
    got, valid = read(pool, path, rule=NOTHING)
    np.testing.assert_array_equal(got, pixels)
    assert valid.all()


def test_alpha_in_the_middle_of_the_bands_is_left_out_as_well(tmp_path, pool):
    pixels = np.stack([RGB[0], MASK, RGB[1]])
    path = write(tmp_path / "c.tif", pixels, colors=("gray", "alpha", "undefined"))
    got, valid = read(pool, path, rule=TAGS)
    np.testing.assert_array_equal(got, RGB[:2])
    np.testing.assert_array_equal(valid[1], MASK > 0)
    assert describe(path).data_bands(TAGS) == (1, 3)
    assert describe(path).data_bands(NOTHING) == (1, 2, 3)


@pytest.mark.parametrize("nodata", [None, float("nan"), -3.4e38])
def test_nan_and_infinity_are_never_valid(tmp_path, pool, nodata):
    pixels = np.array([[[1.5, np.nan, np.inf, -np.inf, -3.4e38]]], dtype=np.float32)
    path = write(tmp_path / "c.tif", pixels, nodata=nodata)
    _, valid = read(pool, path, rule=TAGS)
    assert valid[0, 0].tolist() == [True, False, False, False, nodata != -3.4e38]


def test_grey_with_alpha_and_rgb_pictures_go_through_the_same_reader(tmp_path, pool):
    grey = write(
        tmp_path / "g.png", np.stack([RGB[0], MASK]), driver="PNG", crs=None, transform=None
    )
    got, valid = read(pool, grey, rule=TAGS)
    np.testing.assert_array_equal(got, RGB[:1])
    np.testing.assert_array_equal(valid[0], MASK > 0)
    photo = write(
        tmp_path / "p.jpg",
        np.full((3, 8, 8), 77, np.uint8),
        driver="JPEG",
        crs=None,
        transform=None,
    )
    got, valid = read(pool, photo, rule=TAGS)
    assert got.shape == (3, 8, 8)
    assert valid.all()
    assert describe(photo).colors == ("red", "green", "blue")


def test_a_pool_keeps_few_files_open_and_gives_each_thread_its_own(tmp_path):
    paths = [write(tmp_path / f"{i}.tif", coordinates()) for i in range(3)]
    with HandlePool(2) as pool:
        first = pool.get(paths[0])
        assert pool.get(paths[0]) is first
        pool.get(paths[1])
        pool.get(paths[0])
        pool.get(paths[2])  # drops 1, the least recently used
        assert not first.dataset.closed
        assert pool.get(paths[0]) is first
        other = []
        thread = threading.Thread(target=lambda: other.append(pool.get(paths[0])))
        thread.start()
        thread.join()
        assert other[0] is not first
    assert first.dataset.closed
    assert other[0].dataset.closed


def test_gdals_cache_is_small_while_any_pool_is_open():
    from rasterio.env import get_gdal_config

    before = get_gdal_config("GDAL_CACHEMAX")
    outer, inner = HandlePool(), HandlePool()
    outer.close()
    assert get_gdal_config("GDAL_CACHEMAX") == 64 << 20
    inner.close()
    inner.close()
    assert get_gdal_config("GDAL_CACHEMAX") == before


def test_a_file_that_vanished_is_named(tmp_path, pool):
    path = write(tmp_path / "c.tif", coordinates())
    path.unlink()
    with pytest.raises(SourceError, match=r"c\.tif does not exist \(any more\)"):
        read(pool, path, rule=TAGS)


def test_a_damaged_block_is_an_error_that_names_file_and_place(tmp_path, pool):
    noise = np.random.default_rng(0).integers(0, 255, (1, 512, 512)).astype(np.uint8)
    path = write(tmp_path / "c.tif", noise, compress="deflate")
    content = bytearray(path.read_bytes())
    content[100_000:101_000] = bytes(1000)
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"c\.tif is damaged: its pixels in rows 0 to 511"):
        read(pool, path, Window(0, 0, 512, 512), rule=TAGS)


def test_every_real_raster_reads_as_gdal_reads_it(shared_data, pool):
    paths = [p for p in sorted(shared_data.rglob("*")) if p.suffix.lower() in (".tif", ".png")]
    assert len(paths) > 200
    for path in paths:
        info = describe(path)
        pixels, valid = read(pool, path, rule=TAGS)
        bands = list(info.data_bands(TAGS))
        with rasterio.open(path) as peer:
            expected = peer.read(bands)
            mask = (peer.read_masks(bands) > 0) & np.isfinite(expected)
        np.testing.assert_array_equal(pixels, expected)
        np.testing.assert_array_equal(valid, mask, err_msg=str(path))


def test_three_ways_of_masking_one_picture_are_read_as_each_says(shared_data, pool):
    scenes = shared_data / "scenes/rio_tiler"
    masked, tagged, alpha = (
        read(pool, scenes / f"hro_colorado_{way}.tif", rule=TAGS)[1]
        for way in ("mask", "nodata", "alpha")
    )
    # The mask was made from nodata in any band: 3.08 % of the pixels; in all bands 2.66 %.
    np.testing.assert_array_equal(masked[0], combine(tagged, "all"))
    assert (~combine(tagged, "any")).mean() == pytest.approx(0.0266, abs=1e-4)
    # The alpha band says more: what it hides contains nearly all of the black collar.
    assert (~alpha[0]).mean() == pytest.approx(0.113, abs=1e-3)
    assert alpha.shape[0] == 3
