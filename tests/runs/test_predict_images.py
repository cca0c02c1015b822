"""Classes of whole images as a table."""

from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pandas as pd
import pytest
import rasterio
from classification_support import COLOURS, picture, run, write_folders, write_table
from process_support import run_geodino
from shapely.geometry import box

import geodino
from geodino.errors import RecipeError, RunError, SourceError
from geodino.runs.predict import PredictJob, predict
from geodino.runs.sources import Meeting


@pytest.fixture(scope="module")
def learnt(backbone, tmp_path_factory):
    """A run that tells three colours apart."""
    root = tmp_path_factory.mktemp("colours")
    run(write_folders(root / "images"), backbone, root / "run", "train.steps=60")
    return root / "run"


@pytest.fixture(scope="module")
def tiles(tmp_path_factory):
    """Pictures of known colours with a place, one of another size, and one of nothing."""
    root = tmp_path_factory.mktemp("tiles")
    for number, (name, colour) in enumerate(COLOURS.items()):
        write_tile(root / f"{name}.tif", picture(colour, 7000 + number), east=100 * number)
    write_tile(root / "wide.tif", picture(COLOURS["water"], 8000, side=32), east=1000)
    write_tile(root / "nothing.tif", np.zeros((16, 16, 3), np.uint8), east=2000, nodata=0)
    return root


def write_tile(path, pixels, *, east, nodata=None):
    with rasterio.open(
        path, "w", driver="GTiff", count=3, dtype="uint8", height=len(pixels), width=len(pixels),
        crs="EPSG:32632", transform=rasterio.transform.from_origin(500_000 + east, 5e6, 1, 1),
        photometric="RGB", nodata=nodata,
    ) as file:  # fmt: skip
        file.write(pixels.transpose(2, 0, 1))


def job(model, images, out, **more):
    given = {"device": "cpu", "quiet": True, **more}
    rasters = (str(images),) if isinstance(images, Path) else tuple(map(str, images))
    return PredictJob(rasters=rasters, model=str(model), out=out, **given)


def test_matrices_may_be_multiplied_in_bfloat16(learnt, tiles, tmp_path):
    low = Meeting(precision="bfloat16")
    for name, how in (("exact", Meeting()), ("low", low)):
        predict(job(learnt, tiles, tmp_path / f"{name}.csv", how=how))
    exact, low = (pd.read_csv(tmp_path / f"{name}.csv") for name in ("exact", "low"))
    assert exact["class"].equals(low["class"])
    assert 0 < (exact["score"] - low["score"]).abs().max() < 0.02


def test_every_image_gets_its_class_and_the_probability_of_each(learnt, tiles, tmp_path):
    facts = predict(job(learnt, tiles, tmp_path / "said.csv"))
    table = pd.read_csv(tmp_path / "said.csv").set_index("image")
    table.index = [Path(name).stem for name in table.index]
    for name in COLOURS:
        assert table.loc[name, "class"] == name
    assert table.loc["wide", "class"] == "water"
    seen = table.drop(index="nothing")
    columns = [f"p_{name}" for name in COLOURS]
    np.testing.assert_allclose(seen[columns].sum(axis=1), 1.0, atol=1e-5)
    np.testing.assert_allclose(seen[columns].max(axis=1), seen["score"])
    assert facts["classes"] == {"grass": 1, "sand": 1, "water": 2}


def test_an_image_without_a_valid_pixel_gets_no_class(learnt, tiles, tmp_path):
    predict(job(learnt, tiles, tmp_path / "said.csv"))
    table = pd.read_csv(tmp_path / "said.csv").set_index("image")
    nothing = table.loc[str(tiles / "nothing.tif")]
    assert nothing.isna().all()


def test_batches_change_nothing_but_the_last_bits(learnt, tiles, tmp_path):
    asked = job(learnt, tiles, tmp_path / "all.csv")
    predict(asked)
    one = replace(asked, out=tmp_path / "one.csv", how=replace(asked.how, batch=1))
    predict(one)
    pd.testing.assert_frame_equal(
        pd.read_csv(tmp_path / "all.csv"), pd.read_csv(tmp_path / "one.csv"), rtol=1e-4
    )


