"""`geodino finetune classification`: the whole path, exact resume, and what is refused."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from classification_support import COLOURS, picture, run, write_folders, write_table
from finetune_support import assert_handed_on, assert_same_weights, stopped_after
from PIL import Image
from tests_support import no_report

from geodino.errors import BandError, ContractError, RecipeError, RunError, SourceError
from geodino.models.classification_folder import load_classification
from geodino.runs.export import export_model
from geodino.runs.finetune import FinetuneJob
from geodino.runs.models import open_model
from geodino.runs.report import report

STEADY = ("classification.dropout=0.2", "loss.label_smoothing=0.1", "sampling.balance=0.5")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return write_folders(tmp_path_factory.mktemp("folders"))


@pytest.fixture(scope="module")
def done(folders, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, run(folders, backbone, out, *STEADY)


@pytest.fixture
def plain(monkeypatch):
    """Runs end without their report."""
    monkeypatch.setattr("geodino.runs.finetune.classification.report.write_report", no_report)


def test_a_run_ends_with_results_a_model_predictions_and_a_report(done):
    out, facts = done
    found = facts["test"]
    assert facts["metric"] == "accuracy"
    assert list(found["scores"]) == [
        "model", "linear probe before the run", "image statistics", "majority class",
    ]  # fmt: skip
    accuracy = found["scores"]["model"]["accuracy"]
    assert accuracy["low"] <= accuracy["value"] <= accuracy["high"]
    assert np.array(found["confusion"]).sum() == found["images"] == 9
    assert found["scores"]["majority class"]["accuracy"]["value"] == pytest.approx(1 / 3)
    said = pq.read_table(out / "predictions.parquet").to_pylist()
    ours = [row for row in said if row["encoder"] == "model"]
    assert len(ours) == 9
    assert all(row["id"].startswith(row["label"]) for row in ours)
    right = sum(row["label"] == row["predicted"] for row in ours)
    assert right / 9 == pytest.approx(accuracy["value"])
    page = (out / "report.html").read_text()
    assert "share of the true images" in page
    assert page.count("<img") == 9
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert any("val/accuracy" in row for row in rows)


def test_the_folder_says_of_images_what_the_run_said(done, folders):
    out, _ = done
    loaded = load_classification(out / "model")
    assert loaded.classes == tuple(COLOURS)
    said = pq.read_table(out / "predictions.parquet").to_pylist()
    for row in [row for row in said if row["encoder"] == "model"]:
        pixels = np.asarray(Image.open(folders / row["id"])).transpose(2, 0, 1)
        with torch.no_grad():
            sure = loaded.model.probabilities(torch.tensor(pixels)[None])[0]
        assert loaded.classes[int(sure.argmax())] == row["predicted"]
        assert float(sure.max()) == pytest.approx(row["confidence"], abs=1e-5)
    # Its backbone is a model like any other.
    assert open_model(out).loaded.contract.band_names == ("red", "green", "blue")


def test_its_report_again_is_the_same_page_and_predicts_nothing(done, tmp_path, monkeypatch):
    out, _ = done
    monkeypatch.setattr("geodino.tasks.classification.evaluate.probabilities", None)
    report(out, out=tmp_path / "again.html", device="cpu")
    assert (tmp_path / "again.html").read_text() == (out / "report.html").read_text()


def test_its_model_is_handed_on_whole_as_a_backbone_or_as_a_graph(done, tmp_path):
    assert_handed_on(
        done[0], tmp_path, load=load_classification, side=16, files="classification",
        said="one of 3 classes for a whole image", classes=COLOURS,
    )  # fmt: skip


def test_a_run_that_has_not_finished_is_told_how_to_go_on(done, tmp_path):
    shutil.copytree(done[0], tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    for attempt in (
        lambda: report(tmp_path / "run", out=None, device="cpu"),
        lambda: export_model(tmp_path / "run", to="hub"),
    ):
        with pytest.raises(RunError, match=r"not finished.*finetune classification --resume"):
            attempt()


def test_a_run_that_was_stopped_ends_as_one_that_was_not(folders, backbone, done, tmp_path, plain):
    out = tmp_path / "halved"
    stopped_after(10, lambda: run(folders, backbone, out, *STEADY))
    run(folders, None, out, resume=True)
    one, other = (load_classification(path / "model") for path in (done[0], out))
    assert_same_weights(one.model, other.model)


def test_a_resumed_run_goes_on_with_its_own_images_and_model_alone(done, tmp_path, folders):
    out, _ = done
    with pytest.raises(RunError, match="was started with --images"):
        run(tmp_path, None, out, resume=True)
    copy = tmp_path / "copy"
    shutil.copytree(folders, copy / "set")
    shutil.copytree(out, copy / "run")
    recorded = json.loads((copy / "run/run.json").read_text())
    (copy / "run/run.json").write_text(json.dumps({**recorded, "source": str(copy / "set")}))
    Image.fromarray(picture((0, 0, 0), 1)).save(copy / "set/grass/0.png")
    with pytest.raises(RunError, match="changed since it was started"):
        run(copy / "set", None, copy / "run", resume=True)


def test_images_with_several_classes_are_judged_class_by_class(backbone, tmp_path, plain):
    table = write_table(tmp_path / "set")
    facts = run(table, backbone, tmp_path / "run", "optim.unfreeze=true", "sampling.balance=0.5")
    assert (facts["kind"], facts["metric"]) == ("multilabel", "micro_f1")
    assert set(facts["test"]["scores"]) >= {"model", "label prevalence"}
    assert facts["test"]["confusion"] is None
    assert 0 < facts["test"]["scores"]["model"]["micro_map"]["value"] <= 1
    loaded = load_classification(tmp_path / "run/model")
    assert loaded.model.kind == "multilabel"
    before = open_model(backbone).loaded.backbone.state_dict()
    moved = {
        n for n, v in loaded.model.backbone.state_dict().items() if not torch.equal(v, before[n])
    }
    assert any(name.startswith("trunk.blocks.1") for name in moved)


def test_other_values_and_bands_become_statistics_of_the_model(backbone, tmp_path, plain):
    folders = write_folders(tmp_path / "set", side=20)
    facts = run(
        folders, backbone, tmp_path / "run", "images.values=zscore", "images.bands=green",
        "floors.probe=false", "sampling.size=30", "train.steps=2",
    )  # fmt: skip
    assert "linear probe before the run" not in facts["test"]["scores"]
    loaded = load_classification(tmp_path / "run/model")
    assert loaded.contract.band_names == ("green",)
    assert loaded.model.image_size == 32
    greens = [np.asarray(Image.open(path))[..., 1] for path in folders.rglob("*.png")]
    assert loaded.contract.mean[0] == pytest.approx(np.mean(greens), rel=0.03)


def test_a_dry_run_says_what_it_would_learn_and_writes_nothing(folders, backbone, tmp_path):
    facts = run(folders, backbone, tmp_path / "dry", dry_run=True)
    assert facts["images_by_part"] == {"train": 18, "val": 3, "test": 9}
    assert facts["flops_per_image"] > 0
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("override", "error", "words"),
    [
        ("images.bands=nir", BandError, "has no band nir"),
        ("images.layout=torchgeo/EuroSAT", SourceError, "holds no labelled set"),
        ("sampling.augment=spins", RecipeError, "augment"),
        ("classification.features=all", RecipeError, "features"),
    ],
)
def test_mistakes_are_named_before_the_first_step(
    override, error, words, folders, backbone, tmp_path
):
    with pytest.raises(error, match=words):
        run(folders, backbone, tmp_path / "out", override)
    assert not (tmp_path / "out").exists()


def loose_image(root):
    Image.fromarray(picture((9, 9, 9), 1)).save(root / "view.png")


def one_class(root):
    for name in ("sand", "water"):
        shutil.rmtree(root / name)


def no_images(root):
    for path in (root / "sand").iterdir():
        path.unlink()


def half_an_image(root):
    path = root / "sand/3.png"
    path.write_bytes(path.read_bytes()[:200])


def two_sizes(root):
    Image.fromarray(picture((9, 9, 9), 1, side=48)).save(root / "sand/big.png")


def a_copy(root):
    shutil.copy(root / "sand/0.png", root / "sand/0again.png")
    shutil.copy(root / "sand/0.png", root / "sand/0once more.png")
    shutil.copy(root / "sand/0.png", root / "sand/0and more.png")


def oblong(root):
    for path in root.rglob("*.png"):
        Image.open(path).crop((0, 0, 16, 8)).save(path)


def no_test_part(root):
    (root / "train").mkdir()
    for name in COLOURS:
        (root / name).rename(root / "train" / name)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (loose_image, "view.png lies in no class folder"),
        (one_class, "one class only"),
        (no_images, "holds no image"),
        (half_an_image, r"3\.png cannot be read"),
        (two_sizes, r"several sizes.*sampling\.size=224"),
        (oblong, r"a quarter turn needs squares"),
        (no_test_part, "neither test/ nor val/"),
    ],
)
def test_a_spoilt_set_is_told_what_is_wrong_with_it(spoil, words, backbone, tmp_path):
    folders = write_folders(tmp_path / "set", each=5)
    spoil(folders)
    with pytest.raises(SourceError, match=words):
        run(folders, backbone, tmp_path / "out", "train.steps=1")
    assert not (tmp_path / "out").exists()


def test_test_images_that_were_learnt_by_heart_are_told(backbone, tmp_path, plain):
    folders = write_folders(tmp_path / "set", each=3)
    a_copy(folders)
    facts = run(folders, backbone, tmp_path / "out", "train.steps=1", "floors.probe=false")
    assert any("copies of training images" in alarm for alarm in facts["alarms"])


def test_labels_that_are_no_classes_of_images_name_the_command_that_learns_them(backbone, tmp_path):
    with pytest.raises(RecipeError, match="geodino finetune segmentation"):
        run("mini/mini-segments", backbone, tmp_path / "out")
    with pytest.raises(SourceError, match="holds 4 sets"):
        run("mini", backbone, tmp_path / "out")


def test_options_of_other_tasks_are_refused_not_ignored(folders, backbone, tmp_path):
    with pytest.raises(RecipeError, match="leave --labels out"):
        run(folders, backbone, tmp_path / "out", labels=str(tmp_path))
    with pytest.raises(RecipeError, match=r"images\.classes names those of a table"):
        run(folders, backbone, tmp_path / "out", "images.classes=[a,b]")
    with pytest.raises(RecipeError, match="Leave --split out"):
        run(folders, backbone, tmp_path / "out", split="parts.gpkg")
    with pytest.raises(RecipeError, match="--labels is missing"):
        FinetuneJob(task="canopy", images="images", out=tmp_path).needed_labels  # noqa: B018
    with pytest.raises(ContractError, match=r"images\.values: zscore"):
        run("mini/mini-cover", backbone, tmp_path / "out")
