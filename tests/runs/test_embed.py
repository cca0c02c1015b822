"""`geodino embed`: what is written, that invalid pixels never matter, and what is refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import rioxarray
import torch
import xarray as xr
from rasterio.transform import from_origin
from tests_support import textured, write_tile

import geodino
from geodino.cli.main import app
from geodino.errors import (
    BandError,
    CheckpointError,
    ContractError,
    RecipeError,
    RunError,
    SourceError,
)
from geodino.runs.embed import EmbedJob, Meeting, embed
from geodino.runs.embed.sample import fit_quantiser
from geodino.runs.export import load
from geodino.runs.sources import rfc3339, unique_names

PATCH = 8  # of the debug recipe
CHIP = 32


@pytest.fixture(scope="module")
def model(debug_run):
    return load(debug_run)


def run(debug_run, out, *rasters, **options):
    job = EmbedJob(
        rasters=tuple(str(r) for r in rasters), model=str(debug_run), out=out, quiet=True,
        device="cpu", **options,
    )  # fmt: skip
    return embed(job)


def tokens_of(model, pixels, valid):
    """Features of a raster by the definition: chip by chip, filled up, one at a time."""
    _, height, width = pixels.shape
    rows, columns = -(-height // PATCH), -(-width // PATCH)
    features = np.full((model.backbone.dim, rows, columns), np.nan, dtype=np.float32)
    for top in range(0, height, CHIP):
        for left in range(0, width, CHIP):
            image = np.zeros((3, CHIP, CHIP), dtype=np.float32)
            mask = np.zeros((CHIP, CHIP), dtype=bool)
            part = pixels[:, top : top + CHIP, left : left + CHIP]
            image[:, : part.shape[1], : part.shape[2]] = part
            mask[: part.shape[1], : part.shape[2]] = valid[top : top + CHIP, left : left + CHIP]
            with torch.inference_mode():
                tokens = model.backbone.tokens(
                    torch.from_numpy(image)[None], torch.from_numpy(mask)[None]
                )
            for i in range(CHIP // PATCH):
                for j in range(CHIP // PATCH):
                    y, x = top // PATCH + i, left // PATCH + j
                    used = mask[i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH]
                    if used.any():
                        features[:, y, x] = tokens.map[0, :, i, j].numpy()
    return features


def holed():
    """A tile whose sides are no multiples of the patch, with a hole of more than a chip."""
    pixels = np.clip(textured(3), 1, 254)[:, :90, :93]
    valid = np.ones((90, 93), dtype=bool)
    valid[30:70, 20:66] = False
    return pixels, valid


def write_holed(path, fill, *, by="nodata"):
    pixels, valid = holed()
    filled = np.where(valid, pixels, np.uint8(fill))
    if by == "nodata":
        return write_tile(path, filled, nodata=fill)
    write_tile(path, filled)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK="YES"), rasterio.open(path, "r+") as target:
        target.write_mask(valid)
    return path


def test_a_map_holds_the_tokens_of_each_chip_where_it_lies(debug_run, model, tmp_path):
    source = write_holed(tmp_path / "a.tif", 0)
    facts = run(debug_run, tmp_path / "f.tif", source, overlap=0)
    pixels, valid = holed()
    with rasterio.open(tmp_path / "f.tif") as found, rasterio.open(source) as before:
        features = found.read()
        np.testing.assert_allclose(features, tokens_of(model, pixels, valid), atol=2e-5)
        assert found.crs == before.crs
        assert found.transform == before.transform * before.transform.scale(PATCH)
        assert found.shape == (12, 12)
        assert found.tags()["GEODINO_CHIP_SIZE"] == "32"
        assert found.tags()["GEODINO_SOURCE"] == "a.tif"
    assert np.isnan(features).any(axis=0).sum() == 4 * 5  # whole patches of the hole
    assert facts["rasters"] == 1


FILLS = [(0, "nodata"), (255, "nodata"), (77, "mask"), (0, "mask")]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("f.tif", {"pca": 3}),
        ("f.tif", {"dtype": "int8"}),
        ("f.zarr", {"dtype": "float16", "pca": 3}),
        ("f.zarr", {"dtype": "int8"}),
        ("f.parquet", {}),
        ("f.parquet", {"pool": "cls", "dtype": "int8"}),
    ],
)
def test_values_under_invalid_pixels_change_no_byte(debug_run, tmp_path, name, options):
    written = []
    for fill, by in FILLS:
        source = tmp_path / "a.tif"
        source.unlink(missing_ok=True)
        write_holed(source, fill, by=by)
        run(debug_run, tmp_path / "out" / name, source, overwrite=True, **options)
        files = sorted(p for p in (tmp_path / "out").rglob("*") if p.is_file())
        # The item holds the time it was made.
        written.append(
            {str(p): p.read_bytes() for p in files if p.suffix != ".json" or p.name == "zarr.json"}
        )
    assert len(written[0]) >= 1
    assert all(other == written[0] for other in written[1:])


def test_other_rasters_change_no_bit_of_a_map(debug_run, tiles, tmp_path):
    run(debug_run, tmp_path / "all", tiles)
    run(debug_run, tmp_path / "one.tif", tiles / "t3.tif")
    with rasterio.open(tmp_path / "all" / "t3.tif") as a, rasterio.open(tmp_path / "one.tif") as b:
        np.testing.assert_array_equal(a.read(), b.read())


def test_all_formats_hold_the_same_features(debug_run, tmp_path):
    source = write_holed(tmp_path / "a.tif", 0)
    run(debug_run, tmp_path / "f.tif", source)
    with rasterio.open(tmp_path / "f.tif") as found:
        features = found.read()
    (tmp_path / "f.json").unlink()
    run(debug_run, tmp_path / "f.zarr", source)
    stored = xr.open_zarr(tmp_path / "f.zarr", chunks=None)["embedding"]
    np.testing.assert_array_equal(stored.values, features)
    with rasterio.open(tmp_path / "f.tif") as found:
        assert stored.rio.crs == found.crs
        assert stored.rio.transform() == found.transform
    loaded = geodino.load(debug_run)
    array = loaded.embed(source, device="cpu")
    np.testing.assert_array_equal(array.values, features)
    np.testing.assert_array_equal(array.x.values, stored.x.values)


def test_eight_bits_are_within_half_a_step_of_the_features(debug_run, tmp_path):
    source = write_holed(tmp_path / "a.tif", 0)
    run(debug_run, tmp_path / "f.tif", source)
    facts = run(debug_run, tmp_path / "q.tif", source, dtype="int8")
    with rasterio.open(tmp_path / "f.tif") as a, rasterio.open(tmp_path / "q.tif") as b:
        features, stored = a.read(), b.read()
        scales = np.float32(b.scales)[:, None, None]
        assert b.nodata == -128
        np.testing.assert_array_equal(stored == -128, np.isnan(features))
        # Every chip was in the sample, so no value is clipped.
        error = np.abs(np.where(stored == -128, np.nan, stored * scales) - features)
        assert np.nanmax(error / scales) < 0.501
        assert "recall@10" in b.tags()["GEODINO_QUANTISATION"]
    assert 0 < facts["quantisation"]["relative_error"] < 0.05
    assert facts["quantisation"]["clipped_share"] == 0.0
    assert facts["quantisation"]["recall"] > 0.8
    run(debug_run, tmp_path / "z.zarr", source, dtype="int8")
    decoded = xr.open_zarr(tmp_path / "z.zarr", chunks=None)["embedding"].geodino.features()
    np.testing.assert_allclose(decoded.values, np.where(stored == -128, np.nan, stored * scales))


def test_a_sample_that_is_not_everything_is_judged_on_features_it_did_not_see():
    features = np.random.default_rng(0).normal(size=(64, 4)).astype(np.float32)
    seen, whole = fit_quantiser(features, seed=0, is_complete=True)
    fitted, held_out = fit_quantiser(features, seed=0, is_complete=False)
    np.testing.assert_array_equal(seen.scale, fitted.scale)
    assert (whole.features, held_out.features) == (64, 32)
    assert whole.clipped_share == 0 < held_out.clipped_share


def neighbour(path, seed, row, column, *, crs="EPSG:32632"):
    with rasterio.open(
        path, "w", driver="GTiff", width=96, height=96, count=3, dtype="uint8", crs=crs,
        transform=from_origin(500_000 + column * 57.6, 5_400_000 - row * 57.6, 0.6, 0.6),
        photometric="RGB",
    ) as target:  # fmt: skip
        target.write(textured(seed))
    return path


def test_neighbours_of_one_zone_make_one_array_and_zones_make_groups(debug_run, tmp_path):
    sources = [
        neighbour(tmp_path / "a.tif", 1, 0, 0),
        neighbour(tmp_path / "b.tif", 2, 0, 0, crs="EPSG:32633"),
        neighbour(tmp_path / "c.tif", 3, 1, 1),
    ]
    run(debug_run, tmp_path / "f.zarr", *sources, pca=3)
    tree = xr.open_datatree(tmp_path / "f.zarr", engine="zarr")
    west, east = tree["epsg_32632/embedding"], tree["epsg_32633/embedding"]
    assert (west.rio.crs, east.rio.crs) == ("EPSG:32632", "EPSG:32633")
    assert west.shape[1:] == (24, 24)
    run(debug_run, tmp_path / "single", *sources)
    for name, found in (("a", west[:, :12, :12]), ("c", west[:, 12:, 12:]), ("b", east)):
        with rasterio.open(tmp_path / "single" / f"{name}.tif") as single:
            np.testing.assert_array_equal(found.values, single.read())
            assert found.rio.transform(recalc=True).almost_equals(single.transform, 1e-6)
    assert np.isnan(west[:, :12, 12:].values).all()
    with rasterio.open(tmp_path / "f.epsg_32632.pca.tif") as picture:
        colours = picture.read()
        assert (colours[:, :12, :12] > 0).all()
        assert (colours[:, :12, 12:] == 0).all()


def test_two_dates_of_one_place_are_two_arrays(debug_run, tmp_path):
    sources = [neighbour(tmp_path / f"{y}.tif", y, 0, 0) for y in (2018, 2020)]
    run(debug_run, tmp_path / "f.zarr", *sources)
    tree = xr.open_datatree(tmp_path / "f.zarr", engine="zarr")
    assert set(tree["epsg_32632"].children) == {"2018", "2020"}


@pytest.mark.parametrize("pool", ["cls", "mean"])
def test_a_table_has_a_row_for_each_chip_with_a_valid_pixel(debug_run, model, tmp_path, pool):
    source = write_holed(tmp_path / "a.tif", 0)
    facts = run(debug_run, tmp_path / "f.parquet", source, pool=pool, datetime="2020-07-01")
    frame = geopandas.read_parquet(tmp_path / "f.parquet")
    pixels, valid = holed()
    assert len(frame) == facts["rows"] == 8  # one of nine lies in the hole
    assert frame.crs == "EPSG:4326"
    assert set(frame["datetime"]) == {"2020-07-01T00:00:00Z"}
    assert frame["gsd_m"].iloc[0] == pytest.approx(0.6, abs=0.01)
    for row in frame.itertuples():
        part = np.s_[row.row : row.row + CHIP, row.col : row.col + CHIP]
        assert row.valid_share == pytest.approx(valid[part].mean())
        image, mask = np.zeros((3, CHIP, CHIP), np.float32), np.zeros((CHIP, CHIP), bool)
        height, width = valid[part].shape
        image[:, :height, :width], mask[:height, :width] = pixels[:, *part], valid[part]
        with torch.inference_mode():
            tokens = model.backbone.tokens(
                torch.from_numpy(image)[None], torch.from_numpy(mask)[None]
            )
        shares = mask.reshape(4, 8, 4, 8).mean(axis=(1, 3)).ravel()
        mean = (tokens.patches[0].numpy() * shares[:, None]).sum(axis=0) / shares.sum()
        expected = tokens.cls[0].numpy() if pool == "cls" else mean
        np.testing.assert_allclose(row.embedding, expected, atol=2e-5)
    # Footprints of neighbours touch; together they are the tile.
    metric = frame.to_crs("EPSG:32632").geometry
    assert metric.union_all().area == pytest.approx(metric.area.sum(), rel=1e-6)
    assert metric.area.sum() == pytest.approx((90 * 93 - 32 * 32) * 0.36, rel=1e-3)
    assert frame["chip_id"].is_unique


def test_the_item_describes_the_product(debug_run, tiles, tmp_path):
    run(debug_run, tmp_path / "f.tif", tiles / "t0.tif", pca=3, datetime="2020-07-01T10:20:30Z")
    item = pystac.Item.from_file(str(tmp_path / "f.json"))
    assert item.datetime.isoformat() == "2020-07-01T10:20:30+00:00"
    assert item.properties["emb:type"] == "pixel"
    assert item.properties["emb:chip_layout"]["chip_size"] == [32, 32]
    assert item.properties["emb:chip_layout"]["stride"] == [16, 16]
    (link,) = item.get_links("emb:model")
    found = pystac.Item.from_file(link.get_absolute_href())
    assert "mlm:name" in found.properties
    assert Path(item.assets["preview"].get_absolute_href()).is_file()


def test_a_folder_gets_a_map_for_each_raster(debug_run, tiles, tmp_path):
    facts = run(debug_run, tmp_path / "maps", tiles, dtype="int8", pca=3)
    names = sorted(p.name for p in (tmp_path / "maps").iterdir())
    assert names == sorted(f"t{i}{end}" for i in range(6) for end in (".tif", ".pca.tif", ".json"))
    assert facts["maps"] == 6


def test_bands_in_another_order_are_refused_and_read_rightly_with_the_option(debug_run, tmp_path):
    rgb = write_tile(tmp_path / "rgb.tif", textured(1))
    bgr = write_tile(tmp_path / "bgr.tif", textured(1)[::-1])
    with rasterio.open(bgr, "r+") as target:
        target.descriptions = ("blue", "green", "red")
    with pytest.raises(ContractError, match=r"blue, green, red.*`--bands red,green,blue`"):
        run(debug_run, tmp_path / "f.tif", bgr)
    assert not (tmp_path / "f.tif").exists()
    for bands in (("red", "green", "blue"), (3, 2, 1)):
        run(debug_run, tmp_path / "f.tif", bgr, how=Meeting(bands=bands), overwrite=True)
        run(debug_run, tmp_path / "g.tif", rgb, overwrite=True)
        with rasterio.open(tmp_path / "f.tif") as f, rasterio.open(tmp_path / "g.tif") as g:
            np.testing.assert_array_equal(f.read(), g.read())


def test_reflectances_are_refused_until_a_factor_brings_them_back(debug_run, tmp_path):
    byte = write_tile(tmp_path / "byte.tif", textured(1))
    unit = write_tile(tmp_path / "unit.tif", (textured(1) / 255).astype(np.float32))
    with rasterio.open(unit, "r+") as target:
        target.descriptions = ("red", "green", "blue")
    with pytest.raises(ContractError, match=r"stores float32.*`--scale 255`"):
        run(debug_run, tmp_path / "f.tif", unit)
    with pytest.raises(ContractError, match=r"times smaller. `--scale 255`"):
        run(debug_run, tmp_path / "f.tif", unit, how=Meeting(scale=1.0))
    run(debug_run, tmp_path / "f.tif", unit, how=Meeting(scale=255.0))
    run(debug_run, tmp_path / "g.tif", byte)
    with rasterio.open(tmp_path / "f.tif") as f, rasterio.open(tmp_path / "g.tif") as g:
        np.testing.assert_allclose(f.read(), g.read(), atol=1e-3)


def test_another_pixel_size_is_refused_until_it_is_accepted(debug_run, tmp_path):
    with rasterio.open(write_tile(tmp_path / "a.tif", textured(1)), "r+") as target:
        target.transform = from_origin(500_000, 5_400_000, 10, 10)
    with pytest.raises(ContractError, match=r"is 10 m, .* on 0\.6 m.*`--accept gsd`"):
        run(debug_run, tmp_path / "f.tif", tmp_path / "a.tif")
    run(debug_run, tmp_path / "f.tif", tmp_path / "a.tif", how=Meeting(accept=("gsd",)))


def test_of_several_unfit_files_the_first_is_described_and_the_others_are_counted(
    debug_run, tiles, tmp_path
):
    for name in ("a", "b"):
        write_tile(tmp_path / "bad" / f"{name}.tif", textured(0, bands=5))
    with pytest.raises(ContractError, match=r"(?s)a\.tif.*1 other file\(s\) do not fit either"):
        run(debug_run, tmp_path / "f.zarr", tiles, tmp_path / "bad")


def test_a_picture_without_a_place_is_welcome(debug_run, tmp_path):
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=40, height=40, count=3, dtype="uint8",
        photometric="RGB",
    ) as target:  # fmt: skip
        target.write(textured(0)[:, :40, :40])
    run(debug_run, tmp_path / "f.tif", tmp_path / "a.tif")
    run(debug_run, tmp_path / "f.parquet", tmp_path / "a.tif", overwrite=True)
    with rasterio.open(tmp_path / "f.tif") as found:
        assert found.crs is None
    assert geopandas.read_parquet(tmp_path / "f.parquet").geometry.isna().all()


def test_pixels_that_are_points_stay_points(debug_run, tmp_path):
    source = write_tile(tmp_path / "a.tif", textured(1))
    with rasterio.open(source, "r+") as target:
        target.update_tags(AREA_OR_POINT="Point")
    run(debug_run, tmp_path / "f.tif", source)
    with rasterio.open(tmp_path / "f.tif") as found, rasterio.open(source) as before:
        assert found.tags()["AREA_OR_POINT"] == "Point"
        assert found.transform @ (0, 0) == before.transform @ (0, 0)


def test_what_is_there_is_not_replaced_unasked(debug_run, tiles, tmp_path):
    run(debug_run, tmp_path / "f.tif", tiles / "t0.tif")
    before = (tmp_path / "f.tif").read_bytes()
    with pytest.raises(RunError, match=r"f\.tif exists.*--overwrite"):
        run(debug_run, tmp_path / "f.tif", tiles / "t1.tif")
    assert (tmp_path / "f.tif").read_bytes() == before
    run(debug_run, tmp_path / "f.tif", tiles / "t1.tif", overwrite=True)
    assert (tmp_path / "f.tif").read_bytes() != before


@pytest.mark.parametrize(
    ("name", "options", "error", "said"),
    [
        ("f.nc", {}, RecipeError, r"\.tif, \.zarr, \.parquet"),
        ("f.tif", {"dtype": "float16"}, RecipeError, r"float32 or int8, or write \.zarr"),
        ("f.tif", {"dtype": "int16"}, RecipeError, "choose float32 or int8"),
        ("f.tif", {"pca": 2}, RecipeError, "3 components"),
        ("f.parquet", {"pca": 3}, RecipeError, "a table has no pixels"),
        ("f.parquet", {"pool": "max"}, RecipeError, "choose cls or mean"),
        ("f.tif", {"overlap": 4}, RecipeError, "a multiple of 8 px, at most 16"),
        ("f.parquet", {"resume": True}, RecipeError, "a .parquet is written in one go"),
        ("f.parquet", {"overlap": 8}, RecipeError, "chips side by side"),
        ("f.tif", {"how": Meeting(chip=20)}, RecipeError, "Choose 16 or 24"),
        ("f.tif", {"how": Meeting(chip=3)}, RecipeError, "Choose 8 or 16"),
        ("f.tif", {"how": Meeting(bands=("red", "gren", "blue"))}, BandError, "Did you mean 'green'"),
        ("f.tif", {"how": Meeting(bands=(1, 2))}, ContractError, "2 chosen"),
        ("f.tif", {"datetime": "last summer"}, RecipeError, "expected a time such as 2020-07-01"),
        ("f.tif", {"overrides": ("train.batch=2",)}, RecipeError, r"only data\.KEY=VALUE"),
        ("f.tif", {"overrides": ("data.nodta=2",)}, RecipeError, "Did you mean 'nodata'"),
        ("f.tif", {"overrides": ("data.valid=any",)}, RecipeError, "trained with data.valid=all"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_before_anything_is_written(
    debug_run, tiles, tmp_path, name, options, error, said
):
    with pytest.raises(error, match=said):
        run(debug_run, tmp_path / name, tiles / "t0.tif", **options)
    assert list(tmp_path.iterdir()) == []


def test_several_rasters_do_not_fit_into_one_geotiff(debug_run, tiles, tmp_path):
    with pytest.raises(RecipeError, match=r"6 rasters were named.*--out .*/f\), or all to"):
        run(debug_run, tmp_path / "f.tif", tiles)


def test_a_missing_model_and_a_missing_raster_are_named(debug_run, tiles, tmp_path):
    with pytest.raises(CheckpointError, match="nowhere"):
        run(tmp_path / "nowhere", tmp_path / "f.tif", tiles / "t0.tif")
    with pytest.raises(SourceError, match=r"gone\.tif does not exist"):
        run(debug_run, tmp_path / "f.tif", tiles / "gone.tif")


def test_an_unreadable_raster_among_others_is_counted_or_fatal(debug_run, tmp_path):
    write_tile(tmp_path / "in" / "a.tif", textured(0))
    (tmp_path / "in" / "b.tif").write_text("no raster")
    facts = run(debug_run, tmp_path / "f.parquet", tmp_path / "in")
    assert facts["unusable"] == 1
    with pytest.raises(SourceError, match=r"b\.tif"):
        run(debug_run, tmp_path / "g.parquet", tmp_path / "in", strict=True)


def test_a_dry_run_writes_nothing(debug_run, tiles, tmp_path):
    card = run(debug_run, tmp_path / "f.zarr", tiles, tiles / "t0.tif", dry_run=True)
    assert card["rasters"] == "6, in 150 chips of 32 px with 16 px in common"
    assert "1 raster(s) were named more than once: read once" in card["notes"]
    assert list(tmp_path.iterdir()) == []


def test_a_raster_without_a_valid_pixel_makes_no_map_and_an_empty_array(debug_run, tmp_path):
    source = write_tile(tmp_path / "in" / "a.tif", np.zeros((3, 40, 40), np.uint8), nodata=0)
    with pytest.raises(SourceError, match="no valid pixel: there is nothing to map"):
        run(debug_run, tmp_path / "f.tif", source)
    with pytest.raises(SourceError, match="No valid pixel"):
        run(debug_run, tmp_path / "g.tif", source, dtype="int8")
    assert not list(tmp_path.glob("[fg]*"))
    run(debug_run, tmp_path / "f.zarr", source)
    assert xr.open_zarr(tmp_path / "f.zarr", chunks=None)["embedding"].isnull().all()


def test_the_recorded_command_repeats_the_job(debug_run, tiles, tmp_path):
    job = EmbedJob(
        rasters=(str(tiles / "t0.tif"),), model=str(debug_run), out=tmp_path / "a b.tif",
        dtype="int8", how=Meeting(bands=(1, 2, 3), accept=("gsd", "units"), chip=64),
        overrides=("data.nodata=0",), quiet=True,
    )  # fmt: skip
    command = job.command()
    assert f"--out '{tmp_path}/a b.tif'" in command
    assert "--bands 1,2,3 --accept gsd,units --chip 64" in command
    assert command.endswith("--set data.nodata=0")
    many = replace(job, rasters=tuple(f"{i}.tif" for i in range(1000))).command()
    assert len(many) < 600
    assert "and 980 more" in many


def test_the_command_line_writes_and_reports(debug_run, tiles, tmp_path, capsys):
    words = ["embed", str(tiles / "t0.tif"), "--model", str(debug_run), "--device", "cpu", "--json"]
    out = tmp_path / "f.tif"
    app([*words, "--out", str(out), "--pca", "3", "--accept", "gsd, units"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out)["preview"] == [str(tmp_path / "f.pca.tif")]
    with rasterio.open(out) as found:
        assert "--accept gsd,units" in found.tags()["GEODINO_COMMAND"]
    with pytest.raises(RecipeError, match="--accept all: known are gsd, units, values"):
        app([*words, "--out", str(out), "--accept", "all"], standalone_mode=False)


def test_python_writes_what_the_command_writes(debug_run, tiles, tmp_path):
    facts = geodino.embed(
        tiles / "t0.tif", debug_run, tmp_path / "f.zarr", dtype="float16", quiet=True, device="cpu",
        bands=(1, 2, 3), accept=["gsd"], overrides={"data.nodata": "ignore"},
    )  # fmt: skip
    assert facts["maps"] == 1
    assert xr.open_zarr(tmp_path / "f.zarr")["embedding"].encoding["dtype"] == np.float16


def test_an_array_has_the_features_of_its_file(debug_run, tmp_path):
    source = write_holed(tmp_path / "a.tif", 0)
    model = geodino.load(debug_run)
    expected = model.embed(source, device="cpu")
    for masked in (False, True):
        array = rioxarray.open_rasterio(source, masked=masked)
        found = array.geodino.embed(model, bands=(1, 2, 3), device="cpu")
        np.testing.assert_array_equal(found.values, expected.values)
        assert found.rio.crs == expected.rio.crs
        assert found.rio.transform() == expected.rio.transform()
    by_path = array.geodino.embed(str(debug_run), bands=(1, 2, 3), device="cpu")
    np.testing.assert_array_equal(by_path.values, expected.values)
    with pytest.raises(ContractError, match="the model was trained on red, green, blue"):
        array.geodino.embed(model)


def test_a_folder_is_no_array(debug_run, tiles):
    with pytest.raises(SourceError, match="holds 6 rasters"):
        geodino.load(debug_run).embed(tiles)


def test_a_model_without_its_item_says_so(debug_run, tiles, tmp_path):
    shutil.copytree(debug_run / "model", tmp_path / "model")
    (tmp_path / "model" / "item.json").unlink()
    with pytest.raises(CheckpointError, match=r"item\.json is missing"):
        run(tmp_path / "model", tmp_path / "f.tif", tiles / "t0.tif")


def test_files_of_one_name_are_told_apart_by_their_folders():
    assert unique_names(["/x/a.tif", "/y/b.tif"]) == ["a", "b"]
    assert unique_names(["/x/1/a.tif", "/x/2/a.tif"]) == ["1_a", "2_a"]
    assert unique_names(["/x/a.tif", "/x/a.png"]) == ["a.tif", "a.png"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-07-01", "2020-07-01T00:00:00Z"),
        ("2020-07-01T10:20:30.5", "2020-07-01T10:20:30Z"),
        ("2020-07-01T10:20:30+02:00", "2020-07-01T08:20:30Z"),
    ],
)
def test_times_are_told_in_utc(text, expected):
    assert rfc3339(text) == expected
