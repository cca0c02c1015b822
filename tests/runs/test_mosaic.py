"""Several rasters as one map: the same as of one raster, and what does not fit is refused."""

import json
import re
import shlex
from pathlib import Path

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
import xarray as xr
from affine import Affine
from heights_support import save_small_canopy
from rasterio.transform import from_origin
from tests_support import textured
from typer.testing import CliRunner

import geodino
from geodino.cli.main import app
from geodino.errors import RecipeError, RunError, SourceError
from geodino.runs.change import ChangeJob, change
from geodino.runs.embed import EmbedJob, embed
from geodino.runs.predict import PredictJob, predict
from geodino.runs.sources import Meeting

PLACE = Affine(0.6, 0, 500_000, 0, -0.6, 5_400_000)
HEIGHT, WIDTH = 200, 230


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_canopy(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(autouse=True, scope="module")
def small_parts():
    """Blocks of 64 and supertiles of 128 pixels, so that a small scene has many."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geodino.io.cog.layout.BLOCK", 64)
        patch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 128)
        yield


def scene(seed=0):
    """A picture with a hole."""
    pixels = np.maximum(np.tile(textured(seed), (1, 3, 3))[:, :HEIGHT, :WIDTH], 1)
    pixels[:, 90:120, 60:160] = 0
    return pixels


def piece(path, pixels, top=0, left=0, *, when=None, crs="EPSG:32632", place=PLACE, **profile):
    """Write the pixels from (top, left) on of a scene, 0 without data."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = {"count": len(pixels), "height": pixels.shape[1], "width": pixels.shape[2]}
    kind = {"driver": "GTiff", "dtype": pixels.dtype, "nodata": 0, "photometric": "RGB"} | profile
    transform = place @ Affine.translation(left, top)
    with rasterio.open(path, "w", **size, **kind, crs=crs, transform=transform) as target:
        target.write(pixels)
        if when is not None:
            target.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=when)
    return path


def run(model, out, *rasters, **options):
    job = PredictJob(
        rasters=tuple(map(str, rasters)), model=str(model), out=out, quiet=True, device="cpu",
        **options,
    )  # fmt: skip
    return predict(job)


def heights(path):
    with rasterio.open(path) as found:
        return found.read(), found.crs, found.transform


def same_map(one, other):
    (a, *place_a), (b, *place_b) = heights(one), heights(other)
    np.testing.assert_array_equal(a, b)
    assert place_a == place_b


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    """The scene in one file, and its map."""
    folder = tmp_path_factory.mktemp("whole")
    raster = piece(folder / "scene.tif", scene())
    run(model, folder / "map.tif", raster)
    return raster, folder / "map.tif"


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """The scene in three files that overlap, in blocks of other sizes than the map's."""
    folder, pixels = tmp_path_factory.mktemp("parts"), scene()
    tiled = {"tiled": True, "blockxsize": 48, "blockysize": 32}
    return [
        piece(folder / "east.tif", pixels[:, :, 90:], 0, 90, **tiled),
        piece(folder / "north.tif", pixels[:, :110, :150], 0, 0),
        piece(folder / "south.tif", pixels[:, 70:, :100], 70, 0, **tiled),
    ]


def test_two_halves_of_a_raster_have_the_map_of_the_whole(model, whole, tmp_path):
    pixels = scene()
    halves = [
        piece(tmp_path / "east.tif", pixels[:, :, 101:], 0, 101),
        piece(tmp_path / "west.tif", pixels[:, :, :101]),
    ]
    facts = run(model, tmp_path / "map.tif", *halves)  # side by side: nothing is to be declared
    assert (facts["maps"], facts["rasters"]) == (1, 2)
    same_map(tmp_path / "map.tif", whole[1])


@pytest.mark.parametrize("order", ["first", "last"])
def test_where_parts_overlap_and_agree_the_order_changes_nothing(
    model, whole, parts, order, tmp_path
):
    run(model, tmp_path / "map.tif", *parts, mosaic=order)
    same_map(tmp_path / "map.tif", whole[1])


