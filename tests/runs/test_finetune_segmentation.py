"""`geodino finetune segmentation`: the whole path, exact resume, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from finetune_support import assert_handed_on, assert_same_weights, stopped_after
from PIL import Image
from segmentation_support import run, write_world

from geodino.errors import BandError, RecipeError, RunError, SourceError
from geodino.models.segmentation_folder import load_segmentation
from geodino.runs.finetune import FinetuneJob, finetune
from geodino.runs.predict import PredictJob, predict
from geodino.runs.report import report

NAMES = ["grass", "arable", "trees", "water", "built"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def done(world, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, run(world, backbone, out, "sampling.balance=0.5", "loss.dice=1.0")


def test_a_run_ends_with_results_a_model_and_a_report(done):
    out, facts = done
    on = facts["reported_on"]
    assert on == "test"
    scores = facts[on]["scores"]
    assert set(scores) == {"model", "most frequent class", "logistic regression on bands"}
    miou = scores["model"]["miou"]
    assert 0 < miou["value"] < 1
    if facts[on]["images"] > 1:
        assert miou["low"] <= miou["value"] <= miou["high"]
    else:
        assert facts[on]["note"].startswith("one image")
    assert set(facts[on]["classes"]) == set(NAMES)
    confusion = np.array(facts[on]["confusion"])
    assert confusion.sum() == facts[on]["pixels"]
    loaded = load_segmentation(out / "model")
    assert [one.name for one in loaded.classes] == NAMES
    assert loaded.extra["chip"] == 64
    assert loaded.extra["results"]["miou"] == pytest.approx(scores["model"]["miou"]["value"])
    page = (out / "report.html").read_text()
    assert page.count("data:image/png") >= 3
    assert "True classes down" in page
    assert {"recipe.yaml", "run.json", "tiles.parquet", "split.parquet"} <= {
        p.name for p in out.iterdir()
    }
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert {"loss/cross_entropy", "loss/dice"} <= set(rows[0])
    assert any("val/miou" in row for row in rows)


def test_the_model_of_a_run_makes_maps(done, world, tmp_path):
    out, _ = done
    raster = next((world / "images").glob("*.tif"))
    predict(
        PredictJob(
            rasters=(str(raster),), model=str(out), out=tmp_path / "m.tif", device="cpu", quiet=True
        )
    )
    assert (tmp_path / "m.tif").exists()


def test_its_report_again_is_the_same_page(done, tmp_path):
    out, _ = done
    report(out, out=tmp_path / "again.html", device="cpu")
    assert (tmp_path / "again.html").read_text() == (out / "report.html").read_text()


def test_its_model_is_handed_on_whole_as_a_backbone_or_as_a_graph(done, tmp_path):
    assert_handed_on(
        done[0], tmp_path, load=load_segmentation, side=64, files="segmentation",
        said="## Classes of pixels", classes=NAMES,
    )  # fmt: skip


def test_a_run_that_was_stopped_ends_as_one_that_was_not(world, backbone, done, tmp_path):
    out = tmp_path / "halved"
    stopped_after(10, lambda: run(world, backbone, out, "sampling.balance=0.5", "loss.dice=1.0"))
    run(world, backbone, out, resume=True)
    one, other = (load_segmentation(path / "model") for path in (done[0], out))
    assert_same_weights(one.model, other.model)
    with pytest.raises(RunError, match="another recipe"):
        finetune(
            FinetuneJob(
                task="segmentation", images=str(world / "images"),
                labels=str(world / "classes"), out=out, resume=True, quiet=True,
                overrides=("optim.lr=1.0",), device="cpu",
            )
        )  # fmt: skip


def test_what_lies_under_invalid_pixels_changes_no_bit(backbone, tmp_path):
    found = []
    for fill in (0, 255):
        world = write_world(tmp_path / f"w{fill}", fill=fill)
        out = tmp_path / f"r{fill}"
        run(world, backbone, out, "train.steps=3", "validation.every=3", "floors.pixels=0")
        found.append(load_segmentation(out / "model").model.head)
    assert_same_weights(*found)


def loveda(root, side=64):
    generator = np.random.default_rng(0)
    for part, numbers in (("Train", (1, 2)), ("Val", (3,)), ("Test", (4,))):
        for number in numbers:
            folder = root / part / "Urban"
            mask = (
                generator.integers(0, 8, size=(side // 16, side // 16)).repeat(16, 0).repeat(16, 1)
            )
            picture = np.stack([mask * 30] * 3, axis=-1).astype(np.uint8)
            for name, array in (("images_png", picture), ("masks_png", mask.astype(np.uint8))):
                if part == "Test" and name == "masks_png":
                    continue
                (folder / name).mkdir(parents=True, exist_ok=True)
                Image.fromarray(array).save(folder / name / f"{number}.png")
    return root


def test_a_folder_of_loveda_is_known_and_its_hidden_test_part_is_left_alone(backbone, tmp_path):
    root = loveda(tmp_path / "loveda")
    job = FinetuneJob(
        task="segmentation", images=str(root), labels=str(root), model=str(backbone),
        out=tmp_path / "run", recipe="debug-segmentation", device="cpu", quiet=True,
        overrides=("train.steps=2", "segmentation.head.kind=upernet",
                   "segmentation.head.channels=8", "maps.chip=64"),
    )  # fmt: skip
    facts = finetune(job)
    assert finetune(replace(job, model=None, recipe=None, overrides=(), resume=True)) == facts
    assert facts["reported_on"] == "val"
    assert facts["test"] is None
    assert load_segmentation(tmp_path / "run/model").classes[1].name == "building"
    with pytest.raises(RecipeError, match="whose labels lie in the same folder"):
        finetune(
            FinetuneJob(
                task="segmentation", images=str(root), labels=str(tmp_path), model=str(backbone),
                out=tmp_path / "other", recipe="debug-segmentation", device="cpu", quiet=True,
            )
        )  # fmt: skip


def test_a_dry_run_says_what_it_would_learn_and_writes_nothing(world, backbone, tmp_path):
    facts = run(world, backbone, tmp_path / "dry", "loss.weights=inverse", dry_run=True)
    assert "arable" in facts["classes"]
    assert "classes weighted" in facts["loss"]
    assert facts["flops_per_crop"] > 0
    assert not (tmp_path / "dry").exists()


@pytest.mark.parametrize(
    ("override", "error", "words"),
    [
        ("loss.weights=[1.0, 2.0]", RecipeError, "2 numbers for 5 classes"),
        ("labels.background=sky", RecipeError, "none of the classes"),
        ("labels.layout=vectors", SourceError, "vector file"),
        ("data.bands=[red, green]", BandError, "2 bands"),
        ("sampling.parts=[val]", RecipeError, "parts must be"),
    ],
)
def test_mistakes_are_named_before_the_first_step(
    override, error, words, world, backbone, tmp_path
):
    with pytest.raises(error, match=words):
        run(world, backbone, tmp_path / "out", override)
    assert not (tmp_path / "out").exists()


def test_every_recipe_of_segmentation_can_be_read():
    from geodino.runs.finetune.segmentation.config import SegmentationFinetuneConfig
    from geodino.runs.recipe import load_any_recipe

    folder = Path(__file__).resolve().parents[2] / "recipes"
    for name in (
        "segmentation", "segmentation-mask2former", "debug-segmentation", "loveda", "isaid",
    ):  # fmt: skip
        assert (folder / f"{name}.yaml").exists()
        assert isinstance(load_any_recipe(name), SegmentationFinetuneConfig)