def test_a_parquet_table_says_where_each_image_lies(learnt, tiles, tmp_path):
    geodino.predict(str(tiles), model=str(learnt), out=tmp_path / "said.parquet", device="cpu")
    frame = geopandas.read_parquet(tmp_path / "said.parquet")
    assert frame.crs.to_epsg() == 4326
    one = frame[frame.image.str.endswith("wide.tif")].to_crs("EPSG:32632").geometry.iloc[0]
    expected = box(501_000, 5e6 - 32, 501_032, 5e6)
    assert one.symmetric_difference(expected).area < 0.01 * expected.area


def test_several_classes_are_those_above_the_score(backbone, tmp_path):
    run(write_table(tmp_path / "images"), backbone, tmp_path / "run", "train.steps=2")
    asked = job(tmp_path / "run", tmp_path / "images" / "0.png", tmp_path / "low.csv", score=0.01)
    predict(asked)
    predict(replace(asked, out=tmp_path / "high.csv", score=0.99))
    low, high = (pd.read_csv(tmp_path / f"{name}.csv")["class"][0] for name in ("low", "high"))
    assert low == "; ".join(COLOURS)
    assert pd.isna(high)


@pytest.mark.parametrize(
    ("out", "more", "message"),
    [
        ("said.tif", {}, r"gives classes of whole images, which are rows of a table.*\.csv"),
        ("said.geojson", {}, r"write FILE.parquet or FILE.csv"),
        ("said.csv", {"gsd_m": 2.0}, r"--gsd 2.0 is of rasters that are looked at in parts"),
        ("said.csv", {"shard": (1, 2)}, r"--shard is of rasters"),
        ("said.csv", {"symmetries": "flips"}, r"--symmetries flips is of maps"),
        ("said.csv", {"score": 0.5}, r"gives every image one class"),
    ],
)
def test_what_does_not_fit_is_one_sentence(learnt, tiles, tmp_path, out, more, message):
    with pytest.raises(RecipeError, match=message):
        predict(job(learnt, tiles, tmp_path / out, **more))


def test_a_table_is_not_replaced_unasked(learnt, tiles, tmp_path):
    out = tmp_path / "said.csv"
    out.write_text("mine")
    with pytest.raises(RunError, match="exists: nothing was changed"):
        predict(job(learnt, tiles, out))
    assert out.read_text() == "mine"


def test_a_whole_scene_is_no_image(learnt, tmp_path):
    path = tmp_path / "scene.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=3, dtype="uint8", height=5000, width=5000, tiled=True,
        crs="EPSG:32632", transform=rasterio.transform.from_origin(5e5, 5e6, 1, 1),
        photometric="RGB", sparse_ok=True,
    ):  # fmt: skip
        pass
    with pytest.raises(SourceError, match="sees each image whole"):
        predict(job(learnt, path, tmp_path / "said.csv"))


def test_a_damaged_model_stops_with_a_sentence(learnt, tiles, tmp_path):
    import shutil

    from safetensors.torch import load_file, save_file

    broken = shutil.copytree(learnt / "model", tmp_path / "broken")
    weights = load_file(broken / "classification.safetensors")
    save_file(
        {k: v * float("nan") for k, v in weights.items()}, broken / "classification.safetensors"
    )
    with pytest.raises(RunError, match="not finite"):
        predict(job(broken, tiles, tmp_path / "said.csv"))
    assert not (tmp_path / "said.csv").exists()


def test_the_command_writes_the_same(learnt, tiles, tmp_path):
    predict(job(learnt, tiles, tmp_path / "python.csv"))
    done = run_geodino(
        "predict", str(tiles), "--model", str(learnt), "--out", str(tmp_path / "cli.csv"),
        "--device", "cpu",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "cli.csv").read_text() == (tmp_path / "python.csv").read_text()
