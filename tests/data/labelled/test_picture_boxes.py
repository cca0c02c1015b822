import csv
import json
import math

import numpy as np
import pytest
from boxes_support import coco_json, make_dior, picture, voc_xml
from PIL import Image

from geodino.data.labelled.boxes import BoxCounts, checked, in_window, made_boxes
from geodino.data.labelled.coco import open_coco
from geodino.data.labelled.dior import CLASSES, is_dior, open_dior
from geodino.data.labelled.sets import LabelledSet
from geodino.errors import SourceError
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool


@pytest.fixture
def pool():
    with HandlePool() as made:
        yield made


def test_dior_as_its_authors_pack_it(tmp_path, pool):
    found = open_dior(make_dior(tmp_path), pool=pool)
    assert is_dior(tmp_path)
    assert isinstance(found, LabelledSet)
    assert found.parts == {
        "train": ("train/00001", "train/00002"), "val": ("val/00003",), "test": ("test/00004",),
    }  # fmt: skip
    label = found.label("train/00001")
    assert label.xyxy.tolist() == [[10, 5, 30, 25], [40, 30, 55, 38]]
    assert [CLASSES[i] for i in label.classes] == ["expresswayservicearea", "ship"]
    assert label.difficult.tolist() == [False, True]
    assert len(found.label("train/00002")) == 0
    pixels, valid = found.image("train/00001", Window(0, 0, 4, 6))
    assert pixels.shape == (3, 4, 6)
    assert valid.all()
    assert found.size("val/00003") == (40, 60)
    assert "6 boxes" in found.facts.notes


def test_dior_without_lists_has_nothing_to_validate_on(tmp_path, pool):
    found = open_dior(make_dior(tmp_path, lists=False), pool=pool)
    assert set(found.parts) == {"train", "test"}
    assert len(found.parts["train"]) == 3


def test_dior_as_torchgeo_packs_it_has_no_labels_to_test_with(tmp_path, pool):
    rows = []
    for part, folder, stem in (
        ("train", "trainval", "000000"), ("val", "trainval", "000001"), ("test", "test", "000002"),
    ):  # fmt: skip
        picture(tmp_path / "Images" / folder / f"{stem}.jpg")
        label = f"Annotations/trainval/{stem}.xml" if part != "test" else ""
        if label:
            voc_xml(tmp_path / label, [("dam", 1, 2, 30, 40)])
        rows.append(
            {"image_path": f"Images/{folder}/{stem}.jpg", "label_path": label, "split": part}
        )
    with (tmp_path / "sample_df.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, ["image_path", "label_path", "split"])
        writer.writeheader()
        writer.writerows(rows)
    found = open_dior(tmp_path, pool=pool)
    assert found.label("val/000001").xyxy.tolist() == [[1, 2, 30, 40]]
    assert found.unlabelled == {"test"}
    assert found.image("test/000002")[0].shape == (3, 40, 60)
    with pytest.raises(SourceError, match="has no labels here"):
        found.label("test/000002")


def test_turned_boxes_are_refused_or_become_upright_on_request(tmp_path, pool):
    make_dior(tmp_path, turned=True)
    with pytest.raises(SourceError, match=r"turned boxes.*turned: upright"):
        open_dior(tmp_path, pool=pool)
    found = open_dior(tmp_path, pool=pool, turned="upright")
    assert found.label("train/00001").xyxy[0].tolist() == [10, 5, 30, 25]


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        ([("shipp", 1, 1, 5, 5)], "Did you mean 'ship'"),
        ([("ship", 5, 1, 1, 5)], "box 1 is inverted"),
        ([("ship", "nan", 1, 5, 5)], "box 1 has a corner that is no number"),
        ([("ship", "left", 1, 5, 5)], "'left', and a number is needed"),
    ],
)
def test_a_label_that_cannot_be_used_is_refused_with_its_file(tmp_path, pool, objects, message):
    make_dior(tmp_path)
    voc_xml(tmp_path / "Annotations" / "Horizontal Bounding Boxes" / "00001.xml", objects)
    with pytest.raises(SourceError, match=rf"00001\.xml.*{message}"):
        open_dior(tmp_path, pool=pool)


def test_labels_that_declare_entities_are_refused(tmp_path, pool):
    make_dior(tmp_path)
    path = tmp_path / "Annotations" / "Horizontal Bounding Boxes" / "00001.xml"
    path.write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    with pytest.raises(SourceError, match="declares entities"):
        open_dior(tmp_path, pool=pool)
    # Another encoding does not hide them.
    path.write_bytes(
        ('<?xml version="1.0" encoding="utf-16"?>' + path.read_text()).encode("utf-16")
    )
    with pytest.raises(SourceError, match="declares entities"):
        open_dior(tmp_path, pool=pool)


