import csv
import json
import re
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
from labelled_support import make_geobench

import geodino
from geodino import seeds
from geodino.data.config import DataConfig
from geodino.data.index import build_index, save_index
from geodino.data.labelled.sets import Missing
from geodino.errors import BandError, RecipeError, RunError, SourceError
from geodino.evals.tables import COLUMNS
from geodino.runs.evaluate import EvaluateJob, evaluate
from geodino.runs.evaluate.words import missing_words


@pytest.fixture(scope="module")
def model(backbone):
    return backbone


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    """Two classes told apart by how bright they are, with places, 12 images each."""
    root = tmp_path_factory.mktemp("suite") / "brightness"
    r = seeds.rng(0, "suite")
    for x, (name, level) in enumerate({"dark": 60, "bright": 180}.items()):
        (root / name).mkdir(parents=True)
        for i in range(12):
            pixels = r.integers(level - 40, level + 40, size=(3, 16, 16)).astype(np.uint8)
            transform = rasterio.transform.from_origin(500_000 + 1000 * x, 5e6 - 100 * i, 1, 1)
            with rasterio.open(
                root / name / f"{i}.tif", "w", driver="GTiff", count=3, dtype="uint8", height=16,
                width=16, crs="EPSG:32632", transform=transform, photometric="RGB",
            ) as file:  # fmt: skip
                file.write(pixels)
    return root


def job(model, suite, out, **more):
    given = {"resamples": 50, "device": "cpu", "quiet": True, **more}
    return EvaluateJob(model=str(model), suite=str(suite), out=out, **given)


@pytest.fixture(scope="module")
def done(model, suite, tmp_path_factory):
    out = tmp_path_factory.mktemp("done") / "results"
    return out, evaluate(job(model, suite, out, probes=("knn", "linear"), features=("mean",)))


def test_classes_that_differ_in_brightness_are_told_apart_by_every_encoder_but_the_blind(done):
    _, facts = done
    scores = {
        (row["encoder"], row["method"]): row["metric_value"]
        for row in facts["rows"] if row["metric_name"] == "accuracy"
    }  # fmt: skip
    assert scores["model", "knn5"] == scores["image statistics", "linear"] == 1.0
    assert scores["majority class", "constant"] == 0.5
    # All are right: nobody is above a floor, and that all say the same says nothing.
    assert any("not clearly above" in alarm for alarm in facts["alarms"])
    assert not any("predict exactly the same" in alarm for alarm in facts["alarms"])


