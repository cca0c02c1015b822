"""`geodino predict`: the same map however it is made, what it says, and what is refused."""

import shutil
import signal
from dataclasses import replace
from pathlib import Path

import geopandas
import numpy as np
import pystac
import pytest
import rasterio
import rioxarray
import shapely
import torch
from heights_support import save_small_canopy
from PIL import Image
from process_support import Strike, run_geodino, run_python
from rasterio.transform import from_origin
from rio_cogeo.cogeo import cog_validate
from tests_support import textured, write_tile
from typer.testing import CliRunner

import geodino
from geodino.cli.main import app
from geodino.errors import CheckpointError, ContractError, RecipeError, RunError, SourceError
from geodino.metrics.conformal import ResidualIntervals
from geodino.models.canopy_open import open_canopy
from geodino.runs.mapping.job import parse_memory, parse_shard
from geodino.runs.predict import PredictJob, predict
from geodino.runs.sources import Meeting


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_canopy(tmp_path_factory.mktemp("models") / "small")


def scene(height, width, seed=0):
    return np.tile(textured(seed), (1, -(-height // 96), -(-width // 96)))[:, :height, :width]


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    """A scene of 4 supertiles and more, with a hole and a collar of nodata."""
    pixels = np.maximum(scene(420, 350), 1)
    pixels[:, 200:260, 100:300] = 0
    pixels[:, :, :40] = 0
    return write_tile(tmp_path_factory.mktemp("scenes") / "scene.tif", pixels, nodata=0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Blocks of 64 and supertiles of 128 pixels, so that a small scene has many."""
    monkeypatch.setattr("geodino.io.cog.layout.BLOCK", 64)
    monkeypatch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 128)


def run(model, out, *rasters, **options):
    job = PredictJob(
        rasters=tuple(map(str, rasters)), model=str(model), out=out, quiet=True, device="cpu",
        **options,
    )  # fmt: skip
    return predict(job)


@pytest.fixture(scope="module")
def whole(model, tile, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geodino.io.cog.layout.BLOCK", 64)
        patch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 128)
        out = tmp_path_factory.mktemp("maps") / "map.tif"
        facts = run(model, out, tile)
    return out, facts


def test_the_map_lies_on_the_raster_and_says_what_it_is(model, tile, whole):
    out, facts = whole
    with rasterio.open(out) as found, rasterio.open(tile) as source:
        assert (found.crs, found.transform) == (source.crs, source.transform)
        assert found.shape == source.shape
        assert found.descriptions == ("height",)
        assert found.units == ("m",)
        assert np.isnan(found.nodata)
        np.testing.assert_array_equal(np.isfinite(found.read(1)), source.read_masks(1) > 0)
        tags = found.tags()
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert found.tags(1)["STATISTICS_MINIMUM"] == f"{np.nanmin(found.read(1)):.9g}"
    assert tags["GEODINO_CHIP_SIZE"] == "64"
    assert tags["GEODINO_OVERLAP"] == "16"
    assert tags["GEODINO_SOURCE"] == "scene.tif"
    assert str(tile) in tags["GEODINO_COMMAND"]
    assert cog_validate(out, strict=True, quiet=True) == (True, [], [])
    assert 0 < facts["seam_score"] < 1.2
    assert not out.with_name("map.tif.parts").exists()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SourceError])
def test_a_map_that_is_interrupted_says_what_stays_and_how_it_goes_on(
    model, tile, tmp_path, monkeypatch, capsys, error
):
    def interrupt(*args, **options):
        raise error

    monkeypatch.setattr("geodino.infer.render.Rendering.run", interrupt)
    job = PredictJob(rasters=(str(tile),), model=str(model), out=tmp_path / "a.tif", device="cpu")
    with pytest.raises(error):
        predict(job)
    assert (
        f"stay in {tmp_path / 'a.tif.parts'}. The same command with --resume"
        in capsys.readouterr().err
    )


def test_no_raster_is_replaced_by_its_own_map_whatever_is_asked(model, tile, tmp_path):
    own = tmp_path / "own.tif"
    shutil.copy(tile, own)
    link = tmp_path / "link.tif"
    link.symlink_to(own)
    before = own.read_bytes()
    for out in (own, link, tmp_path):
        for overwrite in (False, True):
            with pytest.raises(RunError, match="is read by this job"):
                run(model, out, own, overwrite=overwrite)
    assert own.read_bytes() == before


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_factor_that_makes_every_pixel_the_same_is_refused(scale):
    with pytest.raises(RecipeError, match=r"--scale .* is above 0"):
        Meeting.asked(bands=None, scale=scale, accept=(), chip=None, batch=None)


def test_an_output_that_cannot_be_made_is_refused_in_one_sentence(model, tile, tmp_path):
    (tmp_path / "file.tif").write_text("no folder")
    for out in (tmp_path / "file.tif" / "a.tif", tmp_path / "file.tif" / "maps"):
        with pytest.raises(RunError, match=r"could not be written: not a directory"):
            run(model, out, tile)


def test_style_picture_and_item_lie_beside_the_map(whole, tile):
    out, _ = whole
    item = pystac.Item.from_file(str(out.with_suffix(".json")))
    assert item.properties["geodino:chip_size" if "geodino:chip_size" in item.properties else "gsd"]
    assert {asset.href.rsplit("/", 1)[-1] for asset in item.assets.values()} >= {
        "map.tif",
        "map.png",
    }
    assert "<qgis" in out.with_suffix(".qml").read_text(encoding="utf-8")
    with Image.open(out.with_suffix(".png")) as picture:
        assert max(picture.size) <= 1024


def test_the_middle_of_a_chip_has_the_heights_of_the_model(model, tile, whole):
    with rasterio.open(tile) as source:
        pixels = torch.from_numpy(source.read()[:, 144:208, 96:160])
        valid = torch.from_numpy(source.read_masks(1)[144:208, 96:160] > 0)
    with torch.inference_mode():
        heights = open_canopy(model).model.heights(pixels[None], valid[None])[0]
    with rasterio.open(whole[0]) as found:
        middle = found.read(1)[144 + 12 : 208 - 12, 96 + 12 : 160 - 12]
    expected = np.where(valid, heights, np.nan)[12:-12, 12:-12]
    np.testing.assert_allclose(middle, expected, rtol=1e-5)


@pytest.mark.parametrize("count", [2, 5])
def test_shards_give_the_bytes_of_the_whole(model, tile, whole, tmp_path, count):
    out = tmp_path / "map.tif"
    command = {"rasters": (str(tile),), "model": str(model), "out": out}
    for number in range(1, count + 1):
        run(model, out, tile, shard=(number, count))
        assert not out.exists()
    run(model, out, tile, assemble=True)
    assert pixels_of(out) == pixels_of(whole[0])
    assert command["out"].parent.joinpath("map.tif").stat().st_size > 0
    assert run(model, out, tile, resume=True)["maps"] == 0  # it is there, whole


def pixels_of(path):
    """Everything but the command, which names the output."""
    with rasterio.open(path) as found:
        tags = {k: v for k, v in found.tags().items() if k != "GEODINO_COMMAND"}
        return found.read().tobytes(), sorted(tags.items()), found.tags(1)


@pytest.mark.parametrize("memory", ["little", "much"])
def test_the_memory_limit_changes_no_pixel(model, tile, whole, tmp_path, memory, monkeypatch):
    monkeypatch.setattr(
        "geodino.runs.mapping.parts.columns_for", lambda *a, **k: 1 if memory == "little" else 9
    )
    run(model, tmp_path / "map.tif", tile)
    assert pixels_of(tmp_path / "map.tif") == pixels_of(whole[0])


def test_too_little_memory_is_refused_with_what_is_needed(model, tile, tmp_path):
    with pytest.raises(RunError, match=r"--max-memory 10 MiB is too little.* MiB are needed"):
        run(model, tmp_path / "map.tif", tile, max_memory=10 << 20)


def test_an_area_changes_no_pixel_in_it(model, tile, whole, tmp_path):
    with rasterio.open(tile) as source:
        left, top = source.transform @ (50, 220)
        right, bottom = source.transform @ (310, 400)
        corners = [(left, top), (right, top), (left, bottom)]
        frame = geopandas.GeoDataFrame(geometry=[shapely.Polygon(corners)], crs=source.crs)
    frame.to_crs("EPSG:4326").to_file(tmp_path / "area.geojson")
    facts = run(model, tmp_path / "part.tif", tile, aoi=tmp_path / "area.geojson")
    assert facts["maps"] == 1
    with rasterio.open(tmp_path / "part.tif") as part, rasterio.open(whole[0]) as all_of_it:
        found, expected = part.read(1), all_of_it.read(1)
    inside = np.isfinite(found)
    assert 0.2 < inside[220:400, 50:310].mean() < 0.6
    assert not inside[:219].any()
    np.testing.assert_array_equal(found[inside], expected[inside])


def areas(path, *shapes, crs="EPSG:4326"):
    geopandas.GeoDataFrame(geometry=list(shapes), crs=crs).to_file(path)


def in_nothing(tile, tmp_path):
    areas(tmp_path / "aoi.geojson", shapely.box(0, 0, 1, 1))
    return r"lies outside .*scene\.tif: there is nothing to map"


def in_the_hole(tile, tmp_path):
    with rasterio.open(tile) as source:
        corners = [source.transform @ place for place in ((120, 210), (200, 250))]
        crs = source.crs
    (left, top), (right, bottom) = corners
    areas(tmp_path / "aoi.geojson", shapely.box(left, bottom, right, top), crs=crs)
    return "no valid pixel in the area"


def missing(tile, tmp_path):
    return "does not exist"


def folder(tile, tmp_path):
    (tmp_path / "aoi.geojson").mkdir()
    return "is a folder"


def empty(tile, tmp_path):
    (tmp_path / "aoi.geojson").touch()
    return "is empty"


def no_vectors(tile, tmp_path):
    (tmp_path / "aoi.geojson").write_bytes(tile.read_bytes())
    return "cannot be read as a vector file"


def no_polygon(tile, tmp_path):
    areas(tmp_path / "aoi.geojson", shapely.Point(9, 48))
    return "holds no polygon"


def crossed(tile, tmp_path):
    areas(tmp_path / "aoi.geojson", shapely.Polygon([(9, 48), (9.1, 48.1), (9.1, 48), (9, 48.1)]))
    return r"row 0 of .* crosses itself in the raster's CRS \(EPSG:32632\)"


@pytest.mark.parametrize(
    "made", [missing, folder, empty, no_vectors, no_polygon, crossed, in_nothing, in_the_hole]
)
def test_an_area_that_cannot_be_mapped_is_refused_in_one_sentence(made, model, tile, tmp_path):
    expected = made(tile, tmp_path)
    with pytest.raises(SourceError, match=expected) as caught:
        run(model, tmp_path / "map.tif", tile, aoi=tmp_path / "aoi.geojson")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("map*"))


def test_an_area_without_a_crs_is_refused(model, tile, tmp_path):
    areas(tmp_path / "aoi.shp", shapely.box(9, 48, 10, 49))
    (tmp_path / "aoi.prj").unlink()
    with pytest.raises(SourceError, match=r"aoi\.shp has no CRS"):
        run(model, tmp_path / "map.tif", tile, aoi=tmp_path / "aoi.shp")


def test_the_command_refuses_a_missing_area_before_it_opens_the_model(tile, tmp_path):
    done = run_geodino(
        "predict",
        tile,
        "--model",
        "nowhere",
        "--out",
        tmp_path / "map.tif",
        "--aoi",
        "nope.geojson",
    )
    assert done.returncode == 2
    assert done.stderr == "geodino: --aoi: nope.geojson does not exist. Name a vector file.\n"


def test_centimetres_are_the_metres_rounded(model, tile, whole, tmp_path):
    run(model, tmp_path / "cm.tif", tile, dtype="uint16")
    with rasterio.open(tmp_path / "cm.tif") as found, rasterio.open(whole[0]) as metres:
        stored, height = found.read(1), metres.read(1)
        assert (found.nodata, found.scales, found.units) == (65535, (0.01,), ("m",))
    valid = np.isfinite(height)
    np.testing.assert_array_equal(stored != 65535, valid)
    np.testing.assert_array_equal(stored[valid], np.rint(height[valid] * 100))


def test_a_calibrated_model_gives_the_ends_of_its_interval(tile, whole, tmp_path):
    calibrated = ResidualIntervals(
        coverage=0.9, sites=12, pixels=1000, height_m=(0.0, 40.0), scale_m=(1.0, 5.0), factor=2.0
    )
    extra = {"chip": 64, "overlap": 16, "intervals": calibrated.model_dump(mode="json")}
    model = save_small_canopy(tmp_path / "model", extra=extra)
    run(model, tmp_path / "map.tif", tile)
    run(model, tmp_path / "plain.tif", tile, interval=False)
    with rasterio.open(tmp_path / "map.tif") as found, rasterio.open(whole[0]) as height:
        assert found.descriptions == ("height", "lower", "upper")
        bands, expected = found.read(), height.read(1)
    np.testing.assert_array_equal(bands[0], expected)
    half = 2 * np.interp(expected, (0, 40), (1, 5))
    np.testing.assert_allclose(bands[1], np.maximum(expected - half, 0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(bands[2], expected + half, rtol=1e-5)
    with rasterio.open(tmp_path / "plain.tif") as plain:
        assert plain.count == 1


def test_a_model_may_see_another_resolution(model, tile, tmp_path):
    coarse = tmp_path / "fine.tif"
    with rasterio.open(tile) as source:
        profile = source.profile | {"transform": from_origin(500_000, 5_400_000, 0.2, 0.2)}
        with rasterio.open(coarse, "w", **profile) as target:
            target.write(source.read())
    with pytest.raises(ContractError, match=r"a pixel of the file is 0\.2 m"):
        run(model, tmp_path / "map.tif", coarse)
    run(model, tmp_path / "map.tif", coarse, gsd_m=0.6)
    with rasterio.open(tmp_path / "map.tif") as found, rasterio.open(coarse) as source:
        assert found.shape == source.shape
        np.testing.assert_array_equal(np.isfinite(found.read(1)), source.read_masks(1) > 0)
        assert found.tags()["GEODINO_GSD"] == "0.6"


def test_flips_and_turns_are_the_mean_over_orientations(model, tmp_path):
    pixels = scene(64, 64, seed=3)
    run(model, tmp_path / "map.tif", write_tile(tmp_path / "a.tif", pixels), symmetries="turns")
    ways, image = open_canopy(model).model, torch.from_numpy(pixels)[None]
    with torch.inference_mode():
        every = []
        for turn in range(4):
            for mirror in (False, True):
                seen = torch.rot90(image.flip(-1) if mirror else image, turn, (-2, -1))
                back = torch.rot90(ways.heights(seen), -turn, (-2, -1))
                every.append(back.flip(-1) if mirror else back)
    with rasterio.open(tmp_path / "map.tif") as found:
        np.testing.assert_allclose(found.read(1), torch.stack(every).mean(dim=0)[0], rtol=1e-4)


@pytest.mark.parametrize("out", ["maps", "map.tif", "."])
def test_maps_are_not_written_where_rasters_are_looked_for(model, tmp_path, out):
    write_tile(tmp_path / "images" / "a.tif", scene(48, 40))
    with pytest.raises(RecipeError, match=r"lies in .*images, where rasters .*images/\*\.tif"):
        run(model, tmp_path / "images" / out, tmp_path / "images")
    assert [path.name for path in (tmp_path / "images").iterdir()] == ["a.tif"]
    run(model, tmp_path / "images" / "maps", tmp_path / "images" / "*.tif")


def test_many_rasters_become_a_folder_of_maps(model, tmp_path):
    for number in range(3):
        write_tile(tmp_path / "in" / f"t{number}.tif", scene(96, 80, seed=number))
    write_tile(tmp_path / "in" / "empty.tif", np.zeros((3, 40, 40), dtype=np.uint8), nodata=0)
    with pytest.raises(RecipeError, match=r"holds one map, but 4 rasters .* overlap"):
        run(model, tmp_path / "map.tif", tmp_path / "in")
    for number in (1, 2, 3):
        run(model, tmp_path / "out", tmp_path / "in", shard=(number, 3))
    facts = run(model, tmp_path / "out", tmp_path / "in", assemble=True)
    assert facts["maps"] == 3
    assert facts["empty"] == [str(tmp_path / "in" / "empty.tif")]
    assert sorted(p.name for p in (tmp_path / "out").glob("*.tif")) == [
        "t0.tif",
        "t1.tif",
        "t2.tif",
    ]


def test_what_is_there_is_not_replaced_unasked(model, tmp_path):
    tile = write_tile(tmp_path / "a.tif", scene(64, 64))
    out = tmp_path / "map.tif"
    out.write_text("mine")
    with pytest.raises(RunError, match="exists: nothing was changed"):
        run(model, out, tile)
    out.unlink()
    run(model, out, tile, shard=(1, 1))
    with pytest.raises(RunError, match="holds parts of this job from before"):
        run(model, out, tile)
    with pytest.raises(RunError, match=r"dtype|another"):
        run(model, out, tile, resume=True, dtype="uint16")
    run(model, out, tile, overwrite=True)
    assert rasterio.open(out).shape == (64, 64)


def test_a_raster_that_changed_meanwhile_is_noticed(model, tmp_path):
    pixels = scene(300, 300)
    tile = write_tile(tmp_path / "a.tif", pixels)
    out = tmp_path / "map.tif"
    run(model, out, tile, shard=(1, 2))
    write_tile(tile, pixels)  # the same pixels in a new file
    run(model, out, tile, shard=(1, 2))
    pixels[:, 10, 20] += 1
    write_tile(tile, pixels)
    with pytest.raises(RunError, match=r"has changed since .* rows 0 to 127, columns 0 to 127"):
        run(model, out, tile, shard=(2, 2))


def test_a_damaged_raster_keeps_what_was_done(model, tmp_path, whole, tile):
    content = tile.read_bytes()
    broken = tmp_path / "scene.tif"
    broken.write_bytes(content)
    out = tmp_path / "map.tif"
    run(model, out, broken, shard=(1, 3))
    kept = len((tmp_path / "map.tif.parts" / "1-of-3.jsonl").read_text().splitlines())
    with broken.open("r+b") as handle:
        handle.truncate(len(content) // 2)
    with pytest.raises(SourceError, match="cut off"):
        run(model, out, broken, resume=True)
    broken.write_bytes(content)
    run(model, out, broken, resume=True)
    assert kept > 3
    assert pixels_of(out) == pixels_of(whole[0])


def test_rasters_that_do_not_fit_are_refused_before_anything_is_computed(model, tmp_path):
    tile = write_tile(tmp_path / "two.tif", scene(64, 64)[:2])
    with pytest.raises(ContractError, match="lacks 1"):
        run(model, tmp_path / "map.tif", tile)
    good = write_tile(tmp_path / "a.tif", scene(64, 64))
    for options, words in (
        ({"how": Meeting(chip=60)}, "--chip 60"),
        ({"overlap": 40}, "--overlap 40"),
        ({"dtype": "int8"}, "--dtype int8"),
        ({"symmetries": "some"}, "--symmetries some"),
        ({"gsd_m": -1.0}, "--gsd -1"),
        ({"assemble": True, "resume": True}, "--assemble"),
    ):
        with pytest.raises(RecipeError, match=words):
            run(model, tmp_path / "map.tif", good, **options)
    with pytest.raises(RecipeError, match="is written as FILE"):
        run(model, tmp_path / "map.png", good)


def test_shards_that_lack_are_named(model, tile, tmp_path):
    run(model, tmp_path / "map.tif", tile, shard=(1, 2))
    with pytest.raises(RunError, match="parts are missing"):
        run(model, tmp_path / "map.tif", tile, assemble=True)


def test_a_backbone_without_a_head_is_refused(debug_run, tile, tmp_path):
    with pytest.raises(CheckpointError, match="holds a backbone and no head"):
        run(debug_run, tmp_path / "map.tif", tile)


def test_sizes_and_shards_are_read_as_people_write_them():
    assert parse_memory("2GB") == 2 * 10**9
    assert parse_memory("1.5 GiB") == 3 * 2**29
    assert parse_memory("800m") == 800 * 10**6
    assert parse_memory(None) is None
    assert parse_shard("2/8") == (2, 8)
    for text in ("", "lots", "2XB", "-1GB"):
        with pytest.raises(RecipeError, match="--max-memory"):
            parse_memory(text)
    for text in ("0/3", "4/3", "1", "a/b"):
        with pytest.raises(RecipeError, match="--shard"):
            parse_shard(text)


def test_the_command_maps_a_raster(model, tile, whole, tmp_path):
    arguments = ["predict", str(tile), "--model", str(model), "--out", str(tmp_path / "map.tif")]
    found = CliRunner().invoke(app, [*arguments, "--device", "cpu"])
    assert found.exit_code == 0, found.output
    assert pixels_of(tmp_path / "map.tif") == pixels_of(whole[0])


def test_in_memory_the_map_is_that_of_the_file(model, tile, whole):
    loaded = geodino.load(model)
    assert loaded.task is not None
    found = loaded.predict(tile, device="cpu")
    with rasterio.open(whole[0]) as written:
        np.testing.assert_array_equal(found.values, written.read())
        assert found.rio.crs == written.crs
        assert found.rio.transform() == written.transform
    assert (found.name, list(found.band.values), found.attrs["units"]) == (
        "height",
        ["height"],
        "m",
    )
    array = rioxarray.open_rasterio(tile)
    again = array.geodino.predict(loaded, bands=(1, 2, 3), device="cpu")
    np.testing.assert_array_equal(again.values, found.values)
    features = loaded.embed(tile, chip=64, device="cpu")
    assert features.shape == (32, 53, 44)


def test_python_writes_what_the_command_writes(model, tile, whole, tmp_path):
    facts = geodino.predict(
        tile, model, tmp_path / "map.tif", shard="1/1", quiet=True, device="cpu", max_memory="64GB"
    )
    assert facts["rasters"] == 1
    facts = geodino.predict(tile, model, tmp_path / "map.tif", assemble=True, quiet=True,
                            device="cpu")  # fmt: skip
    assert facts["maps"] == 1
    assert pixels_of(tmp_path / "map.tif") == pixels_of(whole[0])


def test_a_backbone_alone_predicts_nothing(debug_run, tile):
    with pytest.raises(CheckpointError, match="is a backbone and has no head"):
        geodino.load(debug_run).predict(tile)


def test_kill_9_and_resume_give_the_bytes_of_the_whole(model, tile, whole, tmp_path):
    out = tmp_path / "map.tif"
    job = (
        "import geodino.io.cog.layout as layout; layout.BLOCK, layout.LARGEST_SIDE = 64, 128\n"
        "from pathlib import Path\n"
        "from geodino.runs.predict import PredictJob, predict\n"
        f"predict(PredictJob(rasters=({str(tile)!r},), model={str(model)!r}, "
        f"out=Path({str(out)!r}), device='cpu', quiet=True, resume=True))\n"
    )
    journal = tmp_path / "map.tif.parts" / "1-of-1.jsonl"
    for lines in (2, 6):
        # Its first line says what the job is; here as the part after these lines is noted.
        strike = Strike(signal.SIGKILL, journal.name, 1 + lines - _lines(journal))
        assert run_python(job, strike=strike).returncode == -signal.SIGKILL
        assert _lines(journal) == lines
    done = run_python(job)
    assert done.returncode == 0, done
    assert pixels_of(out) == pixels_of(whole[0])


def _lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_the_card_says_parts_no_larger_than_the_raster(model, tile, tmp_path):
    small = write_tile(tmp_path / "small.tif", scene(48, 40))
    card = run(model, tmp_path / "map.tif", small, dry_run=True)
    assert card["output"].endswith("written in parts of 48 px")
    card = run(model, tmp_path / "map.tif", tile, dry_run=True)
    assert card["output"].endswith("written in parts of 128 px")


def test_a_picture_without_a_place_has_no_resolution_and_the_message_says_the_way_out(
    model, tmp_path
):
    photo = tmp_path / "photo.png"
    Image.fromarray(scene(64, 64).transpose(1, 2, 0)).save(photo)
    with pytest.raises(ContractError, match=r"or leave --gsd out\.$"):
        run(model, tmp_path / "map.tif", photo, gsd_m=0.6)


def test_a_model_that_does_not_exist_is_said_with_the_nearest_name(model, tile, tmp_path):
    with pytest.raises(CheckpointError, match=r"smal does not exist\. Did you mean '.*small'\?"):
        run(model.with_name("smal"), tmp_path / "map.tif", tile)


def test_a_dry_run_writes_nothing(model, tile, tmp_path):
    job = PredictJob(
        rasters=(str(tile),), model=str(model), out=tmp_path / "map.tif", quiet=True, dry_run=True
    )
    assert "64 px" in predict(job)["chips"]
    assert "overwrite" in replace(job, overwrite=True).__dataclass_fields__
    assert not list(tmp_path.iterdir())