def test_the_map_and_its_item_name_all_rasters_and_who_counts_first(model, parts, tmp_path):
    out = tmp_path / "map.tif"
    run(model, out, *parts, mosaic="last")
    with rasterio.open(out) as found:
        tags = found.tags()
    assert tags["GEODINO_SOURCE"] == "south.tif; north.tif; east.tif"
    assert "--mosaic last" in tags["GEODINO_COMMAND"]
    links = json.loads(out.with_suffix(".json").read_text())["links"]
    sources = [link["href"] for link in links if link["rel"] == "derived_from"]
    assert [Path(source).name for source in sources] == ["south.tif", "north.tif", "east.tif"]


def test_shards_area_and_resume_change_no_pixel(model, whole, parts, tmp_path):
    for number in (2, 1):
        run(model, tmp_path / "map.tif", *parts, mosaic="first", shard=(number, 2))
    with pytest.raises(RunError, match=r"rasters was"):  # another order is another map
        run(model, tmp_path / "map.tif", *parts, mosaic="last", resume=True)
    run(model, tmp_path / "map.tif", *parts, mosaic="first", resume=True)
    same_map(tmp_path / "map.tif", whole[1])
    left, top = PLACE @ (20, 30)
    right, bottom = PLACE @ (150, 160)
    frame = geopandas.GeoDataFrame(geometry=[shapely.box(left, bottom, right, top)], crs=32632)
    frame.to_file(tmp_path / "area.geojson")
    run(model, tmp_path / "a.tif", *parts, mosaic="first", aoi=tmp_path / "area.geojson")
    inside = np.zeros((1, HEIGHT, WIDTH), dtype=bool)
    inside[:, 30:160, 20:150] = True
    expected = np.where(inside, heights(whole[1])[0], np.nan)
    np.testing.assert_array_equal(heights(tmp_path / "a.tif")[0], expected)


def test_at_another_resolution_and_in_a_store_it_is_the_map_of_the_whole(
    model, whole, parts, tmp_path
):
    run(model, tmp_path / "whole.tif", whole[0], gsd_m=0.9)
    run(model, tmp_path / "map.tif", *parts, mosaic="first", gsd_m=0.9)
    same_map(tmp_path / "map.tif", tmp_path / "whole.tif")
    run(model, tmp_path / "store.zarr", *parts, mosaic="first")
    stored = xr.open_zarr(tmp_path / "store.zarr", chunks=None)["height"].values
    np.testing.assert_array_equal(stored[None], heights(whole[1])[0])


@pytest.fixture(scope="module")
def dates(tmp_path_factory):
    """One place in two years, the older one named first; each has a hole of its own."""
    folder = tmp_path_factory.mktemp("dates")
    old, new = scene(1)[:, :96, :96], scene(2)[:, :96, :96]
    old[:, :30], new[:, -30:] = 0, 0
    return [
        piece(folder / "old.tif", old, when="2018-06-01T10:00:00Z"),
        piece(folder / "new.tif", new, when="2021-06-01T10:00:00Z"),
    ]


@pytest.mark.parametrize(
    ("order", "above"), [("first", 0), ("last", 1), ("newest", 1), ("oldest", 0)]
)
def test_the_order_decides_and_what_it_lacks_is_taken_from_the_next(
    model, dates, order, above, tmp_path
):
    pictures = []
    for date in dates:
        with rasterio.open(date) as source:
            pictures.append(source.read())
    over, under = pictures[above], pictures[1 - above]
    expected = piece(tmp_path / "by_hand.tif", np.where(over == 0, under, over))
    run(model, tmp_path / "expected.tif", expected)
    run(model, tmp_path / "map.tif", *dates, mosaic=order)
    same_map(tmp_path / "map.tif", tmp_path / "expected.tif")
    with rasterio.open(tmp_path / "map.tif") as found:
        assert found.tags()["GEODINO_ACQUIRED"] == "2018-06-01T10:00:00Z/2021-06-01T10:00:00Z"


