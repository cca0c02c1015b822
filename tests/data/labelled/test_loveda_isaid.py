"""LoveDA and iSAID as they are unpacked: what masks mean, and what a patch is."""

import numpy as np
import pytest
from PIL import Image

from geodino.data.labelled import isaid
from geodino.data.labelled.isaid import IsaidSet, cut, starts
from geodino.data.labelled.loveda import LovedaSet, is_loveda, write_submission
from geodino.data.labelled.sets import IGNORED, LabelledSet
from geodino.errors import SourceError
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool


@pytest.fixture
def pool():
    with HandlePool() as pool:
        yield pool


def png(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def loveda(root):
    for part, region, number in (
        ("Train", "Urban", 10),
        ("Train", "Rural", 2),
        ("Val", "Rural", 7),
    ):
        image = np.full((8, 8, 3), number, np.uint8)
        png(root / part / region / "images_png" / f"{number}.png", image)
        mask = np.arange(64, dtype=np.uint8).reshape(8, 8) % 8
        png(root / part / region / "masks_png" / f"{number}.png", mask)
    png(root / "Test" / "Urban" / "images_png" / "9.png", np.zeros((8, 8, 3), np.uint8))
    return root


def test_loveda_counts_its_classes_from_one_and_zero_is_no_data(tmp_path, pool):
    found = LovedaSet(loveda(tmp_path), pool=pool)
    assert isinstance(found, LabelledSet)
    assert found.parts["train"] == ("train/Urban/10", "train/Rural/2")
    assert found.traits("val/Rural/7") == {"region": "Rural"}
    label = found.label("train/Urban/10", Window(0, 0, 1, 8))
    np.testing.assert_array_equal(label, [[IGNORED, 0, 1, 2, 3, 4, 5, 6]])
    pixels, valid = found.image("train/Urban/10")
    assert pixels.shape == (3, 8, 8)
    assert valid.all()


def test_loveda_may_lie_a_folder_deeper_as_its_archives_unpack(tmp_path, pool):
    loveda(tmp_path / "flat")
    for part in ("Train", "Val", "Test"):
        (tmp_path / "deep" / part).mkdir(parents=True)
        (tmp_path / "flat" / part).rename(tmp_path / "deep" / part / part)
    images = tmp_path / "deep" / "Train" / "Train" / "Urban" / "images_png"
    (images / "._10.png").write_bytes(b"\0\5\x16\7")  # as a Mac packs
    assert is_loveda(tmp_path / "deep")
    found = LovedaSet(tmp_path / "deep", pool=pool)
    assert found.parts["train"] == ("train/Urban/10", "train/Rural/2")
    assert found.label("train/Urban/10").shape == found.size("train/Urban/10") == (8, 8)
    assert found.size("val/Rural/7") == (8, 8)


def test_the_labels_of_lovedas_test_part_are_hidden(tmp_path, pool):
    with pytest.raises(SourceError, match="not public"):
        LovedaSet(loveda(tmp_path), pool=pool).label("test/Urban/9")


def test_a_mask_of_loveda_with_an_unknown_number_is_named(tmp_path, pool):
    root = loveda(tmp_path)
    png(root / "Val" / "Rural" / "masks_png" / "7.png", np.full((8, 8), 9, np.uint8))
    with pytest.raises(SourceError, match=r"7\.png holds 9, which labels\.classes does not name"):
        LovedaSet(root, pool=pool).label("val/Rural/7")


def test_a_submission_has_the_images_name_and_counts_from_zero(tmp_path):
    classes = np.zeros((1024, 1024), np.uint8)
    classes[5, 6] = 6
    path = write_submission(tmp_path / "sent", "test/Urban/4191", classes)
    assert path.name == "4191.png"
    np.testing.assert_array_equal(np.asarray(Image.open(path)), classes)
    classes[0, 0] = IGNORED
    with pytest.raises(SourceError, match="values up to 255"):
        write_submission(tmp_path, "test/Urban/4191", classes)


def test_the_fingerprint_changes_with_a_mask(tmp_path, pool):
    root = loveda(tmp_path)
    before = LovedaSet(root, pool=pool).fingerprint
    png(root / "Val" / "Rural" / "masks_png" / "7.png", np.ones((8, 8), np.uint8))
    assert LovedaSet(root, pool=pool).fingerprint != before


@pytest.mark.parametrize(
    ("length", "expected"),
    [(100, (0,)), (896, (0,)), (897, (0, 1)), (1408, (0, 512)), (1409, (0, 512, 513))],
)
def test_patches_share_384_pixels_and_the_last_one_is_moved_back_inside(length, expected):
    assert starts(length) == expected
    assert all(at + 896 <= max(length, 896) for at in expected)


@pytest.fixture
def small(monkeypatch):
    """Patches of 8 pixels that share 3."""
    monkeypatch.setattr(isaid, "SIDE", 8)
    monkeypatch.setattr(isaid, "OVERLAP", 3)


def photographs(root):
    """A photograph whose pixels know their place, with a ship and a harbor, and a small grey one."""
    rows, columns = np.mgrid[:12, :8].astype(np.uint8)
    png(root / "train/images/P0_1.png", np.stack([rows, columns, rows], axis=-1))
    mask = np.zeros((12, 8, 3), np.uint8)
    mask[9:, :] = (0, 0, 63)
    mask[0, 0] = (0, 100, 155)
    png(root / "train/Semantic_masks/images/P0_1_instance_color_RGB.png", mask)
    png(root / "val/images/P2.png", np.full((5, 6), 40, np.uint8))
    png(root / "val/Semantic_masks/images/P2_instance_color_RGB.png", np.zeros((5, 6, 3), np.uint8))
    return root


def test_a_patch_is_a_window_of_the_photograph_and_its_colours_are_classes(tmp_path, pool, small):
    found = IsaidSet(photographs(tmp_path), pool=pool)
    assert found.parts["train"] == ("train/P0_1/0_0", "train/P0_1/4_0")
    pixels, valid = found.image("train/P0_1/4_0")
    assert pixels[0, 0, 0] == 4
    assert valid.all()
    label = found.label("train/P0_1/4_0")
    assert (label[5:] == 1).all()
    assert found.label("train/P0_1/0_0")[0, 0] == 15
    np.testing.assert_array_equal(
        found.image("train/P0_1/4_0", Window(2, 3, 2, 2))[0][:2, 0, 0], [6, 3]
    )


def test_beyond_a_small_photograph_nothing_counts(tmp_path, pool, small):
    found = IsaidSet(photographs(tmp_path), pool=pool)
    (key,) = found.parts["val"]
    assert found.size(key) == (8, 8)
    pixels, valid = found.image(key)
    assert (pixels[:, :5, :6] == 40).all()
    assert valid.sum() == 3 * 30
    assert (found.label(key) == IGNORED).sum() == 64 - 30
    assert (found.label(key, Window(6, 0, 2, 8)) == IGNORED).all()


def test_cut_patches_are_read_as_those_they_were_cut_from(tmp_path, pool, small):
    found = IsaidSet(photographs(tmp_path / "whole"), pool=pool)
    assert cut(found, tmp_path / "cut") == 3
    again = IsaidSet(tmp_path / "cut", pool=pool)
    assert again.parts["train"] == ("train/P0_1_0_0/0_0", "train/P0_1_4_0/0_0")
    for before, after in zip(found.parts["train"], again.parts["train"], strict=True):
        np.testing.assert_array_equal(found.label(before), again.label(after))
        np.testing.assert_array_equal(found.image(before)[0], again.image(after)[0])
    (last,) = again.parts["val"]
    assert (again.label(last) == IGNORED).sum() == 64 - 30


def test_a_colour_that_is_no_class_is_named(tmp_path, pool, small):
    root = photographs(tmp_path)
    png(
        root / "val/Semantic_masks/images/P2_instance_color_RGB.png",
        np.full((5, 6, 3), 7, np.uint8),
    )
    with pytest.raises(SourceError, match="#070707"):
        IsaidSet(root, pool=pool).label("val/P2/0_0")
