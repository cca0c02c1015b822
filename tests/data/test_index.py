"""The tile index: decisions from evidence, bands that fit, files that do not, the file itself."""

import os
import shutil

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from geodino.data.config import DataConfig
from geodino.data.index import (
    TileReader,
    build_index,
    load_index,
    resolve_chip,
    save_index,
    too_small,
)
from geodino.errors import BandError, SourceError
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool, describe

PLACE = Affine(10, 0, 500_000, 0, -10, 4_500_000)
AUTO = DataConfig()


def write(path, pixels, *, colors=None, names=None, **profile):
    count, height, width = pixels.shape
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "crs": "EPSG:32618", "transform": PLACE} | profile
    with rasterio.open(
        path, "w", count=count, height=height, width=width, dtype=pixels.dtype, **profile
    ) as out:
        out.write(pixels)
        if colors:
            out.colorinterp = [ColorInterp[c] for c in colors]
        if names:
            out.descriptions = names
    return path


def noise(count=3, side=32, dtype="uint8", seed=0, height=None):
    shape = (count, height or side, side)
    return np.random.default_rng(seed).integers(1, 200, shape).astype(dtype)


def index_of(src, config=AUTO, **kwargs):
    return build_index(src, config, threads=2, **kwargs)


def band_names(index):
    return [band.name for band in index.bands]


# Alpha


def test_near_infrared_tagged_alpha_is_read_as_data_and_the_run_card_says_why(shared_data):
    index = index_of(shared_data / "tiles/naip_urban_trees/images")
    assert len(index.tiles) == 32
    assert band_names(index) == ["red", "green", "blue", "band_4"]
    assert index.rule.alpha == "band"
    (reason,) = index.rule.reasons
    assert reason == (
        "band 4 is tagged alpha but holds 186 distinct values in bishop_2020_0.tif: read as data "
        "(data.alpha: mask reads it as a mask)"
    )
    assert index.crs == ("EPSG:26910", "EPSG:26911")
    assert index.gsd_m == pytest.approx((0.6, 0.6), rel=1e-3)


def test_tagged_and_untagged_deliveries_of_the_same_sensor_are_one_source(shared_data, tmp_path):
    for name in (
        "tiles/naip_urban_trees/images/chico_2018_0",
        "timeseries/naip_2dates/chico_2020_0",
    ):
        shutil.copy(shared_data / f"{name}.tif", tmp_path)
    index = index_of(tmp_path)
    assert band_names(index) == ["red", "green", "blue", "band_4"]
    assert [tile.parts[0].bands for tile in index.tiles] == [(1, 2, 3, 4)] * 2


@pytest.mark.parametrize("name", ["hro_colorado_alpha", "pix4d_alpha_nodata"])
def test_a_true_alpha_band_is_no_data_band(shared_data, name):
    index = index_of(shared_data / f"scenes/rio_tiler/{name}.tif")
    assert band_names(index) == ["red", "green", "blue"]
    assert index.rule.alpha == "mask"
    assert "holds only 0 and its maximum in 1 of 1 files" in index.rule.reasons[0]


def test_alpha_can_be_declared_against_the_evidence(tmp_path):
    colors = ("red", "green", "blue", "alpha")
    write(tmp_path / "a.tif", noise(4), colors=colors)
    assert len(index_of(tmp_path).bands) == 4
    declared = index_of(tmp_path, DataConfig(alpha="mask"))
    assert len(declared.bands) == 3
    assert declared.rule.reasons == ("data.alpha is declared: mask",)


def test_one_file_of_many_is_enough_to_distrust_the_tag(tmp_path):
    colors = ("red", "green", "blue", "alpha")
    opaque = np.concatenate([noise(), np.full((1, 32, 32), 255, np.uint8)])
    for i in range(5):
        write(tmp_path / f"{i}.tif", opaque, colors=colors)
    assert index_of(tmp_path).rule.alpha == "mask"
    write(tmp_path / "9.tif", noise(4), colors=colors)
    assert index_of(tmp_path).rule.alpha == "band"


# Nodata


def test_a_nodata_tag_that_hides_true_white_is_ignored(shared_data):
    index = index_of(shared_data / "canopy/neon_teak/RGB")
    assert index.rule.nodata == "ignore"
    assert "nodata 255 is tagged, but only 5.1% of the pixels" in index.rule.reasons[0]


