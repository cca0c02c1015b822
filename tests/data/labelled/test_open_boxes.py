"""Which reader opens images with boxes, what is for what, and what is refused."""

import json

import geopandas
import numpy as np
import pytest
import shapely
from boxes_support import coco_json, make_dior, picture
from labelled_support import write_tif

from geodino.data.config import DataConfig
from geodino.data.labelled.boxes import BoxLabelsConfig
from geodino.data.labelled.open_boxes import layout_of, open_boxes
from geodino.data.labelled.resized import ResizedBoxes
from geodino.data.labelled.sets import LabelledSet
from geodino.data.splits import SharesConfig, SplitConfig
from geodino.errors import RecipeError, SourceError
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool

SHARES = SharesConfig(train=0.6, val=0.2, calibration=0.0, test=0.2)


@pytest.fixture
def pool():
    with HandlePool() as made:
        yield made


def opened(images, labels, pool, *, split=None, **config):
    return open_boxes(
        str(images), str(labels), config=BoxLabelsConfig(**config), data=DataConfig(),
        split=None if split is None else str(split), split_config=SplitConfig(shares=SHARES),
        pool=pool,
    )  # fmt: skip


def pictures(root, count, *, folder=""):
    names = [f"{folder}{i}.png" for i in range(count)]
    for name in names:
        picture(root / name)
    return list(enumerate(names))


def test_one_json_file_is_divided_by_chance_by_folders_or_by_a_list(tmp_path, pool):
    listed = pictures(tmp_path, 10)
    labels = coco_json(tmp_path / "all.json", listed, [(i, 3, (2, 2, 9, 9)) for i, _ in listed])
    found = opened(tmp_path, labels, pool)
    assert {part: len(keys) for part, keys in found.set.parts.items()} == {
        "train": 6, "val": 2, "test": 2,
    }  # fmt: skip
    again = opened(tmp_path, labels, pool)
    assert again.set.parts == found.set.parts
    assert again.set.fingerprint == found.set.fingerprint

    split = tmp_path / "split.csv"
    split.write_text("image,split\n0.png,train\n1.png,val\n")
    listed_parts = opened(tmp_path, labels, pool, split=split).set.parts
    assert listed_parts == {"train": ("train/0.png",), "val": ("val/1.png",), "test": ()}

    split.write_text("image,split\n0.png,train\nzz.png,val\n")
    with pytest.raises(SourceError, match=r"'zz\.png', which is no image"):
        opened(tmp_path, labels, pool, split=split)

    folders = [(i, f"{part}/{i}.png") for i, part in enumerate(("train", "valid", "train"))]
    for _, name in folders:
        picture(tmp_path / name)
    labels = coco_json(tmp_path / "folders.json", folders, [])
    assert opened(tmp_path, labels, pool).set.parts["val"] == ("val/valid/1.png",)


def test_a_folder_has_a_json_file_for_each_part_and_may_lack_one_to_validate_on(tmp_path, pool):
    images, labels = tmp_path / "images", tmp_path / "labels"
    labels.mkdir()
    for part, count in (("train2017", 4), ("test2017", 1)):
        listed = [(i, f"{part}_{i}.png") for i in range(count)]
        for _, name in listed:
            picture(images / part / name)  # file names start in a folder named as the part
        coco_json(labels / f"instances_{part}.json", listed, [(0, 3, (2, 2, 9, 9))])
    found = opened(images, labels, pool)
    assert {part: len(keys) for part, keys in found.set.parts.items()} == {
        "train": 3, "val": 1, "test": 1,
    }  # fmt: skip
    assert any("1 of 4 images for training were drawn" in note for note in found.notes)
    for part in ("train", "val"):
        key = found.set.parts[part][0]
        assert found.set.size(key) == (40, 60)
    with pytest.raises(RecipeError, match="leave --split out"):
        opened(images, labels, pool, split=tmp_path / "s.csv")
    (labels / "instances_train2017.json").rename(labels / "instances_other.json")
    with pytest.raises(SourceError, match="no JSON file whose name says train"):
        opened(images, labels, pool)


def test_classes_of_json_are_chosen_and_others_refused_or_background(tmp_path, pool):
    listed = pictures(tmp_path, 2)
    rows = [(0, 3, (2, 2, 9, 9)), (0, 7, (20, 20, 9, 9)), (1, 7, (20, 20, 9, 9))]
    labels = coco_json(tmp_path / "all.json", listed, rows)
    with pytest.raises(SourceError, match=r"labels\.classes does not name"):
        opened(tmp_path, labels, pool, classes=("hall",))
    with pytest.raises(SourceError, match=r"no category 'hal' .*Did you mean 'hall'"):
        opened(tmp_path, labels, pool, classes=("hal",))
    found = opened(tmp_path, labels, pool, classes=("hall",), other="ignore")
    assert found.set.facts.classes == ("hall",)
    assert "1 objects of other classes are background" in found.notes
    counts = [len(found.set.label(key)) for keys in found.set.parts.values() for key in keys]
    assert sorted(counts) == [1, 1]
    assert all(
        found.set.label(key).classes.tolist() == [0]
        for keys in found.set.parts.values()
        for key in keys
    )


def test_boxes_outside_of_their_image_are_left_out_and_counted(tmp_path, pool):
    listed = pictures(tmp_path, 2)
    rows = [(0, 3, (50, 2, 20, 9)), (0, 3, (70, 2, 9, 9)), (1, 3, (2, 2, 9, 0))]
    found = opened(tmp_path, coco_json(tmp_path / "all.json", listed, rows), pool)
    assert any("1 boxes reach over the edge" in note for note in found.notes)
    assert any("2 boxes have no area, or lie outside" in note for note in found.notes)


