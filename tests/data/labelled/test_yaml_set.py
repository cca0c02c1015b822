import numpy as np
import pytest
import yaml
from labelled_support import write_tif

from geodino.data.labelled.sets import LabelledSet, SetFacts
from geodino.data.labelled.yaml_config import METRICS, is_labelled
from geodino.data.labelled.yaml_set import open_yaml
from geodino.errors import SourceError
from geodino.evals.scoring import score_names
from geodino.geo.windows import Window

IMAGE = np.arange(3 * 6 * 8, dtype="uint16").reshape(3, 6, 8)
PARTS = ("train", "train", "val", "test")


def described(root, **values):
    (root / "dataset.yaml").write_text(yaml.safe_dump(values))
    return root


def table(root, rows, *, columns="path,label,split,region"):
    text = "\n".join([columns, *rows]) + "\n"
    (root / "labels.csv").write_text(text)
    for i in range(len(rows)):
        write_tif(root / f"{i}.tif", IMAGE + i)


def test_classes_come_from_a_table_by_name_or_number(tmp_path):
    labels = ("wood", "1", "lake", "wood")
    table(tmp_path, [f"{i}.tif,{labels[i]},{PARTS[i]},r{i}" for i in range(4)])
    made = open_yaml(described(tmp_path, kind="classification", classes=["wood", "lake"],
                               table="labels.csv"))  # fmt: skip
    assert isinstance(made, LabelledSet)
    assert made.parts == {"train": ("0.tif", "1.tif"), "val": ("2.tif",), "test": ("3.tif",)}
    assert [made.label(f"{i}.tif") for i in range(4)] == [0, 1, 1, 0]
    assert made.traits("2.tif") == {"region": "r2"}
    assert (made.facts.metric, made.facts.dtype, len(made.facts.bands)) == ("accuracy", "uint16", 3)
    np.testing.assert_array_equal(
        made.image("1.tif", Window(2, 3, 2, 2))[0], IMAGE[:, 2:4, 3:5] + 1
    )
    assert made.size("0.tif") == (6, 8)
    west, _, east, _ = made.outline("0.tif")
    assert 0 < east - west < 0.01


def test_several_classes_are_joined_by_semicolons_and_places_are_columns(tmp_path):
    rows = [
        f"{i}.tif,{text},{PARTS[i]},7,48,8,49" for i, text in enumerate(("a; c", "", "b", "a;b;c"))
    ]
    table(tmp_path, rows, columns="path,label,split,west,south,east,north")
    made = open_yaml(
        described(tmp_path, kind="multilabel", classes=["a", "b", "c"], table="labels.csv")
    )
    assert [made.label(f"{i}.tif").tolist() for i in (0, 1)] == [[True, False, True], [False] * 3]
    assert made.outline("0.tif") == (7.0, 48.0, 8.0, 49.0)
    assert made.traits("0.tif") == {}


def test_numbers_come_from_a_table(tmp_path):
    table(tmp_path, [f"{i}.tif,{i}.5,{PARTS[i]},x" for i in range(4)])
    made = open_yaml(described(tmp_path, kind="regression", unit="t/ha", table="labels.csv"))
    assert [made.label(f"{i}.tif") for i in range(4)] == [0.5, 1.5, 2.5, 3.5]
    assert (made.facts.metric, made.facts.unit) == ("rmse", "t/ha")


def masks(root, *, mask=None, parts=PARTS):
    mask = np.tile(np.arange(8, dtype="uint8") % 3, (6, 1))[None] if mask is None else mask
    for i, part in enumerate(parts):
        write_tif(root / "img" / part / f"north_{i}.tif", IMAGE + i)
        write_tif(root / "mask" / f"north_{i}.tif", mask)


PATTERN = r"img/(?P<split>\w+)/(?P<key>(?P<region>[a-z]+)_\d+)\.tif"


def test_maps_are_found_by_a_pattern_with_splits_and_groups(tmp_path):
    masks(tmp_path)
    made = open_yaml(
        described(
            tmp_path,
            kind="segmentation",
            classes=["a", "b"],
            images=PATTERN,
            labels="mask/{key}.tif",
            ignore=[2],
            background=0,
        )
    )
    assert {part: len(keys) for part, keys in made.parts.items()} == {
        "train": 2,
        "val": 1,
        "test": 1,
    }
    key = made.parts["test"][0]
    assert made.label(key)[0].tolist() == [0, 1, 255, 0, 1, 255, 0, 1]
    assert made.label(key, Window(0, 1, 1, 2)).tolist() == [[1, 255]]
    assert made.traits(key) == {"region": "north"}
    assert made.facts.background == 0


