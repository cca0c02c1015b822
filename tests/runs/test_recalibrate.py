"""Heights of a canopy model set right on local labels, and heads that go on from others."""

import json
from dataclasses import replace

import geopandas
import numpy as np
import pytest
import rasterio
import torch
import torchvision  # noqa: F401  (loaded before transformers asks whether it is there)
from canopy_support import run, write_backbone, write_world
from heights_support import save_small_canopy
from shapely import box
from tests_support import no_report
from transformers import CHMv2Config, CHMv2ForDepthEstimation

import geodino
from geodino.errors import CheckpointError, RecipeError, RunError, SourceError
from geodino.metrics.recalibration import HeightBins, HeightCurve
from geodino.models.canopy_folder import FILES, load_canopy
from geodino.models.card import DINOV3_LICENSE
from geodino.runs.export import export_model
from geodino.runs.predict import PredictJob, predict
from geodino.runs.recalibrate.fit import Learnt
from geodino.runs.report import report

PIXELWISE = "labels.statistic=mean"
DISTORTED = HeightCurve(predicted_m=(0.0, 22.0, 26.0), height_m=(0.0, 16.0, 30.0), slope_above=1.5)
"""What the truth is where a model predicts so much: low trees are overestimated, tall ones under."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small canopy model whose heights vary."""
    return save_small_canopy(tmp_path_factory.mktemp("small") / "model")


def predicted(path, model, out):
    out.parent.mkdir(exist_ok=True)
    predict(PredictJob(rasters=(str(path),), model=str(model), out=out, device="cpu", quiet=True))
    with rasterio.open(out) as file:
        return file.read(1)


@pytest.fixture(scope="module")
def world(model, tmp_path_factory):
    """Labels are what the small model predicts, bent by a known curve."""
    folder = write_world(tmp_path_factory.mktemp("world"))
    for path in sorted((folder / "images").glob("*.tif")):
        heights = predicted(path, model, folder / "maps" / path.name)
        with rasterio.open(folder / "heights" / path.name) as file:
            profile = file.profile
        with rasterio.open(folder / "heights" / path.name, "w", **profile) as file:
            file.write(DISTORTED.apply(heights).astype(profile["dtype"]), 1)
            file.units = ("m",)
    return folder