@pytest.mark.parametrize(
    "name",
    [
        "scenes/rasterio/RGB.byte.tif",
        "scenes/landsat8/LC81070352015122_RGB_uint8_150m_collar.tif",
        "scenes/rio_tiler/mosaic_cog*.tif",
        "scenes/rio_tiler/hro_colorado_nodata.tif",
        "scenes/titiler",
    ],
)
def test_the_nodata_tag_of_a_real_collar_is_believed(shared_data, name):
    index = index_of(str(shared_data / name))
    assert index.rule.nodata == "tag"
    assert "the tag is believed" in index.rule.reasons[0]


def test_nodata_can_be_declared_and_single_bands_are_believed(tmp_path):
    pixels = noise()
    pixels[0, :8] = 255  # true white in one band only
    write(tmp_path / "rgb/a.tif", pixels, nodata=255)
    write(tmp_path / "one/a.tif", pixels[:1], nodata=255)
    assert index_of(tmp_path / "rgb").rule.nodata == "ignore"
    assert index_of(tmp_path / "rgb", DataConfig(nodata="tag")).rule.nodata == "tag"
    assert index_of(tmp_path / "rgb", DataConfig(nodata=7)).rule.nodata == 7.0
    assert index_of(tmp_path / "one").rule.nodata == "tag"
    assert index_of(tmp_path / "one").rule.reasons == ()


def test_evidence_of_a_large_source_comes_from_a_bounded_choice_that_never_changes(tmp_path):
    for i in range(80):
        write(tmp_path / f"{i:02}.tif", noise(side=8), nodata=255)
    first, again = index_of(tmp_path), build_index(tmp_path, AUTO, threads=1)
    assert first == again
    assert "does not occur in 32 of 80 files inspected" in first.rule.reasons[0]


# Bands


def test_names_come_from_descriptions_then_colours_then_positions(shared_data, tmp_path):
    described = index_of(shared_data / "scenes/sentinel2")
    assert band_names(described) == ["B05", "B06", "B07", "B8A", "B11", "B12"]
    # Twelve equal descriptions (stackstac-...) say nothing.
    junk = index_of(shared_data / "scenes/s2_100k_patches")
    assert band_names(junk) == [f"band_{i}" for i in range(1, 13)]
    photo = index_of(shared_data / "scene_cls/eurosat_rgb/Forest")
    assert [band.common_name for band in photo.bands] == ["red", "green", "blue"]
    write(tmp_path / "a.tif", noise(4))
    named = index_of(tmp_path, DataConfig(band_names=("nir", "red", "green", "blue")))
    assert named.bands[0].common_name == "nir"


def test_mixed_band_counts_name_two_files_and_the_cure(tmp_path):
    write(tmp_path / "a.tif", noise(3), photometric="RGB")
    write(tmp_path / "b.tif", noise(5))
    with pytest.raises(BandError) as error:
        index_of(tmp_path)
    for part in ("a.tif has 3 data band(s)", "b.tif has 5", "data.bands"):
        assert part in str(error.value)
    joined = index_of(tmp_path, DataConfig(bands=(3, 1)))
    assert [tile.parts[0].bands for tile in joined.tiles] == [(3, 1), (3, 1)]
    assert band_names(joined) == ["band_3", "band_1"]
    assert "bands are named by position: a.tif calls them blue, red" in joined.notes[0]


def test_a_selection_by_name_joins_files_with_other_orders_and_counts(tmp_path):
    pixels = noise(4)
    write(tmp_path / "a.tif", pixels, names=("red", "green", "blue", "nir"))
    write(tmp_path / "b.tif", pixels[[2, 1, 0]], names=("blue", "green", "red"))
    index = index_of(tmp_path, DataConfig(bands=("red", "blue")))
    assert [tile.parts[0].bands for tile in index.tiles] == [(1, 3), (3, 1)]
    with HandlePool() as pool:
        reader = TileReader(index, pool)
        first, second = (reader(i, Window(0, 0, 32, 32))[0] for i in (0, 1))
    np.testing.assert_array_equal(first, second)


