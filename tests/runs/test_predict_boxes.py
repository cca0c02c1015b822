"""`geodino predict` of objects: one table, the same rows however it is made, and what is refused."""

import json
import signal

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pystac
import pytest
import rasterio
import shapely
import torch
from finder_support import Painted, save_small_detection
from heights_support import save_small_canopy
from process_support import run_geodino, start_python
from tests_support import textured, write_tile

import geodino
from geodino.errors import CheckpointError, RecipeError, RunError, SourceError
from geodino.infer.boxes import joined, taken
from geodino.infer.cover import Cover
from geodino.models.detection_folder import load_detection
from geodino.runs.predict import PredictJob, predict
from geodino.runs.predict.boxes import BoxTask
from geodino.runs.sources import Meeting

# Chips of 64 px that share 16: they begin at 0, 48, 96, ... and halves of what they share are 56,
# 104, ...
OBJECTS = [(49, 50, 63, 62), (100, 98, 108, 110), (10, 190, 30, 200), (180, 160, 196, 170)]
"""On a seam, on a corner of four chips, at the lower edge, and at the right edge."""


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_detection(tmp_path_factory.mktemp("models") / "small")


def scene(height=200, width=200):
    return np.tile(textured(0), (1, 3, 3))[:, :height, :width]


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    """With a hole and a collar of nodata."""
    pixels = np.maximum(scene(), 1)
    pixels[:, 60:90, 100:160] = 0
    pixels[:, :, :20] = 0
    return write_tile(tmp_path_factory.mktemp("scenes") / "scene.tif", pixels, nodata=0)


@pytest.fixture(scope="module")
def painted_tile(tmp_path_factory):
    pixels = np.minimum(scene(), 250)
    for value, (x0, y0, x1, y1) in enumerate(OBJECTS, start=251):
        pixels[0, y0:y1, x0:x1] = value
    return write_tile(tmp_path_factory.mktemp("scenes") / "painted.tif", pixels)


@pytest.fixture
def painted(monkeypatch):
    """The stand-in instead of the network of any model."""
    finder = Painted()
    monkeypatch.setattr(BoxTask, "finder", lambda *_, **__: finder)
    return finder


def run(model, out, *rasters, **options):
    options = {"device": "cpu", "quiet": True, **options}
    job = PredictJob(rasters=tuple(map(str, rasters)), model=str(model), out=out, **options)
    return predict(job)


def read(path):
    parquet = path.suffix == ".parquet"
    return geopandas.read_parquet(path) if parquet else geopandas.read_file(path)


@pytest.fixture(scope="module")
def whole(model, tile, tmp_path_factory):
    out = tmp_path_factory.mktemp("tables") / "objects.parquet"
    return out, run(model, out, tile)


def xyxy(frame):
    return frame[["x0", "y0", "x1", "y1"]].to_numpy()


def same_rows(one, other):
    one, other = (frame.drop(columns="raster") for frame in (one, other))
    return one.equals(other)


@pytest.mark.parametrize("batch", [None, 3])
def test_an_object_on_a_seam_is_found_once_and_lies_on_its_ground(
    model, painted_tile, painted, tmp_path, batch
):
    out = tmp_path / "objects.parquet"
    facts = run(model, out, painted_tile, how=Meeting(batch=batch))
    assert facts["objects"] == 4
    frame = read(out)
    assert sorted(map(tuple, xyxy(frame).tolist())) == sorted(OBJECTS)
    with rasterio.open(painted_tile) as source:
        assert frame.crs == source.crs
        for row in frame.itertuples():
            corners = source.transform @ (row.x0, row.y1), source.transform @ (row.x1, row.y0)
            assert row.geometry.equals(shapely.box(*corners[0], *corners[1]))
    assert set(frame["raster"]) == {str(painted_tile)}
    assert frame["class"].tolist() == ["hall", "hall", "house", "house"]
    assert frame["score"].is_monotonic_decreasing
    assert not out.with_name("objects.parquet.parts").exists()


