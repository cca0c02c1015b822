import csv
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import rasterio
import torch

from geodino import seeds
from geodino.errors import ContractError, RecipeError, SourceError
from geodino.evals.features import Extracted, Features
from geodino.evals.folder import find_suite
from geodino.evals.results import MAJORITY, MODEL, RANDOM, STATISTICS
from geodino.evals.suite import evaluate_folder, probe_all
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.build import build_backbone
from geodino.models.sizes import ModelConfig

CONTRACT = InputContract(
    bands=tuple(Band(name=n) for n in ("red", "green", "blue")),
    dtype="uint8", mean=(120.0,) * 3, std=(40.0,) * 3, low=(0.0,) * 3, high=(255.0,) * 3,
)  # fmt: skip


def write_image(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    profile = {"driver": "GTiff", "count": len(pixels), "dtype": pixels.dtype.name,
               "height": pixels.shape[1], "width": pixels.shape[2]}  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        dataset.write(pixels)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes told apart by their colour: dark and bright images, 12 of each."""
    root = tmp_path_factory.mktemp("suite")
    r = seeds.rng(0, "suite")
    for name, level in {"dark": 60, "bright": 180}.items():
        for i in range(12):
            pixels = r.integers(level - 40, level + 40, size=(3, 16, 16)).astype(np.uint8)
            write_image(root / name / f"{i}.tif", pixels)
    return root


@pytest.fixture(scope="module")
def backbones():
    config = ModelConfig(name="vit_nano")
    return [
        build_backbone(config, CONTRACT, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 1)
    ]


@pytest.fixture(scope="module")
def result(folder, backbones, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    done = []
    got = evaluate_folder(
        *backbones,
        CONTRACT,
        folder,
        features=("cls", "mean"),
        out=out,
        resamples=50,
        batch=8,
        name="nano",
        progress=lambda *n: done.append(n),
    )
    assert done[-1] == (24, 24)
    return got, out


def test_every_probe_meets_the_model_and_its_floors(result):
    got, _ = result
    kinds = {(o.encoder, o.method, o.features) for o in got.outcomes}
    expected = {
        (encoder, method, kind)
        for encoder in (MODEL, RANDOM) for method in ("knn5", "linear") for kind in ("cls", "mean")
    }  # fmt: skip
    expected |= {(STATISTICS, method, "statistics") for method in ("knn5", "linear")}
    assert kinds == expected | {(MAJORITY, "majority", "none")}
    # Brightness tells the classes apart, so its statistics are never wrong; guessing is, half the
    # time (4 of 12 images of each class are tested on).
    assert got.accuracy(encoder=STATISTICS, method="linear", features="statistics") == 1.0
    assert got.accuracy(encoder=MAJORITY, method="majority", features="none") == 0.5
    with pytest.raises(KeyError):
        got.accuracy(method="svm", features="cls")


def test_an_untrained_model_is_not_called_better_than_the_floors(result):
    got, _ = result
    assert got.alarms
    assert all("not clearly above" in alarm or "below" in alarm for alarm in got.alarms)
    assert "! knn5 on cls" in got.table()


def test_rows_json_and_predictions_are_written_and_agree(result):
    got, out = result
    with (out / "results.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 2 * len(got.outcomes)
    record = json.loads((out / "results.json").read_text())
    assert [r["metric_value"] for r in record["rows"]] == [float(r["metric_value"]) for r in rows]
    assert record["suite"]["n_test"] == 8
    assert record["per_class"][0]["recall"].keys() == {"bright", "dark"}
    table = pq.read_table(out / "predictions.parquet").to_pandas()
    for outcome in got.outcomes:
        mine = table[
            (table.encoder == outcome.encoder)
            & (table.method == outcome.method)
            & (table.features == outcome.features)
        ]
        assert (mine.label == mine.predicted).mean() == outcome.scores.accuracy.value
    assert not list(out.glob(".*"))


def test_columns_are_those_of_torchgeo_bench_where_they_mean_the_same(result, shared_data):
    with (shared_data / "torchgeo_bench_results.csv").open() as handle:
        theirs = set(next(csv.reader(handle)))
    ours = set(result[0].rows[0])
    assert ours - theirs == {"encoder", "features", "split"}
    assert {"dataset", "method", "metric_name", "metric_value", "ci_lower", "ci_upper"} <= ours


def test_the_same_seed_gives_the_same_rows(result, folder, backbones):
    again = evaluate_folder(
        *backbones, CONTRACT, folder, features=("cls", "mean"), resamples=50, batch=8, name="nano"
    )
    assert again.rows == result[0].rows


def test_features_that_know_the_class_are_above_every_floor(folder):
    # The model's features are the labels, the other encoder's are noise.
    suite = find_suite(folder, test_share=0.5)
    labels = np.array(suite.train.labels + suite.test.labels)
    r = seeds.rng(0, "noise")
    n = len(labels)
    known = Features(cls=np.eye(2)[labels], mean_patch=np.eye(2)[labels])
    noise = Features(cls=r.normal(size=(n, 2)), mean_patch=r.normal(size=(n, 2)))
    extracted = Extracted(
        features={MODEL: known, RANDOM: noise}, statistics=r.normal(size=(n, 6)), sizes=((16, 16),)
    )
    probes = ("knn", "knn-dino", "linear", "linear-dino")
    outcomes = probe_all(suite, extracted, probes, ("cls",), seed=0, resamples=50)
    ours = {o.method: o.scores.accuracy.value for o in outcomes if o.encoder == MODEL}
    assert ours == {"knn5": 1.0, "knn10-dino": 1.0, "linear": 1.0, "linear-dino": 1.0}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"probes": ("knm",)}, "Did you mean 'knn'"),
        ({"features": ("token",)}, "'token' is no feature"),
        ({"probes": ()}, "at least one probe"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(folder, backbones, options, sentence):
    with pytest.raises(RecipeError, match=sentence):
        evaluate_folder(*backbones, CONTRACT, folder, **options)


def test_wrong_images_stop_the_evaluation_by_name(folder, backbones, tmp_path):
    shutil.copytree(folder, tmp_path / "bands")
    write_image(tmp_path / "bands" / "dark" / "two.tif", np.ones((2, 16, 16), np.uint8))
    with pytest.raises(ContractError, match=r"two\.tif offers 2 band"):
        evaluate_folder(*backbones, CONTRACT, tmp_path / "bands")
    shutil.copytree(folder, tmp_path / "broken")
    (tmp_path / "broken" / "dark" / "broken.png").write_bytes(b"no picture")
    with pytest.raises(SourceError, match=r"broken\.png cannot be read"):
        evaluate_folder(*backbones, CONTRACT, tmp_path / "broken")


def test_copies_across_the_split_raise_an_alarm(folder, backbones, tmp_path):
    suite = find_suite(folder)
    for part in ("train", "test"):
        for path, label in zip(
            getattr(suite, part).paths, getattr(suite, part).labels, strict=True
        ):
            target = tmp_path / part / suite.classes[label] / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    twin = next((tmp_path / "train" / "dark").glob("*.tif"))
    shutil.copy(twin, tmp_path / "test" / "dark" / "twin.tif")
    got = evaluate_folder(
        backbones[0], None, CONTRACT, tmp_path, probes=("knn",), features=("cls",), resamples=10
    )
    assert any("1 of 9 test images are copies" in alarm for alarm in got.alarms)
    assert RANDOM not in {o.encoder for o in got.outcomes}
