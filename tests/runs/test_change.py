"""Change between two dates: where there is none, where it is, what hides it, and what is refused."""

import json
import re
import shlex
import sys

import geopandas
import numpy as np
import pytest
import rasterio
import rasterio.shutil
import shapely
from rasterio.vrt import WarpedVRT
from rio_cogeo.cogeo import cog_validate
from sklearn.metrics import roc_auc_score
from tests_support import textured, write_tile
from typer.testing import CliRunner

import geodino
from geodino.cli.main import app
from geodino.data.generated.worlds import write_world
from geodino.errors import RecipeError, RunError, SourceError
from geodino.runs.change import ChangeJob, change
from geodino.runs.change.about import distribution
from geodino.runs.sources import Meeting

PATCH, CHIP = 8, 32  # of the debug recipe
NODATA = 0


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    """Supertiles of 16 patches, so that a small scene has many."""
    monkeypatch.setattr("geodino.io.cog.layout.BLOCK", 16)
    monkeypatch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 16)


@pytest.fixture(scope="module")
def pixels():
    """26 x 20 patches; the last ones reach over the edge."""
    return np.maximum(np.tile(textured(5), (1, 3, 2))[:, :205, :157], 1)


@pytest.fixture(scope="module")
def dates(pixels, tmp_path_factory):
    """Two dates: another texture on the later one, a hole in each, and a collar in the earlier."""
    folder = tmp_path_factory.mktemp("dates")
    before, after = pixels.copy(), pixels.copy()
    after[:, 100:148, 100:148] = textured(9)[:, :48, :48]
    before[:, :, :12] = NODATA
    before[:, 40:70, 20:60] = NODATA
    after[:, 150:190, 30:61] = NODATA
    return (
        write_tile(folder / "before.tif", before, nodata=NODATA),
        write_tile(folder / "after.tif", after, nodata=NODATA),
    )


def run(model, out, before, after, **options):
    job = ChangeJob(
        rasters=(str(before), str(after)), model=str(model), out=out, quiet=True, device="cpu",
        **options,
    )  # fmt: skip
    return change(job)


def bands(path):
    with rasterio.open(path) as found:
        return found.read()


def written(path):
    """Everything but the command, which names the output."""
    with rasterio.open(path) as found:
        tags = {k: v for k, v in found.tags().items() if k != "GEODINO_COMMAND"}
        return found.read().tobytes(), sorted(tags.items())