@pytest.fixture(scope="module")
def done(world, model, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "done"
    shares = "split.shares={train: 0.4, val: 0.15, calibration: 0.3, test: 0.15}"
    return out, run(world, model, out, PIXELWISE, "split.block_m=30.0", "split.buffer_m=0.0", shares,
                    "intervals.coverage=0.8", "intervals.min_pixels_per_site=20",
                    recipe="recalibrate")  # fmt: skip


def test_a_known_distortion_is_found_and_undone(done):
    _, facts = done
    scores = facts["test"]["scores"]
    before = scores["before recalibration"]["mae_m"]["value"]
    after = scores["model"]["mae_m"]["value"]
    assert after < 0.15 * before
    assert facts["test"]["model_minus"]["before recalibration"]["mae_m"]["high"] < 0
    assert set(scores) == {"model", "before recalibration", "mean height", "height by greenness"}
    curve = HeightCurve.model_validate(facts["recalibration"]["curve"])
    # Knot 0 and the slope to the first bin are no measurement: few pixels are that low.
    at = np.linspace(curve.predicted_m[1], curve.predicted_m[-1], 20)
    np.testing.assert_allclose(curve.apply(at), DISTORTED.apply(at), atol=1.0)


def test_intervals_are_made_after_the_curve_and_cover(done):
    _, facts = done
    assert facts["intervals"] is not None, facts["intervals_missing"]
    assert facts["coverage"]["coverage"] > 0.7
    before = facts["test"]["scores"]["before recalibration"]["mae_m"]["value"]
    assert facts["coverage"]["width_m"] < 2 * before


def test_the_folder_carries_the_curve_and_maps_go_through_it(done, world, model, tmp_path):
    out, facts = done
    loaded = load_canopy(out / "model")
    curve = HeightCurve.model_validate(loaded.extra["recalibration"])
    assert curve.model_dump(mode="json") == facts["recalibration"]["curve"]
    assert loaded.lineage[-1].relation == "recalibrated from"
    assert {"run.json", "curve.json", "report.html", "recipe.yaml"} <= {
        p.name for p in out.iterdir()
    }
    assert "What heights become" in (out / "report.html").read_text()
    card = (out / "model" / "README.md").read_text()
    assert "recalibrated on local labels" in card
    image = world / "images" / "s1.tif"
    before = predicted(image, model, tmp_path / "before.tif")
    after = predicted(image, out, tmp_path / "after.tif")
    # Chips are blended after the curve: only where they overlap may the two differ a little.
    inside = np.s_[:40, :40]
    np.testing.assert_allclose(after[inside], curve.apply(before)[inside], atol=1e-3)
    array = geodino.load(out).predict(image, device="cpu")
    np.testing.assert_array_equal(array.values[0], after)


def test_its_report_again_says_what_was_recorded_and_its_model_is_handed_on(done, tmp_path):
    out, _ = done
    report(out, out=tmp_path / "again.html", device="cpu")
    first, again = (p.read_text() for p in (out / "report.html", tmp_path / "again.html"))
    for page in (first, again):
        assert "What heights become" in page
    assert again.count("<img") == first.count("<img")
    said = first[first.index('<p class="lead">') : first.index("<dl")]
    assert said in again
    export_model(out, to="hub")
    assert load_canopy(out / "hub").extra["recalibration"]


def test_its_graph_holds_the_curve(done):
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    out, facts = done
    curve = HeightCurve.model_validate(facts["recalibration"]["curve"])
    assert not curve.is_identity
    export_model(out, to="onnx")
    session = runtime.InferenceSession(out / "model.onnx")
    loaded = load_canopy(out / "model")
    (asked,) = session.get_inputs()
    pixels = torch.randint(0, 255, asked.shape, generator=torch.Generator().manual_seed(0))
    (found,) = session.run(["height_m"], {"image": pixels.float().numpy()})
    with torch.inference_mode():
        own = loaded.model(pixels.float(), torch.ones(1, *asked.shape[-2:], dtype=torch.bool))
    np.testing.assert_allclose(found, curve.apply(own.numpy()), atol=1e-3)
    assert np.abs(found - own.numpy()).max() > 0.1


def test_a_killed_run_goes_on_from_its_curve(done, world, model, tmp_path, monkeypatch):
    out = tmp_path / "killed"
    monkeypatch.setattr("geodino.runs.recalibrate.job.export", _dies)
    with pytest.raises(KeyboardInterrupt):
        run(world, model, out, PIXELWISE, recipe="recalibrate")
    monkeypatch.undo()
    monkeypatch.setattr("geodino.runs.recalibrate.report.write_report", no_report)
    written = (out / "curve.json").read_bytes()
    assert not (out / "model").exists()
    facts = run(world, None, out, resume=True)
    assert (out / "curve.json").read_bytes() == written
    assert load_canopy(out / "model").extra["recalibration"] == facts["recalibration"]["curve"]
    (out / "curve.json").write_text("{}")
    with pytest.raises(RunError, match=r"curve\.json is damaged"):
        run(world, None, out, resume=True)


def _dies(*_args, **_more):
    raise KeyboardInterrupt


def test_right_heights_stay_as_they_are_and_a_second_curve_joins_the_first(
    done, world, tmp_path, monkeypatch
):
    monkeypatch.setattr("geodino.runs.recalibrate.report.write_report", no_report)
    out, _ = done
    again = run(world, out, tmp_path / "again", PIXELWISE, recipe="recalibrate")
    first = load_canopy(out / "model").extra["recalibration"]
    second = HeightCurve.model_validate(
        load_canopy(tmp_path / "again" / "model").extra["recalibration"]
    )
    learnt = HeightCurve.model_validate(again["recalibration"]["curve"])
    assert second == learnt.after(HeightCurve.model_validate(first))
    scores = again["test"]["scores"]
    assert scores["model"]["mae_m"]["value"] == pytest.approx(
        scores["before recalibration"]["mae_m"]["value"], abs=0.2
    )


def test_chmv2_with_random_weights_goes_through_and_keeps_its_licence(world, tmp_path, monkeypatch):
    monkeypatch.setattr("geodino.runs.recalibrate.report.write_report", no_report)
    torch.manual_seed(0)
    config = CHMv2Config(
        backbone_config={
            "model_type": "dinov3_vit", "hidden_size": 32, "intermediate_size": 128,
            "num_attention_heads": 2, "num_hidden_layers": 4, "num_register_tokens": 4,
            "out_indices": [1, 2, 3, 4], "apply_layernorm": True, "reshape_hidden_states": True,
            "return_class_token": True, "key_bias": True, "layer_norm_eps": 1e-5,
        },
        post_process_channels=[8, 8, 8, 8], fusion_hidden_size=8, head_hidden_size=4,
        number_output_channels=16,
    )  # fmt: skip
    CHMv2ForDepthEstimation(config).save_pretrained(tmp_path / "facebook" / "dinov3-chmv2")
    hub = tmp_path / "facebook" / "dinov3-chmv2"
    facts = run(world, hub, tmp_path / "run", "maps.chip=128", recipe="recalibrate")
    loaded = load_canopy(tmp_path / "run" / "model")
    assert loaded.license == DINOV3_LICENSE
    assert loaded.extra["chip"] == 128
    scores = facts["test"]["scores"]
    assert scores["model"]["mae_m"]["value"] < scores["before recalibration"]["mae_m"]["value"]


def test_mistakes_are_one_sentence_each(world, model, tmp_path):
    base = write_backbone(tmp_path / "base")
    with pytest.raises(CheckpointError, match="a backbone and no head: it has no heights to set"):
        run(world, base, tmp_path / "a", recipe="recalibrate")
    with pytest.raises(RecipeError, match="--unfreeze: a recalibration trains no network"):
        run(world, model, tmp_path / "b", recipe="recalibrate", unfreeze=True)
    with pytest.raises(RecipeError, match=r"debug\.yaml is a recipe of pretraining"):
        run(world, model, tmp_path / "c", recipe="debug")
    with rasterio.open(world / "images" / "s0.tif") as file:
        away = box(0, 0, 10, 10)
        frame = {"split": ["val", "train"], "geometry": [box(*file.bounds), away]}
        geopandas.GeoDataFrame(frame, crs=file.crs).to_file(tmp_path / "split.gpkg")
    with pytest.raises(SourceError, match="no label on the ground for training"):
        run(world, model, tmp_path / "d", recipe="recalibrate", split=str(tmp_path / "split.gpkg"))
    with pytest.raises(RecipeError, match="--model is missing"):
        run(world, None, tmp_path / "e", recipe="recalibrate")
    broken = save_small_canopy(tmp_path / "broken", extra={"recalibration": {"predicted_m": [1.0]}})
    with pytest.raises(CheckpointError, match=r"its recalibration in canopy\.json cannot be read"):
        geodino.load(broken)
    assert not any((tmp_path / name).exists() for name in "abcde")


def test_a_head_goes_on_from_the_models_where_both_are_alike(world, model, tmp_path, monkeypatch):
    monkeypatch.setattr("geodino.runs.finetune.canopy.report.write_report", no_report)
    alike = ("canopy.bins.count=256", "canopy.bins.ceiling_m=96.0", "train.steps=1",
             "optim.lr=1e-30", "validation.every=1")  # fmt: skip
    run(world, model, tmp_path / "on", *alike)
    start, end = (
        load_canopy(path).model.head.state_dict() for path in (model, tmp_path / "on/model")
    )
    for name, value in start.items():
        torch.testing.assert_close(end[name], value, atol=1e-6, rtol=0)
    assert load_canopy(tmp_path / "on" / "model").lineage[-1].relation == "continues"
    recorded = json.loads((tmp_path / "on" / "run.json").read_text())
    assert any("begins with the weights of that of small" in note for note in recorded["notes"])
    fresh = run(world, model, tmp_path / "x", *alike, "start_head=fresh", dry_run=True)
    assert "new" in fresh["head"]
    assert any("start_head: fresh" in note for note in fresh["notes"])


def test_what_differs_between_two_heads_is_said_in_one_sentence(world, model, tmp_path):
    other = run(world, model, tmp_path / "x", "canopy.bins.count=256", dry_run=True)
    (note,) = [note for note in other["notes"] if "begins anew" in note]
    assert "canopy.bins.ceiling_m is 96.0 there and 40.0 here" in note
    assert "count" not in note
    kinds = run(world, model, tmp_path / "x", dry_run=True, recipe="canopy")
    assert any("canopy.head.kind is linear there and dpt here" in note for note in kinds["notes"])
    with pytest.raises(RecipeError, match=r"ceiling_m is 96\.0 there and 40\.0 here"):
        run(world, model, tmp_path / "x", "start_head=model", dry_run=True)
    base = write_backbone(tmp_path / "base")
    with pytest.raises(RecipeError, match="without a canopy head to begin with"):
        run(world, base, tmp_path / "x", "start_head=model", dry_run=True)
    assert (model / FILES.described).is_file()


def test_a_curve_that_leaves_nothing_of_the_model_says_so():
    bins = HeightBins(
        predicted_m=np.array([5.0]), true_m=np.array([9.0]), pixels=np.array([9]),
        sites=np.array([1.0]),
    )  # fmt: skip
    flat = HeightCurve(predicted_m=(0.0, 20.0), height_m=(17.0, 18.0), slope_above=0.5)
    errors = {"as it is": 12.0, "1": 4.0}
    learnt = Learnt(curve=flat, prior_sites=1.0, errors_m=errors, bins=bins)
    assert "become 17.0 to 18.0 m: the model tells little of this ground" in learnt.words("median")
    steep = replace(learnt, curve=DISTORTED)
    assert steep.words("median").endswith("own heights count as 1 sites.")
    same = replace(learnt, prior_sites=None, errors_m={"as it is": 2.0, "1": 2.5})
    assert "stay as they are: on the validation ground no curve is better" in same.words("median")
