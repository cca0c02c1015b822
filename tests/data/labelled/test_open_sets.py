import json

import numpy as np
import pytest
import yaml
from labelled_support import geotiff, make_geobench, make_tortilla, write_tif

from geodino.data.labelled.geobench_table import V1
from geodino.data.labelled.image_folder import find_suite
from geodino.data.labelled.open import open_sets
from geodino.data.labelled.sets import LabelledSet
from geodino.errors import SourceError
from geodino.geo.windows import Window


def names(found):
    openers, missing = found
    return [o.name for o in openers], [m.name for m in missing]


def class_folders(root):
    for k, name in enumerate(("lake", "wood")):
        for i in range(4):
            pixels = np.full((3, 6, 8), 50 * k + i, "uint8")
            pixels[:, 0, 0] = 200
            write_tif(root / name / f"{i}.tif", pixels)
    return root


def test_the_mini_suite_needs_nothing():
    assert names(open_sets("mini"))[0] == [
        "mini-cover",
        "mini-covers",
        "mini-segments",
        "mini-heights",
    ]
    openers, missing = open_sets("mini/mini-cover")
    assert not missing
    assert openers[0].open().facts.name == "mini-cover"


def test_a_folder_called_like_a_suite_does_not_stand_in_its_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mini" / "cache").mkdir(parents=True)  # results of a run before
    assert len(open_sets("mini")[0]) == 4
    assert len(open_sets("./mini")[0]) == 1
    make_geobench(tmp_path / "geobench-v1", "m-eurosat")
    assert names(open_sets("geobench-v1")) == (
        ["m-eurosat"],
        [name for name in V1 if name != "m-eurosat"],
    )


def test_geobench_v1_opens_what_is_there_and_says_what_is_not(tmp_path):
    make_geobench(tmp_path)
    make_geobench(
        tmp_path, "m-nz-cattle", kind="segmentation", classes=2, bands=("Red", "Green", "Blue")
    )
    openers, missing = open_sets("geobench-v1", tmp_path)
    assert [o.name for o in openers] == ["m-eurosat", "m-nz-cattle"]
    assert {m.name for m in missing} == set(V1) - {"m-eurosat", "m-nz-cattle"}
    assert all(f"a folder {m.name}" in m.reason and "--data" in m.cure for m in missing)
    assert openers[1].open().facts.kind == "segmentation"
    assert names(open_sets("geobench-v1/m-eurosat", tmp_path)) == (["m-eurosat"], [])
    assert names(open_sets("geobench-v1/m-so2sat", tmp_path)) == ([], ["m-so2sat"])
    assert names(open_sets(str(tmp_path)))[0] == ["m-eurosat", "m-nz-cattle"]
    assert names(open_sets(str(tmp_path / "classification_v1.0" / "m-eurosat"))) == (
        ["m-eurosat"],
        [],
    )


def test_a_partition_is_taken_where_a_benchmark_has_any(tmp_path):
    make_geobench(tmp_path)
    folder = tmp_path / "classification_v1.0" / "m-eurosat"
    parts = json.loads((folder / "default_partition.json").read_text())
    few = {**parts, "train": parts["train"][:1]}
    (folder / "0.01x_train_partition.json").write_text(json.dumps(few))
    ((opener,), _) = open_sets("geobench-v1/m-eurosat", tmp_path, partition="0.01x_train")
    opened = opener.open()
    assert len(opened.parts["train"]) == 1
    assert opened.facts.partition == "0.01x_train"
    with pytest.raises(SourceError, match=r"mini-.* has no partition '0.01x_train'"):
        open_sets("mini", partition="0.01x_train")


def test_geobench_is_looked_for_where_its_variable_says(tmp_path, monkeypatch):
    monkeypatch.delenv("GEO_BENCH_DIR", raising=False)
    _, missing = open_sets("geobench-v1/m-eurosat")
    assert missing[0].reason == "no folder was named"
    make_geobench(tmp_path)
    monkeypatch.setenv("GEO_BENCH_DIR", str(tmp_path))
    assert names(open_sets("geobench-v1/m-eurosat")) == (["m-eurosat"], [])


