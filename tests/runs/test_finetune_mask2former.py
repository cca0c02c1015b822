"""`geodino finetune segmentation` with a query head: the whole path, exact resume, what is refused."""

import json

import numpy as np
import pytest
import rasterio
import torch
from canopy_support import write_backbone
from segmentation_support import run, write_world

from geodino.errors import RecipeError
from geodino.models.segmentation_folder import load_segmentation
from geodino.runs.export import export_model
from geodino.runs.predict import PredictJob, predict
from geodino.runs.report import report

pytest.importorskip("transformers", reason="the extra hub is not installed")

QUERIES = tuple(
    f"segmentation.head.{setting}"
    for setting in ("kind=mask2former", "channels=64", "queries=8", "layers=1",
                    "encoder_layers=1", "points=512")
)  # fmt: skip


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return write_backbone(tmp_path_factory.mktemp("backbone"))


@pytest.fixture(scope="module")
def done(world, backbone, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    return out, run(world, backbone, out, *QUERIES, "optim.lr=0.001")


def test_a_run_ends_with_results_a_model_and_a_report(done, tmp_path):
    out, facts = done
    assert 0 < facts["test"]["scores"]["model"]["miou"]["value"] < 1
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    totals = [row["loss/total"] for row in rows if "loss/total" in row]
    assert {"loss/class", "loss/mask", "loss/dice"} <= set(rows[0])
    assert "loss/cross_entropy" not in rows[0]
    assert sum(totals[-5:]) < sum(totals[:5])
    assert "masks of queries" in (out / "report.html").read_text()
    report(out, out=tmp_path / "again.html", device="cpu")
    assert (tmp_path / "again.html").read_text() == (out / "report.html").read_text()


def test_its_model_makes_maps_of_classes(done, world, tmp_path):
    out, _ = done
    raster = next((world / "images").glob("*.tif"))
    predict(
        PredictJob(
            rasters=(str(raster),), model=str(out), out=tmp_path / "m.tif", device="cpu",
            quiet=True, probabilities=True,
        )
    )  # fmt: skip
    with rasterio.open(tmp_path / "m.tif") as classes:
        assert set(np.unique(classes.read(1))) <= {0, 1, 2, 3, 4, 255}
    with rasterio.open(tmp_path / "m.probabilities.tif") as shares:
        assert shares.count == 5
        np.testing.assert_allclose(shares.read().sum(axis=0), 1.0, atol=1e-5)


def test_a_run_that_was_stopped_ends_as_one_that_was_not(
    world, backbone, done, tmp_path, monkeypatch
):
    straight, _ = done
    from geodino.runs.finetune.recorder import FinetuneRecorder

    keep = FinetuneRecorder.keep

    class Killed(BaseException):
        pass

    def kill_at_ten(self, trainer, module):
        keep(self, trainer, module)
        if trainer.global_step == 10:
            raise Killed

    monkeypatch.setattr(FinetuneRecorder, "keep", kill_at_ten)
    out = tmp_path / "halved"
    with pytest.raises(Killed):
        run(world, backbone, out, *QUERIES, "optim.lr=0.001")
    monkeypatch.setattr(FinetuneRecorder, "keep", keep)
    torch.rand(3)
    run(world, backbone, out, resume=True)
    one, other = load_segmentation(straight / "model"), load_segmentation(out / "model")
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, other.model.state_dict()[name]), name


def test_its_model_is_handed_on_whole_or_as_a_graph(done, tmp_path):
    out, _ = done
    ours = load_segmentation(out / "model")
    export_model(out, to="hub", out=tmp_path / "hub")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    with torch.no_grad():
        expected = ours.model.probabilities(image)
    assert torch.equal(load_segmentation(tmp_path / "hub").model.probabilities(image), expected)
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    export_model(out, to="onnx", out=tmp_path / "m.onnx")
    (found,) = runtime.InferenceSession(tmp_path / "m.onnx").run(
        ["probabilities"], {"image": image.numpy()}
    )
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4)
    with torch.no_grad():
        assert torch.equal(ours.model.probabilities(image), expected)


def test_its_loss_is_told_before_the_first_step_and_losses_of_pixels_are_refused(
    world, backbone, tmp_path
):
    facts = run(world, backbone, tmp_path / "dry", *QUERIES, dry_run=True)
    assert facts["loss"].startswith("2 x class, 5 x mask and 5 x Dice")
    with pytest.raises(RecipeError, match="head mask2former brings its own loss"):
        run(world, backbone, tmp_path / "out", *QUERIES, "loss.dice=1.0")
    assert not (tmp_path / "out").exists()


def test_heights_have_no_queries():
    from geodino.runs.finetune.canopy.config import CanopyFinetuneConfig

    values = {"description": "x", "canopy": {"head": {"kind": "mask2former"}}}
    with pytest.raises(RecipeError, match="mask2former"):
        CanopyFinetuneConfig.parse(values, source="The recipe")