def test_the_same_bands_in_another_order_are_never_mixed_silently(tmp_path):
    write(tmp_path / "a.tif", noise(), names=("red", "green", "blue"))
    write(tmp_path / "b.tif", noise(), names=("blue", "green", "red"))
    with pytest.raises(BandError, match=r"data\.bands: \[red, green, blue\]"):
        index_of(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"bands": ("nirr",)}, "Did you mean 'nir'"),
        ({"bands": (5,)}, "has no data band 5; it has 1, 2, 3, 4"),
        ({"band_names": ("a", "b")}, r"declares 2 bands \(a, b\), but .*a\.tif has 4"),
    ],
)
def test_bands_that_are_not_there_are_named(tmp_path, config, message):
    write(tmp_path / "a.tif", noise(4), names=("red", "green", "blue", "nir"))
    with pytest.raises(BandError, match=message):
        index_of(tmp_path, DataConfig(**config))


def test_mixed_types_are_refused(tmp_path):
    write(tmp_path / "a.tif", noise())
    write(tmp_path / "b.tif", noise(dtype="uint16"))
    with pytest.raises(BandError, match=r"a\.tif stores 3 band.*of uint8.*b\.tif 3 of uint16"):
        index_of(tmp_path)


def test_files_with_another_offset_are_read_so_that_one_value_has_one_meaning(tmp_path):
    # Both store reflectance / 0.001; b.tif has 100 added, as its offset says.
    write(tmp_path / "a.tif", noise(dtype="uint16"))
    write(tmp_path / "b.tif", noise(dtype="uint16") + np.uint16(100))
    for name, offset in (("a", 0.0), ("b", -0.1)):
        with rasterio.open(tmp_path / f"{name}.tif", "r+") as out:
            out.scales, out.offsets = (0.001,) * 3, (offset,) * 3
    index = index_of(tmp_path)
    assert index.dtype == "uint16"
    assert index.bands[0].offset == -0.1
    assert "100 is added to the stored values of 1 of 2 tiles" in index.notes[0]
    with HandlePool() as pool:
        a, b = (TileReader(index, pool)(i, Window(0, 0, 32, 32))[0] for i in (0, 1))
    np.testing.assert_array_equal(a, b)


def test_files_with_another_scale_are_read_as_physical_values(tmp_path):
    for name, scale in (("a", 1.0), ("b", 0.5)):
        with rasterio.open(write(tmp_path / f"{name}.tif", noise()), "r+") as out:
            out.scales = (scale,) * 3
    index = index_of(tmp_path)
    assert index.dtype == "float32"
    assert [(band.scale, band.offset) for band in index.bands] == [(1.0, 0.0)] * 3
    with HandlePool() as pool:
        a, b = (TileReader(index, pool)(i, Window(0, 0, 32, 32))[0] for i in (0, 1))
    np.testing.assert_array_equal(a, 2 * b)


# Bad files


@pytest.fixture
def damaged(tmp_path):
    write(tmp_path / "good.tif", noise())
    cut = write(tmp_path / "cut.tif", noise(side=256))
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    (tmp_path / "empty.tif").touch()
    (tmp_path / "text.tif").write_text("no raster")
    return tmp_path


def test_bad_files_are_reported_and_counted_and_fatal_when_strict(damaged):
    index = index_of(damaged)
    assert len(index.tiles) == 1
    reasons = {path.rsplit("/", 1)[1]: reason for path, reason in index.bad}
    assert sorted(reasons) == ["cut.tif", "empty.tif", "text.tif"]
    assert "cut off" in reasons["cut.tif"]
    for how in ({"strict": True}, {"config": DataConfig(strict=True)}):
        with pytest.raises(SourceError, match=r"3 of 4 files .* cannot be used"):
            index_of(damaged, **how)


def test_a_source_without_a_readable_raster_says_why(damaged):
    (damaged / "good.tif").unlink()
    with pytest.raises(SourceError, match=r"holds no readable raster \(3 files tried\).*cut off"):
        index_of(damaged)


def test_progress_is_told_after_every_file(damaged):
    told = []
    index_of(damaged, progress=lambda done, total: told.append((done, total)))
    assert told == [(i, 4) for i in range(1, 5)]


# Chips


def test_an_automatic_chip_fits_nine_tiles_in_ten(tmp_path):
    for i in range(19):
        write(tmp_path / f"{i}.tif", noise(side=64))
    write(tmp_path / "small.tif", noise(side=16))
    index = index_of(tmp_path)
    assert resolve_chip(AUTO, index, 256) == 64
    assert resolve_chip(AUTO, index, 48) == 48
    assert [tile.width for tile in too_small(index, 64)] == [16]
    assert resolve_chip(DataConfig(chip=32), index, 256) == 32
    with pytest.raises(SourceError, match=r"A chip of 65 px .* larger than every tile.*64 x 64"):
        resolve_chip(DataConfig(chip=65), index, 256)


