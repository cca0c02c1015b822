"""A finished run of canopy heights: its report again, its model in other forms."""

import json
import shutil
from typing import get_args

import numpy as np
import pytest
import timm
import torch
from canopy_support import run, write_backbone, write_world
from tests_support import no_report

from geodino.errors import RecipeError, RunError
from geodino.models.canopy_folder import load_canopy
from geodino.models.canopy_open import open_canopy
from geodino.models.card import DINOV3_LICENSE
from geodino.runs.export import export_model
from geodino.runs.finetune.config import LabelledConfig
from geodino.runs.finetune.deliver import DELIVERED
from geodino.runs.finetune.finished import FINISHED
from geodino.runs.recipe import AnyConfig
from geodino.runs.report import report

FEW = ("train.steps=4", "validation.every=2", "canopy.quantiles=[0.1, 0.9]")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A finished run without its report: the tests write it."""
    root = tmp_path_factory.mktemp("world")
    parent = {"name": "vit_large_patch16_dinov3.sat493m", "relation": "distilled from"}
    base = write_backbone(root / "base", lineage=[parent])
    write_world(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geodino.runs.finetune.canopy.report.write_report", no_report)
        run(root, base, root / "run", *FEW)
    return root / "run"


def test_a_report_again_says_what_was_recorded_and_predicts_only_its_pictures(done, monkeypatch):
    facts = json.loads((done / "run.json").read_text())
    recorded = json.loads(json.dumps(facts))
    recorded["results"]["test"]["scores"]["model"]["mae_m"]["value"] = 12.34
    (done / "run.json").write_text(json.dumps(recorded))
    monkeypatch.setattr("geodino.runs.finetune.canopy.judge.Judge.measure", None)
    try:
        found = report(done, out=None, device="cpu")
    finally:
        (done / "run.json").write_text(json.dumps(facts))
    assert found["report"] == str(done / "report.html")
    page = (done / "report.html").read_text()
    assert "MAE 12.34 m" in page
    assert page.count("<img") >= 2
    assert facts["results"]["classes"][0]["name"] == "0-2m"
    assert "Error by true height" in page


def test_a_run_that_has_not_finished_is_told_how_to_go_on(done, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(done, copy)
    shutil.rmtree(copy / "model")
    with pytest.raises(RunError, match=r"has not finished.*finetune canopy --resume"):
        report(copy, out=None, device="cpu")
    with pytest.raises(RunError, match=r"has not finished.*finetune canopy --resume"):
        export_model(copy, to="hub")


def test_the_hub_folder_holds_the_whole_model_and_says_what_it_is(done):
    target = done / "hub"
    assert export_model(done, to="hub") == {"model": str(target)}
    ours, theirs = load_canopy(done / "model"), open_canopy(target)
    image = torch.rand(1, 3, 40, 56) * 255
    torch.testing.assert_close(theirs.model(image), ours.model(image), rtol=0, atol=0)
    assert (target / "applicability.safetensors").is_file()
    assert theirs.license == DINOV3_LICENSE
    page = (target / "README.md").read_text()
    assert page.startswith("---\nlicense: other")
    assert "geodino predict IMAGE.tif --model hub:OWNER/NAME" in page
    assert "Mean absolute error on test ground" in page


def test_the_timm_folder_is_the_backbone_alone(done, tmp_path):
    export_model(done, to="timm", out=tmp_path / "backbone")
    assert not list((tmp_path / "backbone").glob("canopy*"))
    plain = timm.create_model(f"local-dir:{tmp_path / 'backbone'}", pretrained=True).eval()
    loaded = load_canopy(done / "model")
    image = torch.rand(1, 3, 32, 32) * 255
    mean, std = (
        torch.tensor(v)[:, None, None] for v in (loaded.contract.mean, loaded.contract.std)
    )
    with torch.no_grad():
        cls = plain((image - mean) / std)
    torch.testing.assert_close(cls, loaded.model.backbone.tokens(image).cls, rtol=1e-4, atol=1e-5)


def test_backbone_and_head_are_one_graph_for_chips_of_the_model(done, tmp_path):
    pytest.importorskip("onnx", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    facts = export_model(done / "model", to="onnx", out=tmp_path)
    assert facts["image"] == [64, 64]
    assert max(facts["difference_to_torch"].values()) <= 1e-4
    session = runtime.InferenceSession(tmp_path / "model.onnx")
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    (found,) = session.run(["height_m"], {"image": image.numpy()})
    expected = load_canopy(done / "model").model(image).detach()
    assert found.shape == (1, 3, 64, 64)  # the height and two quantiles
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-4 * float(expected.abs().max()))
    told = session.get_modelmeta().custom_metadata_map
    assert told["unit"] == "m"
    assert json.loads(told["quantiles"]) == [0.1, 0.9]
    assert json.loads(told["mean"]) == [90.0, 90.0, 90.0]


def test_exports_that_cannot_be_are_one_sentence_each(done):
    with pytest.raises(RecipeError, match=r"--to onx: formats are .*onnx"):
        export_model(done, to="onx")
    with pytest.raises(RunError, match="say with --out where the export goes"):
        export_model(done / "model", to="hub")
    with pytest.raises(RecipeError, match="is the model itself"):
        export_model(done, to="hub", out=done / "model")


def test_every_kind_of_run_that_learns_from_labels_has_its_row():
    learning = {kind for kind in get_args(AnyConfig) if issubclass(kind, LabelledConfig)}
    assert {row.config for row in FINISHED} == learning
    assert {row.head.name for row in FINISHED} <= {row.files.name for row in DELIVERED}