@pytest.fixture(scope="module")
def whole(debug_run, dates, tmp_path_factory):
    """Change between the two dates in one go."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("geodino.io.cog.layout.BLOCK", 16)
        patch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 16)
        out = tmp_path_factory.mktemp("maps") / "change.tif"
        return out, run(debug_run, out, *dates)


def test_a_date_compared_with_itself_did_not_change_anywhere(debug_run, dates, tmp_path):
    facts = run(debug_run, tmp_path / "c.tif", dates[0], dates[0])
    found = bands(tmp_path / "c.tif")[0]
    assert not found[np.isfinite(found)].any()
    assert (facts["median"], facts["p95"], facts["p99"]) == (0.0, 0.0, 0.0)
    assert facts["patches"] == np.isfinite(found).sum()


def test_a_patch_counts_where_both_dates_are_valid_and_tells_the_share(whole, dates):
    valid = np.logical_and(*(bands(date)[0] != NODATA for date in dates))
    inside = np.pad(valid, ((0, 3), (0, 3))).reshape(26, PATCH, 20, PATCH)
    share = inside.mean(axis=(1, 3))
    found, told = bands(whole[0])
    np.testing.assert_array_equal(np.isfinite(found), share > 0)
    np.testing.assert_array_equal(told[share > 0], share[share > 0].astype(np.float32))
    assert np.isnan(told[share == 0]).all()
    assert (share == 0).any()


def test_a_pasted_block_changes_the_patches_near_it_alone(debug_run, pixels, tmp_path):
    before = write_tile(tmp_path / "before.tif", pixels)
    pasted = pixels.copy()
    pasted[:, 104:112, 80:88] = 255 - pasted[:, 104:112, 80:88]
    after = write_tile(tmp_path / "after.tif", pasted)
    run(debug_run, tmp_path / "c.tif", before, after)
    found = bands(tmp_path / "c.tif")[0]
    assert np.unravel_index(found.argmax(), found.shape) == (13, 10)
    rows, columns = np.indices(found.shape)
    away = np.maximum(abs(rows - 13), abs(columns - 10)) * PATCH
    assert not found[away > CHIP].any()  # no chip holds both


def test_what_lies_under_invalid_pixels_of_either_date_changes_no_bit(
    debug_run, dates, whole, tmp_path
):
    # Pixels invalid on one date alone are filled on the other: they count on neither.
    before, after = (bands(date) for date in dates)
    hidden_before, hidden_after = (before == NODATA).all(axis=0), (after == NODATA).all(axis=0)
    rng = np.random.default_rng(3)
    for one, other in ((before, hidden_after), (after, hidden_before)):
        one[:, other] = rng.integers(1, 255, size=(3, other.sum()))
    again = [
        write_tile(tmp_path / name, one, nodata=NODATA)
        for name, one in (("before.tif", before), ("after.tif", after))
    ]
    run(debug_run, tmp_path / "c.tif", *again)
    assert written(tmp_path / "c.tif") == written(whole[0])


def test_shards_make_the_same_map(debug_run, dates, whole, tmp_path):
    out = tmp_path / "c.tif"
    for number in (1, 2, 3):
        assert "patches" not in run(debug_run, out, *dates, shard=(number, 3))
    facts = run(debug_run, out, *dates, assemble=True)
    assert written(out) == written(whole[0])
    told = run(debug_run, out, *dates, resume=True)
    for name in ("patches", "median", "p95", "p99"):
        assert facts[name] == told[name] == whole[1][name]
    with pytest.raises(RunError, match="exists: nothing was changed"):
        run(debug_run, out, *dates)


def test_an_area_keeps_the_values_of_the_whole_map(debug_run, dates, whole, tmp_path):
    with rasterio.open(whole[0]) as found:
        west, north = found.transform @ (10, 10)
        east, south = found.transform @ (16, 20)
        crs = found.crs
    area = geopandas.GeoDataFrame(geometry=[shapely.box(west, south, east, north)], crs=crs)
    area.to_file(tmp_path / "area.geojson")
    run(debug_run, tmp_path / "c.tif", *dates, aoi=tmp_path / "area.geojson")
    part, full = bands(tmp_path / "c.tif"), bands(whole[0])
    np.testing.assert_array_equal(part[:, 10:20, 10:16], full[:, 10:20, 10:16])
    part[:, 10:20, 10:16] = np.nan
    assert np.isnan(part).all()


def test_the_map_says_how_it_was_made_and_has_style_picture_and_item(whole):
    out, facts = whole
    assert cog_validate(out, strict=True, quiet=True)[0]
    with rasterio.open(out) as found:
        tags = found.tags()
        assert found.descriptions == ("change", "valid")
    assert tags["GEODINO_SOURCE"] == "before.tif; after.tif"
    assert "1 - cosine" in tags["GEODINO_MEASURE"]
    item = json.loads(out.with_suffix(".json").read_text())
    told = item["properties"]["geodino:change"]
    assert told == {name: facts[name] for name in ("patches", "median", "p95", "p99")}
    links = [one["href"] for one in item["links"] if one["rel"] == "derived_from"]
    assert len(links) == 2
    assert "season" in facts["note"]
    assert "singlebandpseudocolor" in out.with_suffix(".qml").read_text()
    assert out.with_suffix(".png").stat().st_size > 1000


def test_the_distribution_is_that_of_the_patches(whole):
    values = np.sort(bands(whole[0])[0], axis=None)
    values = values[np.isfinite(values)]
    told = distribution(whole[0])
    for name, share in (("median", 0.5), ("p95", 0.95), ("p99", 0.99)):
        nearest = values[int(np.ceil(round(share * len(values), 6))) - 1]
        assert told[name] == pytest.approx(nearest, abs=6e-5)


def test_hundredths_are_the_values_rounded(debug_run, dates, whole, tmp_path):
    facts = run(debug_run, tmp_path / "c.tif", *dates, dtype="uint8")
    full, (found, _) = bands(whole[0])[0], bands(tmp_path / "c.tif")
    holes = np.isnan(full)
    np.testing.assert_array_equal(found == 255, holes)
    np.testing.assert_array_equal(found[~holes], np.rint(full[~holes] * 100))
    assert facts["p99"] == pytest.approx(whole[1]["p99"], abs=0.0051)


def warped_as_told(words, source, like):
    """Do what the command does; GDAL's programs are not part of every installation."""
    assert "-dstalpha" in words
    with rasterio.open(source) as found, rasterio.open(like) as grid:
        size = {"width": grid.width, "height": grid.height, "transform": grid.transform}
        with WarpedVRT(found, crs=grid.crs, add_alpha=True, nodata=None, **size) as warped:
            rasterio.shutil.copy(warped, words[-1], driver="GTiff")
    return words[-1]