# The index file and the fingerprint


def test_an_index_comes_back_from_its_file(tmp_path):
    write(tmp_path / "t/a.tif", noise(4), names=("a", "b", "c", "d"), nodata=255)
    write(tmp_path / "t/b.tif", noise(4), names=("a", "b", "c", "d"), crs=None, transform=None)
    (tmp_path / "t/c.tif").touch()
    index = index_of(tmp_path / "t", DataConfig(bands=("d", "a"))).with_valid_shares([0.5, None])
    save_index(index, tmp_path / "i.parquet")
    assert load_index(tmp_path / "i.parquet") == index


def test_an_index_file_is_a_source_and_unchanged_files_are_not_opened(tmp_path, monkeypatch):
    paths = [write(tmp_path / f"t/{i}.tif", noise(seed=i)) for i in range(3)]
    index = index_of(tmp_path / "t").with_valid_shares([1.0, 1.0, 1.0])
    save_index(index, tmp_path / "i.parquet")
    write(paths[1], noise(seed=9, height=40))
    paths[2].unlink()
    opened = []

    def watched(path):
        opened.append(path)
        return describe(path)

    monkeypatch.setattr("geodino.data.metadata.describe", watched)
    again = index_of(tmp_path / "i.parquet")
    assert opened == [str(paths[1]), str(paths[2])]
    assert [tile.height for tile in again.tiles] == [32, 40]
    assert [tile.valid_share for tile in again.tiles] == [1.0, None]
    assert "does not exist" in again.bad[0][1]


def test_the_fingerprint_follows_content_and_names_but_not_the_place(tmp_path):
    for i in range(3):
        write(tmp_path / f"t/{i}.tif", noise(seed=i, side=300))
    first = index_of(tmp_path / "t").fingerprint(threads=2)
    shutil.copytree(tmp_path / "t", tmp_path / "moved")
    assert index_of(tmp_path / "moved").fingerprint() == first
    os.utime(tmp_path / "t/0.tif")
    assert index_of(tmp_path / "t").fingerprint() == first
    content = bytearray((tmp_path / "t/0.tif").read_bytes())
    content[-1] ^= 1
    (tmp_path / "t/0.tif").write_bytes(content)
    changed = index_of(tmp_path / "t").fingerprint()
    assert changed != first
    (tmp_path / "t/0.tif").rename(tmp_path / "t/9.tif")
    assert index_of(tmp_path / "t").fingerprint() not in (first, changed)


def test_a_tile_that_vanished_is_named_when_it_is_read(tmp_path):
    path = write(tmp_path / "a.tif", noise())
    index = index_of(tmp_path)
    path.unlink()
    with HandlePool() as pool, pytest.raises(SourceError, match=r"a\.tif does not exist"):
        TileReader(index, pool)(0, Window(0, 0, 8, 8))
    with pytest.raises(SourceError, match=r"a\.tif cannot be read any more"):
        index.fingerprint()
    with pytest.raises(SourceError, match=r"No tile can be used\. it is gone"):
        index.without({str(path): "it is gone"})


def test_with_any_band_valid_the_invalid_ones_are_read_as_the_mean(tmp_path):
    pixels = noise()
    pixels[0, :16], pixels[:, -1] = 0, 0
    path = write(tmp_path / "a.tif", pixels, nodata=0)
    index = index_of(path, DataConfig(nodata="tag"))
    with HandlePool() as pool:
        reader = TileReader(index, pool, valid="any", fill=[100.4, 1.0, 1.0])
        got, valid = reader(0, Window(0, 0, 32, 32))
        assert (got[0, :16] == 100).all()
        np.testing.assert_array_equal(got[:, 16:31], pixels[:, 16:31])
        np.testing.assert_array_equal(valid, pixels.any(axis=0))
        strict = TileReader(index, pool)(0, Window(0, 0, 32, 32))[1]
        np.testing.assert_array_equal(strict, pixels.all(axis=0))
        with pytest.raises(ValueError, match="needs the value of invalid bands"):
            TileReader(index, pool, valid="any")
