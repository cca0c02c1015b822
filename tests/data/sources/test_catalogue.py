"""What a user names becomes scenes: formats recognised, mixtures refused, shards, an index again."""

import io
import os
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from scene_support import LEFT, band_names, index_of, numbers, read_all, write

from geodino.data.config import DataConfig
from geodino.data.index import load_index, save_index
from geodino.data.sources.catalogue import catalogue, recognise
from geodino.data.sources.find import Found
from geodino.errors import SourceError
from geodino.io.content import content_sample, file_of
from geodino.io.raster import describe

LANDSAT = "LC08_L2SP_193027_20230701_20230710_02_T1"
HLS = "HLS.S30.T32UMD.2023182T102559.v2.0"
SAFE = "S2B_MSIL2A_20230701T102559_N0509_R108_T32UMD_20230701T131503.SAFE"
SENTINEL = f"{SAFE}/GRANULE/L2A/IMG_DATA/R10m/T32UMD_20230701T102559_B04_10m.jp2"


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def of(src, **declared):
    return catalogue(src, DataConfig(**declared))


def found(*names):
    return Found("/r", tuple(f"/r/{name}" for name in names))


# Recognising a format


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("landsat-c2-l2", [f"{LANDSAT}/{LANDSAT}_SR_B4.TIF"]),
        ("landsat-c2-l2", [f"{LANDSAT}_SR_B4.TIF", f"{LANDSAT}_ST_B10.TIF"]),
        ("landsat-tm-c2-l2", [f"{LANDSAT.replace('LC08', 'LT05')}_SR_B4.TIF"]),
        ("hls-s30", [f"{HLS}.B04.tif"]),
        ("hls-l30", [f"{HLS.replace('S30', 'L30')}.B04.tif"]),
        ("sentinel-2-l2a", [SENTINEL, f"{SAFE}/preview.jpg"]),
        ("planetscope-sr", ["20230701_101530_12_2475_3B_AnalyticMS_SR_8b.tif"]),
        ("", ["a.tif", "m_3712213_ne_10_060_20200524.tif", "B04.tif"]),
    ],
)
def test_full_product_names_are_recognised_and_others_are_left_alone(name, files):
    assert recognise(found(*files)) == name


def test_two_formats_in_one_source_are_refused_until_one_is_chosen(tmp_path):
    touch(tmp_path, f"{LANDSAT}_SR_B4.TIF", f"{HLS}.B04.tif", f"{HLS}.B03.tif")
    with pytest.raises(SourceError) as error:
        of(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds files of several formats (2 of hls-s30, 1 of landsat-c2-l2). Choose one "
        "with data.dataset."
    )
    chosen = of(tmp_path, dataset="landsat-c2-l2")
    assert len(chosen.scenes) == 1
    assert chosen.notes[0].startswith("files are read as landsat-c2-l2 describes them: Landsat")
    assert chosen.notes[-2] == (
        "2 rasters are not named as landsat-c2-l2 says and are left out, e.g. "
        f"{HLS}.B03.tif, {HLS}.B04.tif"
    )


def test_a_format_beside_many_others_is_refused_until_it_is_said_which_are_meant(tmp_path):
    touch(tmp_path, f"l/{LANDSAT}_SR_B4.TIF", "other/a.tif", "other/b.tif")
    with pytest.raises(SourceError) as error:
        of(tmp_path)
    text = str(error.value)
    assert "holds 1 files of landsat-c2-l2 and 2 others, e.g. " in text
    assert "data.dataset: landsat-c2-l2 takes the former" in text
    assert len(of(tmp_path, dataset="landsat-c2-l2").scenes) == 1
    every = of(tmp_path, dataset="none")
    assert [scene.bands for scene in every.scenes] == [None] * 3
    assert every.notes == []


def test_a_format_is_recognised_in_the_name_of_files_not_of_folders(tmp_path):
    touch(tmp_path, f"{LANDSAT}_SR_B4.TIF/tile.tif")
    assert of(tmp_path).descriptor is None


def test_the_name_of_a_descriptor_is_no_source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SourceError, match=r"says what files hold, not where .*data\.dataset=rgb"):
        of("rgb")
    touch(tmp_path, "rgb/a.tif")
    assert len(of("rgb").scenes) == 1


def test_a_descriptor_and_zarr_stores_are_never_mixed(tmp_path):
    touch(tmp_path, "a.tif", "cube.zarr/.zgroup")
    with pytest.raises(SourceError, match=r"rgb describes files, but .* holds zarr stores, e\.g\."):
        of(tmp_path, dataset="rgb")


