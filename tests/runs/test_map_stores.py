"""Maps as zarr stores: the values of the GeoTIFF, however the work was shared or interrupted."""

import json
import signal

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import rioxarray  # noqa: F401
import shapely
import xarray as xr
from affine import Affine
from heights_support import save_small_canopy
from process_support import Strike, run_python
from rasterio.transform import from_origin
from tests_support import textured, write_tile

import geodino
from geodino.errors import RecipeError, RunError, SourceError
from geodino.metrics.conformal import ResidualIntervals
from geodino.runs.embed import EmbedJob, embed
from geodino.runs.predict import PredictJob, predict


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    calibrated = ResidualIntervals(
        coverage=0.9, sites=12, pixels=1000, height_m=(0.0, 40.0), scale_m=(1.0, 5.0), factor=2.0
    )
    extra = {"chip": 64, "overlap": 16, "intervals": calibrated.model_dump(mode="json")}
    folder = tmp_path_factory.mktemp("models") / "small"
    return save_small_canopy(folder, extra=extra, ground=True)


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    """A scene of several supertiles, with a hole and a collar of nodata."""
    pixels = np.maximum(np.tile(textured(3), (1, 3, 3))[:, :270, :210], 1)
    pixels[:, 120:150, 70:160] = 0
    pixels[:, :, :20] = 0
    return write_tile(tmp_path_factory.mktemp("scenes") / "scene.tif", pixels, nodata=0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("geodino.io.cog.layout.BLOCK", 64)
    monkeypatch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 128)


def run(model, out, *rasters, **options):
    job = PredictJob(
        rasters=tuple(map(str, rasters)), model=str(model), out=out, quiet=True, device="cpu",
        **options,
    )  # fmt: skip
    return predict(job)


def run_embed(debug_run, out, *rasters, **options):
    job = EmbedJob(
        rasters=tuple(map(str, rasters)), model=str(debug_run), out=out, quiet=True, device="cpu",
        **options,
    )  # fmt: skip
    return embed(job)


def content(path):
    """All files of a store but what names it: the command in its attributes."""
    found = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        data = file.read_bytes()
        if file.name == "zarr.json":
            data = json.dumps(_without_command(json.loads(data))).encode()
        found[str(file.relative_to(path))] = data
    return found


def _without_command(value):
    if isinstance(value, dict):
        return {k: _without_command(v) for k, v in value.items() if k != "GEODINO_COMMAND"}
    return value


@pytest.fixture(scope="module")
def whole(model, tile, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geodino.io.cog.layout.BLOCK", 64)
        patch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 128)
        out = tmp_path_factory.mktemp("stores") / "map.zarr"
        facts = run(model, out, tile, applicability=True)
        tif = out.with_name("tif.tif")
        run(model, tif, tile, applicability=True)
    return out, tif, facts


def test_a_store_of_heights_has_the_values_of_the_geotiff_and_its_place(whole):
    out, tif, facts = whole
    found = xr.open_zarr(out, chunks=None)
    with rasterio.open(tif) as expected:
        assert set(found.data_vars) == set(expected.descriptions)
        for number, name in enumerate(expected.descriptions, start=1):
            variable = found[name]
            np.testing.assert_array_equal(variable.values, expected.read(number))
            assert variable.dtype == np.float32
            assert variable.rio.crs == expected.crs
            assert variable.rio.transform() == expected.transform
            assert np.isnan(variable.rio.nodata)
        tags = expected.tags()
    units = {name: found[name].attrs["units"] for name in found.data_vars}
    assert units == {"height": "m", "lower": "m", "upper": "m", "dissimilarity": "1"}
    assert found["height"].attrs["standard_name"] == "canopy_height"
    assert "held-out" in found["dissimilarity"].attrs["long_name"]
    for name in ("GEODINO_SOURCE_SHA256", "GEODINO_SEAM_SCORE", "GEODINO_DISSIMILAR_SHARE"):
        assert found.attrs[name] == tags[name]
    assert facts["maps"] == 1
    assert f"{facts['dissimilar_share']:.4f}" == f"{float(tags['GEODINO_DISSIMILAR_SHARE']):.4f}"
    assert not out.with_name("map.zarr.parts").exists()


