"""`geodino finetune classification --labels TABLE`: the same set as a dataset.yaml, and bad rows."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from canopy_support import write_backbone
from classification_support import COLOURS, run, write_folders, write_table
from tests_support import no_report

from geodino.data.labelled.label_table import open_label_table
from geodino.data.labelled.yaml_set import open_yaml
from geodino.errors import RecipeError, RunError, SourceError
from geodino.models.classification_folder import load_classification

FEW = ("train.steps=4", "floors.probe=false")


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture
def plain(monkeypatch):
    """Runs end without their report."""
    monkeypatch.setattr("geodino.runs.finetune.classification.report.write_report", no_report)


def single(folder, *, each=5, ending="csv", split=True):
    """Pictures in folders that a table names; the folders say nothing."""
    images = write_folders(folder / "images", each=each)
    rows = [
        {
            "image": f"{name}/{i}.png",
            "label": name,
            "split": ("train", "val", "test")[min(max(0, i - 2), 2)],
        }
        for name in COLOURS
        for i in range(each)
    ]
    frame = pd.DataFrame(rows)
    frame = frame if split else frame.drop(columns="split")
    if ending == "csv":
        frame.to_csv(folder / "labels.csv", index=False)
    else:
        frame.to_parquet(folder / "labels.parquet")
    return images, folder / f"labels.{ending}"


def test_a_table_is_the_set_that_a_description_with_it_is(backbone, tmp_path, plain):
    root = write_table(tmp_path / "set")
    described = run(root, backbone, tmp_path / "described", *FEW)
    (root / "labels.csv").rename(tmp_path / "labels.csv")
    (root / "dataset.yaml").unlink()
    table = str(tmp_path / "labels.csv")
    told = run(root, backbone, tmp_path / "told", *FEW, labels=table)
    assert told["kind"] == "multilabel"
    for part in ("val", "test"):
        assert told[part] == described[part]
    one, other = (load_classification(tmp_path / n / "model") for n in ("described", "told"))
    assert one.classes == other.classes
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name
    assert json.loads((tmp_path / "told/run.json").read_text())["labels_from"] == table
    assert run(root, None, tmp_path / "told", resume=True)["test"] == told["test"]
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("\n")
    with pytest.raises(RunError, match="changed since it was started"):
        run(root, None, tmp_path / "told", resume=True)


def test_a_table_of_one_class_each_is_read_from_csv_and_parquet_alike(tmp_path):
    images, table = single(tmp_path / "a")
    parquet = single(tmp_path / "b", ending="parquet")[1]
    one, other = (open_label_table(str(images), str(path)) for path in (table, parquet))
    assert one.facts.kind == "classification"
    assert one.facts.classes == ("grass", "sand", "water")
    assert one.parts == other.parts
    assert {part: len(keys) for part, keys in one.parts.items()} == {
        "train": 9,
        "val": 3,
        "test": 3,
    }
    assert [one.label(key) for key in one.parts["test"]] == [0, 1, 2]
    assert one.facts.bands == other.facts.bands
    np.testing.assert_array_equal(one.image("sand/1.png")[0], other.image("sand/1.png")[0])


def test_lists_and_geometries_of_parquet_and_marks_of_spreadsheets_are_read(tmp_path):
    images, table = single(tmp_path)
    rows = pd.read_csv(table)
    frame = rows.assign(label=[[name] for name in rows["label"]], geometry=b"\x01", town="Ulm")
    frame.at[0, "label"] = ["water", "grass"]
    frame.to_parquet(tmp_path / "several.parquet")
    found = open_label_table(str(images), str(tmp_path / "several.parquet"))
    assert found.facts.kind == "multilabel"
    assert found.label("grass/0.png").tolist() == [True, False, True]
    assert found.traits("grass/0.png") == {"town": "Ulm"}
    rows.to_csv(tmp_path / "bom.csv", index=False, encoding="utf-8-sig")
    assert open_label_table(str(images), str(tmp_path / "bom.csv")).parts == found.parts


def test_classes_are_numbered_as_declared_and_numbers_by_their_value(tmp_path):
    images, table = single(tmp_path)
    declared = open_label_table(str(images), str(table), classes=("water", "sand", "grass"))
    assert declared.label("water/0.png") == 0
    frame = pd.read_csv(table)
    frame["label"] = frame["label"].map({"grass": "10", "sand": "9", "water": "100"})
    frame.to_csv(table, index=False)
    found = open_label_table(str(images), str(table))
    assert found.facts.classes == ("9", "10", "100")
    assert found.label("grass/0.png") == 1


def test_without_a_column_split_the_paths_decide_and_images_left_over_are_counted(tmp_path):
    images, table = single(tmp_path, each=12, split=False)
    frame = pd.read_csv(table)
    frame.iloc[:-2].to_csv(table, index=False)
    found = open_label_table(str(images), str(table))
    assert sum(map(len, found.parts.values())) == 34
    assert len(found.parts["train"]) > len(found.parts["test"]) > 0
    again = open_label_table(str(images), str(table))
    assert (again.parts, again.fingerprint) == (found.parts, found.fingerprint)
    assert found.facts.notes[0].startswith("Split 70/10/20")
    assert found.facts.notes[1].startswith("2 images of the folder are in no row")


def replaced(old, new):
    return lambda text: text.replace(old, new, 1)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (
            replaced("grass/1.png", "gras/1.png"),
            r"labels\.csv, line 3, names gras/1\.png, and .*exist",
        ),
        (replaced("grass/1.png", ""), "line 3, names no image"),
        (
            replaced("grass/1.png", "../labels.csv"),
            "line 3, names ../labels.csv, which lies outside",
        ),
        (replaced("grass/1.png,grass", "grass/1.png,"), r"line 3, has no label for grass/1\.png"),
        (replaced("grass/1.png,grass", "grass/1.png, ;"), r"line 3, has no label for grass/1\.png"),
        (replaced("grass/1.png,grass", "./grass/0.png,sand"), "line 3, names the image .* again"),
        (
            replaced("grass,train", "grass,trian"),
            "line 2, puts .*'trian', which is no split.*train",
        ),
        (replaced("grass,train", "grass,"), "line 2, puts .*'', which is no split"),
        (replaced("grass,train", "grass,train,x"), "line 2, has more cells than there are columns"),
        (replaced("image,", "tile,"), "has no column 'image'.*It has tile, label, split"),
        (replaced("label", "name"), "has no column 'label'"),
        (lambda text: text.replace(",", ";"), "cells are separated by commas"),
        (lambda text: text.split("\n")[0] + "\n", "has no rows"),
        (
            lambda text: text.replace(",sand", ",grass").replace(",water", ",grass"),
            "names one class",
        ),
        (lambda text: text.replace("test", "val"), "none of them for test"),
    ],
)
def test_a_bad_row_is_named_with_its_file_and_place(spoil, words, backbone, tmp_path):
    images, table = single(tmp_path)
    table.write_text(spoil(table.read_text()))
    with pytest.raises(SourceError, match=words):
        run(images, backbone, tmp_path / "out", labels=str(table))
    assert not (tmp_path / "out").exists()


def test_other_mistakes_about_tables_are_sentences(backbone, tmp_path):
    images, table = single(tmp_path)
    out = tmp_path / "out"
    with pytest.raises(SourceError, match=r"line 2, calls .* 'grass'.*images\.classes.*gras\b"):
        run(images, backbone, out, "images.classes=[gras,sand,water]", labels=str(table))
    with pytest.raises(RecipeError, match=r"a table \(\.csv, \.parquet\)"):
        run(images, backbone, out, labels=str(images / "labels.xlsx"))
    with pytest.raises(SourceError, match=r"missing\.csv cannot be read"):
        run(images, backbone, out, labels=str(tmp_path / "missing.csv"))
    with pytest.raises(SourceError, match="is no folder"):
        run(tmp_path / "nothing", backbone, out, labels=str(table))
    (tmp_path / "bad.parquet").write_text("no table")
    with pytest.raises(SourceError, match=r"bad\.parquet cannot be read"):
        run(images, backbone, out, labels=str(tmp_path / "bad.parquet"))
    frame = pd.read_csv(table).assign(west="far", south=1.0, east=2.0, north=3.0)
    frame.to_csv(tmp_path / "far.csv", index=False)
    with pytest.raises(SourceError, match=r"far\.csv, line 2, has a place that is no number"):
        run(images, backbone, out, labels=str(tmp_path / "far.csv"))
    other = write_table(tmp_path / "set")
    assert open_yaml(other).facts.kind == "multilabel"
    with pytest.raises(RecipeError, match=r"dataset\.yaml says already"):
        run(other, backbone, out, labels=str(other / "labels.csv"))
    assert not out.exists()