def test_overlap_without_an_order_is_refused_with_the_ways_out(model, dates, tmp_path):
    with pytest.raises(
        RecipeError,
        match=r"of which old.tif and new.tif overlap. Say .* --mosaic first.*--out .*/m\)",
    ):
        run(model, tmp_path / "m.tif", *dates)
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_not_go_with_a_mosaic_are_refused(model, debug_run, dates, tmp_path):
    for options, said in (
        ({"mosaic": "best"}, "choose first, last, newest, oldest"),
        ({"mosaic": "newest", "datetime": "2020-01-01"}, "--datetime gives all rasters one time"),
    ):
        with pytest.raises(RecipeError, match=said):
            run(model, tmp_path / "m.tif", *dates, **options)
    with pytest.raises(RecipeError, match="one map of all rasters"):
        run(model, tmp_path / "maps", *dates, mosaic="first")
    with pytest.raises(RecipeError, match="--mosaic is of maps"):
        embed_all(debug_run, tmp_path / "t.parquet", *dates, mosaic="first")


def test_dates_that_no_file_tells_are_asked_for(model, parts, tmp_path):
    with pytest.raises(SourceError, match=r"east.tif \(and 2 more\) does not say when"):
        run(model, tmp_path / "m.tif", *parts, mosaic="newest")


