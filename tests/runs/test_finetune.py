"""``geodino finetune canopy``: heads that learn, runs that resume, results with floors, mistakes."""

import json
import os
import shutil
import signal

import geopandas
import numpy as np
import pytest
import rasterio
import torch
from canopy_support import run, write_backbone, write_footprints, write_world
from process_support import Strike, run_geodino
from safetensors.torch import load_file
from shapely import box
from tests_support import no_report

from geodino.errors import (
    BandError,
    CheckpointError,
    ContractError,
    RecipeError,
    RunError,
    SourceError,
)
from geodino.files import read_lines
from geodino.models.canopy_folder import load_canopy
from geodino.models.card import DINOV3_LICENSE
from geodino.runs.predict import PredictJob, predict
from geodino.tasks.canopy.applicability import load_applicability

UNREPEATABLE = {"time", "images_per_s", "data_wait", "memory_gib"}
LONG = ("train.steps=40", "validation.every=20", "checkpoint.every=10", "checkpoint.keep=9",
        "optim.lr=3e-2", "curriculum.gradient_weight=0.0", "split.block_m=200.0")  # fmt: skip
FEW = ("train.steps=4", "validation.every=2", "checkpoint.every=1", "checkpoint.keep=9")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    parent = {"name": "vit_large_patch16_dinov3.sat493m", "relation": "distilled from"}
    return write_backbone(tmp_path_factory.mktemp("base") / "model", lineage=[parent])


@pytest.fixture(scope="module")
def done(world, base, tmp_path_factory):
    """A finished run that learns for a while, and what it said."""
    out = tmp_path_factory.mktemp("runs") / "done"
    return out, run(world, base, out, *LONG)


@pytest.fixture(autouse=True)
def _plots_are_drawn_once(monkeypatch):
    """Every plot takes a while; the run of ``done`` draws them."""
    monkeypatch.setattr("geodino.runs.finetune.canopy.report.write_report", no_report)


def numbers(out):
    rows = read_lines(out / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in UNREPEATABLE} for row in rows]


def same(a, b):
    for name in ("canopy.safetensors", "model.safetensors", "applicability.safetensors"):
        assert (a / "model" / name).read_bytes() == (b / "model" / name).read_bytes(), name
    assert numbers(a) == numbers(b)
    ours, theirs = (json.loads((run / "run.json").read_text())["results"] for run in (a, b))
    assert ours == theirs


def forget_after(out, step):
    """Leave a run as it was when it died just after saving ``step``."""
    for path in (out / "checkpoints").glob("step-*.ckpt"):
        if int(path.stem.removeprefix("step-")) > step:
            path.unlink()
    last = out / "checkpoints" / "last.ckpt"
    last.unlink()
    os.link(out / "checkpoints" / f"step-{step:08d}.ckpt", last)
    shutil.rmtree(out / "model")
    (out / "report.html").unlink(missing_ok=True)


def test_it_learns_and_beats_the_mean_height_on_ground_it_never_saw(done):
    out, facts = done
    losses = [row["loss/charbonnier"] for row in numbers(out) if "loss/total" in row]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    assert facts["reported_on"] == "test"
    scores = facts["test"]["scores"]
    assert scores["model"]["mae_m"]["value"] < scores["mean height"]["mae_m"]["value"]
    assert set(scores) == {"model", "mean height", "height by greenness"}


def test_a_run_leaves_everything_that_was_promised(done):
    out, facts = done
    names = {path.name for path in out.iterdir()}
    assert {"recipe.yaml", "run.json", "tiles.parquet", "split.parquet", "metrics.jsonl", "log.txt",
            "checkpoints", "model", "report.html"} <= names  # fmt: skip
    assert facts["model"] == str(out / "model")
    page = (out / "report.html").read_text()
    assert "Error by true height" in page
    assert page.count("<img") >= 4
    loaded = load_canopy(out / "model")
    assert loaded.license == DINOV3_LICENSE
    assert [parent.name for parent in loaded.lineage][-1] == "tiny"
    assert loaded.extra["chip"] == 64
    assert loaded.extra["overlap"] == 16
    assert loaded.extra["labels"]["statistic"] == "max"
    assert "at least 9 calibration sites" in loaded.extra["intervals_missing"]
    near = load_applicability(out / "model")
    assert near is not None
    inside = near.distances(near.tokens)
    assert float(inside.max()) == pytest.approx(0.0, abs=0.05)  # cdist multiplies matrices


