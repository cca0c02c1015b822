"""Maps, tables and features whose matrices are multiplied in bfloat16."""

import json

import geopandas
import numpy as np
import pytest
import rasterio
import torch
import xarray as xr
from finder_support import save_small_detection
from heights_support import save_small_canopy
from segmentation_support import save_small_segmentation
from tests_support import textured, write_tile

import geodino
from geodino.errors import RecipeError, RunError
from geodino.runs.device import compute_type
from geodino.runs.embed import EmbedJob, embed
from geodino.runs.mapping.job import parse_shard
from geodino.runs.predict import PredictJob, predict
from geodino.runs.sources import Meeting

LOW = Meeting(precision="bfloat16")


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    pixels = np.maximum(np.tile(textured(3), (1, 3, 3))[:, :230, :210], 1)
    pixels[:, 120:150, 70:160] = 0
    return write_tile(tmp_path_factory.mktemp("scenes") / "scene.tif", pixels, nodata=0)


@pytest.fixture(scope="module")
def canopy(tmp_path_factory):
    return save_small_canopy(tmp_path_factory.mktemp("models") / "canopy", ground=True)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("geodino.io.cog.layout.BLOCK", 64)
    monkeypatch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 128)


def run(tile, model, out, **more):
    given = {"device": "cpu", "quiet": True, **more}
    predict(PredictJob(rasters=(str(tile),), model=str(model), out=out, **given))
    return out


def pixels(path):
    with rasterio.open(path) as file:
        return file.read()


def test_auto_is_bfloat16_on_cuda_alone():
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert compute_type("auto", cpu) == compute_type("float32", cuda) == torch.float32
    assert compute_type("auto", cuda) == compute_type("bfloat16", cpu) == torch.bfloat16


def test_heights_are_nearly_the_same_and_all_ways_to_a_map_give_the_same_ones(
    tile, canopy, tmp_path
):
    exact = pixels(run(tile, canopy, tmp_path / "exact.tif", applicability=True))
    for number in (1, 2):
        shard = parse_shard(f"{number}/2")
        run(tile, canopy, tmp_path / "low.tif", how=LOW, applicability=True, shard=shard)
    low = pixels(
        run(tile, canopy, tmp_path / "low.tif", how=LOW, applicability=True, assemble=True)
    )
    assert not np.array_equal(exact, low, equal_nan=True)
    np.testing.assert_array_equal(np.isnan(exact), np.isnan(low))
    assert np.nanmax(np.abs(exact[0] - low[0])) < 0.02 * np.nanmax(exact[0])
    for name, told in (("exact", None), ("low", "bfloat16")):
        with rasterio.open(tmp_path / f"{name}.tif") as file:
            assert file.tags().get("GEODINO_PRECISION") == told
    again = geodino.load(canopy).predict(
        tile, device="cpu", precision="bfloat16", applicability=True
    )
    np.testing.assert_array_equal(again.values, low)
    auto = geodino.load(canopy).predict(tile, device="cpu", applicability=True)
    np.testing.assert_array_equal(auto.values, exact)


def test_parts_of_two_precisions_are_not_mixed(tile, canopy, tmp_path):
    run(tile, canopy, tmp_path / "map.tif", shard=parse_shard("1/2"))
    with pytest.raises(RunError, match=r"precision was .float32., now .bfloat16."):
        run(tile, canopy, tmp_path / "map.tif", how=LOW, shard=parse_shard("2/2"))


def test_classes_and_objects_are_nearly_the_same(tile, tmp_path):
    model = save_small_segmentation(tmp_path / "classes")
    exact, low = (
        pixels(run(tile, model, tmp_path / f"{how.precision}-classes.tif", how=how))
        for how in (Meeting(), LOW)
    )
    assert 0.95 < (exact == low).mean() < 1
    model = save_small_detection(tmp_path / "objects")
    exact, low = (
        geopandas.read_parquet(run(tile, model, tmp_path / f"{how.precision}.parquet", how=how))
        for how in (Meeting(), LOW)
    )
    assert len(low) == pytest.approx(len(exact), rel=0.1)
    assert low["score"].max() == pytest.approx(exact["score"].max(), abs=0.05)
    assert low["score"].max() != exact["score"].max()


def test_features_are_nearly_the_same(tile, debug_run, tmp_path):
    def made(name, how):
        out = tmp_path / name / how.precision
        out = out.with_suffix(".parquet") if name == "table" else out.with_suffix(".zarr")
        out.parent.mkdir(exist_ok=True)
        embed(
            EmbedJob(
                rasters=(str(tile),), model=str(debug_run), out=out, how=how, device="cpu",
                quiet=True,
            )
        )  # fmt: skip
        return out

    how = Meeting(chip=32), Meeting(chip=32, precision="bfloat16")
    exact, low = (xr.open_zarr(made("map", one))["embedding"].values for one in how)
    valid = np.isfinite(exact)
    assert 0 < np.abs(exact - low)[valid].max() < 0.05 * np.abs(exact[valid]).max()
    exact, low = (np.stack(geopandas.read_parquet(made("table", one))["embedding"]) for one in how)
    assert 0 < np.abs(exact - low).max() < 0.05 * np.abs(exact).max()
    item = json.loads((tmp_path / "table" / "bfloat16.json").read_text())
    assert "bfloat16" in json.dumps(item)


def test_an_unknown_precision_is_refused(tile, canopy):
    with pytest.raises(RecipeError, match="--precision half: choose auto, float32, bfloat16"):
        geodino.load(canopy).predict(tile, precision="half")