def test_the_item_of_a_store_says_what_its_bands_are(whole):
    item = pystac.Item.from_file(str(whole[0].with_suffix(".json")))
    asset = item.assets["data"]
    assert asset.href.endswith("map.zarr")
    bands = asset.extra_fields["raster:bands"]
    assert [(b["name"], b.get("unit")) for b in bands] == [
        ("height", "m"), ("lower", "m"), ("upper", "m"), ("dissimilarity", None),
    ]  # fmt: skip
    assert "thumbnail" not in item.assets


def test_centimetres_are_stored_as_they_are_in_the_geotiff(model, tile, tmp_path):
    run(model, tmp_path / "cm.zarr", tile, dtype="uint16", interval=False)
    run(model, tmp_path / "tif.tif", tile, dtype="uint16", interval=False)
    with rasterio.open(tmp_path / "tif.tif") as expected:
        stored = expected.read(1)
    raw = xr.open_zarr(tmp_path / "cm.zarr", chunks=None, mask_and_scale=False)["height"]
    np.testing.assert_array_equal(raw.values, stored)
    assert (raw.attrs["scale_factor"], raw.attrs["_FillValue"]) == (0.01, 65535)
    metres = xr.open_zarr(tmp_path / "cm.zarr", chunks=None)["height"]
    np.testing.assert_allclose(
        metres.values, np.where(stored == 65535, np.nan, stored / 100), rtol=1e-6
    )