def test_a_map_of_predict_scores_what_the_run_reported(done, world, tmp_path):
    # The second implementation of everything between pixels and scores: predict, rasterio, numpy.
    out, facts = done
    split = geopandas.read_parquet(out / "split.parquet")
    errors = []
    for site in split[split["split"] == "test"].itertuples():
        for path in sorted((world / "images").glob("*.tif")):
            with rasterio.open(path) as image, rasterio.open(world / "heights" / path.name) as file:
                area = box(*image.bounds)
                own = geopandas.GeoSeries([site.geometry], crs=split.crs).to_crs(image.crs)[0]
                if own.intersection(area).area < 0.5 * area.area:
                    continue
                truth = file.read(1)
            target = tmp_path / path.name
            predict(PredictJob(rasters=(str(path),), model=str(out), out=target, device="cpu",
                               quiet=True))  # fmt: skip
            with rasterio.open(target) as file:
                errors.append(np.abs(file.read(1) - truth).ravel())
    mae = facts["test"]["scores"]["model"]["mae_m"]["value"]
    assert np.concatenate(errors).mean() == pytest.approx(mae, rel=1e-6)


def test_kill_9_and_resume_equals_the_uninterrupted_run_bit_for_bit(done, world, base, tmp_path):
    out = tmp_path / "killed"
    killed = run_geodino(
        "finetune", "canopy", "--images", world / "images", "--labels", world / "heights",
        "--model", base, "--recipe", "debug-canopy", "--out", out, "--device", "cpu", "--quiet",
        *[word for setting in LONG for word in ("--set", setting)],
        strike=Strike(signal.SIGKILL, "step-00000030.ckpt"),
    )  # fmt: skip
    assert killed.returncode == -signal.SIGKILL, killed
    assert (out / "checkpoints" / "step-00000020.ckpt").exists()
    assert not (out / "model").exists()
    run(world, base, out, resume=True)
    same(done[0], out)


def test_what_lies_under_invalid_pixels_changes_no_weight(base, tmp_path):
    worlds = [
        write_world(tmp_path / str(fill), fill=fill, hidden_m=hidden)
        for fill, hidden in ((0, -9999.0), (200, 77.0))
    ]
    for world in worlds:
        run(world, base, world / "run", *FEW)
    a, b = (world / "run" / "model" / "canopy.safetensors" for world in worlds)
    assert a.read_bytes() == b.read_bytes()


def test_footprints_teach_and_are_scored_as_percentiles(world, base, tmp_path):
    labels = write_footprints(world)
    facts = run(world, base, tmp_path / "run", *FEW, labels=labels)
    scores = facts[facts["reported_on"]]["scores"]
    assert scores["model"]["mae_m"]["value"] > 0
    assert "loss/gradient" not in numbers(tmp_path / "run")[-2]
    loaded = load_canopy(tmp_path / "run" / "model")
    assert loaded.extra["labels"]["kind"] == "footprints"
    assert loaded.extra["labels"]["percentile"] == 98.0


def test_a_backbone_learns_only_when_it_is_told_to(done, world, base, tmp_path):
    before = load_file(base / "model.safetensors")
    frozen = load_file(done[0] / "model" / "model.safetensors")
    assert all(torch.equal(before[k], frozen[k]) for k in before)
    facts = run(world, base, tmp_path / "run", *FEW, unfreeze=True)
    after = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert facts["step"] > 0
    moved = {k for k in before if not torch.equal(before[k], after[k])}
    assert "blocks.0.attn.qkv.weight" in moved or "blocks.0.mlp.fc1.weight" in moved
    again = tmp_path / "again"
    shutil.copytree(tmp_path / "run", again)
    forget_after(again, 2)
    run(world, None, again, resume=True)
    same(tmp_path / "run", again)


