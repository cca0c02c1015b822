"""Learning with matrices in bfloat16, as all runs do on a GPU unless told otherwise."""

import math

import canopy_support
import classification_support
import detection_support
import pytest
import segmentation_support
from tests_support import no_report

from geodino.files import read_lines
from geodino.runs.pretrain import PretrainJob, pretrain

QUERIES = (
    "kind=mask2former", "channels=64", "queries=8", "layers=1", "encoder_layers=1", "points=512"
)  # fmt: skip
FEW = ("train.precision=bfloat16", "train.steps=3", "validation.every=3")


@pytest.fixture(autouse=True)
def without_reports(monkeypatch):
    for task in ("canopy", "classification", "detection", "segmentation"):
        monkeypatch.setattr(f"geodino.runs.finetune.{task}.report.write_report", no_report)


def learnt(facts, out):
    rows = [row for row in read_lines(out / "metrics.jsonl") if "loss/total" in row]
    assert rows
    assert all(math.isfinite(row["loss/total"]) for row in rows)
    assert (out / "model").is_dir()
    return facts


def test_three_phases(tiles, tmp_path):
    out = tmp_path / "run"
    steps = [f"phases.{name}.steps=2" for name in ("pretrain", "gram", "highres")]
    pretrain(
        PretrainJob(
            tiles=str(tiles), out=out, recipe="debug-three-phases", device="cpu", quiet=True,
            overrides=("train.precision=bfloat16", *steps),
        )
    )  # fmt: skip
    learnt({}, out)
    rows = read_lines(out / "metrics.jsonl")
    assert {row["phase"] for row in rows if "phase" in row} == {"pretrain", "gram", "highres"}


@pytest.mark.parametrize("head", ["linear", "dpt"])
def test_canopy_heights(backbone, tmp_path, head):
    world = canopy_support.write_world(tmp_path / "world")
    out = tmp_path / "run"
    facts = canopy_support.run(world, backbone, out, *FEW, f"canopy.head.kind={head}")
    scores = learnt(facts, out)[facts["reported_on"]]["scores"]["model"]
    assert math.isfinite(scores["mae_m"]["value"])


@pytest.mark.parametrize("settings", [("kind=linear",), ("kind=dpt",), ("kind=upernet",), QUERIES])
def test_segmentation(backbone, tmp_path, settings):
    world = segmentation_support.write_world(tmp_path / "world")
    out = tmp_path / "run"
    head = [f"segmentation.head.{setting}" for setting in settings]
    learnt(segmentation_support.run(world, backbone, out, *FEW, *head), out)


def test_detection(backbone, tmp_path):
    world = detection_support.write_squares(tmp_path / "world", {"train": 4, "val": 2, "test": 2})
    out = tmp_path / "run"
    facts = detection_support.run(world / "images", world / "labels", backbone, out, *FEW)
    learnt(facts, out)


def test_classification(backbone, tmp_path):
    images = classification_support.write_folders(tmp_path / "images")
    out = tmp_path / "run"
    learnt(classification_support.run(images, backbone, out, *FEW), out)