def test_shards_memory_and_another_order_give_the_same_store(
    model, tile, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr("geodino.runs.mapping.parts.columns_for", lambda *a, **k: 1)
    monkeypatch.setattr("geodino.io.cog.blocks._AT_ONCE", 1)  # a supertile's row at a time
    out = tmp_path / "map.zarr"
    for number in (2, 3, 1):
        run(model, out, tile, applicability=True, shard=(number, 3))
        assert not out.exists()
    facts = run(model, out, tile, applicability=True, assemble=True)
    assert content(out) == content(whole[0])
    assert facts["seam_score"] == whole[2]["seam_score"]
    again = run(model, out, tile, applicability=True, resume=True)
    assert again["maps"] == 0  # it is there, whole
    with pytest.raises(RunError, match="exists: nothing was changed"):
        run(model, out, tile, resume=True)  # of other bands
    with pytest.raises(RunError, match="exists: nothing was changed"):
        run(model, out, tile, applicability=True)


def test_kill_9_and_resume_give_the_same_store(model, tile, whole, tmp_path):
    out = tmp_path / "map.zarr"
    job = (
        "import geodino.io.cog.layout as layout; layout.BLOCK, layout.LARGEST_SIDE = 64, 128\n"
        "from pathlib import Path\n"
        "from geodino.runs.predict import PredictJob, predict\n"
        f"predict(PredictJob(rasters=({str(tile)!r},), model={str(model)!r}, applicability=True, "
        f"out=Path({str(out)!r}), device='cpu', quiet=True, resume=True))\n"
    )
    done = run_python(job, strike=Strike(signal.SIGKILL, "1-of-1.jsonl", 4))
    assert done.returncode == -signal.SIGKILL, done
    assert not out.exists()
    run(model, out, tile, applicability=True, resume=True)
    assert content(out) == content(whole[0])


def test_a_job_killed_while_its_store_was_written_goes_on(
    model, tile, whole, tmp_path, monkeypatch
):
    out = tmp_path / "map.zarr"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("geodino.runs.predict.store.write_map_item", killed)
        with pytest.raises(KeyboardInterrupt):
            run(model, out, tile, applicability=True)
    run(model, out, tile, applicability=True, resume=True)
    assert out.with_suffix(".json").exists()
    assert content(out) == content(whole[0])


def test_an_area_and_another_resolution_give_the_values_of_the_geotiff(model, tile, tmp_path):
    with rasterio.open(tile) as source:
        left, top = source.transform @ (130, 30)
        right, bottom = source.transform @ (180, 110)
        frame = geopandas.GeoDataFrame(
            geometry=[shapely.box(left, bottom, right, top)], crs=source.crs
        )
    frame.to_file(tmp_path / "area.geojson")
    for out in ("a.zarr", "b.tif"):
        run(model, tmp_path / out, tile, aoi=tmp_path / "area.geojson", gsd_m=0.7)
    found = xr.open_zarr(tmp_path / "a.zarr", chunks=None)["height"].values
    with rasterio.open(tmp_path / "b.tif") as expected:
        np.testing.assert_array_equal(found, expected.read(1))
    assert 0 < np.isfinite(found).mean() < 0.5


def test_what_no_store_can_hold_is_refused_in_a_sentence(model, tile, tmp_path):
    empty = write_tile(tmp_path / "e.tif", np.zeros((3, 40, 40), dtype=np.uint8), nodata=0)
    with pytest.raises(SourceError, match="no valid pixel: there is nothing to map"):
        run(model, tmp_path / "e.zarr", empty)
    with pytest.raises(RecipeError, match=r"m\.zarr holds one map, but 2 rasters were named"):
        run(model, tmp_path / "m.zarr", tile, empty)
    turned = tmp_path / "turned.tif"
    with rasterio.open(
        turned, "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8", crs="EPSG:32632",
        transform=from_origin(500_000, 5_400_000, 0.6, 0.6) @ Affine.rotation(10),
        photometric="RGB",
    ) as target:  # fmt: skip
        target.write(textured(1)[:, :64, :64])
    with pytest.raises(RunError, match="rotated grid"):
        run(model, tmp_path / "t.zarr", turned)
    assert not list(tmp_path.glob("*.zarr*"))


def test_the_command_and_python_write_a_store(model, tile, whole, tmp_path):
    facts = geodino.predict(
        tile, model, tmp_path / "map.zarr", applicability=True, quiet=True, device="cpu"
    )
    assert facts["maps"] == 1
    assert content(tmp_path / "map.zarr") == content(whole[0])


def test_shards_of_features_of_several_rasters_give_the_store_of_one_go(debug_run, tmp_path):
    sources = []
    for number, (row, column) in enumerate([(0, 0), (1, 1)]):
        path = tmp_path / f"{number}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", width=96, height=96, count=3, dtype="uint8",
            crs="EPSG:32632", photometric="RGB",
            transform=from_origin(500_000 + column * 57.6, 5_400_000 - row * 57.6, 0.6, 0.6),
        ) as target:  # fmt: skip
            target.write(textured(number))
        sources.append(path)
    options = {"dtype": "int8", "pca": 3}
    facts = run_embed(debug_run, tmp_path / "a.zarr", *sources, **options)
    for number in (2, 1):
        shard = run_embed(debug_run, tmp_path / "b.zarr", *sources, shard=(number, 2), **options)
        assert "item" not in shard
    joined = run_embed(debug_run, tmp_path / "b.zarr", *sources, assemble=True, **options)
    assert joined["quantisation"] == facts["quantisation"]
    assert content(tmp_path / "a.zarr") == content(tmp_path / "b.zarr")
    pictures = [tmp_path / f"{name}.pca.tif" for name in "ab"]
    with rasterio.open(pictures[0]) as a, rasterio.open(pictures[1]) as b:
        np.testing.assert_array_equal(a.read(), b.read())
    assert not (tmp_path / "b.zarr.parts").exists()
    again = run_embed(debug_run, tmp_path / "b.zarr", *sources, resume=True, **options)
    assert (again["maps"], again["item"]) == (0, str(tmp_path / "b.json"))
    with pytest.raises(RunError, match="exists: nothing was changed"):
        run_embed(debug_run, tmp_path / "b.zarr", sources[0], resume=True, **options)


def test_features_interrupted_and_resumed_are_those_of_one_go(
    debug_run, tile, tmp_path, monkeypatch
):
    monkeypatch.setattr("geodino.io.cog.layout.BLOCK", 16)
    monkeypatch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 16)
    run_embed(debug_run, tmp_path / "a.zarr", tile, dtype="float16")
    run_embed(debug_run, tmp_path / "b.zarr", tile, dtype="float16", shard=(1, 2))
    with pytest.raises(RunError, match="holds parts of this job from before"):
        run_embed(debug_run, tmp_path / "b.zarr", tile, dtype="float16")
    with pytest.raises(RunError, match="parts are missing"):
        run_embed(debug_run, tmp_path / "b.zarr", tile, dtype="float16", assemble=True)
    run_embed(debug_run, tmp_path / "b.zarr", tile, dtype="float16", resume=True)
    assert content(tmp_path / "a.zarr") == content(tmp_path / "b.zarr")
    run_embed(debug_run, tmp_path / "c.tif", tile)
    stored = xr.open_zarr(tmp_path / "a.zarr", chunks=None)["embedding"]
    with rasterio.open(tmp_path / "c.tif") as found:
        np.testing.assert_array_equal(stored.values, found.read().astype(np.float16))