def test_geobench_v2_opens_tortillas_and_leaves_boxes_out(tmp_path):
    image = [("s2", "GTiff", geotiff(np.ones((2, 4, 4), "uint16")), {})]
    samples = [(f"s{i}", part, {"label": i}, image) for i, part in enumerate(("train", "test"))]
    path = make_tortilla(tmp_path / "so2sat.tortilla", samples)
    openers, missing = open_sets("geobench-v2", tmp_path)
    assert [o.name for o in openers] == ["so2sat"]
    assert len(missing) == 18
    assert "boxes" in next(m.reason for m in missing if m.name == "everwatch")
    assert openers[0].open().label("s1") == 1
    assert names(open_sets(str(path))) == (["so2sat"], [])


def test_folders_are_recognised_by_what_lies_in_them(tmp_path):
    folder = class_folders(tmp_path / "classes")
    openers, _ = open_sets(str(folder))
    made = openers[0].open()
    assert isinstance(made, LabelledSet)
    assert made.facts.classes == ("lake", "wood")
    (folder / "dataset.yaml").write_text(
        yaml.safe_dump(
            {
                "kind": "classification",
                "classes": ["wood", "lake"],
                "images": r"(?P<label>\w+)/(?P<key>\d)\.tif",
            }
        )
    )
    own = open_sets(str(folder))[0][0].open()
    assert own.facts.classes == ("wood", "lake")
    assert own.label("lake/0.tif") == 1


def test_a_folder_of_classes_is_a_labelled_set(tmp_path):
    made = find_suite(class_folders(tmp_path))
    assert {part: len(keys) for part, keys in made.parts.items()} == {"train": 6, "test": 2}
    for key in made.parts["train"]:
        name, number = key.split("/")
        assert made.label(key) == made.classes.index(name)
        pixels, valid = made.image(key, Window(1, 1, 2, 3))
        assert pixels.shape == (3, 2, 3)
        assert (pixels == 50 * made.label(key) + int(number[0])).all()
        assert valid.all()
        assert made.size(key) == (6, 8)
        assert made.outline(key) is not None
    assert (made.facts.dtype, len(made.facts.bands), made.facts.metric) == ("uint8", 3, "accuracy")
    before = made.fingerprint
    write_tif(tmp_path / "lake" / "0.tif", np.zeros((3, 6, 8), "uint8"))
    assert find_suite(tmp_path).fingerprint != before


@pytest.mark.parametrize(
    ("suite", "sentence"),
    [
        ("geobench-v3", "Did you mean 'geobench-v1'|Did you mean 'geobench-v2'"),
        ("geobench-v1/m-eurosatt", "Did you mean 'm-eurosat'"),
        ("geobench-v2/benv3", "Did you mean 'benv2'"),
        ("mini/cover", "Did you mean 'mini-cover"),
        ("torchgeo", "Name a data set of torchgeo"),
        ("torchgeo/EuroSATS", "Did you mean 'EuroSAT'"),
        ("m-eurosa", "Did you mean 'm-eurosat'"),
        ("sentinel-2-l2a", "There is no suite and no folder"),
    ],
)
def test_unknown_names_get_the_nearest_one(suite, sentence):
    with pytest.raises(SourceError, match=sentence):
        open_sets(suite)


def test_torchgeo_sets_that_are_not_there_say_how_to_get_them(tmp_path):
    assert names(open_sets("torchgeo/EuroSAT", tmp_path)) == ([], ["EuroSAT"])
    assert names(open_sets("torchgeo/EuroSAT")) == ([], ["EuroSAT"])


def test_a_file_that_is_no_set_is_refused(tmp_path):
    (tmp_path / "x.csv").write_text("a")
    with pytest.raises(SourceError, match="is no labelled set"):
        open_sets(str(tmp_path / "x.csv"))