def test_a_later_date_on_another_grid_is_refused_with_the_command_that_mends_it(
    debug_run, dates, tmp_path
):
    before, after = dates
    with rasterio.open(after) as found:
        profile = found.profile
        with WarpedVRT(found, crs="EPSG:3857", nodata=NODATA) as other:
            pixels, profile = other.read(), {
                **profile, "crs": other.crs, "transform": other.transform,
                "width": other.width, "height": other.height,
            }  # fmt: skip
    elsewhere = tmp_path / "else where.tif"
    with rasterio.open(elsewhere, "w", **profile) as target:
        target.write(pixels)
    with pytest.raises(SourceError, match="it is in EPSG:3857, not in EPSG:32632") as refused:
        run(debug_run, tmp_path / "c.tif", before, elsewhere)
    words = shlex.split(re.search("`(gdalwarp .*)`", str(refused.value))[1])
    options = dict(zip(("-t_srs", "-ts"), (words.index("-t_srs"), words.index("-ts")), strict=True))
    edges = [float(word) for word in words[words.index("-te") + 1 :][:4]]
    with rasterio.open(before) as one:
        assert words[options["-t_srs"] + 1] == str(one.crs)
        assert edges == pytest.approx([*one.bounds])
        assert words[options["-ts"] + 1 :][:2] == [str(one.width), str(one.height)]
    assert words[-2:] == [str(elsewhere), str(tmp_path / "else where.aligned.tif")]
    aligned = warped_as_told(words, elsewhere, before)
    assert run(debug_run, tmp_path / "c.tif", before, aligned, dry_run=True)["notes"] is not None


@pytest.mark.parametrize(
    ("pixels_off", "is_one"), [(0.0, True), (0.4, True), (0.6, False), (3.0, False)]
)
def test_grids_may_be_half_a_pixel_apart(debug_run, dates, pixels_off, is_one, tmp_path):
    with rasterio.open(dates[1]) as found:
        profile, pixels = found.profile, found.read()
    profile["transform"] = (
        profile["transform"].translation(0.6 * pixels_off, 0) @ profile["transform"]
    )
    with rasterio.open(tmp_path / "after.tif", "w", **profile) as target:
        target.write(pixels)
    out = tmp_path / "c.tif"
    if not is_one:
        with pytest.raises(SourceError, match=f"{pixels_off} pixels away at a corner"):
            run(debug_run, out, dates[0], tmp_path / "after.tif", dry_run=True)
        return
    notes = run(debug_run, out, dates[0], tmp_path / "after.tif", dry_run=True)["notes"]
    assert any("px apart" in note for note in notes) == (pixels_off > 0)


