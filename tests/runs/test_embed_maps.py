"""Maps of features: the same however the work is shared, and on the grid that was asked for."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import torch
import xarray as xr
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate
from tests_support import textured, write_tile

import geodino
from geodino.errors import ContractError, RunError, SourceError
from geodino.runs.embed import EmbedJob, embed
from geodino.runs.export import load

PATCH, CHIP = 8, 32  # of the debug recipe


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Supertiles of 16 patches, so that a small scene has many."""
    monkeypatch.setattr("geodino.io.cog.layout.BLOCK", 16)
    monkeypatch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 16)


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """27 x 20 patches, with a hole and a collar of nodata."""
    pixels = np.maximum(np.tile(textured(5), (1, 3, 2))[:, :210, :157], 1)
    pixels[:, 90:130, 60:110] = 0
    pixels[:, :, :24] = 0
    return write_tile(tmp_path_factory.mktemp("scenes") / "scene.tif", pixels, nodata=0)


def run(debug_run, out, *rasters, **options):
    job = EmbedJob(
        rasters=tuple(map(str, rasters)), model=str(debug_run), out=out, quiet=True, device="cpu",
        **options,
    )  # fmt: skip
    return embed(job)


def written(path):
    """Everything but the command, which names the output."""
    with rasterio.open(path) as found:
        tags = {k: v for k, v in found.tags().items() if k != "GEODINO_COMMAND"}
        return found.read().tobytes(), sorted(tags.items()), found.tags(1), found.scales