def test_dior_without_lists_gets_a_part_to_validate_on(tmp_path, pool):
    found = opened(make_dior(tmp_path, lists=False), tmp_path, pool)
    assert found.layout == "dior"
    assert {part: len(keys) for part, keys in found.set.parts.items()} == {
        "train": 2, "val": 1, "test": 1,
    }  # fmt: skip
    assert isinstance(found.set, LabelledSet)
    assert len(found.colours) == 20


def on_ground(x0, y0, x1, y1):
    return shapely.box(
        600_000 + 10 * x0, 5_400_000 - 10 * y1, 600_000 + 10 * x1, 5_400_000 - 10 * y0
    )


def test_vector_files_of_a_folder_are_one_table_and_empty_ones_say_nothing(tmp_path, pool):
    write_tif(tmp_path / "tiles" / "a.tif", np.full((3, 40, 60), 7, np.uint8))
    folder = tmp_path / "labels"
    folder.mkdir()
    shapes = {"a": on_ground(10, 5, 20, 15), "b": on_ground(40, 20, 50, 38)}
    for name, shape in shapes.items():
        frame = geopandas.GeoDataFrame(
            {"class": [name]}, geometry=[shape], crs="EPSG:32632"
        ).to_crs("EPSG:4326" if name == "b" else "EPSG:32632")
        frame.to_file(folder / f"{name}.geojson")
    empty = {"type": "FeatureCollection", "features": []}
    (folder / "c.geojson").write_text(json.dumps(empty))
    halves = geopandas.GeoDataFrame(
        {"split": ["train", "val"]}, crs="EPSG:32632",
        geometry=[on_ground(0, 0, 30, 40), on_ground(30, 0, 60, 40)],
    )  # fmt: skip
    halves.to_file(tmp_path / "split.geojson")
    found = opened(tmp_path / "tiles", folder, pool, split=tmp_path / "split.geojson")
    assert found.layout == "table"
    assert found.set.facts.classes == ("a", "b")
    label = found.set.label("train/a.tif")
    np.testing.assert_allclose(label.xyxy, [[10, 5, 20, 15], [40, 20, 50, 38]], atol=0.1)
    assert label.difficult.tolist() == [False, True]


def test_the_ground_of_a_part_is_the_same_for_pixels_and_boxes(tmp_path, pool):
    write_tif(tmp_path / "tiles" / "a.tif", np.full((3, 40, 60), 7, np.uint8))
    frame = geopandas.GeoDataFrame(
        {"class": ["a"]}, geometry=[on_ground(10, 5, 20, 15)], crs="EPSG:32632"
    )
    frame.to_file(tmp_path / "boxes.gpkg")
    parts = geopandas.GeoDataFrame(
        {"split": ["train", "buffer", "val"]}, crs="EPSG:32632",
        geometry=[on_ground(0, 0, 30, 40), on_ground(25, 0, 35, 40), on_ground(30, 0, 60, 40)],
    )  # fmt: skip
    parts.to_file(tmp_path / "split.geojson")
    found = opened(
        tmp_path / "tiles", tmp_path / "boxes.gpkg", pool, split=tmp_path / "split.geojson"
    )
    rows, columns = np.mgrid[:40, :60].reshape(2, -1)
    corners = np.stack([columns, rows, columns + 1, rows + 1], axis=1).astype(np.float64)
    for part, first, last in (("train", 0, 25), ("val", 35, 60)):
        ground = found.set.ground(f"{part}/a.tif", Window(0, 0, 40, 60))
        assert ground[:, first:last].all()
        assert ground.sum() == 40 * (last - first)
        inside = found.set.on_ground(f"{part}/a.tif", corners)
        np.testing.assert_array_equal(inside, ground.reshape(-1))


def test_what_labels_are_is_told_by_their_names(tmp_path):
    config = BoxLabelsConfig()
    assert layout_of("images", "b.parquet", config) == "table"
    assert layout_of("images", "b.json", config) == "coco"
    assert layout_of("images", "b.json", BoxLabelsConfig(layout="table")) == "table"
    assert layout_of(str(make_dior(tmp_path / "d")), "any", config) == "dior"
    with pytest.raises(SourceError, match="neither a vector file"):
        layout_of("images", str(tmp_path / "nothing"), config)


def test_resized_pictures_keep_their_boxes_on_what_they_show(tmp_path, pool):
    from PIL import Image

    pixels = np.zeros((40, 60, 3), np.uint8)
    pixels[10:20, 30:48] = 200
    Image.fromarray(pixels).save(tmp_path / "0.png")
    listed = [(0, "0.png")]
    labels = coco_json(tmp_path / "train.json", listed, [(0, 3, (30, 10, 18, 10))])
    (tmp_path / "labels").mkdir()
    labels.rename(tmp_path / "labels" / "train.json")
    Image.fromarray(pixels).save(tmp_path / "1.png")
    coco_json(tmp_path / "labels" / "val.json", [(0, "1.png")], [])
    original = opened(tmp_path, tmp_path / "labels", pool).set
    found = ResizedBoxes(original, 120)
    assert isinstance(found, LabelledSet)
    assert found.size("train/0.png") == (80, 120)
    label = found.label("train/0.png")
    np.testing.assert_allclose(label.xyxy, [[60, 20, 96, 40]])
    image, valid = found.image("train/0.png")
    assert image.dtype == np.uint8
    assert valid.all()
    assert (image[:, 22:38, 62:94] == 200).all()
    assert (image[:, :18] == 0).all()
    window = Window(20, 60, 20, 36)
    np.testing.assert_array_equal(found.image("train/0.png", window)[0], image[:, 20:40, 60:96])
    np.testing.assert_allclose(found.label("train/0.png", window).xyxy, [[0, 0, 36, 20]])
    assert ResizedBoxes(original, 61).size("train/0.png") == (41, 61)