def test_the_rows_are_those_of_one_chip_after_the_other(model, tile, whole):
    loaded = load_detection(model).model
    cover = Cover.of(200, 200, chip=64, overlap=16, align=8)
    found = {}
    with rasterio.open(tile) as source:
        pixels, valid = np.zeros((3, 208, 208), np.uint8), np.zeros((208, 208), bool)
        pixels[:, :200, :200], valid[:200, :200] = source.read(), source.read_masks(1) > 0
    for row in range(cover.rows.count):
        for column in range(cover.columns.count):
            y, x = (axis.start(n) for axis, n in ((cover.rows, row), (cover.columns, column)))
            part = np.s_[..., y : y + 64, x : x + 64]
            chip = torch.from_numpy(pixels[part]).float(), torch.from_numpy(valid[part])
            with torch.inference_mode():
                (said,) = loaded(chip[0][None], chip[1][None])
            found[row, column] = taken(cover, (row, column), said)
    boxes = joined(found, iou=0.5)
    frame = read(whole[0])
    assert len(frame) == len(boxes) > 50
    order, expected = (np.lexsort(values.T) for values in (xyxy(frame), boxes.xyxy))
    np.testing.assert_allclose(xyxy(frame)[order], boxes.xyxy[expected].clip(0, 200), atol=1e-3)


def test_a_table_says_what_it_was_made_of(model, tile, whole):
    out, facts = whole
    record = json.loads(pq.read_schema(out).metadata[b"geodino"])
    assert record["GEODINO_VERSION"] == geodino.__version__
    assert record["GEODINO_MODEL"] == "small"
    assert record["GEODINO_LEAST_SCORE"] == 0.1
    assert [band["name"] for band in record["GEODINO_CONTRACT"]["bands"]] == [
        "red",
        "green",
        "blue",
    ]
    assert record["GEODINO_SOURCE"] == "scene.tif"
    assert len(record["GEODINO_SOURCE_SHA256"]) == 64
    assert "--score" not in record["GEODINO_COMMAND"]
    item = pystac.Item.from_file(str(out.with_suffix(".json")))
    assert item.properties["geodino:classes"] == ["house", "hall"]
    assert item.to_dict()["assets"]["data"]["table:row_count"] == facts["objects"]
    assert {asset.href.rsplit("/", 1)[-1] for asset in item.assets.values()} == {
        "objects.parquet", "objects.qml", "objects.png"
    }  # fmt: skip
    assert 'value="hall"' in out.with_suffix(".qml").read_text()


