"""Scenes of several files, from their files to pixels: grids, offsets, quality layers, bad files."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from scene_support import LEFT, TOP, band_names, index_of, numbers, read_all, write

from geodino.data.tiles import TileReader
from geodino.errors import BandError, SourceError
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool

TILE = "T32UMD_20230701T102559"


def product(baseline="0509", date="20230701"):
    return f"S2B_MSIL2A_{date}T102559_N{baseline}_R108_T32UMD_{date}T131503.SAFE"


def images(root, safe):
    return root / safe / "GRANULE/L2A_T32UMD_A032998/IMG_DATA"


def safe(root, baseline="0509", date="20230701", *, shift=0, suffix="jp2", bands=None, side=24):
    """Write a product of ``side`` pixels of 10 m: B02, B04 at 10 m, B05 and SCL at 20 m, B01 at 60.

    Every file holds numbers of its own; ``shift`` is added to all, as from baseline 04.00 on.
    """
    folder, tile = images(root, product(baseline, date)), f"T32UMD_{date}T102559"
    stored = {
        "B02": (10, numbers(side, side, start=2000 + shift)),
        "B04": (10, numbers(side, side, start=4000 + shift)),
        "B05": (20, numbers(side // 2, side // 2, start=5000 + shift)),
        "B01": (60, numbers(side // 6, side // 6, start=1000 + shift)),
    }
    for band, (metres, pixels) in stored.items():
        if bands is None or band in bands:
            name = folder / f"R{metres}m/{tile}_{band}_{metres}m.{suffix}"
            write(name, pixels, pixel_m=float(metres))
    scl = np.full((side // 2, side // 2), 4, np.uint8)
    scl[0, :3] = [0, 9, 11]  # no data, cloud, and snow, which stays
    write(folder / f"R20m/{tile}_SCL_20m.{suffix}", scl, pixel_m=20.0)
    return root / product(baseline, date)


# Sentinel-2


def test_a_safe_product_comes_on_the_10_m_grid_with_its_clouds_masked(tmp_path):
    index = index_of(safe(tmp_path))
    assert band_names(index) == ["B01", "B02", "B04", "B05"]
    (tile,) = index.tiles
    assert (tile.height, tile.width) == (24, 24)
    assert tile.gsd_m == pytest.approx((10.0, 10.0), rel=1e-3)
    assert tile.resampling == "bilinear"
    assert {(b.unit, b.scale, b.offset) for b in index.bands} == {("reflectance", 0.0001, -0.1)}
    pixels, valid = read_all(index)
    # Bands of the grid are as stored, to the bit.
    np.testing.assert_array_equal(pixels[1], numbers(24, 24, start=2000))
    # The centre of fine row 2 lies 0.75 of a row below that of coarse row 0 (12 numbers a row),
    # columns 2 and 3 lie at 0.75 and 1.25: 5000 + 12 * 0.75 + 0.75 = 5009.75, and 5010.25.
    assert pixels[3, 2, 2:4].tolist() == [5010, 5010]
    # A class of 20 m covers 2 x 2 pixels.
    expected = np.ones((24, 24), bool)
    expected[:2, :4] = False
    np.testing.assert_array_equal(valid, expected)


@pytest.mark.parametrize("suffix", ["jp2", "tif"])
def test_products_before_and_after_baseline_04_00_are_brought_together(tmp_path, suffix):
    # The same ground, stored as reflectance * 10000, and as that plus 1000.
    safe(tmp_path, "0301", "20190701", suffix=suffix)
    safe(tmp_path, "0509", "20230701", shift=1000, suffix=suffix)
    index = index_of(tmp_path)
    assert len(index.tiles) == 2
    assert index.dtype == "uint16"
    assert {b.offset for b in index.bands} == {-0.1}
    old, new = read_all(index, 0), read_all(index, 1)
    np.testing.assert_array_equal(old[1], new[1])
    np.testing.assert_array_equal(old[0][:, old[1]], new[0][:, new[1]])
    # +1000 exactly, in every band.
    alone = read_all(index_of(tmp_path / product("0301", "20190701")))[0]
    assert (old[0][:, old[1]] - alone[:, old[1]] == 1000).all()
    note = "offsets differ between files: 1,000 is added to the stored values of 1 of 2 tiles"
    assert any(n.startswith(note) for n in index.notes)


def test_zero_is_no_data_before_anything_is_added(tmp_path):
    for baseline, date in (("0301", "20190701"), ("0509", "20230701")):
        folder = images(tmp_path, product(baseline, date))
        stored = numbers(4, 4, start=0)
        write(folder / f"R10m/T32UMD_{date}T102559_B02_10m.jp2", stored)
    index = index_of(tmp_path)
    for tile in (0, 1):
        valid = read_all(index, tile)[1]
        assert not valid[0, 0]
        assert valid.sum() == 15


def test_the_metadata_of_a_renamed_product_tells_its_baseline(tmp_path):
    renamed = safe(tmp_path).rename(tmp_path / "my_scene.SAFE")
    text = "<PROCESSING_BASELINE>02.14</PROCESSING_BASELINE>"
    (renamed / "MTD_MSIL2A.xml").write_text(text)
    assert {b.offset for b in index_of(renamed).bands} == {0.0}


def test_an_unknown_baseline_is_refused_until_the_offset_is_declared(tmp_path):
    write(tmp_path / f"{TILE}_B02_10m.jp2", numbers())
    with pytest.raises(BandError) as error:
        index_of(tmp_path)
    for part in (f"{TILE}_B02_10m.jp2", "data.offset: -0.1", "data.offset: 0.0", "baseline"):
        assert part in str(error.value)
    assert index_of(tmp_path, offset=-0.1).bands[0].offset == -0.1
    assert index_of(tmp_path, offset=0.0).bands[0].offset == 0.0
    assert index_of(tmp_path, offset=0.0).bands[0].scale == 0.0001


def test_choosing_bands_opens_their_files_alone(tmp_path):
    root = safe(tmp_path)
    (broken,) = root.rglob("*_B05_20m.jp2")
    broken.write_bytes(b"no picture")
    with pytest.raises(SourceError, match="B05_20m"):
        index_of(root)
    index = index_of(root, bands=("red", "B02"))
    assert band_names(index) == ["B04", "B02"]
    pixels, _ = read_all(index)
    assert pixels[:, 5, 7].tolist() == [4000 + 5 * 24 + 7, 2000 + 5 * 24 + 7]


# Grids


LAYOUT = """
description: Bands of two sizes.
files: '(?P<band>fine|coarse|other)\\.tif$'
example: a_fine.tif
bands: [{name: fine}, {name: coarse}]
"""


@pytest.fixture
def two_grids(tmp_path):
    """A scene with a fine band of 10 m and a coarse one of 20 m that starts 20 m further in."""
    (tmp_path / "dataset.yaml").write_text(LAYOUT)
    fine, coarse = numbers(8, 8), numbers(3, 3, start=100)
    write(tmp_path / "a_fine.tif", fine)
    write(tmp_path / "a_coarse.tif", coarse, pixel_m=20.0, left=LEFT + 20, top=TOP - 20)
    return tmp_path


def test_grids_that_differ_are_refused_until_grid_and_method_are_declared(two_grids):
    with pytest.raises(BandError) as error:
        index_of(two_grids)
    text = str(error.value)
    assert "a_fine.tif has 8 x 8 px of 10 x 10 from (500000, 5400000) in EPSG:32632" in text
    assert "a_coarse.tif has 3 x 3 px of 20 x 20 from (500020, 5399980) in EPSG:32632" in text
    assert "data.grid" in text
    assert "data.resampling" in text
    with pytest.raises(BandError, match=r"data\.resampling"):
        index_of(two_grids, grid="finest")


@pytest.mark.parametrize("grid", ["finest", "fine"])
def test_coarse_bands_come_to_the_finest_grid(two_grids, grid):
    index = index_of(two_grids, grid=grid, resampling="nearest")
    pixels, valid = read_all(index)
    np.testing.assert_array_equal(pixels[0], numbers(8, 8))
    expected = np.kron(numbers(3, 3, start=100), np.ones((2, 2), int))
    np.testing.assert_array_equal(pixels[1, 2:, 2:], expected)
    # Where the coarse band has no pixel, nothing is valid.
    covered = np.zeros((8, 8), bool)
    covered[2:, 2:] = True
    np.testing.assert_array_equal(valid, covered)


@pytest.mark.parametrize("grid", ["coarsest", "coarse"])
def test_fine_bands_come_to_the_coarsest_grid(two_grids, grid):
    index = index_of(two_grids, grid=grid, resampling="average")
    pixels, valid = read_all(index)
    assert index.tiles[0].gsd_m == pytest.approx((20, 20), rel=1e-3)
    # Means of 2 x 2 fine pixels from row and column 2 on: 1 + 18 + (0 + 1 + 8 + 9) / 4 = 23.5;
    # halves are rounded to the even neighbour.
    assert pixels[0, 0].tolist() == [24, 26, 28]
    np.testing.assert_array_equal(pixels[1], numbers(3, 3, start=100))
    assert valid.all()


def test_a_grid_that_no_band_has_is_refused_with_the_nearest_name(two_grids):
    with pytest.raises(BandError, match=r"data\.grid: .* no band 'fien'\. Did you mean 'fine'\?"):
        index_of(two_grids, grid="fien", resampling="nearest")


def test_the_bands_that_agree_can_be_chosen_instead(two_grids):
    assert index_of(two_grids, bands=("coarse",)).tiles[0].width == 3


def test_bands_in_two_reference_systems_are_never_reprojected(tmp_path):
    (tmp_path / "dataset.yaml").write_text(LAYOUT)
    write(tmp_path / "a_fine.tif", numbers())
    write(tmp_path / "a_coarse.tif", numbers(), crs="EPSG:32633")
    for declared in ({}, {"grid": "finest", "resampling": "bilinear"}):
        with pytest.raises(BandError, match=r"Nothing is reprojected: warp one of them") as error:
            index_of(tmp_path, **declared)
        assert "EPSG:32632" in str(error.value)
        assert "EPSG:32633" in str(error.value)


def test_bands_whose_axes_point_elsewhere_are_never_turned(tmp_path):
    (tmp_path / "dataset.yaml").write_text(LAYOUT)
    write(tmp_path / "a_fine.tif", numbers())
    write(tmp_path / "a_coarse.tif", numbers(), transform=Affine(10, 0, LEFT, 0, 10, TOP - 80))
    with pytest.raises(BandError, match="Nothing is reprojected: warp one of them"):
        index_of(tmp_path, grid="finest", resampling="bilinear")


def test_corners_that_differ_in_the_last_decimals_are_one_grid(tmp_path):
    (tmp_path / "dataset.yaml").write_text(LAYOUT)
    write(tmp_path / "a_fine.tif", numbers())
    write(tmp_path / "a_coarse.tif", numbers(start=200), left=LEFT + 1e-6)
    index = index_of(tmp_path)
    assert index.tiles[0].resampling is None
    assert read_all(index)[0][:, 0, 0].tolist() == [1, 200]


def test_one_scene_that_does_not_fit_is_bad_beside_others_that_do(two_grids):
    write(two_grids / "b_fine.tif", numbers())
    write(two_grids / "b_coarse.tif", numbers())
    index = index_of(two_grids)
    assert [tile.path for tile in index.tiles] == [f"{two_grids}/b"]
    ((name, why),) = index.bad
    assert name == f"{two_grids}/a"
    assert "lie on different grids" in why
    with pytest.raises(SourceError, match="1 of 2 files"):
        index_of(two_grids, strict=True)


def test_any_window_of_a_resampled_scene_has_the_bits_of_the_whole(tmp_path):
    index = index_of(safe(tmp_path))
    whole, valid = read_all(index)
    with HandlePool() as pool:
        reader = TileReader(index, pool)
        for window in (Window(0, 0, 7, 9), Window(3, 5, 1, 1), Window(13, 1, 11, 23)):
            part, kept = reader(0, window)
            assert part.tobytes() == np.ascontiguousarray(whole[(..., *window.slices)]).tobytes()
            np.testing.assert_array_equal(kept, valid[window.slices])


# Quality layers


MASKED = """
description: A band and its mask.
files: '(?P<band>img|mask)\\.tif$'
example: a_img.tif
bands: [{name: img}]
quality:
  file: mask
  classes: {encoding: values, classes: {cloud: 1, smoke: 2}}
  mask: [cloud]