@pytest.fixture(scope="module")
def whole(debug_run, scene, tmp_path_factory):
    """An int8 map with its picture, in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geodino.io.cog.layout.BLOCK", 16)
        patch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 16)
        out = tmp_path_factory.mktemp("maps") / "f.tif"
        return out, run(debug_run, out, scene, dtype="int8", pca=3)


def test_a_map_is_a_cog_that_says_how_it_was_made(whole, scene):
    out, facts = whole
    with rasterio.open(out) as found, rasterio.open(scene) as source:
        tags = found.tags()
        assert found.shape == (27, 20)
        assert found.descriptions[:2] == ("f0", "f1")
        valid = np.pad(source.read_masks(1) > 0, ((0, 6), (0, 3)))
        used = valid.reshape(27, 8, 20, 8).any(axis=(1, 3))
        np.testing.assert_array_equal(found.read(1) != -128, used)
    assert (tags["GEODINO_CHIP_SIZE"], tags["GEODINO_OVERLAP"]) == ("32", "16")
    assert facts["seam_score"] > 0
    assert cog_validate(out, strict=True, quiet=True)[0]
    picture = out.with_suffix(".pca.tif")
    assert cog_validate(picture, strict=True, quiet=True)[0]
    with rasterio.open(picture) as found:
        np.testing.assert_array_equal(found.read(1) > 0, used)
    assert not out.with_name("f.tif.parts").exists()


def test_where_a_chip_counts_alone_the_map_has_its_tokens(debug_run, scene, tmp_path):
    # With one patch in common chips begin every 24 pixels, as this one does; of its four patches
    # along each axis the middle two are its own.
    run(debug_run, tmp_path / "f.tif", scene, overlap=8)
    with rasterio.open(scene) as source:
        pixels = torch.from_numpy(source.read()[:, 144:176, 72:104])
    with torch.inference_mode():
        expected = load(debug_run).backbone.tokens(pixels[None].float()).map[0].numpy()
    with rasterio.open(tmp_path / "f.tif") as found:
        features = found.read()[:, 18:22, 9:13]
        assert found.tags()["GEODINO_OVERLAP"] == "8"
    np.testing.assert_allclose(features[:, 1:3, 1:3], expected[:, 1:3, 1:3], atol=2e-5)
    assert np.abs(features[:, 0] - expected[:, 0]).max() > 1e-3  # shared with the chip above


def test_shards_give_the_bytes_of_the_whole(debug_run, scene, whole, tmp_path):
    out = tmp_path / "f.tif"
    for number in (2, 1, 3):
        facts = run(debug_run, out, scene, dtype="int8", pca=3, shard=(number, 3))
        assert "item" not in facts
        assert not out.exists()
    facts = run(debug_run, out, scene, dtype="int8", pca=3, assemble=True)
    assert facts["quantisation"] == whole[1]["quantisation"]
    assert written(out) == written(whole[0])
    assert written(out.with_suffix(".pca.tif")) == written(whole[0].with_suffix(".pca.tif"))
    assert (tmp_path / "f.json").exists()
    again = run(debug_run, out, scene, dtype="int8", pca=3, resume=True)
    assert (again["maps"], again["item"]) == (0, str(tmp_path / "f.json"))
    with pytest.raises(RunError, match="exists: nothing was changed"):
        run(debug_run, out, scene, dtype="int8", pca=3, resume=True, overlap=8)


def test_a_job_that_goes_on_keeps_its_scales(debug_run, scene, tmp_path, monkeypatch):
    out = tmp_path / "f.tif"
    run(debug_run, out, scene, dtype="int8", shard=(1, 2))

    def never(*_, **__):
        raise AssertionError("fitted twice")

    monkeypatch.setattr("geodino.runs.embed.fit.fit_maps", never)
    run(debug_run, out, scene, dtype="int8", resume=True)
    assert out.exists()


def test_parts_without_their_scales_are_not_joined(debug_run, scene, tmp_path):
    out = tmp_path / "f.tif"
    run(debug_run, out, scene, dtype="int8", shard=(1, 1))
    (tmp_path / "f.tif.parts" / "fit.json").unlink()
    with pytest.raises(RunError, match=r"fit\.json is missing"):
        run(debug_run, out, scene, dtype="int8", assemble=True)


def test_a_job_interrupted_while_joining_goes_on(debug_run, scene, whole, tmp_path, monkeypatch):
    out = tmp_path / "f.tif"

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("geodino.runs.embed.run.describe", killed)
        with pytest.raises(KeyboardInterrupt):
            run(debug_run, out, scene, dtype="int8", pca=3)
    assert out.exists()
    assert not (tmp_path / "f.json").exists()
    run(debug_run, out, scene, dtype="int8", pca=3, resume=True)
    assert (tmp_path / "f.json").exists()
    assert written(out) == written(whole[0])


def area_of(scene, path, rows, columns):
    with rasterio.open(scene) as source:
        left, top = source.transform @ (columns[0], rows[0])
        right, bottom = source.transform @ (columns[1], rows[1])
        frame = geopandas.GeoDataFrame(
            geometry=[shapely.box(left, bottom, right, top)], crs=source.crs
        )
    frame.to_file(path)
    return path


def test_an_area_changes_no_pixel_in_it(debug_run, scene, tmp_path):
    aoi = area_of(scene, tmp_path / "area.geojson", (130, 200), (40, 90))
    run(debug_run, tmp_path / "all.tif", scene)
    run(debug_run, tmp_path / "part.tif", scene, aoi=aoi)
    run(debug_run, tmp_path / "store.zarr", scene, aoi=aoi)
    with rasterio.open(tmp_path / "all.tif") as a, rasterio.open(tmp_path / "part.tif") as b:
        expected, found = a.read(), b.read()
    inside = np.zeros((27, 20), dtype=bool)
    inside[130 // 8 : 200 // 8, 40 // 8 : 96 // 8] = True  # patches that hold a pixel of it
    np.testing.assert_array_equal(np.isfinite(found[0]), inside)
    np.testing.assert_array_equal(found[:, inside], expected[:, inside])
    stored = xr.open_zarr(tmp_path / "store.zarr", chunks=None)["embedding"]
    np.testing.assert_array_equal(stored.values, found)
    facts = run(debug_run, tmp_path / "table.parquet", scene, aoi=aoi)
    assert facts["rows"] == 3 * 2  # chips of 32 px that touch it
    elsewhere = area_of(scene, tmp_path / "far.geojson", (9000, 9100), (0, 10))
    for name in ("no.tif", "no.zarr", "no.parquet"):
        with pytest.raises(SourceError, match=r"--aoi: .*far\.geojson lies outside .*scene\.tif"):
            run(debug_run, tmp_path / name, scene, aoi=elsewhere, dtype="int8")
    assert not list(tmp_path.glob("no*"))


def test_the_memory_limit_changes_no_pixel_of_a_store(debug_run, scene, tmp_path, monkeypatch):
    run(debug_run, tmp_path / "f.tif", scene, pca=3)
    monkeypatch.setattr("geodino.runs.mapping.parts.columns_for", lambda *a, **k: 1)
    run(debug_run, tmp_path / "f.zarr", scene, pca=3, overwrite=True)
    assert (tmp_path / "f.pca.tif").exists()
    stored = xr.open_zarr(tmp_path / "f.zarr", chunks=None)["embedding"]
    with rasterio.open(tmp_path / "f.tif") as found:
        np.testing.assert_array_equal(stored.values, found.read())
        digest = found.tags()["GEODINO_SOURCE_SHA256"]
    assert stored.attrs["GEODINO_SOURCE_SHA256"] == digest


def test_at_another_resolution_a_patch_of_the_model_s_grid_is_a_pixel(debug_run, tmp_path):
    coarse = np.clip(textured(2), 1, 254)[:, :32, :32]
    fine = tmp_path / "fine.tif"
    with rasterio.open(
        fine, "w", driver="GTiff", width=64, height=64, count=3, dtype="uint8", crs="EPSG:32632",
        transform=from_origin(500_000, 5_400_000, 0.3, 0.3), photometric="RGB",
    ) as target:  # fmt: skip
        target.write(coarse.repeat(2, axis=1).repeat(2, axis=2))
    with pytest.raises(ContractError, match=r"0\.3 m"):
        run(debug_run, tmp_path / "f.tif", fine)
    gsd = rasterio_gsd(fine) * 2
    run(debug_run, tmp_path / "f.tif", fine, gsd_m=gsd)
    backbone = load(debug_run).backbone
    with torch.inference_mode():
        expected = backbone.tokens(torch.from_numpy(coarse)[None].float()).map[0].numpy()
    with rasterio.open(tmp_path / "f.tif") as found:
        assert found.shape == (4, 4)
        assert found.transform.a == pytest.approx(0.3 * 2 * PATCH, rel=1e-3)
        np.testing.assert_allclose(found.read(), expected, atol=2e-5)
        assert float(found.tags()["GEODINO_GSD"]) == pytest.approx(gsd, rel=1e-4)
        array = geodino.load(debug_run).embed(fine, gsd_m=gsd, device="cpu")
        np.testing.assert_array_equal(array.values, found.read())
    facts = run(debug_run, tmp_path / "f.parquet", fine, gsd_m=gsd, overwrite=True)
    assert facts["rows"] == 1


def rasterio_gsd(path):
    """Metres on the ground per column of a raster."""
    from geodino.geo.grid import Grid

    with rasterio.open(path) as source:
        return Grid("EPSG:32632", source.transform, source.width, source.height).gsd_m[0]