def test_rasters_far_apart_are_not_read_between(model, tmp_path):
    pixels = scene()[:, :80, :80]
    far = [piece(tmp_path / "a.tif", pixels), piece(tmp_path / "b.tif", pixels, 1000, 900)]
    facts = run(model, tmp_path / "map.tif", *far, shard=(1, 1))
    lines = (tmp_path / "map.tif.parts" / "1-of-1.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 3  # of 81 supertiles: one for a, two for b
    assert facts["rasters"] == 2
    run(model, tmp_path / "map.tif", *far, assemble=True)
    found = heights(tmp_path / "map.tif")[0]
    assert found.shape == (1, 1080, 980)
    assert np.isfinite(found).sum() == 2 * np.count_nonzero(pixels[0])


MISFITS = {
    "in EPSG:32633, not in EPSG:32632": {"crs": "EPSG:32633"},
    "pixels are 0.5 x 0.5, not 0.6 x 0.6": {"place": from_origin(500_000, 5_400_000, 0.5, 0.5)},
    "0.5 columns and 0 rows from a pixel's corner": {"left": 96.5},
    "turned against it": {"place": PLACE @ Affine.rotation(10)},
}


@pytest.mark.parametrize("said", MISFITS)
def test_a_raster_on_another_grid_is_refused_with_the_command_that_mends_it(model, said, tmp_path):
    pixels = scene()[:, :96, :96]
    rasters = [
        piece(tmp_path / "a.tif", pixels),
        piece(tmp_path / "b.tif", pixels, **MISFITS[said]),
    ]
    with pytest.raises(SourceError, match=re.escape(said)) as refused:
        run(model, tmp_path / "m.tif", *rasters, mosaic="first", strict=True)
    words = shlex.split(re.search("`(gdalwarp .*?)`", str(refused.value))[1])
    assert words[-2:] == [str(rasters[1]), str(tmp_path / "b.aligned.tif")]
    edges = [float(word) for word in words[words.index("-te") + 1 :][:4]]
    columns, rows = ~PLACE @ (edges[0], edges[3])
    assert max(abs(columns - round(columns)), abs(rows - round(rows))) < 1e-3
    size = [int(word) for word in words[words.index("-ts") + 1 :][:2]]
    spans = edges[2] - edges[0], edges[3] - edges[1]
    assert spans == pytest.approx([0.6 * n for n in size])


def test_a_declared_method_brings_rasters_of_one_system_to_the_first_grid(model, tmp_path):
    pixels = scene()[:, :96, :96]
    shifted = piece(tmp_path / "b.tif", pixels, 0, 96.5)
    a = piece(tmp_path / "a.tif", pixels)
    run(model, tmp_path / "m.tif", a, shifted, overrides=("data.resampling=nearest",))
    # A pixel's centre lies on the edge of two of the shifted raster, and goes to the right one;
    # the last lies on the outer edge of the last.
    by_hand = np.concatenate([pixels, pixels[:, :, -1:]], axis=2)
    run(model, tmp_path / "n.tif", a, piece(tmp_path / "c.tif", by_hand, 0, 96))
    same_map(tmp_path / "m.tif", tmp_path / "n.tif")


def test_a_raster_without_a_place_or_of_another_kind_is_refused(model, tmp_path):
    pixels = scene()[:, :96, :96]
    a = piece(tmp_path / "a.tif", pixels)
    nowhere = piece(tmp_path / "b.tif", pixels, crs=None, place=Affine.identity())
    with pytest.raises(SourceError, match=r"b\.tif has no place on the Earth"):
        run(model, tmp_path / "m.tif", a, nowhere, mosaic="first")
    wide = piece(tmp_path / "c.tif", pixels.astype(np.uint16), 0, 96)
    with pytest.raises(SourceError, match=r"c\.tif stores uint16, .*a\.tif uint8"):
        run(model, tmp_path / "m.tif", a, wide, how=Meeting(scale=1.0))


def embed_all(debug_run, out, *rasters, **options):
    job = EmbedJob(
        rasters=tuple(map(str, rasters)), model=str(debug_run), out=out, quiet=True, device="cpu",
        **options,
    )  # fmt: skip
    return embed(job)


def test_features_of_parts_are_those_of_the_whole_as_geotiff_and_store(
    debug_run, whole, parts, tmp_path
):
    embed_all(debug_run, tmp_path / "whole.tif", whole[0])
    embed_all(debug_run, tmp_path / "map.tif", *parts, mosaic="first")
    same_map(tmp_path / "map.tif", tmp_path / "whole.tif")
    facts = embed_all(debug_run, tmp_path / "store.zarr", *parts, mosaic="first")
    assert (facts["maps"], facts["rasters"]) == (1, 3)
    stored = xr.open_zarr(tmp_path / "store.zarr", chunks=None)["embedding"]
    np.testing.assert_array_equal(stored.values, heights(tmp_path / "whole.tif")[0])
    item = json.loads((tmp_path / "store.json").read_text())
    sources = [link["href"] for link in item["links"] if link["rel"] == "emb:source-data"]
    assert [Path(source).name for source in sources] == ["east.tif", "north.tif", "south.tif"]


def test_a_date_of_change_may_be_in_several_rasters(debug_run, whole, parts, tmp_path):
    pixels = scene(3)
    later = piece(tmp_path / "later.tif", pixels)

    def changed(before, name):
        job = ChangeJob(
            rasters=(str(before), str(later)), model=str(debug_run), out=tmp_path / name,
            mosaic="first", quiet=True, device="cpu",
        )  # fmt: skip
        change(job)
        return tmp_path / name

    same_map(changed(parts[0].parent, "parts.tif"), changed(whole[0], "whole.tif"))


def test_the_command_and_python_write_the_mosaic(model, whole, parts, tmp_path):
    words = [*map(str, parts), "--model", str(model), "--mosaic", "first", "--device", "cpu"]
    out = str(tmp_path / "map.tif")
    done = CliRunner().invoke(app, ["predict", *words, "--out", out])
    assert done.exit_code == 0, done.output
    assert "3 as one, where they overlap first east.tif" in done.output
    geodino.predict(parts, model, tmp_path / "py.tif", mosaic="first", quiet=True, device="cpu")
    same_map(tmp_path / "map.tif", whole[1])
    same_map(tmp_path / "py.tif", whole[1])