@pytest.mark.parametrize("count", [2, 5])
def test_shards_and_memory_change_no_row(model, tile, whole, tmp_path, count, monkeypatch):
    monkeypatch.setattr("geodino.runs.mapping.parts.columns_for", lambda *a, **k: count // 2)
    out = tmp_path / "objects.parquet"
    for number in range(count, 0, -1):
        assert "objects" not in run(model, out, tile, shard=(number, count))
        assert not out.exists()
    run(model, out, tile, assemble=True)
    assert same_rows(read(out), read(whole[0]))
    assert "objects" not in run(model, out, tile, resume=True)  # it is there, whole


@pytest.mark.parametrize(
    "outline",
    [
        shapely.box(30, 30, 110, 75),
        shapely.Polygon([(50, 10), (199, 120), (90, 199)]),
        shapely.box(150, 150, 152, 152),
    ],
)
def test_an_area_has_the_rows_whose_centre_lies_in_it(model, tile, whole, tmp_path, outline):
    with rasterio.open(tile) as source:
        crs, (a, b, c, d, e, f) = source.crs, source.transform[:6]
    ground = shapely.affinity.affine_transform(outline, [a, b, d, e, c, f])
    geopandas.GeoDataFrame(geometry=[ground], crs=crs).to_file(tmp_path / "area.gpkg")
    run(model, tmp_path / "part.parquet", tile, aoi=tmp_path / "area.gpkg")
    expected = read(whole[0])
    boxes = xyxy(expected)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    inside = expected[shapely.intersects_xy(outline, centres)].reset_index(drop=True)
    assert same_rows(read(tmp_path / "part.parquet"), inside)


KILLED = """
import os, signal, sys
from pathlib import Path
from finder_support import Painted
from geodino.runs.predict import PredictJob, predict
from geodino.runs.predict.boxes import BoxTask
from geodino.runs.sources import Meeting

class Killed(Painted):
    def __call__(self, pixels, valid):
        if self.calls == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(pixels, valid)

BoxTask.finder = lambda *_, **__: Killed()
raster, model, out = sys.argv[1:]
how = Meeting(batch=1)
predict(PredictJob(rasters=(raster,), model=model, out=Path(out), how=how, quiet=True, device="cpu"))
"""


@pytest.mark.parametrize("name", ["objects.parquet", "objects.geojson"])
def test_a_killed_job_goes_on_to_the_same_bytes(model, painted_tile, painted, tmp_path, name):
    out = tmp_path / name
    how = {"how": Meeting(batch=1)}
    run(model, out, painted_tile, **how)
    expected = out.read_bytes()
    for path in tmp_path.iterdir():
        path.unlink()
    done = start_python(KILLED, painted_tile, model, out).wait()
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not out.exists()
    journal = out.with_name(f"{name}.parts") / "painted" / "1-of-1.jsonl"
    journal.write_bytes(journal.read_bytes() + b'{"supertile":3')  # as a crash may leave it
    with pytest.raises(RunError, match="holds parts of this job"):
        run(model, out, painted_tile, **how)
    with pytest.raises(RunError, match=r"parts of another job: key\.score was 0\.1, now 0\.5"):
        run(model, out, painted_tile, resume=True, score=0.5, **how)
    before = painted.calls
    run(model, out, painted_tile, resume=True, **how)
    assert out.read_bytes() == expected
    # One batch to warm up, and 10 of 16: it was killed when 6 were noted.
    assert painted.calls - before == 1 + 10


@pytest.mark.parametrize("step", ["write_objects", "write_box_style", "shutil.rmtree"])
def test_a_job_stopped_while_it_joins_goes_on(model, painted_tile, painted, tmp_path, step):
    out = tmp_path / "objects.parquet"

    def stop(*_, **__):
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"geodino.runs.predict.table.{step}", stop)
        with pytest.raises(KeyboardInterrupt):
            run(model, out, painted_tile)
    assert run(model, out, painted_tile, resume=True)["objects"] == 4
    assert len(read(out)) == 4
    assert not out.with_name("objects.parquet.parts").exists()


def test_too_little_memory_is_refused_with_what_is_needed(model, tile, tmp_path):
    with pytest.raises(RunError, match=r"--max-memory 10 MiB is too little.* MiB are needed"):
        run(model, tmp_path / "objects.parquet", tile, max_memory=10 << 20)


def test_parts_that_no_shard_did_are_missed(model, painted_tile, painted, tmp_path):
    run(model, tmp_path / "objects.parquet", painted_tile, shard=(1, 2), how=Meeting(batch=1))
    with pytest.raises(RunError, match=r"8 of 16 parts are missing .*Run the shards that lack"):
        run(model, tmp_path / "objects.parquet", painted_tile, assemble=True, how=Meeting(batch=1))


def test_a_raster_that_changed_meanwhile_is_refused(model, painted, tmp_path):
    tile, out = write_tile(tmp_path / "a.tif", scene()), tmp_path / "objects.parquet"
    run(model, out, tile, shard=(1, 2))
    write_tile(tmp_path / "a.tif", scene()[:, :, ::-1])
    with pytest.raises(RunError, match=r"has changed since .*rows 0 to 63"):
        run(model, out, tile, shard=(2, 2))