def test_a_value_that_is_no_class_and_a_map_of_another_size_are_refused(tmp_path):
    masks(tmp_path)
    made = open_yaml(
        described(
            tmp_path,
            kind="segmentation",
            classes=["a", "b"],
            images=PATTERN,
            labels="mask/{key}.tif",
        )
    )
    key = made.parts["test"][0]
    with pytest.raises(SourceError, match="holds the label 2, but the classes are numbered 0 to 1"):
        made.label(key)
    write_tif(tmp_path / "mask" / "north_3.tif", np.zeros((1, 3, 8), "uint8"))
    with pytest.raises(SourceError, match="3 x 8 pixels, but its image"):
        made.label(key)


def test_a_map_of_numbers_is_nan_where_it_is_unknown(tmp_path):
    heights = np.full((1, 6, 8), 4.0, "float32")
    heights[0, 0, 0], heights[0, 0, 1] = -9, np.nan
    masks(tmp_path, mask=heights)
    made = open_yaml(
        described(
            tmp_path, kind="regression", images=PATTERN, labels="mask/{key}.tif", label_nodata=-9
        )
    )
    label = made.label(made.parts["train"][0])
    assert np.isnan(label[0, :2]).all()
    assert label[0, 2] == 4


def test_without_a_split_a_hash_of_the_key_decides(tmp_path):
    for i in range(40):
        write_tif(tmp_path / "img" / f"{i}.tif", IMAGE)
        write_tif(tmp_path / "mask" / f"{i}.tif", IMAGE[:1].astype("uint8") % 2)
    values = {
        "kind": "segmentation", "classes": ["a", "b"], "images": r"img/(?P<key>\d+)\.tif",
        "labels": "mask/{key}.tif",
    }  # fmt: skip
    made = open_yaml(described(tmp_path, **values))
    counts = [len(made.parts[part]) for part in ("train", "val", "test")]
    assert sum(counts) == 40
    assert counts[0] > counts[2] > 0
    assert any("70/10/20" in note for note in made.facts.notes)
    again = open_yaml(tmp_path / "dataset.yaml")
    assert (again.parts, again.fingerprint) == (made.parts, made.fingerprint)
    write_tif(tmp_path / "mask" / "3.tif", IMAGE[:1].astype("uint8") % 2 * 0)
    assert open_yaml(tmp_path).fingerprint != made.fingerprint


def test_declared_bands_statistics_and_missing_pixels(tmp_path):
    table(tmp_path, [f"{i}.tif,a,{PARTS[i]},x" for i in range(4)])
    bands = [
        {"name": n, "common_name": n, "unit": "reflectance", "scale": 1e-4}
        for n in ("red", "green", "blue")
    ]
    one = [1.0, 2.0, 3.0]
    made = open_yaml(
        described(
            tmp_path,
            kind="classification",
            classes=["a", "b"],
            table="labels.csv",
            bands=bands,
            nodata=5.0,
            statistics={"low": one, "high": one, "mean": one, "std": one},
        )
    )
    assert made.facts.bands[0].scale == 1e-4
    assert made.facts.statistics.std == (1.0, 2.0, 3.0)
    _, valid = made.image("0.tif")
    assert (~valid).sum() == 1
    assert not valid[0, 0, 5]


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"kind": "classification", "classes": ["a", "b"]}, "name either a table or a pattern"),
        ({"kind": "classification", "table": "t.csv"}, "name at least two"),
        ({"kind": "regression", "classes": ["a", "b"], "table": "t.csv"}, "none for regression"),
        ({"kind": "segmentation", "classes": ["a", "b"], "images": "x"}, "needs a group"),
        ({"kind": "segmentation", "classes": ["a", "b"], "images": "(?P<key>x)"}, "labels: needed"),
        ({"kind": "segmentation", "clases": ["a"], "table": "t.csv"}, "Did you mean 'classes'"),
        ({"kind": "regression", "table": "t.csv"}, "names as its table, does not exist"),
        ({"kind": "regression", "table": "t.csv", "metric": "miou"}, "there are rmse, mae, r2"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_the_description_is_said(tmp_path, values, sentence):
    with pytest.raises(SourceError, match=sentence):
        open_yaml(described(tmp_path, **values))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        (["0.tif,a,train,x"], "none of them for test"),
        (["0.tif,a,train,x", "9.tif,a,test,x"], r"9.tif does not exist, though"),
        (["0.tif,a,train,x", "1.tif,a,tets,x"], "Did you mean 'test'"),
        (["0.tif,a,train,x", "1.tif,a,test,x", "./0.tif,b,test,x"], "0.tif more than once"),
        (["0.tif,a,train,x", "1.tif,a,test,x,y,z"], "cannot be read as a table of labels"),
        (['"0.tif,a,train,x'], "cannot be read as a table of labels"),
    ],
)
def test_what_is_wrong_in_the_table_is_said(tmp_path, rows, sentence):
    table(tmp_path, rows)
    with pytest.raises(SourceError, match=sentence):
        open_yaml(
            described(tmp_path, kind="classification", classes=["a", "b"], table="labels.csv")
        )