def test_a_test_image_that_lost_its_label_is_named(tmp_path, pool):
    make_dior(tmp_path)
    picture(tmp_path / "JPEGImages-test" / "00005.jpg")
    (tmp_path / "ImageSets" / "Main" / "test.txt").write_text("00004\n00005\n")
    with pytest.raises(SourceError, match=r"00005\.jpg has no XML file, though other images"):
        open_dior(tmp_path, pool=pool)
    (tmp_path / "Annotations" / "Horizontal Bounding Boxes" / "00004.xml").unlink()
    assert open_dior(tmp_path, pool=pool).unlabelled == {"test"}


def test_dior_may_hold_its_xml_files_side_by_side_and_what_a_mac_adds(tmp_path, pool):
    make_dior(tmp_path, lists=False)
    for path in sorted((tmp_path / "Annotations" / "Horizontal Bounding Boxes").iterdir()):
        path.rename(tmp_path / "Annotations" / path.name)
    (tmp_path / "Annotations" / "._00001.xml").write_bytes(b"\0\5\x16\7")
    (tmp_path / "JPEGImages-trainval" / "._00001.jpg").write_bytes(b"\0\5\x16\7")
    path = tmp_path / "JPEGImages-trainval" / "00002.jpg"
    path.rename(path.with_suffix(".JPG"))
    found = open_dior(tmp_path, pool=pool)
    assert [key.rpartition("/")[2] for key in found.parts["train"]] == ["00001", "00002", "00003"]
    assert len(found.label("train/00001")) == 2


def test_an_image_of_another_size_than_its_label_says_is_refused(tmp_path, pool):
    make_dior(tmp_path)
    picture(tmp_path / "JPEGImages-trainval" / "00001.jpg", height=41)
    with pytest.raises(SourceError, match="41 x 60 px, its labels were made for 40 x 60"):
        open_dior(tmp_path, pool=pool).size("train/00001")


def test_the_fingerprint_tells_labels_apart(tmp_path, pool):
    before = open_dior(make_dior(tmp_path), pool=pool).fingerprint
    voc_xml(
        tmp_path / "Annotations" / "Horizontal Bounding Boxes" / "00001.xml", [("dam", 1, 1, 9, 9)]
    )
    assert open_dior(tmp_path, pool=pool).fingerprint != before


def test_a_folder_without_images_is_not_dior(tmp_path, pool):
    with pytest.raises(SourceError, match="no image of DIOR"):
        open_dior(tmp_path, pool=pool)


@pytest.fixture
def coco(tmp_path):
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        picture(tmp_path / "images" / name)
    train = coco_json(
        tmp_path / "train.json",
        [(5, "a.jpg"), (2, "b.jpg")],
        [(5, 7, (10, 5, 20, 15)), (5, 3, (50, 30, 20, 20), True), (5, 3, (4, 4, 0, 3))],
    )
    val = coco_json(tmp_path / "val.json", [(1, "c.jpg")], [(1, 3, (0, 0, 5, 5))])
    return tmp_path / "images", {"train": train, "val": val}


def test_coco_boxes_have_corners_and_classes_in_the_order_of_ids(coco, pool):
    images, files = coco
    found = open_coco(images, files, pool=pool)
    assert isinstance(found, LabelledSet)
    assert found.facts.classes == ("house", "hall")  # ids 3 and 7
    label = found.label("train/a.jpg")
    assert label.xyxy.tolist() == [[10, 5, 30, 20], [50, 30, 60, 40]]  # the second is clipped
    assert label.classes.tolist() == [1, 0]
    assert label.difficult.tolist() == [False, True]
    assert len(found.label("train/b.jpg")) == 0
    assert len(found.fingerprint) == 32
    text = " ".join(found.facts.notes)
    assert "1 boxes reach over the edge" in text
    assert "1 boxes have no area" in text


def test_coco_parts_with_other_categories_are_refused(coco, pool):
    images, files = coco
    coco_json(files["val"], [(1, "c.jpg")], [], categories=((3, "house"),))
    with pytest.raises(SourceError, match="other categories"):
        open_coco(images, files, pool=pool)


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ((9, 3, (0, 0, 5, 5)), "image 9, which is not"),
        ((1, 4, (0, 0, 5, 5)), "category 4, which is not listed"),
        ((1, 3, (0, 0, 5)), "no bbox of four numbers"),
        ((1, 3, (0, 0, -5, 5)), "inverted"),
        ((1, 3, (0, 0, math.nan, 5)), "no number"),
    ],
)
def test_coco_annotations_that_cannot_be_used_are_refused(coco, pool, annotation, message):
    images, files = coco
    coco_json(files["val"], [(1, "c.jpg")], [annotation])
    with pytest.raises(SourceError, match=message):
        open_coco(images, files, pool=pool)