@pytest.mark.parametrize("name", ["objects.parquet", "objects.geojson"])
def test_a_raster_without_a_valid_pixel_gives_an_empty_table(model, painted, tmp_path, name):
    tile = write_tile(tmp_path / "a.tif", np.zeros((3, 100, 100), np.uint8), nodata=0)
    facts = run(model, tmp_path / name, tile, how=Meeting(accept=("values",)))
    assert facts["objects"] == 0
    frame = read(tmp_path / name)
    assert len(frame) == 0
    assert frame.crs == ("EPSG:4326" if name.endswith("geojson") else "EPSG:32632")
    assert painted.calls == 1  # to warm up: no chip holds anything to look at


def test_geojson_has_the_same_objects_in_longitude_and_latitude(model, tile, whole, tmp_path):
    run(model, tmp_path / "objects.geojson", tile)
    frame, expected = read(tmp_path / "objects.geojson"), read(whole[0])
    assert frame.crs == "EPSG:4326"
    np.testing.assert_array_equal(xyxy(frame), xyxy(expected))
    back = frame.geometry.to_crs(expected.crs)
    assert shapely.hausdorff_distance(back.array, expected.geometry.array).max() < 0.01


def test_several_rasters_are_one_table(model, painted_tile, painted, tmp_path):
    other = write_tile(tmp_path / "other.tif", np.minimum(scene(120, 90), 250))
    facts = run(model, tmp_path / "objects.parquet", painted_tile, other)
    assert (facts["rasters"], facts["objects"]) == (2, 4)
    for shard in ((1, 3), (2, 3), (3, 3)):
        run(model, tmp_path / "more.parquet", painted_tile, other, shard=shard)
    run(model, tmp_path / "more.parquet", painted_tile, other, assemble=True)
    assert same_rows(read(tmp_path / "more.parquet"), read(tmp_path / "objects.parquet"))


def test_at_another_resolution_objects_lie_where_they_lay(model, painted_tile, painted, tmp_path):
    run(model, tmp_path / "objects.parquet", painted_tile, gsd_m=0.3, how=Meeting(accept=("gsd",)))
    frame = read(tmp_path / "objects.parquet")
    assert len(frame) >= 4  # between the pixels of two objects lie those of a third
    near = [min(np.abs(np.array(o) - box).max() for box in xyxy(frame)) for o in OBJECTS]
    assert max(near) <= 1


def test_without_a_crs_boxes_are_in_pixels_or_refused(model, painted_tile, painted, tmp_path):
    with rasterio.open(painted_tile) as source:
        profile = {**source.profile, "crs": None, "transform": rasterio.Affine.identity()}
        pixels = source.read()
    with rasterio.open(tmp_path / "a.tif", "w", **profile) as target:
        target.write(pixels)
    with pytest.raises(SourceError, match=r"no place on the Earth.*write a \.parquet"):
        run(model, tmp_path / "objects.geojson", tmp_path / "a.tif")
    facts = run(model, tmp_path / "objects.parquet", tmp_path / "a.tif", dry_run=True)
    assert any("no raster has a CRS" in note for note in facts["notes"])
    run(model, tmp_path / "objects.parquet", tmp_path / "a.tif")
    frame = read(tmp_path / "objects.parquet")
    assert frame.crs is None
    assert sorted(frame.geometry.bounds.to_numpy().tolist()) == sorted(map(list, OBJECTS))


def test_a_higher_score_leaves_the_surer_rows(model, tile, whole, tmp_path):
    every = read(whole[0])
    middle = float(every["score"].median())
    run(model, tmp_path / "objects.parquet", tile, score=middle)
    assert same_rows(read(tmp_path / "objects.parquet"), every[every["score"] >= middle])