@pytest.mark.parametrize("place", ["x,1,2,3", "10,50,20,40", "10,-91,20,40"])
def test_a_place_that_cannot_be_is_named(tmp_path, place):
    rows = [f"{i}.tif,a,{PARTS[i]},{place}" for i in range(4)]
    table(tmp_path, rows, columns="path,label,split,west,south,east,north")
    with pytest.raises(SourceError, match=r"0\.tif has a place that cannot be"):
        open_yaml(
            described(tmp_path, kind="classification", classes=["a", "b"], table="labels.csv")
        )


@pytest.mark.parametrize("content", [b"", b"path,label,split\n\xe4.tif,a,train\n"])
def test_a_table_that_cannot_be_read_is_named(tmp_path, content):
    (tmp_path / "labels.csv").write_bytes(content)
    with pytest.raises(SourceError, match=r"labels\.csv cannot be read as a table"):
        open_yaml(
            described(tmp_path, kind="classification", classes=["a", "b"], table="labels.csv")
        )


def test_images_of_another_type_maps_of_colours_and_unknown_numbers_are_refused(tmp_path):
    masks(tmp_path)
    how = {"kind": "segmentation", "classes": ["a", "b", "c"], "images": PATTERN}
    made = open_yaml(described(tmp_path, **how, labels="mask/{key}.tif"))
    key = made.parts["test"][0]
    write_tif(tmp_path / key, IMAGE.astype("uint8"))
    with pytest.raises(
        SourceError, match="stores uint8 values, but other images of the set uint16"
    ):
        made.image(key)
    write_tif(tmp_path / key, IMAGE)
    write_tif(tmp_path / "mask" / "north_3.tif", np.zeros((3, 6, 8), "uint8"))
    with pytest.raises(SourceError, match="has 3 bands, and a map of labels has one"):
        made.label(key)
    with pytest.raises(SourceError, match=r"'mask/\{name\}\.tif' cannot be filled in.*key"):
        open_yaml(described(tmp_path, **how, labels="mask/{name}.tif"))
    table(tmp_path, ["0.tif,1.5,train,x", "1.tif,nan,test,x"])
    made = open_yaml(described(tmp_path, kind="regression", table="labels.csv"))
    with pytest.raises(SourceError, match=r"1\.tif has the label 'nan': an image needs a number"):
        made.label("1.tif")


def test_statistics_need_a_number_a_band(tmp_path):
    table(tmp_path, [f"{i}.tif,a,{PARTS[i]},x" for i in range(4)])
    one = [1.0, 2.0]
    with pytest.raises(SourceError, match="a number for each of the 3 bands"):
        open_yaml(
            described(
                tmp_path, kind="classification", classes=["a", "b"], table="labels.csv",
                statistics={"low": one, "high": one, "mean": one, "std": one},
            )
        )  # fmt: skip


@pytest.mark.parametrize("kind", sorted(METRICS))
def test_metrics_that_may_be_declared_are_those_that_are_computed(kind):
    facts = SetFacts(
        name="x", kind=kind, classes=("a", "b"), bands=(), dtype="uint8", metric=METRICS[kind][0]
    )
    assert set(METRICS[kind]) <= set(score_names(facts))


def test_a_label_that_is_no_class_is_refused_with_the_nearest(tmp_path):
    table(tmp_path, ["0.tif,wood,train,x", "1.tif,laek,test,x"])
    made = open_yaml(
        described(tmp_path, kind="classification", classes=["wood", "lake"], table="labels.csv")
    )
    with pytest.raises(SourceError, match="Did you mean 'lake'"):
        made.label("1.tif")


def test_descriptors_of_tiles_are_no_labelled_sets(tmp_path):
    assert not is_labelled(described(tmp_path, description="tiles", files="x"))
    assert is_labelled(described(tmp_path, kind="regression"))
