"""Canopy-height labels: units, range, pairing, and heights on the pixels of images."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from scene_support import LEFT, TOP, index_of, write

from geodino.data.labels.config import LabelsConfig
from geodino.data.labels.index import label_index
from geodino.data.labels.open import open_labels
from geodino.data.labels.pairs import pair
from geodino.data.labels.reader import LabelReader, onto_label_grid
from geodino.errors import BandError, SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool

IN_M = LabelsConfig(unit="m")


def heights(side=8, *, low=2.0, high=30.0, seed=0):
    return np.random.default_rng(seed).uniform(low, high, (side, side)).astype(np.float32)


def labels_of(src, **declared):
    return label_index(src, LabelsConfig(**declared), threads=1)


def read_image(labels, images, image=0, *, window=None, grid=None):
    order = labels.config.order
    target = grid or images.tiles[image].grid
    with HandlePool() as pool:
        reader = LabelReader(labels, pair(images, labels.tiles, order=order), images, pool)
        return reader(image, window or Window(0, 0, target.height, target.width), grid)


def image_at(path, side=8, *, pixel_m=10.0, **place):
    return index_of(write(path, np.full((side, side), 7, np.uint8), pixel_m=pixel_m, **place))


# Units


def test_an_undeclared_unit_is_refused_until_it_is_declared(tmp_path):
    write(tmp_path / "h.tif", heights())
    with pytest.raises(
        BandError, match=r"h\.tif does not say in which unit .* --set labels\.unit=m"
    ):
        labels_of(tmp_path)
    assert "as labels.unit declares" in labels_of(tmp_path, unit="m").notes[0]


@pytest.mark.parametrize(
    ("word", "factor"), [("m", 1.0), ("Metres", 1.0), ("dm", 0.1), ("cm", 0.01), ("ft", 0.3048)]
)
def test_the_unit_that_files_declare_is_taken(tmp_path, word, factor):
    stored = (heights() / factor).round().astype(np.uint16)
    image = image_at(tmp_path / "image.tif")
    write(tmp_path / "labels/h.tif", stored, unit=word)
    got, valid = read_image(labels_of(tmp_path / "labels"), image)
    assert valid.all()
    np.testing.assert_allclose(got, stored * factor, rtol=1e-6)


def test_an_unknown_word_for_a_unit_is_named(tmp_path):
    write(tmp_path / "h.tif", heights(), unit="fathom")
    with pytest.raises(BandError, match="calls its unit 'fathom'"):
        labels_of(tmp_path)


def test_files_in_two_units_are_read_in_metres(tmp_path):
    write(tmp_path / "labels/a.tif", np.full((8, 8), 1500, np.uint16), unit="cm")
    write(tmp_path / "labels/b.tif", np.full((8, 8), 20, np.uint16), unit="m", left=LEFT + 80)
    labels = labels_of(tmp_path / "labels")
    image = index_of(write(tmp_path / "i.tif", np.ones((8, 16), np.uint8)))
    got, _ = read_image(labels, image)
    assert np.unique(got[:, :8]).tolist() == [15.0]
    assert np.unique(got[:, 8:]).tolist() == [20.0]


def test_scale_and_offset_come_before_the_unit(tmp_path):
    # 0.5 * 300 + 10 = 160 dm = 16 m.
    write(tmp_path / "labels/h.tif", np.full((8, 8), 300, np.uint16), scale=0.5, offset=10.0)
    image = image_at(tmp_path / "i.tif")
    assert np.unique(read_image(labels_of(tmp_path / "labels", unit="dm"), image)[0]) == 16.0


def test_several_bands_need_a_choice(tmp_path):
    write(tmp_path / "h.tif", np.stack([heights(), heights()]), names=("chm", "dtm"))
    with pytest.raises(BandError, match=r"2 bands \(chm, dtm\).*labels\.band: chm"):
        labels_of(tmp_path, unit="m")
    assert labels_of(tmp_path, unit="m", band="chm").found.valid == 64
    with pytest.raises(BandError, match=r"(?s)no band 'chn'.*Change labels\.band"):
        labels_of(tmp_path, unit="m", band="chn")


# Range


@pytest.mark.parametrize(
    ("pixels", "unit", "message"),
    [
        (heights() * 10, "m", r"above 29\d m.*labels\.unit: dm.*accept: \[range\]"),
        (heights(high=25), "cm", r"all labels looked at are below 1 m.*labels\.unit: m"),
        (np.where(heights() > 25, -9999, heights()), "m", r"below -5 m \(lowest -9999 m.*nodata"),
        (heights() * 0, "m", "all labels looked at are below 1 m"),
    ],
)
def test_heights_that_cannot_be_true_are_refused_with_the_option_that_settles_it(
    tmp_path, pixels, unit, message
):
    write(tmp_path / "h.tif", pixels.astype(np.float32))
    with pytest.raises(BandError, match=f"(?s){message}"):
        labels_of(tmp_path, unit=unit)
    assert labels_of(tmp_path, unit=unit, accept=("range",)).tiles.tiles


def test_small_negatives_are_ground_and_what_is_out_of_range_is_invalid(tmp_path):
    pixels = heights(4)
    pixels[0] = [-0.5, -5.0, -6.0, 500.0]
    write(tmp_path / "labels/h.tif", pixels)
    labels = labels_of(tmp_path / "labels", unit="m", accept=("range",))
    got, valid = read_image(labels, image_at(tmp_path / "i.tif", 4))
    assert valid[0].tolist() == [True, True, False, False]
    assert got[0].tolist() == [0.0, 0.0, 0.0, 0.0]
    assert valid[1:].all()
    found = labels.found
    assert (found.negative, found.below, found.above, found.valid) == (2, 1, 1, 14)
    assert "2 between -5 and 0 m are read as 0; 2 out of range are invalid" in labels.notes[-1]


def test_nodata_is_invalid_and_zero_is_ground(tmp_path):
    pixels = heights(4)
    pixels[0] = [0.0, -3.4e38, np.nan, 0.0]
    write(tmp_path / "labels/h.tif", pixels, nodata=-3.3999999521443642e38)
    got, valid = read_image(
        labels_of(tmp_path / "labels", unit="m"), image_at(tmp_path / "i.tif", 4)
    )
    assert valid[0].tolist() == [True, False, False, True]
    assert got[0].tolist() == [0.0, 0.0, 0.0, 0.0]


def test_labels_without_a_valid_pixel_are_refused(tmp_path):
    write(tmp_path / "h.tif", np.full((4, 4), -9999, np.int16), nodata=-9999)
    with pytest.raises(SourceError, match="none of the 16 label pixels is valid"):
        labels_of(tmp_path, unit="m")


def test_a_damaged_label_is_left_out_and_told(tmp_path):
    write(tmp_path / "a.tif", heights(64), compress="deflate")
    broken = write(tmp_path / "b.tif", heights(64), compress="deflate")
    content = bytearray(broken.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = bytes(400)
    broken.write_bytes(content)
    labels = labels_of(tmp_path, unit="m")
    assert [tile.path[-5:] for tile in labels.tiles.tiles] == ["a.tif"]
    assert len(labels.to_m) == 1
    assert any("1 label files cannot be used" in note and "b.tif" in note for note in labels.notes)
    with pytest.raises(SourceError, match=r"b\.tif is damaged"):
        labels_of(tmp_path, unit="m", strict=True)


# Pairing


def test_labels_that_meet_no_image_are_refused_with_both_extents(tmp_path):
    image = image_at(tmp_path / "i.tif")
    write(tmp_path / "labels/h.tif", heights(), left=LEFT + 10_000)
    labels = labels_of(tmp_path / "labels", unit="m")
    with pytest.raises(
        SourceError,
        match=r"None of the 1 labels lies on any of the 1 images.*9\.0000 to 9\.0011.*9\.13",
    ):
        pair(image, labels.tiles, order="path")


def test_neighbours_that_share_an_edge_are_no_pair_and_images_without_labels_are_counted(tmp_path):
    for i in range(3):
        write(tmp_path / f"images/{i}.tif", np.ones((8, 8), np.uint8), left=LEFT + 80 * i)
    for i in range(2):
        write(tmp_path / f"labels/{i}.tif", heights(), left=LEFT + 80 * i)
    write(tmp_path / "labels/far.tif", heights(), left=LEFT + 9000)
    labels = labels_of(tmp_path / "labels", unit="m")
    pairs = pair(index_of(tmp_path / "images"), labels.tiles, order="path")
    assert pairs.by_image == ((0,), (1,), ())
    assert pairs.labelled == (0, 1)
    assert pairs.notes[:2] == (
        "2 of 3 images have at least one label raster; 1 without are not used",
        "1 of 3 label rasters lie on no image",
    )
    assert "not known" in pairs.notes[2]


def dated(path, pixels, when, **place):
    write(path, pixels, **place)
    with rasterio.open(path, "r+") as out:
        out.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=when)


def test_the_label_closest_in_time_is_asked_first_and_gaps_are_told(tmp_path):
    dated(tmp_path / "i.tif", np.ones((8, 8), np.uint8), "2020-07-01")
    dated(tmp_path / "labels/a.tif", np.full((8, 8), 10, np.float32), "2010-07-01")
    dated(tmp_path / "labels/b.tif", np.full((8, 8), 20, np.float32), "2020-06-21")
    dated(tmp_path / "labels/c.tif", np.full((8, 8), 30, np.float32), "2023-07-01")
    write(tmp_path / "labels/d.tif", np.full((8, 8), 40, np.float32))
    image = index_of(tmp_path / "i.tif")
    for order, first in (("closest", 20), ("newest", 30), ("path", 10), ("finest", 10)):
        labels = labels_of(tmp_path / "labels", unit="m", order=order)
        assert np.unique(read_image(labels, image)[0]).tolist() == [first]
    pairs = pair(image, labels.tiles, order="closest")
    assert pairs.by_image == ((1, 2, 0, 3),)
    # 1,095 days to 2023, 10 days, and ten years with three leap days before: 3,653.
    assert sorted(pairs.gap_days) == [10.0, 1095.0, 3653.0]
    assert pairs.notes[-1].startswith(
        "labels were taken up to 3653 days from their image (median 1095); of 1 of 4 pairs"
    )


def test_the_first_valid_label_wins_pixel_by_pixel(tmp_path):
    first = np.full((8, 8), 10, np.float32)
    first[:4] = -1e4
    write(tmp_path / "labels/a.tif", first, nodata=-1e4)
    write(tmp_path / "labels/b.tif", np.full((8, 8), 20, np.float32), nodata=-1e4)
    got, valid = read_image(
        labels_of(tmp_path / "labels", unit="m", order="path"), image_at(tmp_path / "i.tif")
    )
    assert valid.all()
    assert np.unique(got[:4]).tolist() == [20.0]
    assert np.unique(got[4:]).tolist() == [10.0]


# Heights on images


def test_finer_labels_are_joined_and_coarser_ones_repeated(tmp_path):
    # The image's pixels are 10 m. Fine: 5 m, four in each pixel; coarse: 20 m.
    fine = heights(16)
    write(tmp_path / "fine/h.tif", fine, pixel_m=5.0)
    coarse = heights(4)
    write(tmp_path / "coarse/h.tif", coarse, pixel_m=20.0)
    image = image_at(tmp_path / "i.tif")
    by_four = fine.reshape(8, 2, 8, 2)
    got, _ = read_image(labels_of(tmp_path / "fine", unit="m"), image)
    np.testing.assert_array_equal(got, by_four.max(axis=(1, 3)))
    got, _ = read_image(labels_of(tmp_path / "fine", unit="m", statistic="mean"), image)
    np.testing.assert_allclose(got, by_four.mean(axis=(1, 3)), rtol=1e-6)
    got, _ = read_image(labels_of(tmp_path / "coarse", unit="m"), image)
    np.testing.assert_array_equal(got, coarse.repeat(2, 0).repeat(2, 1))


def test_a_coarser_working_grid_is_read_like_a_coarser_image(tmp_path):
    pixels = heights(16)
    write(tmp_path / "labels/h.tif", pixels)
    image = image_at(tmp_path / "i.tif", 16)
    grid = Grid("EPSG:32632", Affine(40, 0, LEFT, 0, -40, TOP), 4, 4)
    got, valid = read_image(labels_of(tmp_path / "labels", unit="m"), image, grid=grid)
    assert valid.all()
    np.testing.assert_array_equal(got, pixels.reshape(4, 4, 4, 4).max(axis=(1, 3)))


@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:4326", "EPSG:2154"])
def test_a_slope_read_across_crss_is_the_slope_at_the_pixels_places(tmp_path, crs):
    # Heights of the label are its own northing and easting, so a pixel tells where it was read.
    x, y = Transformer.from_crs("EPSG:32632", crs, always_xy=True).transform(LEFT, TOP)
    step = 2e-5 if crs == "EPSG:4326" else 2.0
    place = Affine(step, 0, x - 20 * step, 0, -step, y + 40 * step)
    down, across = np.mgrid[0:200, 0:200]
    image = image_at(tmp_path / "i.tif", 12, pixel_m=10.0)
    centres = LEFT + 10 * (np.arange(12) + 0.5), TOP - 10 * (np.arange(12) + 0.5)
    xs, ys = Transformer.from_crs("EPSG:32632", crs, always_xy=True).transform(
        *np.meshgrid(*centres)
    )
    for name, pixels, expected in (
        ("rows", down, (place.f - ys) / step),
        ("columns", across, (xs - place.c) / step),
    ):
        write(tmp_path / name / "h.tif", (pixels / 2).astype(np.float32), transform=place, crs=crs)
        labels = labels_of(tmp_path / name, unit="m", statistic="mean")
        got, valid = read_image(labels, image)
        assert valid.all()
        # Means over the dozens of label pixels in one of the image, whose centres are at halves.
        np.testing.assert_allclose(got, (expected - 0.5) / 2, atol=0.3)


@pytest.fixture(scope="module")
def across_zones(tmp_path_factory):
    """A reader of an image in zone 32 whose finer label lies in zone 31, with holes."""
    folder = tmp_path_factory.mktemp("zones")
    x, y = Transformer.from_crs("EPSG:32632", "EPSG:32631", always_xy=True).transform(LEFT, TOP)
    pixels = np.where(heights(60) > 25, -1, heights(60)).astype(np.float32)
    write(
        folder / "labels/h.tif", pixels, pixel_m=3.0, left=x + 11, top=y + 17, crs="EPSG:32631",
        nodata=-1,
    )  # fmt: skip
    labels, image = labels_of(folder / "labels", unit="m"), image_at(folder / "i.tif", 16)
    with HandlePool() as pool:
        yield LabelReader(labels, pair(image, labels.tiles, order="path"), image, pool)


@settings(max_examples=15)
@given(data=st.data())
def test_windows_of_an_image_have_the_same_heights_however_they_are_cut(across_zones, data):
    whole, valid = across_zones(0, Window(0, 0, 16, 16))
    assert 0 < valid.sum() < valid.size
    top, left = data.draw(st.integers(0, 15)), data.draw(st.integers(0, 15))
    window = Window(
        top, left, data.draw(st.integers(1, 16 - top)), data.draw(st.integers(1, 16 - left))
    )
    got, kept = across_zones(0, window)
    assert got.tobytes() == np.ascontiguousarray(whole[window.slices]).tobytes()
    np.testing.assert_array_equal(kept, valid[window.slices])


def test_predictions_go_back_to_the_grid_of_the_label():
    values = np.arange(16.0, dtype=np.float32).reshape(4, 4)
    fine = Grid("EPSG:32632", Affine(1, 0, LEFT, 0, -1, TOP), 4, 4)
    coarse = Grid("EPSG:32632", Affine(2, 0, LEFT, 0, -2, TOP), 2, 2)
    valid = np.ones((4, 4), dtype=bool)
    valid[2:, 2:] = [[False, False], [False, True]]
    got, kept = onto_label_grid(
        values, valid, grid_of_values=fine, label_grid=coarse, window=Window(0, 0, 2, 2),
        statistic="mean",
    )  # fmt: skip
    assert kept.tolist() == [[True, True], [True, False]]
    assert got.tolist() == [[2.5, 4.5], [10.5, 0.0]]
    with pytest.raises(ValueError, match="their grid"):
        onto_label_grid(
            values[:2], valid[:2], grid_of_values=fine, label_grid=coarse,
            window=Window(0, 0, 2, 2), statistic="mean",
        )  # fmt: skip


def test_a_folder_of_rasters_is_opened_as_rasters(tmp_path):
    write(tmp_path / "h.tif", heights())
    assert open_labels(tmp_path, IN_M, threads=1).tiles.tiles