def test_the_score_is_what_the_model_was_made_with(tmp_path):
    task = BoxTask.open(str(save_small_detection(tmp_path / "a", score=0.4)))
    assert task.least_score(None) == 0.4
    assert task.least_score(0.2) == 0.2
    with pytest.raises(RecipeError, match=r"boxes of a score from 0\.1 to 1"):
        task.least_score(0.05)


def test_a_model_of_resized_images_is_said_to_see_other_pixels(painted_tile, tmp_path):
    resized = save_small_detection(tmp_path / "a", size=800)
    for options, count in (({}, 1), ({"gsd_m": 1.2, "how": Meeting(accept=("gsd",))}, 0)):
        facts = run(resized, tmp_path / "a.parquet", painted_tile, dry_run=True, **options)
        assert sum("images resized to 800 px" in note for note in facts["notes"]) == count


@pytest.mark.parametrize(
    ("name", "options", "why"),
    [
        ("a.tif", {}, r"rows of a table: write FILE\.parquet or FILE\.geojson"),
        ("a", {}, "rows of a table"),
        ("a.zarr", {}, "rows of a table"),
        ("a.csv", {}, r"rows of a table: write FILE\.parquet or FILE\.geojson"),
        ("a.shp", {}, r"objects as FILE\.parquet or FILE\.geojson"),
        ("a.parquet", {"dtype": "uint8"}, "--dtype uint8 is of maps"),
        ("a.parquet", {"probabilities": True}, "--probabilities is of maps"),
        ("a.parquet", {"symmetries": "flips"}, "--symmetries flips is of maps"),
        ("a.parquet", {"applicability": True}, "--applicability is of maps"),
        ("a.parquet", {"interval": False}, "--no-interval is of maps"),
        ("a.parquet", {"score": 1.5}, "from 0.1 to 1"),
    ],
)
def test_what_is_of_maps_is_refused(model, tile, tmp_path, name, options, why):
    with pytest.raises(RecipeError, match=why):
        run(model, tmp_path / name, tile, **options)
    assert not list(tmp_path.iterdir())


def test_a_model_of_maps_makes_no_table(tile, tmp_path):
    heights = save_small_canopy(tmp_path / "heights")
    with pytest.raises(RecipeError, match=r"gives canopy height, metres: write a map, FILE\.tif"):
        run(heights, tmp_path / "a.parquet", tile)
    with pytest.raises(RecipeError, match="not objects with a score"):
        run(heights, tmp_path / "a.tif", tile, score=0.5)


def test_values_that_are_not_finite_are_no_empty_table(tile, tmp_path):
    spoilt = save_small_detection(tmp_path / "spoilt", spoilt=True)
    with pytest.raises(RunError, match="not finite"):
        run(spoilt, tmp_path / "a.parquet", tile)
    assert not (tmp_path / "a.parquet").exists()


def test_a_table_is_not_replaced_unasked(model, painted_tile, painted, tmp_path):
    out = tmp_path / "objects.parquet"
    out.write_text("mine")
    with pytest.raises(RunError, match="exists: nothing was changed"):
        run(model, out, painted_tile)
    assert out.read_text() == "mine"
    assert run(model, out, painted_tile, overwrite=True)["objects"] == 4


def test_an_array_in_memory_is_refused_with_the_way_out(model, tile):
    with pytest.raises(
        CheckpointError, match=r"geodino\.predict\(image, model, 'objects\.parquet'\)"
    ):
        geodino.load(str(model)).predict(str(tile))


def test_the_command_and_the_function_say_the_same(model, tile, whole, tmp_path):
    done = run_geodino(
        "predict", tile, "--model", model, "--out", tmp_path / "a.parquet", "--score", "0.2",
        "--device", "cpu", "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = geodino.predict(
        tile, model, tmp_path / "b.parquet", score=0.2, device="cpu", quiet=True
    )
    assert json.loads(done.stdout)["objects"] == facts["objects"] <= whole[1]["objects"]
    assert same_rows(read(tmp_path / "a.parquet"), read(tmp_path / "b.parquet"))
