import numpy as np
import pytest
from boxes_support import picture
from PIL import Image

from geodino.data.config import DataConfig
from geodino.data.labelled.boxes import BoxLabelsConfig
from geodino.data.labelled.dota import CLASSES, is_dota, open_dota
from geodino.data.labelled.open_boxes import layout_of, open_boxes
from geodino.data.labelled.sets import LabelledSet
from geodino.data.splits import SplitConfig
from geodino.errors import RecipeError, SourceError
from geodino.io.raster import HandlePool

HEAD = "imagesource:GoogleEarth\ngsd:0.146343590398\n"
PLANE = "10.0 5.0 30.0 8.0 28.0 25.0 9.0 22.0 plane 0\n"
"""Turned: x from 9 to 30, y from 5 to 25."""


@pytest.fixture
def pool():
    with HandlePool() as made:
        yield made


def make_dota(root, *, labels="labelTxt", parts=("train", "val"), count=1):
    for part in parts:
        for number in range(count):
            name = f"P{number:04d}"
            picture(root / part / "images" / f"{name}.png")
            text = root / part / labels / f"{name}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(HEAD + PLANE + "50 30 70 30 70 38 50 38 ship 1\n")
    return root


@pytest.mark.parametrize(
    "labels",
    [
        "labelTxt", "labelTxt-v1.0/labelTxt", "labelTxt-v1.5/DOTA-v1.5_train",
        "annotations/version1.0", "annfiles",
    ],
)  # fmt: skip
def test_corners_become_the_upright_box_around_them_in_every_layout(tmp_path, pool, labels):
    root = make_dota(tmp_path, labels=labels)
    (root / "train" / "images" / "._P0000.png").write_bytes(b"\0\5\x16\7")  # as a Mac packs
    assert is_dota(root)
    found = open_dota(root, root, pool=pool)
    assert isinstance(found, LabelledSet)
    assert found.parts == {"train": ("train/P0000.png",), "val": ("val/P0000.png",)}
    label = found.label("val/P0000.png")
    assert label.xyxy.tolist() == [[9, 5, 30, 25], [50, 30, 60, 38]]  # the ship is clipped
    assert [CLASSES[i] for i in label.classes] == ["plane", "ship"]
    assert label.difficult.tolist() == [False, True]
    assert found.facts.classes == CLASSES
    assert any("upright boxes around them" in note for note in found.facts.notes)


def test_photographs_of_a_test_part_need_no_labels_and_others_do(tmp_path, pool):
    make_dota(tmp_path)
    picture(tmp_path / "test" / "images" / "P0009.png")
    found = open_dota(tmp_path, tmp_path, pool=pool)
    assert found.unlabelled == {"test"}
    assert found.image("test/P0009.png")[0].shape == (3, 40, 60)
    (tmp_path / "test" / "labelTxt").mkdir()
    (tmp_path / "test" / "labelTxt" / "P0010.txt").write_text("acquisition dates:None\n" + HEAD)
    with pytest.raises(SourceError, match=r"P0009\.png has no text file of its name"):
        open_dota(tmp_path, tmp_path, pool=pool)
    picture(tmp_path / "test" / "images" / "P0010.png")
    (tmp_path / "test" / "labelTxt" / "P0009.txt").write_text(HEAD + PLANE)
    assert len(open_dota(tmp_path, tmp_path, pool=pool).label("test/P0009.png")) == 1
    picture(tmp_path / "val" / "images" / "P0008.png")
    with pytest.raises(SourceError, match=r"P0008\.png has no text file of its name"):
        open_dota(tmp_path, tmp_path, pool=pool)


def test_a_set_without_photographs_to_learn_from_is_one_sentence(tmp_path, pool):
    root = make_dota(tmp_path, parts=("val",))
    with pytest.raises(SourceError, match="photographs of val and none to learn from"):
        opened(root, root, pool)


def test_classes_of_later_versions_are_there_where_they_occur(tmp_path, pool):
    make_dota(tmp_path)
    text = tmp_path / "train" / "labelTxt" / "P0000.txt"
    text.write_text("1 1 5 1 5 5 1 5 helipad 0\n1 1 5 1 5 5 1 5 container-crane\n")
    found = open_dota(tmp_path, tmp_path, pool=pool)
    assert found.facts.classes == (*CLASSES, "container-crane", "helipad")
    assert found.label("train/P0000.png").classes.tolist() == [16, 15]
    asked = open_dota(tmp_path, tmp_path, pool=pool, classes=["helipad"], other="ignore")
    assert asked.label("train/P0000.png").classes.tolist() == [0]
    assert len(asked.label("val/P0000.png")) == 0
    with pytest.raises(SourceError, match="'container-crane' is not one of the classes helipad"):
        open_dota(tmp_path, tmp_path, pool=pool, classes=["helipad"])


@pytest.mark.parametrize(
    "line", ["1 1 5 1 5 5 1 5", "1 1 5 1 5 5 1 x ship 0", "1 1 5 1 5 5 1 5 ship hard"]
)
def test_a_line_that_is_no_object_is_named(tmp_path, pool, line):
    make_dota(tmp_path)
    (tmp_path / "train" / "labelTxt" / "P0000.txt").write_text(HEAD + line)
    with pytest.raises(SourceError, match=r"P0000\.txt: '.*' is no object of DOTA"):
        open_dota(tmp_path, tmp_path, pool=pool)


def test_grey_photographs_are_red_green_and_blue_alike(tmp_path, pool):
    make_dota(tmp_path)
    path = tmp_path / "train" / "images" / "P0000.png"
    grey = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60)
    Image.fromarray(grey).save(path)
    pixels, valid = open_dota(tmp_path, tmp_path, pool=pool).image("train/P0000.png")
    np.testing.assert_array_equal(pixels, np.stack([grey] * 3))
    assert valid.all()


def opened(images, labels, pool, *, split=None):
    return open_boxes(
        str(images), str(labels), config=BoxLabelsConfig(), data=DataConfig(), split=split,
        split_config=SplitConfig(), pool=pool,
    )  # fmt: skip


def test_a_folder_of_images_and_one_of_text_files_are_divided_by_chance_or_by_a_list(
    tmp_path, pool
):
    make_dota(tmp_path, parts=("train",), count=10)
    images, labels = tmp_path / "train" / "images", tmp_path / "train" / "labelTxt"
    assert layout_of(str(images), str(labels), BoxLabelsConfig()) == "dota"
    found = opened(images, labels, pool)
    assert {part: len(keys) > 0 for part, keys in found.set.parts.items()} == {
        "train": True, "val": True, "test": True,
    }  # fmt: skip
    split = tmp_path / "split.csv"
    rows = [f"P{i:04d}.png,{'val' if i > 7 else 'train'}" for i in range(10)]
    split.write_text("\n".join(["image,split", *rows]) + "\n")
    chosen = opened(images, labels, pool, split=str(split)).set
    assert len(chosen.parts["train"]) == 8
    assert chosen.label("val/P0009.png").classes.tolist() == [0, 1]


def test_parts_of_the_set_are_its_own(tmp_path, pool):
    root = make_dota(tmp_path)
    assert opened(root, root, pool).layout == "dota"
    with pytest.raises(RecipeError, match="parts of its own: leave --split out"):
        opened(root, root, pool, split="any.csv")