def test_coco_images_that_are_not_there_are_named(coco, pool):
    images, files = coco
    (images / "c.jpg").unlink()
    with pytest.raises(SourceError, match=r"c\.jpg, which is not there"):
        open_coco(images, files, pool=pool)


def test_boxes_of_a_window_are_clipped_and_need_a_quarter_of_themselves():
    # Of the first 10 x 10 box 5 x 5 lies in the window, a quarter; of the second 4 x 5.
    boxes = made_boxes(
        np.array([[5.0, 5, 15, 15], [16, 5, 26, 15], [30, 30, 40, 40]]), [0, 1, 2], [False] * 3
    )
    found = in_window(boxes, Window(10, 10, 20, 10))
    assert found.xyxy.tolist() == [[0, 0, 5, 5]]
    assert found.classes.tolist() == [0]


def test_a_box_outside_of_its_image_is_left_out_and_counted():
    counts = BoxCounts()
    found = checked(
        [[70.0, 5.0, 80.0, 9.0], [-5.0, 0.0, 5.0, 5.0]], [0, 1], [False, False],
        size=(40, 60), source="labels", counts=counts,
    )  # fmt: skip
    assert found.xyxy.tolist() == [[0, 0, 5, 5]]
    assert (counts.boxes, counts.dropped, counts.clipped) == (1, 1, 1)


def test_relative_paths_and_labels_elsewhere_give_the_hash_of_absolute_ones(
    tmp_path, pool, monkeypatch
):
    picture(tmp_path / "set" / "images" / "a.png")
    labels = coco_json(tmp_path / "set" / "boxes.json", [(1, "a.png")], [(1, 3, (1, 1, 20, 20))])
    whole = open_coco(tmp_path / "set" / "images", {"train": labels}, pool=pool).fingerprint
    monkeypatch.chdir(tmp_path)
    assert open_coco("set/images", {"train": "set/boxes.json"}, pool=pool).fingerprint == whole
    (tmp_path / "set").rename(tmp_path / "moved")
    assert open_coco("moved/images", {"train": "moved/boxes.json"}, pool=pool).fingerprint == whole


def changed(path, **lists):
    path.write_text(json.dumps({**json.loads(path.read_text()), **lists}))


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"images": None}, "'images' is no list of objects"),
        ({"annotations": [1]}, "'annotations' is no list of objects"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "height": 40}]}, "has no width"),
        ({"images": [{"id": 1, "file_name": "a.jpg", "height": 0, "width": 9}]}, "height 0"),
        ({"categories": [{"id": 3}]}, "has no name"),
        ({"annotations": [{"image_id": [1], "category_id": 3}]}, "has no image_id"),
        (
            {"annotations": [{"image_id": 1, "category_id": 3, "iscrowd": "0"}]},
            "iscrowd '0', which is neither 0 nor 1",
        ),
        (
            {
                "images": [
                    {"id": i, "file_name": "a.jpg", "height": 40, "width": 60} for i in (1, 2)
                ]
            },
            "or its id, twice",
        ),
    ],
)
def test_coco_rows_that_lack_what_is_read_are_named(coco, pool, lists, message):
    images, files = coco
    changed(files["val"], **lists)
    with pytest.raises(SourceError, match=rf"val\.json.*{message}"):
        open_coco(images, files, pool=pool)


def test_coco_ids_may_be_words_and_a_grey_photograph_may_come_first(tmp_path, pool):
    for name in ("b", "c"):
        picture(tmp_path / f"{name}.jpg")
    Image.fromarray(np.full((40, 60), 7, np.uint8)).save(tmp_path / "a.jpg")
    path = tmp_path / "train.json"
    rows = [{"id": f"n{i}", "file_name": f"{n}.jpg", "height": 40, "width": 60}
            for i, n in enumerate("abc")]  # fmt: skip
    one = {"image_id": "n2", "category_id": "4", "bbox": [1, 2, 3, 4]}
    path.write_text(json.dumps(
        {"images": rows, "annotations": [one], "categories": [{"id": 4, "name": "ship"}]}
    ))  # fmt: skip
    found = open_coco(tmp_path, {"train": path}, pool=pool)
    assert found.label("train/c.jpg").xyxy.tolist() == [[1, 2, 4, 6]]
    assert found.image("train/a.jpg")[0].shape == found.image("train/c.jpg")[0].shape == (3, 40, 60)