def test_a_run_stops_early_and_keeps_its_best_head(world, base, tmp_path):
    # A rate of 1e-30 changes nothing: no later look is better than the first.
    facts = run(world, base, tmp_path / "run", "train.steps=9", "validation.every=1",
                "validation.patience=2", "optim.lr=1e-30")  # fmt: skip
    assert facts["step"] == 1
    assert "2 looks" in facts["stopped_early"]
    assert max(row["step"] for row in numbers(tmp_path / "run")) == 2
    resumed = run(world, None, tmp_path / "run", resume=True)
    assert resumed["test"] == facts["test"]


def test_intervals_are_saved_where_there_are_sites_enough(world, base, tmp_path):
    # Blocks of 30 m: some dozens of sites; half of them calibrate, for 75 % of the pixels.
    facts = run(world, base, tmp_path / "run", *FEW, "split.block_m=32.0", "split.buffer_m=0.0",
                "split.shares={train: 0.3, val: 0.1, calibration: 0.3, test: 0.3}",
                "intervals.coverage=0.75", "canopy.quantiles=[0.1, 0.9]")  # fmt: skip
    assert facts["intervals"]["kind"] == "quantiles"
    assert 0.5 < facts["coverage"]["coverage"] <= 1.0
    loaded = load_canopy(tmp_path / "run" / "model")
    assert loaded.extra["intervals"] == facts["intervals"]
    mae = facts["test"]["scores"]["model"]["mae_m"]
    assert mae["low"] < mae["value"] < mae["high"]


def test_images_are_seen_at_the_resolution_that_was_asked(world, base, tmp_path):
    facts = run(world, base, tmp_path / "run", *FEW, "gsd_m=1.2")
    assert load_canopy(tmp_path / "run" / "model").contract.gsd_m == pytest.approx((1.2, 1.2), 1e-2)
    assert facts["test"]["pixels"] == 128 * 128  # still on the labels' own grid


def as_floats(world, folder):
    """The images as numbers of another type, a quarter as large, in bands without names."""
    folder.mkdir()
    for path in (world / "images").glob("*.tif"):
        with rasterio.open(path) as file:
            pixels, profile = file.read(), file.profile
        profile.update(dtype="float32", photometric="minisblack")
        with rasterio.open(folder / path.name, "w", **profile) as file:
            file.write(pixels.astype(np.float32) / 4)
    return folder


def test_images_of_another_type_teach_the_same_once_their_scale_and_bands_are_declared(
    world, base, tmp_path
):
    plain = run(world, base, tmp_path / "plain", *FEW)
    (tmp_path / "other").mkdir()
    as_floats(world, tmp_path / "other" / "images")
    other, heights = tmp_path / "other", world / "heights"
    declared = "data.bands=[1,2,3]"
    with pytest.raises(ContractError, match=r"float32.*\n.*--scale is scale \(--set scale=1\)"):
        run(other, base, tmp_path / "floats", *FEW, declared, labels=heights)
    found = run(other, base, tmp_path / "floats", *FEW, declared, "scale=4", labels=heights)
    # 0 to 255 and a quarter of each are exact in float32: not a bit may differ.
    assert found["test"] == plain["test"]
    assert "height by greenness" in found["test"]["scores"]


def test_a_dry_run_says_what_would_be_learnt_and_writes_nothing(world, base, tmp_path):
    facts = run(world, base, tmp_path / "run", dry_run=True)
    assert not (tmp_path / "run").exists()
    assert facts["sites"]["train"] > 0
    assert facts["flops_per_crop"] > 0
    assert "frozen" in facts["model"]


def elsewhere(world, folder):
    for path in (world / "heights").glob("*.tif"):
        with rasterio.open(path) as file:
            heights, profile, transform = file.read(1), file.profile, file.transform
        profile.update(transform=transform @ rasterio.Affine.translation(0, 500_000))
        folder.mkdir(exist_ok=True)
        with rasterio.open(folder / path.name, "w", **profile) as file:
            file.write(heights, 1)
            file.units = ("m",)
    return folder