def test_the_table_has_torchgeo_benchs_columns_in_their_order(done):
    out, facts = done
    with (out / "results.csv").open(encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert tuple(reader.fieldnames[: len(COLUMNS)]) == COLUMNS
    assert len(rows) == len(facts["rows"])
    assert {row["dataset"] for row in rows} == {"brightness"}
    assert json.loads((out / "results.json").read_text())["sets"] == ["brightness"]


def test_every_prediction_is_kept_with_its_key(done):
    out, facts = done
    table = pq.read_table(out / "sets" / "brightness" / "predictions.parquet").to_pandas()
    mine = table[(table.encoder == "model") & (table.method == "linear")]
    truth = mine.id.str.split("/").str[0]
    assert len(mine) == 8
    assert (mine.label == truth).all()
    accuracy = next(
        r["metric_value"] for r in facts["rows"]
        if (r["encoder"], r["method"], r["metric_name"]) == ("model", "linear", "accuracy")
    )  # fmt: skip
    assert (mine.label == mine.predicted).mean() == mine.score.mean() == accuracy


def test_probes_that_draw_are_repeated_with_other_seeds_and_the_others_are_not(
    model, suite, tmp_path
):
    asked = {"probes": ("knn", "linear-sgd"), "features": ("mean",), "seed": 3, "seeds": 2}
    facts = evaluate(job(model, suite, tmp_path / "out", **asked))
    found = {(row["encoder"], row["method"], row["seed"]) for row in facts["rows"]}
    assert {("model", "linear-sgd", 3), ("model", "linear-sgd", 4), ("model", "knn5", 3)} <= found
    assert ("model", "knn5", 4) not in found


def test_how_far_it_is_is_said_of_the_images_and_then_of_every_probe(
    model, suite, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("geodino.runs.progress._LINE_EVERY_S", -1.0)
    asked = {"probes": ("knn", "linear-sgd"), "features": ("mean",), "seeds": 3, "quiet": False}
    evaluate(job(model, suite, tmp_path / "out", **asked))
    said = re.findall(r"(\d+) of (\d+) (images|probes)", capsys.readouterr().err)
    assert ("24", "24", "images") in said
    probes = [(done, total) for done, total, what in said if what == "probes"]
    # Model, random weights, statistics; the two that draw again with each of two other seeds.
    assert probes == [(str(i), "5") for i in range(1, 6)] + [(str(i), "4") for i in range(1, 5)]


def test_a_table_of_published_rows_that_cannot_be_read_is_said_before_anything_is_measured(
    model, suite, tmp_path
):
    table = tmp_path / "rows.csv"
    table.write_text("a,b\n1,2\n")
    with pytest.raises(SourceError, match=r"rows.csv is no table of results: it lacks dataset"):
        evaluate(job(model, suite, tmp_path / "out", reference=table))
    assert not (tmp_path / "out").exists()


def test_calibration_is_said_before_and_after_the_temperature(done):
    _, facts = done
    linear = next(r for r in facts["rows"] if (r["encoder"], r["method"]) == ("model", "linear"))
    assert linear["temperature"] > 0
    assert 0 <= linear["ece_ts"] <= linear["mce_ts"] <= 1
    knn = next(r for r in facts["rows"] if r["method"] == "knn5")
    assert "ece" in knn
    assert "ece_ts" not in knn


def test_results_are_not_mixed_and_a_stopped_suite_goes_on(done, model, suite, tmp_path):
    out = shutil.copytree(done[0], tmp_path / "again")
    with pytest.raises(RunError, match="holds results: nothing was changed"):
        evaluate(job(model, suite, out))
    (out / "results.json").unlink()
    kept = out / "sets" / "brightness" / "result.json"
    before = kept.stat().st_mtime_ns
    how = {"probes": ("knn", "linear"), "features": ("mean",)}
    facts = evaluate(job(model, suite, out, resume=True, **how))
    assert kept.stat().st_mtime_ns == before
    assert facts["rows"] == done[1]["rows"]
    # What was measured in another way, or on another model, is not overwritten.
    for other in ({"protocol": "torchgeo-bench"}, {"bands": "rgb"}, {"image_size": 32}):
        with pytest.raises(RunError, match=rf"results of another {next(iter(other))[:5]}"):
            evaluate(job(model, suite, out, resume=True, **how, **other))
    assert kept.stat().st_mtime_ns == before
    # Other probes on the same features: measured anew, not encoded anew.
    evaluate(job(model, suite, out, resume=True, probes=("knn",), features=("cls",)))
    assert json.loads(kept.read_text())["settings"]["features_were_cached"]


def test_the_page_shows_the_model_beside_its_floors(done):
    page = (done[0] / "report.html").read_text(encoding="utf-8")
    for text in ("brightness", "image statistics", "majority class", "random weights",
                 "recall of each class", "geodino evaluate --model"):  # fmt: skip
        assert text in page
    assert not re.search(r"(src|href)=.?https?:", page)


def test_a_suite_in_geo_bench_layout_runs_by_torchgeo_benchs_protocol(model, tmp_path):
    for name, kind in (("m-eurosat", "classification"), ("m-bigearthnet", "multilabel")):
        make_geobench(tmp_path, name, kind=kind, classes=3, counts=(12, 6, 6), side=16, spread=5.0)
    make_geobench(
        tmp_path, "m-cashew-plant", kind="segmentation", classes=7, counts=(4, 2, 2), side=32,
        spread=5.0,
    )  # fmt: skip
    facts = evaluate(
        job(
            model, "geobench-v1", tmp_path / "out", data=tmp_path, protocol="torchgeo-bench",
            image_size=32, probes=("knn", "linear", "dense-knn"),
        )
    )  # fmt: skip
    assert set(facts["sets"]) >= {"m-eurosat", "m-bigearthnet"}
    assert {m["name"] for m in facts["missing"]} >= {"m-so2sat", "m-forestnet"}
    assert all("recursix/geo-bench-1.0" in m["cure"] for m in facts["missing"])
    metrics = {(row["dataset"], row["metric_name"]) for row in facts["rows"]}
    assert {("m-bigearthnet", "micro_f1"), ("m-bigearthnet", "micro_map")} <= metrics
    assert "micro_mAP" in (tmp_path / "out" / "results.csv").read_text()


def test_published_rows_stand_beside_ours(done, model, suite, tmp_path):
    reference = tmp_path / "published.csv"
    reference.write_text(
        "dataset,method,metric_name,metric_value,name\n"
        "brightness,linear,accuracy,0.625,somebody\nbrightness,linear,accuracy,0.5,else\n"
        "other,linear,accuracy,0.9,nobody\n"
    )
    out = shutil.copytree(done[0], tmp_path / "beside")
    how = {"probes": ("knn", "linear"), "features": ("mean",)}
    evaluate(job(model, suite, out, resume=True, reference=reference, **how))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "somebody (linear" in page
    # (1 - 0.5) / (0.625 - 0.5): above the pool, which spans 0 to 1.
    assert "a pool of 2 published models" in page
    assert "4.000" in page
    assert "nobody" not in page


def test_test_images_on_pretraining_ground_raise_an_alarm(model, suite, tmp_path):
    index = build_index(str(suite / "dark"), DataConfig(), threads=1)
    save_index(index, tmp_path / "tiles.parquet")
    facts = evaluate(
        job(model, suite, tmp_path / "out", tiles=tmp_path / "tiles.parquet", probes=("knn",))
    )
    assert any("4 of 8 test images lie on ground of the tiles" in a for a in facts["alarms"])


def test_an_index_that_cannot_be_read_stops_nothing_unless_it_was_named(
    model, suite, tmp_path, capsys
):
    run = tmp_path / "run"
    shutil.copytree(model, run / "model")
    (run / "recipe.yaml").write_text("")
    (run / "tiles.parquet").write_bytes(b"damaged")
    out = tmp_path / "out"
    facts = evaluate(job(run, suite, out, probes=("knn",), quiet=False))
    assert facts["sets"] == ["brightness"]
    assert "cannot be compared with test images" in capsys.readouterr().err
    with pytest.raises(SourceError, match=r"tiles\.parquet"):
        evaluate(job(run, suite, tmp_path / "named", tiles=run / "tiles.parquet"))


def test_a_copy_of_a_training_image_in_the_test_part_raises_an_alarm(model, suite, tmp_path):
    copy = tmp_path / "copies"
    for part in ("train", "test"):
        shutil.copytree(suite, copy / part)
    facts = evaluate(job(model, copy, tmp_path / "out", probes=("knn",)))
    assert any("24 of 24 test images are copies" in alarm for alarm in facts["alarms"])


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"protocol": "torchgeo"}, RecipeError, "Did you mean 'torchgeo-bench'"),
        ({"probes": ("knnn",)}, RecipeError, "'knnn' is no probe"),
        ({"probes": ("ridge",)}, RecipeError, "None of the probes ridge serves classification"),
        ({"features": ("patch",)}, RecipeError, "patch is no feature"),
        ({"bands": "nir"}, BandError, "has no band nir"),
        ({"suite": "geobench-v3"}, SourceError, "no suite"),
        (
            {"suite": "geobench-v1/m-eurosat"},
            SourceError,
            "m-eurosat is missing: no folder was named",
        ),
    ],
)
def test_mistakes_are_one_sentence(model, suite, tmp_path, change, error, says):
    given = {"suite": str(suite), **change}
    asked = EvaluateJob(model=str(model), out=tmp_path / "out", quiet=True, device="cpu", **given)
    with pytest.raises(error, match=says):
        evaluate(asked)


def test_the_mini_suite_runs_whole_from_python(model, tmp_path):
    facts = geodino.evaluate(
        model, "mini/mini-cover", tmp_path / "out", protocol="torchgeo-bench", image_size=32,
        by=("region",), probes=("knn",), quiet=True, device="cpu",
    )  # fmt: skip
    found = json.loads((tmp_path / "out" / "sets" / "mini-cover" / "result.json").read_text())
    assert facts["failed"] == []
    assert found["groups"]["region"][0]["worst"] in found["groups"]["region"][0]["scores"]


def test_sets_that_are_missing_for_one_reason_are_named_in_one_sentence():
    absent = [
        Missing(
            name=name, reason=f"/data has no {name}.tortilla", cure=f"Get {name} from hub/{name}."
        )
        for name in ("caffe", "fotw")
    ]
    boxes = Missing(
        name="nzcattle", reason="its boxes are not read", cure="Write nzcattle as JSON."
    )
    assert missing_words([absent[0], boxes, absent[1]]) == [
        "caffe, fotw are missing: /data has no NAME.tortilla. Get NAME from hub/NAME.",
        "nzcattle is missing: its boxes are not read. Write nzcattle as JSON.",
    ]
