"""Detection in images that the model sees at another resolution: learnt coarse, judged fine."""

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
import torch
from affine import Affine
from canopy_support import write_backbone
from detection_support import run, write_town

from geodino.errors import RecipeError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool
from geodino.models.detection_folder import load_detection
from geodino.runs.finetune import FinetuneJob
from geodino.runs.finetune.detection.prepare import PREPARATION
from geodino.runs.finetune.detection.scene import look
from geodino.runs.predict import PredictJob, predict

FINER, SIDE = 3, 128
SPLIT = ("split.block_m=40.0", "split.shares={train: 0.5, val: 0.2, calibration: 0, test: 0.3}")


@pytest.fixture(scope="module")
def town(tmp_path_factory):
    return write_town(tmp_path_factory.mktemp("town"))


@pytest.fixture(scope="module")
def fine(town, tmp_path_factory):
    """The same town in pixels a third as long."""
    folder = tmp_path_factory.mktemp("fine")
    for path in (town / "images").glob("*.tif"):
        with rasterio.open(path) as file:
            pixels, profile = file.read(), file.profile
        profile.update(
            height=FINER * SIDE, width=FINER * SIDE,
            transform=profile["transform"] @ Affine.scale(1 / FINER),
        )  # fmt: skip
        with rasterio.open(folder / path.name, "w", **profile) as file:
            file.write(pixels.repeat(FINER, axis=1).repeat(FINER, axis=2))
    return folder


@pytest.fixture(scope="module")
def gsd_m(town):
    """What a pixel of the coarse images is on the ground: 0.6 m of the map, and a little."""
    with rasterio.open(town / "images/s0.tif") as file:
        return float(np.mean(Grid(str(file.crs), file.transform, SIDE, SIDE).gsd_m))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return write_backbone(tmp_path_factory.mktemp("backbone"))


def scene_of(images, labels, model, out, *overrides):
    job = FinetuneJob(
        task="detection", images=str(images), labels=str(labels), out=out,
        recipe="debug-detection", overrides=("sampling.crop=64", *SPLIT, *overrides),
    )  # fmt: skip
    return look(PREPARATION.prepare(job, str(model), HandlePool()))


def test_crops_of_repeated_pixels_seen_at_the_first_resolution_are_those_of_the_first(
    town, fine, backbone, gsd_m, tmp_path
):
    boxes = town / "buildings"
    first = scene_of(town / "images", boxes, backbone, tmp_path)
    second = scene_of(fine, boxes, backbone, tmp_path, f"gsd_m={gsd_m}")
    np.testing.assert_allclose(first.places.side, second.places.side, atol=1e-2)
    source, key = second.prepared.source, second.places.keys[0]
    np.testing.assert_allclose(source.steps(key), FINER, rtol=1e-4)
    half = Window(0, 0, SIDE, SIDE)
    ground = first.prepared.source.ground(key, half)
    assert 0 < ground.sum() < SIDE * SIDE
    assert (source.seen_ground(key, half) != ground).mean() < 0.02
    count = lost = 0
    for one, other in zip(first.feed().batches(0, 6), second.feed().batches(0, 6), strict=True):
        assert torch.equal(one.pixels, other.pixels)
        for mine, theirs in zip(one.objects, other.objects, strict=True):
            apart = (mine.boxes[:, None] - theirs.boxes[None]).abs().amax(dim=2)
            # An object of which exactly a quarter lies in the crop may be in one and not the other.
            lost += int((apart > 1e-2).all(dim=1).sum() + (apart > 1e-2).all(dim=0).sum())
            count += len(mine.boxes)
    assert count > 10
    assert lost <= 1


def test_boxes_are_judged_in_pixels_of_the_files_as_predictions_find_them(
    town, fine, backbone, gsd_m, tmp_path
):
    out = tmp_path / "run"
    facts = run(
        fine,
        town / "buildings",
        backbone,
        out,
        "sampling.crop=64",
        "train.steps=2",
        "validation.every=2",
        *SPLIT,
        f"gsd_m={gsd_m}",
    )
    loaded = load_detection(out / "model")
    assert loaded.extra["gsd_m"] == gsd_m
    assert loaded.contract.gsd_m == pytest.approx((gsd_m, gsd_m))
    kept = pd.read_parquet(out / "predictions.parquet")
    kept = kept[kept["part"] == facts["reported_on"]]
    name = kept["image"].iloc[0]
    kept = kept[kept["image"] == name].sort_values("score", ascending=False)
    predict(
        PredictJob(
            rasters=(str(fine / name),), model=str(out), out=tmp_path / "boxes.parquet",
            device="cpu", quiet=True, score=0.05,
        )
    )  # fmt: skip
    found = geopandas.read_parquet(tmp_path / "boxes.parquet")
    corners = ["x0", "y0", "x1", "y1"]
    theirs = found[corners].to_numpy()
    assert len(kept) > 3
    assert kept[corners].to_numpy().max() > SIDE
    for box in kept[corners].to_numpy().clip(0, FINER * SIDE):
        assert np.abs(theirs - box).max(axis=1).min() < 1e-2
    assert f"resampled to {gsd_m:g} m" in (out / "report.html").read_text()


def test_two_rules_for_what_the_model_sees_are_refused(town, fine, backbone, tmp_path):
    with pytest.raises(RecipeError, match=r"size: 64 and gsd_m: 0\.6 both say"):
        run(fine, town / "buildings", backbone, tmp_path / "out", "size=64", "gsd_m=0.6")