def test_other_sizes_folders_and_types_are_refused(debug_run, dates, tiles, pixels, tmp_path):
    small = write_tile(tmp_path / "small.tif", pixels[:, :-5])
    with pytest.raises(SourceError, match="it is 157 x 200 pixels, not 157 x 205"):
        run(debug_run, tmp_path / "c.tif", dates[0], small)
    with pytest.raises(
        RecipeError, match=r"of which t0\.tif and t1\.tif overlap.* one raster for each"
    ):
        run(debug_run, tmp_path / "c.tif", dates[0], tiles)
    with pytest.raises(RecipeError, match=r"change is written as FILE\.tif"):
        run(debug_run, tmp_path / "maps", *dates)
    with pytest.raises(RecipeError, match="--dtype int8: choose float32 or uint8"):
        run(debug_run, tmp_path / "c.tif", *dates, dtype="int8")


def test_dates_that_share_no_valid_pixel_are_refused(debug_run, pixels, tmp_path):
    west, east = pixels.copy(), pixels.copy()
    west[:, :, :80], east[:, :, 80:] = NODATA, NODATA
    one = write_tile(tmp_path / "west.tif", west, nodata=NODATA)
    other = write_tile(tmp_path / "east.tif", east, nodata=NODATA)
    with pytest.raises(SourceError, match="has no valid pixel"):
        run(debug_run, tmp_path / "c.tif", one, other)
    assert not (tmp_path / "c.tif").exists()


def test_the_command_and_the_function_write_the_same(debug_run, dates, whole, tmp_path):
    before, after = map(str, dates)
    out = tmp_path / "cli.tif"
    words = ["change", before, after, "--model", str(debug_run), "--out", str(out)]
    told = CliRunner().invoke(app, [*words, "--device", "cpu", "--json"])
    assert told.exit_code == 0, told.output
    facts = geodino.change(before, after, debug_run, tmp_path / "api.tif", device="cpu", quiet=True)
    assert json.loads(told.stdout)["median"] == facts["median"]
    assert written(out) == written(tmp_path / "api.tif") == written(whole[0])


def test_change_of_the_generated_world_is_told_from_none(debug_run, record_property, tmp_path):
    # A model of other pixels, whose grey values these are brought to: the loosest of tests.
    write_world("changes", tmp_path)
    how = Meeting(bands=("B04", "B03", "B02"), scale=0.05, accept=("units", "gsd", "values"))
    scores, truths = [], []
    for path in sorted((tmp_path / "changes").glob("*.tif")):
        dates = (tmp_path / date / path.name for date in ("before", "after"))
        run(debug_run, tmp_path / path.name, *dates, how=how)
        found = bands(tmp_path / path.name)[0]
        truth = bands(path)[0].astype(float)
        truth[truth == 255] = np.nan
        share = truth.reshape(len(found), PATCH, -1, PATCH).mean(axis=(1, 3))
        clear = np.isfinite(found) & ((share > 0.5) | (share == 0))
        scores.append(found[clear])
        truths.append(share[clear] > 0.5)
    auc = roc_auc_score(np.concatenate(truths), np.concatenate(scores))
    record_property("auc", auc)
    sys.stdout.write(f"AUC {auc:.3f} of changed against unchanged patches\n")
    assert auc > 0.6


def test_two_years_of_naip_over_chico_lie_on_one_grid(debug_run, shared_data, tmp_path):
    for number in (0, 25, 50):
        before = shared_data / f"tiles/naip_urban_trees/images/chico_2018_{number}.tif"
        after = shared_data / f"timeseries/naip_2dates/chico_2020_{number}.tif"
        # The fourth band of 2018 is NIR with a wrong tag.
        facts = run(
            debug_run, tmp_path / f"{number}.tif", before, after,
            how=Meeting(bands=(1, 2, 3)), overrides=("data.alpha=band",),
        )  # fmt: skip
        assert facts["patches"] == (256 // PATCH) ** 2
        assert 0 < facts["median"] < facts["p95"] < facts["p99"] <= 2