# Shards


def shard(path, **pictures):
    """Write a tar archive of single-band PNGs, as WebDataset keeps them, with labels beside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, pixels in pictures.items():
            file = write(path.parent / "member.png", pixels, crs=None)
            archive.add(file, f"{name}.png")
            file.unlink()
            label = tarfile.TarInfo(f"{name}.cls")
            label.size = 1
            archive.addfile(label, io.BytesIO(b"3"))
    return path


def picture(start):
    return np.stack([numbers(dtype="uint8", start=start + i) for i in range(3)])


def test_pictures_are_read_where_they_lie_in_shards(tmp_path):
    shard(tmp_path / "a.tar", one=picture(1), two=picture(9))
    shard(tmp_path / "b.tar", one=picture(50))
    index = index_of(tmp_path)
    assert [tile.path.split("/vsitar/")[1] for tile in index.tiles] == [
        f"{tmp_path}/a.tar/one.png", f"{tmp_path}/a.tar/two.png", f"{tmp_path}/b.tar/one.png",
    ]  # fmt: skip
    assert band_names(index) == ["red", "green", "blue"]
    for tile, start in enumerate((1, 9, 50)):
        pixels, valid = read_all(index, tile)
        np.testing.assert_array_equal(pixels, picture(start))
        assert valid.all()


def test_members_that_start_with_a_dot_and_a_slash_are_read_too(tmp_path):
    # As `tar -cf shard.tar .` writes them.
    shard(tmp_path / "a.tar", **{"./one": picture(1), "./sub/two": picture(2)})
    index = index_of(tmp_path)
    assert [int(read_all(index, i)[0][0, 0, 0]) for i in range(2)] == [1, 2]


def test_shards_may_move_and_a_picture_that_changes_changes_the_fingerprint(tmp_path):
    path = shard(tmp_path / "t/a.tar", one=picture(1), two=picture(9))
    first = index_of(tmp_path / "t").fingerprint()
    (tmp_path / "t").rename(tmp_path / "moved")
    assert index_of(tmp_path / "moved").fingerprint(threads=2) == first
    shard(tmp_path / "other/a.tar", one=picture(1), two=picture(10))
    assert index_of(tmp_path / "other").fingerprint() != first
    shard(path, one=picture(1))
    assert index_of(tmp_path / "t").fingerprint() != first


def test_a_shard_is_hashed_once_however_many_pictures_it_holds(tmp_path, monkeypatch):
    shard(tmp_path / "a.tar", **{f"p{i}": picture(i) for i in range(5)})
    hashed = []

    def watched(path):
        hashed.append(path)
        return content_sample(path)

    monkeypatch.setattr("geodino.data.tiles.content_sample", watched)
    index_of(tmp_path).fingerprint()
    assert hashed == [f"{tmp_path}/a.tar"]


def test_the_file_that_holds_a_picture_is_found_whatever_it_is_called(tmp_path):
    (tmp_path / "x.tar").mkdir()
    path = shard(tmp_path / "x.tar/B.TAR", one=picture(1))
    assert file_of(f"/vsitar/{path}/sub/one.png") == str(path)
    assert index_of(path).fingerprint()
    assert file_of(str(path)) == str(path)
    assert file_of("https://host/a.tif") == "https://host/a.tif"
    path.unlink()
    with pytest.raises(SourceError, match=r"one\.png cannot be read any more"):
        content_sample(f"/vsitar/{path}/one.png")


# Content


@pytest.mark.parametrize("size", [0, 1, 1000, 3 << 16, (3 << 16) + 1, 10 << 16])
def test_a_sample_of_content_sees_both_ends_and_the_middle(tmp_path, size):
    content = bytearray(np.random.default_rng(size).bytes(size))
    path = tmp_path / "x.tif"
    path.write_bytes(content)
    before = content_sample(str(path))
    assert before[0] == size
    os.utime(path, ns=(1, 1))
    assert content_sample(str(path)) == before
    seen = {before}
    for place in {0, size // 2, size - 1} if size else ():
        changed = content.copy()
        changed[place] ^= 1
        path.write_bytes(changed)
        seen.add(content_sample(str(path)))
    assert len(seen) == 1 + len({0, size // 2, size - 1} if size else ())
    path.write_bytes(content + b"x")
    assert content_sample(str(path)) not in seen


# The index of scenes, saved and named as a source


def landsat(folder, *, date="20230701", quality=True, shift=0):
    product = f"LC08_L2SP_193027_{date}_20230710_02_T1"
    for i, band in enumerate(("SR_B2", "SR_B4")):
        write(folder / f"{product}_{band}.TIF", numbers(start=9000 + 100 * i + shift), pixel_m=30.0)
    if quality:
        layer = np.full((8, 8), 21824, np.uint16)
        layer[2, 2] = 22280
        write(folder / f"{product}_QA_PIXEL.TIF", layer, pixel_m=30.0)
    return folder


@pytest.fixture
def everything(tmp_path):
    """Products of two baselines, of several files and resolutions, with their quality layers."""
    for baseline, date in (("0301", "20190701"), ("0509", "20230701")):
        product = f"S2B_MSIL2A_{date}T102559_N{baseline}_R108_T32UMD_{date}T131503.SAFE"
        images = tmp_path / "t" / product / "GRANULE/L2A/IMG_DATA"
        name = f"T32UMD_{date}T102559"
        write(images / f"R10m/{name}_B04_10m.jp2", numbers(start=2000))
        write(images / f"R20m/{name}_B05_20m.jp2", numbers(4, 4, start=3000), pixel_m=20.0)
        layer = np.full((4, 4), 4, np.uint8)
        layer[1, 1] = 8
        write(images / f"R20m/{name}_SCL_20m.jp2", layer, pixel_m=20.0)
    return tmp_path


def test_an_index_of_scenes_comes_back_whole_from_its_file(everything):
    index = index_of(everything / "t")
    assert [len(tile.parts) for tile in index.tiles] == [2, 2]
    assert [tile.recoding is None for tile in index.tiles] == [False, True]
    assert [tile.quality.numbers for tile in index.tiles] == [(0, 1, 3, 8, 9, 10)] * 2
    save_index(index, everything / "i.parquet")
    again = load_index(everything / "i.parquet")
    assert again == index
    for tile in (0, 1):
        for one, other in zip(read_all(index, tile), read_all(again, tile), strict=True):
            np.testing.assert_array_equal(one, other)
    named = index_of(everything / "i.parquet")
    assert named == index
    assert named.fingerprint() == index.fingerprint()


def test_an_index_with_and_without_quality_and_recoding_comes_back(everything):
    index = index_of(everything / "t")
    first, second = index.tiles
    mixed = replace(
        index, tiles=(replace(first, quality=None, weight=0.25), replace(second, parts=first.parts))
    )
    save_index(mixed, everything / "i.parquet")
    assert load_index(everything / "i.parquet") == mixed


def test_a_quality_layer_that_changed_or_vanished_is_noticed_in_an_index(tmp_path):
    landsat(tmp_path / "t")
    landsat(tmp_path / "t", date="20230802")
    landsat(tmp_path / "t", date="20230903")
    save_index(index_of(tmp_path / "t"), tmp_path / "i.parquet")
    layers = sorted((tmp_path / "t").glob("*_QA_PIXEL.TIF"))
    write(layers[0], np.full((4, 4), 21824, np.uint16), pixel_m=60.0)
    layers[1].unlink()
    write(layers[2], np.full((8, 8), 22280, np.uint16), pixel_m=30.0)
    index = index_of(tmp_path / "i.parquet")
    assert [tile.path.rsplit("_", 4)[1] for tile in index.tiles] == ["20230903"]
    assert not read_all(index)[1].any()
    resized, gone = (why for _, why in index.bad)
    assert f"{layers[0].name} was rewritten since the index was built: its grid was" in resized
    assert f"{layers[1].name} does not exist" in gone


def test_a_file_of_a_scene_that_was_only_touched_is_taken_as_it_is(tmp_path):
    landsat(tmp_path / "t")
    # Corners that differ in the last decimals were brought to one grid when the index was built.
    (blue,) = (tmp_path / "t").glob("*_SR_B4.TIF")
    write(blue, numbers(start=9100), pixel_m=30.0, left=LEFT + 1e-6)
    index = index_of(tmp_path / "t")
    save_index(index, tmp_path / "i.parquet")
    os.utime(blue)
    again = index_of(tmp_path / "i.parquet")
    assert not again.bad
    assert again.tiles[0].grid == index.tiles[0].grid
    np.testing.assert_array_equal(read_all(again)[0], read_all(index)[0])


@pytest.mark.parametrize("tag", ["scales", "offsets", "units"])
def test_a_file_whose_numbers_mean_something_else_now_is_bad(tmp_path, tag):
    for name in "ab":
        write(tmp_path / f"t/{name}.tif", numbers(), scale=0.5, offset=1.0, unit="K")
    save_index(index_of(tmp_path / "t"), tmp_path / "i.parquet")
    with rasterio.open(tmp_path / "t/a.tif", "r+") as out:
        setattr(out, tag, ("m",) if tag == "units" else (0.25,))
    index = index_of(tmp_path / "i.parquet")
    assert [tile.path for tile in index.tiles] == [str(tmp_path / "t/b.tif")]
    assert f"its {tag} was" in index.bad[0][1]


@pytest.mark.parametrize(
    ("declared", "key"),
    [
        ({"mask": ("snow",)}, "data.mask"),
        ({"offset": 0.0}, "data.offset"),
        ({"scale": 2.0, "resampling": "nearest"}, "data.resampling, data.scale"),
        ({"dataset": "landsat-c2-l2"}, "data.dataset"),
        ({"decibel": True}, "data.decibel"),
        ({"band_names": ("a", "b")}, "data.band_names"),
        ({"bands": ("SR_B4",)}, "data.bands"),
        ({"nodata": "tag"}, "data.nodata"),
    ],
)
def test_what_an_index_of_scenes_cannot_take_up_is_refused_and_never_ignored(
    tmp_path, declared, key
):
    save_index(index_of(landsat(tmp_path / "t")), tmp_path / "i.parquet")
    with pytest.raises(SourceError, match=f"^{key} cannot be declared anew for this index"):
        index_of(tmp_path / "i.parquet", **declared)


def test_what_was_declared_when_an_index_was_built_may_be_declared_again(tmp_path):
    # A run is repeated with its own recipe on its own index.
    declared = {"mask": ("cloud", "snow"), "bands": ("red", "SR_B2"), "offset": 0.0}
    index = index_of(landsat(tmp_path / "t"), **declared)
    assert index.declared == {"mask": ["cloud", "snow"], "bands": ["red", "SR_B2"], "offset": 0.0}
    save_index(index, tmp_path / "i.parquet")
    assert index_of(tmp_path / "i.parquet", **declared) == index
    with pytest.raises(SourceError, match=r"^data\.bands cannot be declared anew"):
        index_of(tmp_path / "i.parquet", **(declared | {"bands": ("red",)}))


def test_bands_and_nodata_of_single_files_can_be_declared_anew(tmp_path):
    write(tmp_path / "t/a.tif", np.stack([numbers(), numbers(start=2)]), names=("a", "b"))
    save_index(index_of(tmp_path / "t"), tmp_path / "i.parquet")
    index = index_of(tmp_path / "i.parquet", bands=("b",), nodata=3.0)
    assert band_names(index) == ["b"]
    assert index.declared == {"bands": ["b"], "nodata": 3.0}
    assert np.argwhere(~read_all(index)[1]).tolist() == [[0, 1]]


# Real pixels


def test_three_ways_of_masking_one_picture_are_one_source(shared_data):
    index = index_of(str(shared_data / "scenes/rio_tiler/hro_colorado_*.tif"))
    assert len(index.tiles) == 3
    assert {len(tile.parts[0].bands) for tile in index.tiles} == {3}
    alpha, mask, nodata = (read_all(index, tile)[1] for tile in range(3))
    # The mask was made from nodata in any band; the alpha band hides more than that.
    np.testing.assert_array_equal(mask, nodata)
    assert alpha.mean() == pytest.approx(0.887, abs=1e-3)
    assert mask.mean() == pytest.approx(0.969, abs=1e-3)
    assert [tile.weight for tile in index.tiles] == pytest.approx([1 / 3] * 3, rel=0.01)


def test_odd_geometry_is_read_as_it_lies(shared_data):
    for name in ("rasterio/rotated", "rio_tiler/inverted_lat", "rio_tiler/cog_dateline"):
        path = shared_data / f"scenes/{name}.tif"
        index = index_of(path)
        pixels, valid = read_all(index)
        with rasterio.open(path) as source:
            np.testing.assert_array_equal(pixels, source.read(index.tiles[0].parts[0].bands))
            np.testing.assert_array_equal(valid, pixels[0] != (source.nodata or -1))


def test_canopy_heights_without_data_are_masked_and_float_colours_are_read(shared_data):
    folder = shared_data / "canopy/idtrees"
    heights = index_of(folder / "CHM")
    assert heights.dtype == "float32"
    for tile in range(len(heights.tiles)):
        pixels, valid = read_all(heights, tile)
        assert pixels[0][valid].min(initial=0.0) > -100
    colours = index_of(folder / "RGB")
    assert colours.dtype == "float32"
    assert 0 <= read_all(colours)[0].min() <= read_all(colours)[0].max() <= 255
    assert describe(next((folder / "RGB").glob("*.tif"))).dtype == "float32"