def changed(world, folder, *, unit="m", factor=1.0):
    folder.mkdir()
    for path in (world / "heights").glob("*.tif"):
        with rasterio.open(path) as file:
            heights, profile = file.read(1), file.profile
        with rasterio.open(folder / path.name, "w", **profile) as file:
            file.write(heights * factor, 1)
            if unit:
                file.units = (unit,)
    return folder


def no_crs(world, folder):
    folder.mkdir()
    for path in (world / "images").glob("*.tif"):
        with rasterio.open(path) as file:
            pixels, profile = file.read(), file.profile
        profile.update(crs=None)
        with rasterio.open(folder / path.name, "w", **profile) as file:
            file.write(pixels)
    return folder


def test_mistakes_about_labels_are_one_sentence_each(world, base, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(SourceError, match="None of the 6 labels lies on any of the 6 images"):
        run(world, base, out, labels=elsewhere(world, tmp_path / "far"))
    with pytest.raises(BandError, match=r"Declare it: --set labels\.unit=m"):
        run(world, base, out, labels=changed(world, tmp_path / "unknown", unit=None))
    with pytest.raises(BandError, match=r"labels\.unit: dm"):
        run(world, base, out, labels=changed(world, tmp_path / "dm", factor=10.0))
    assert not out.exists()


def test_mistakes_about_images_and_model_are_one_sentence_each(world, base, tmp_path):
    out = tmp_path / "run"
    bare = tmp_path / "bare"
    bare.mkdir()
    no_crs(world, bare / "images")
    with pytest.raises(SourceError, match="has no place on the Earth"):
        run(bare, base, out, labels=world / "heights")
    four = write_backbone(tmp_path / "four", bands=("red", "green", "blue", "nir"))
    with pytest.raises(BandError, match="reads 4"):
        run(world, four, out)
    swapped = write_backbone(tmp_path / "swapped", bands=("nir", "green", "blue"))
    with pytest.raises(ContractError, match="nir"):
        run(world, swapped, out)
    with pytest.raises(ContractError, match="gsd"):
        run(world, base, out, "gsd_m=6.0")
    with pytest.raises(RecipeError, match="--model is missing"):
        run(world, None, out)
    with pytest.raises(RecipeError, match="recipe of pretraining"):
        run(world, base, out, recipe="debug")
    with pytest.raises(CheckpointError):
        run(world, tmp_path / "nothing", out)
    assert not out.exists()


def test_a_split_without_validation_ground_is_refused(world, base, tmp_path):
    with rasterio.open(world / "heights" / "s0.tif") as file:
        area, crs = box(*file.bounds), file.crs
    path = tmp_path / "split.gpkg"
    geopandas.GeoDataFrame({"split": ["train"]}, geometry=[area], crs=crs).to_file(path)
    with pytest.raises(SourceError, match="needs both train and val"):
        run(world, base, tmp_path / "run", split=str(path))
    away = box(0, 0, 10, 10)
    frame = geopandas.GeoDataFrame({"split": ["train", "val"]}, geometry=[area, away], crs=crs)
    frame.to_file(path)
    with pytest.raises(SourceError, match="no label on the ground for validation"):
        run(world, base, tmp_path / "run", split=str(path))


def test_a_used_folder_and_another_run_are_refused(done, world, base, tmp_path):
    out, _ = done
    with pytest.raises(RunError, match="add --resume"):
        run(world, base, out)
    copy = tmp_path / "run"
    shutil.copytree(out, copy)
    with pytest.raises(RunError, match="was started with --labels"):
        run(world, None, copy, labels=world / "images", resume=True)
    other = write_backbone(tmp_path / "other")
    with pytest.raises(RunError, match="was started with --model"):
        run(world, other, copy, resume=True)
    with pytest.raises(RunError, match=r"train\.seed: 0 -> 3"):
        run(world, None, copy, resume=True, seed=3)


def test_data_that_changed_is_noticed_on_resume(done, world, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(done[0], copy)
    facts = json.loads((copy / "run.json").read_text())
    facts["data"]["fingerprint"] = "0" * 64
    (copy / "run.json").write_text(json.dumps(facts))
    with pytest.raises(RunError, match=r"labels or split of .* changed"):
        run(world, None, copy, resume=True)