"""


def test_classes_are_masked_as_the_descriptor_or_the_user_says(tmp_path):
    (tmp_path / "dataset.yaml").write_text(MASKED)
    write(tmp_path / "a_img.tif", numbers(2, 3))
    write(tmp_path / "a_mask.tif", np.array([[0, 1, 2], [3, 1, 0]], np.uint8))

    def kept(**declared):
        return read_all(index_of(tmp_path, **declared))[1].ravel().tolist()

    assert kept() == [True, False, True, True, False, True]
    assert kept(mask=("smoke",)) == [True, True, False, True, True, True]
    assert kept(mask=("smoke", "cloud")) == [True, False, False, True, False, True]
    assert all(kept(mask=()))
    with pytest.raises(BandError, match=r"no class 'smok'\. Did you mean 'smoke'"):
        kept(mask=("smok",))


def test_a_scene_without_its_layer_is_said_to_be_unmasked_and_refused_if_masks_are_asked_for(
    tmp_path,
):
    (tmp_path / "dataset.yaml").write_text(MASKED)
    for scene in "ab":
        write(tmp_path / f"{scene}_img.tif", numbers())
    write(tmp_path / "a_mask.tif", np.ones((8, 8), np.uint8))
    index = index_of(tmp_path)
    assert "1 of 2 scenes have no quality layer: nothing is masked there" in index.notes
    assert read_all(index, 1)[1].all()
    with pytest.raises(BandError, match=r"data\.mask asks for cloud, but .*/b has no quality"):
        index_of(tmp_path, mask=("cloud",))


def test_pixels_that_the_layer_does_not_cover_were_judged_by_nobody(tmp_path):
    (tmp_path / "dataset.yaml").write_text(MASKED)
    write(tmp_path / "a_img.tif", numbers(8, 8))
    layer = np.zeros((2, 2), np.uint8)
    layer[0, 1] = 1
    write(tmp_path / "a_mask.tif", layer, pixel_m=30.0)
    expected = np.zeros((8, 8), bool)
    expected[:6, :6] = True
    expected[:3, 3:6] = False
    np.testing.assert_array_equal(read_all(index_of(tmp_path))[1], expected)


@pytest.mark.parametrize(
    ("layer", "said"),
    [
        ({"crs": "EPSG:32633"}, "does not lie on the grid"),
        ({"bands": 0}, r"has 1 band\(s\); the quality layer needs band 2"),
    ],
)
def test_a_layer_that_does_not_fit_makes_its_scene_bad(tmp_path, layer, said):
    text = MASKED.replace("file: mask", "file: mask\n  number: 2") if "bands" in layer else MASKED
    (tmp_path / "dataset.yaml").write_text(text)
    write(tmp_path / "a_img.tif", numbers())
    where = {k: v for k, v in layer.items() if k != "bands"}
    write(tmp_path / "a_mask.tif", np.zeros((8, 8), np.uint8), **where)
    with pytest.raises(BandError, match=said):
        index_of(tmp_path)


def test_a_layer_that_cannot_be_opened_never_leaves_its_scene_unmasked(tmp_path):
    (tmp_path / "dataset.yaml").write_text(MASKED)
    for scene in "ab":
        write(tmp_path / f"{scene}_img.tif", numbers())
        write(tmp_path / f"{scene}_mask.tif", np.zeros((8, 8), np.uint8))
    (tmp_path / "a_mask.tif").write_bytes(b"")
    index = index_of(tmp_path)
    assert [tile.path for tile in index.tiles] == [f"{tmp_path}/b"]
    assert "a_mask.tif cannot be read: it is empty" in index.bad[0][1]


def test_the_layer_may_be_a_band_of_the_image(tmp_path):
    (tmp_path / "dataset.yaml").write_text(
        "description: Two bands and their classes in one file.\n"
        "files: '\\.tif$'\nexample: a.tif\nbands: [{name: a}, {name: b}]\n"
        "quality: {number: 3, classes: scl, mask: [cloud_high]}\n"
    )
    classes = np.full((8, 8), 4, np.uint16)
    classes[2, 3] = 9
    write(tmp_path / "x.tif", np.stack([numbers(), numbers(start=99), classes]))
    index = index_of(tmp_path)
    assert band_names(index) == ["a", "b"]
    pixels, valid = read_all(index)
    assert pixels.shape == (2, 8, 8)
    assert np.argwhere(~valid).tolist() == [[2, 3]]


# Files that have fewer bands, and dates


def test_a_file_with_fewer_bands_than_declared_makes_its_scene_bad(tmp_path):
    (tmp_path / "dataset.yaml").write_text(
        "description: Three bands a file.\nfiles: '\\.tif$'\nexample: a.tif\n"
        "bands: [{name: a}, {name: b}, {name: c}]\n"
    )
    write(tmp_path / "full.tif", np.stack([numbers()] * 3))
    write(tmp_path / "poor.tif", np.stack([numbers()] * 2))
    index = index_of(tmp_path)
    assert len(index.tiles) == 1
    assert "poor.tif has 2 band(s), but band c is declared to be number 3" in index.bad[0][1]


def test_dates_come_from_names_before_tags(tmp_path):
    (tmp_path / "dataset.yaml").write_text(
        "description: Dated.\nfiles: '(?P<date>\\d{8})?x\\.tif$'\nexample: 20200101x.tif\n"
        "date_format: '%Y%m%d'\nbands: [{name: a}]\n"
    )
    for name in ("20200202x.tif", "x.tif"):
        with rasterio.open(write(tmp_path / name, numbers()), "r+") as out:
            out.update_tags(TIFFTAG_DATETIME="2022:03:04 05:06:07")
    first, second = index_of(tmp_path).tiles
    assert (first.datetime, first.datetime_from) == ("2020-02-02T00:00:00+00:00", "file name")
    assert (second.datetime, second.datetime_from) == ("2022-03-04T05:06:07", "tiff tag")


# Real pixels


def test_nineteen_landsat_scenes_of_new_york_are_recognised_and_read(shared_data):
    index = index_of(shared_data / "timeseries/landsat8_ny_2018")
    assert len(index.tiles) == 19
    assert not index.bad
    assert band_names(index) == ["B2", "B3", "B4", "B5"]
    assert [b.common_name for b in index.bands] == ["blue", "green", "red", "nir08"]
    whens = sorted(tile.datetime[:10] for tile in index.tiles)
    assert (whens[0], whens[-1]) == ("2018-01-06", "2018-12-17")
    assert {tile.datetime_from for tile in index.tiles} == {"file name"}
    # Origin and size differ between dates, never within one.
    assert len({tile.grid for tile in index.tiles}) > 3
    assert {tile.resampling for tile in index.tiles} == {None}
    for number, tile in enumerate(index.tiles):
        pixels, valid = read_all(index, number)
        with HandlePool() as pool:
            layer = read_bits(pool, tile)
        # Fill (bit 0), cloud (bit 4), and the black collar.
        expected = (pixels != 0).all(axis=0) & (layer & 0b10001 == 0)
        np.testing.assert_array_equal(valid, expected)
        assert 0 < valid.mean() < 1


def read_bits(pool, tile):
    return pool.get(tile.quality.part.info.path).dataset.read(1)
