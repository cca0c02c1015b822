"""`geodino finetune detection`: the whole path, exact resume, and what is refused."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from boxes_support import make_dior
from detection_support import run, write_squares, write_town
from finetune_support import assert_same_weights, stopped_after
from tests_support import no_report

from geodino.errors import BandError, RecipeError, RunError, SourceError
from geodino.models.detection_folder import load_detection
from geodino.runs.export import export_model
from geodino.runs.report import report

SPLIT = "split.block_m=200.0"


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return write_town(tmp_path_factory.mktemp("town"))


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    """No part to validate on, and no blue square in the test part."""
    folder = tmp_path_factory.mktemp("squares")
    return write_squares(folder, {"train": 8, "test": 3}, only={"test": "red"})


@pytest.fixture(scope="module")
def done(town, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, run(town / "images", town / "buildings", backbone, out, SPLIT)


@pytest.fixture
def no_page(monkeypatch):
    """Drawing a page takes longer than the training before it."""
    monkeypatch.setattr("geodino.runs.finetune.detection.report.write_report", no_report)


def test_a_run_ends_with_results_a_model_and_a_report(done):
    out, facts = done
    found = facts[facts["reported_on"]]
    assert set(found["scores"]) == {"model", "random boxes"}
    for scores in found["scores"].values():
        assert 0 <= scores["ap50"]["value"] <= 1
        assert set(scores) >= {"coco_ap", "coco_ap75", "coco_ap_small", "coco_ap_large"}
    assert set(found["model_minus"]["random boxes"]) == {"ap50", "coco_ap"}
    assert set(found["classes"]) == set(facts["classes"])
    assert found["boxes"] == sum(one["boxes"] for one in found["by_image"].values())
    loaded = load_detection(out / "model")
    assert list(loaded.classes) == facts["classes"]
    assert loaded.extra["chip"] == 128
    assert loaded.extra["score"] == facts["score"]
    assert loaded.contract.gsd_m is not None
    page = (out / "report.html").read_text()
    assert page.count("true boxes") >= 1
    assert page.count("data:image/") >= 2
    assert {"recipe.yaml", "run.json", "tiles.parquet", "split.parquet"} <= {
        p.name for p in out.iterdir()
    }
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"loss/rpn_cls", "loss/rpn_box", "loss/roi_cls", "loss/roi_box"} <= set(rows[0])
    assert any("val/ap50" in row for row in rows)


def test_the_report_is_drawn_again_and_the_model_handed_on(done, tmp_path):
    out, facts = done
    before = (out / "report.html").read_text()
    report(out, out=tmp_path / "again.html", device="cpu")
    assert (tmp_path / "again.html").read_text() == before
    export_model(out, to="hub", out=tmp_path / "hub")
    page = (tmp_path / "hub" / "README.md").read_text()
    assert f"boxes of {len(facts['classes'])} classes" in page
    assert load_detection(tmp_path / "hub").extra["score"] == facts["score"]
    with pytest.raises(RecipeError, match="any number of boxes"):
        export_model(out, to="onnx", out=tmp_path / "model.onnx")


def test_all_boxes_that_were_found_are_kept_with_their_images(done):
    out, facts = done
    table = pq.read_table(out / "predictions.parquet").to_pydict()
    assert list(table) == [
        "part", "image", "class", "score", "x0", "y0", "x1", "y1", "is_right",
    ]  # fmt: skip
    assert set(table["part"]) <= {"val", "test"}
    assert set(table["class"]) <= set(facts["classes"])
    corners = zip(*(table[name] for name in ("x0", "y0", "x1", "y1")), strict=True)
    assert all(0 <= x0 < x1 <= 128 and 0 <= y0 < y1 <= 128 for x0, y0, x1, y1 in corners)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(town, backbone, done, tmp_path, no_page):
    out, settings = tmp_path / "halved", (SPLIT, "checkpoint.every=3")
    stopped_after(3, lambda: run(town / "images", town / "buildings", backbone, out, *settings))
    run(town / "images", None, None, out, resume=True)
    one, other = (load_detection(path / "model") for path in (done[0], out))
    assert_same_weights(one.model, other.model)
    with pytest.raises(RunError, match="another recipe"):
        run(town / "images", None, None, out, resume=True, seed=3)


def test_what_lies_under_invalid_pixels_changes_no_bit(backbone, tmp_path, no_page):
    found = []
    for fill in (0, 255):
        town = write_town(tmp_path / f"w{fill}", fill=fill)
        out = tmp_path / f"r{fill}"
        run(
            town / "images", town / "buildings", backbone, out, SPLIT, "train.steps=2",
            "validation.every=2",
        )  # fmt: skip
        found.append(load_detection(out / "model").model.head)
    assert_same_weights(*found)


def test_coco_without_a_part_to_validate_on_takes_some_training_images(
    squares, backbone, tmp_path, no_page
):
    out = tmp_path / "run"
    facts = run(squares / "images", squares / "labels", backbone, out, "sampling.crop=64")
    recorded = json.loads((out / "run.json").read_text())
    assert recorded["data"]["train"] + recorded["data"]["val"] == 8
    assert any("2 of 8 images for training were drawn" in note for note in recorded["notes"])
    assert not (out / "tiles.parquet").exists()
    # A class that the test part lacks has no score, and is left out of the mean.
    assert facts["reported_on"] == "test"
    assert facts["test"]["classes"]["blue"] == {"ap50": None, "coco_ap": None, "boxes": 0}
    assert facts["test"]["boxes"] == 3


def test_pictures_are_resized_and_boxes_reported_in_pixels_of_the_files(
    squares, backbone, tmp_path, no_page
):
    out = tmp_path / "run"
    settings = ("size=128", "sampling.crop=128", "sampling.augment=none", "detection.least_score=0")
    facts = run(squares / "images", squares / "labels", backbone, out, *settings)
    assert load_detection(out / "model").extra["size"] == 128
    table = pq.read_table(out / "predictions.parquet").to_pydict()
    assert len(table["x1"]) > 0
    assert max(table["x1"]) <= 64
    # The squares are 16 x 20 px in the files, small; twice that is small no more.
    assert facts["test"]["scores"]["model"]["coco_ap_small"]["value"] is not None
    assert facts["test"]["scores"]["model"]["coco_ap_medium"]["value"] is None


def test_a_folder_of_dior_brings_its_labels(backbone, tmp_path, no_page):
    root = make_dior(tmp_path / "dior")
    facts = run(root, None, backbone, tmp_path / "run", "sampling.crop=64")
    assert facts["test"]["boxes"] == 1  # the difficult one does not count
    with pytest.raises(RecipeError, match=r"leave labels\.classes out"):
        run(root, None, backbone, tmp_path / "other", "labels.classes=[ship]")
    with pytest.raises(RecipeError, match="whose labels lie in the same folder"):
        run(root, tmp_path, backbone, tmp_path / "other")


def test_a_dry_run_says_what_it_would_learn_and_writes_nothing(town, backbone, tmp_path):
    facts = run(
        town / "images", town / "buildings", backbone, tmp_path / "dry", SPLIT, dry_run=True
    )
    assert "house" in facts["objects"]
    assert facts["flops_per_crop"] > 0
    assert sum(facts["objects_by_class"].values()) > 0
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("override", "error", "words"),
    [
        ("size=64", RecipeError, "have a place on the Earth"),
        ("labels.classes=[barn]", SourceError, "is not one of the classes barn"),
        ("labels.column=kind", SourceError, "no column 'kind'"),
        ("labels.layout=coco", SourceError, "no JSON file whose name says train"),
        ("data.bands=[red, green]", BandError, "2 bands"),
        ("sampling.parts=[val]", RecipeError, "parts must be"),
        ("detection.anchor_scale=0", RecipeError, "anchor_scale"),
    ],
)
def test_mistakes_are_named_before_the_first_step(override, error, words, town, backbone, tmp_path):
    with pytest.raises(error, match=words):
        run(town / "images", town / "buildings", backbone, tmp_path / "out", SPLIT, override)
    assert not (tmp_path / "out").exists()


def test_labels_without_an_object_are_refused(squares, backbone, tmp_path):
    path = tmp_path / "labels" / "train.json"
    path.parent.mkdir()
    content = json.loads((squares / "labels" / "instances_train.json").read_text())
    path.write_text(json.dumps({**content, "annotations": []}))
    with pytest.raises(SourceError, match="No image for training holds an object"):
        run(squares / "images", path.parent, backbone, tmp_path / "out")
    with pytest.raises(RecipeError, match="--labels is missing"):
        run(squares / "images", None, backbone, tmp_path / "out")


def test_every_recipe_of_detection_can_be_read():
    from geodino.runs.finetune.detection.config import DetectionFinetuneConfig
    from geodino.runs.recipe import load_any_recipe

    folder = Path(__file__).resolve().parents[2] / "recipes"
    for name in ("detection", "debug-detection", "dior"):
        assert (folder / f"{name}.yaml").exists()
        assert isinstance(load_any_recipe(name), DetectionFinetuneConfig)
