"""Open-Canopy's files, split, masks and scores, from the recipe that names them to the results."""

import geopandas
import numpy as np
import pytest
import rasterio
from canopy_support import write_backbone
from open_canopy_support import PIXEL_M, SIDE, WEST, WORDS, write_open_canopy

from geodino.data.sources.descriptor import descriptor_folder
from geodino.data.split_file import load_split
from geodino.errors import RecipeError, SourceError
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool
from geodino.runs.finetune import FinetuneJob, finetune
from geodino.runs.finetune.canopy.prepare import prepare, read_prepared
from geodino.runs.predict import PredictJob, predict
from geodino.runs.record import RunFolder
from geodino.runs.sources import Meeting

QUICK = (
    "canopy.head={kind: linear}", "canopy.bins={count: 16, ceiling_m: 40.0}",
    "train={steps: 4, batch: 1}", "sampling.crop=64", "validation={every: 2, areas: 2}",
    "checkpoint.every=4", "applicability={tokens: 64, crops: 2}", "gsd_m=null", "accept=[gsd]",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_open_canopy(tmp_path_factory.mktemp("open-canopy"))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_backbone(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def done(root, base, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return out, run(root, base, out)


def job_of(root, base, out, *settings):
    return FinetuneJob(
        task="canopy", images=str(root), labels=str(root), model=str(base), out=out,
        recipe="open-canopy", overrides=(*QUICK, *settings),
        split=str(root / "geometries.geojson"), device="cpu", quiet=True,
    )  # fmt: skip


def run(root, base, out, *settings):
    return finetune(job_of(root, base, out, *settings))


def test_the_results_are_those_of_a_map_of_predict_under_the_published_mask(done, root, tmp_path):
    # The second implementation of everything between files and scores: rasterio and numpy.
    out, facts = done
    errors, relative, trees = [], [], []
    for number in (i for i, word in enumerate(WORDS) if word == "test"):
        year = (2021, 2022)[number % 2]
        (picture,) = (root / f"{year}/spot").glob("*.tif")
        (labels,) = (root / f"{year}/lidar").glob("*.tif")
        (classes,) = (root / f"{year}/lidar_classification").glob("*.tif")
        target = tmp_path / f"{year}.tif"
        if not target.exists():
            predict(PredictJob(rasters=(str(picture),), model=str(out), out=target, device="cpu",
                               how=Meeting(bands=("red", "green", "blue"), accept=("gsd",)),
                               overrides=("data.dataset=open-canopy",), quiet=True))  # fmt: skip
        columns = slice(number * SIDE, (number + 1) * SIDE)
        with rasterio.open(target) as file:
            predicted = file.read(1)[:, columns]
        with rasterio.open(labels) as file:
            true_m = file.read(1)[:, columns] / 10.0
        with rasterio.open(classes) as file:
            mask = file.read(1)[:, columns] == 5
        mask[: SIDE // 4] = True
        mask &= true_m < 60.0
        error = np.abs(predicted - true_m)[mask]
        errors.append(error)
        relative.append(error / (1 + true_m[mask]))
        trees.append(np.stack([predicted[mask] >= 2, true_m[mask] >= 2]))
    scores = facts["test"]["scores"]["model"]
    assert facts["test"]["pixels"] == sum(map(len, errors))
    assert facts["test"]["sites"] == 2
    assert scores["mae_m"]["value"] == pytest.approx(np.concatenate(errors).mean(), rel=1e-5)
    assert scores["nmae"]["value"] == pytest.approx(np.concatenate(relative).mean(), rel=1e-5)
    both = np.concatenate(trees, axis=1)
    iou = (both[0] & both[1]).sum() / (both[0] | both[1]).sum()
    assert scores["tree_cover_iou"]["value"] == pytest.approx(iou, rel=1e-5)
    assert {"rmse_m", "bias_predicted_minus_true_m"} <= scores.keys()


def test_what_is_scored_is_said_and_the_report_has_the_benchmarks_scores(done):
    out, _ = done
    log = (out / "log.txt").read_text()
    assert "scored: labels below 60 m (protocol.below_m)" in log
    assert "scored: vegetation, class 5 of 2 rasters, which lie on 2 of 2 label rasters" in log
    assert "1 polygons of" in log
    assert "nMAE" in log
    page = (out / "report.html").read_text()
    assert "nMAE" in page
    assert "tree cover IoU" in page


def test_a_tile_belongs_to_the_pictures_of_its_year_alone(root, base, tmp_path):
    with HandlePool() as pool:
        source = prepare(job_of(root, base, tmp_path / "run"), str(base), pool).source
        found = {}
        for image, tile in enumerate(source.images.tiles):
            masks = {
                word: source.heights(image, Window(0, 0, SIDE, SIDE * len(WORDS)), word)[1]
                for word in ("train", "val", "test")
            }
            found[tile.datetime[:4]] = {
                word: sorted({int(c) for c in np.flatnonzero(mask.any(axis=0)) // SIDE})
                for word, mask in masks.items()
            }
    assert found == {
        "2021": {"train": [0], "val": [2], "test": [4]},
        "2022": {"train": [1], "val": [], "test": [3]},
    }


def test_a_recorded_run_scores_on_the_same_ground(done):
    # A run that is resumed, or whose report is written again, reads this; other masks are refused.
    out, _ = done
    with HandlePool() as pool:
        source = read_prepared(RunFolder(out), pool).source
        assert source.scored is not None
        shape = (SIDE, 2 * SIDE)
        scored = source.scored(
            0, source.labels.index.tiles.tiles[0].grid, Window(0, 0, *shape), np.ones(shape)
        )
    assert scored[: SIDE // 4].all()
    assert not scored.all()


def test_geometries_of_open_canopy_are_read_as_they_are(root, tmp_path):
    split = load_split(root / "geometries.geojson")
    assert sorted(split.split) == sorted(WORDS)
    assert set(split.year) == {2021, 2022}
    split.save(tmp_path / "split.parquet")
    again = load_split(tmp_path / "split.parquet")
    assert (again.split, again.year) == (split.split, split.year)
    assert [s for s, y in zip(split.split, split.year, strict=True) if y == 2022] == list(
        split.of_time("2022-04-06T00:00:00+00:00").split
    )
    assert not split.of_time("1999-01-01").split
    assert not split.of_time(None).split
    assert split.geometry[0].bounds[0] == WEST + WORDS.index("buffer") * SIDE * PIXEL_M


def rewritten(root, path, **columns):
    frame = geopandas.read_file(root / "geometries.geojson")
    for name, values in columns.items():
        frame[name] = values
    frame.to_file(path)
    return path


def test_columns_that_say_nothing_known_are_one_sentence(root, tmp_path):
    frame = geopandas.read_file(root / "geometries.geojson").rename(columns={"split": "splits"})
    frame.to_file(tmp_path / "a.geojson")
    with pytest.raises(SourceError, match=r"has no column 'split'.* Did you mean 'splits'"):
        load_split(tmp_path / "a.geojson")
    with pytest.raises(
        SourceError, match=r"'soon' in the column 'lidar_year' \(row 0\) is no year"
    ):
        load_split(rewritten(root, tmp_path / "b.geojson", lidar_year="soon"))
    with pytest.raises(SourceError, match="both columns 'year' and 'lidar_year'"):
        load_split(rewritten(root, tmp_path / "c.geojson", year=2021))
    any_year = load_split(rewritten(root, tmp_path / "d.geojson", lidar_year=None))
    assert not any_year.year


def test_mistakes_about_the_mask_are_one_sentence_each(root, base, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(
        SourceError, match=r"elsewhere\.parquet does not exist.*vegetation\.polygons"
    ):
        run(root, base, out, "protocol.vegetation.polygons=elsewhere.parquet")
    with pytest.raises(SourceError, match=r"protocol\.vegetation=null to score all of it"):
        run(root, base, out, "protocol.vegetation.rasters=" + str(tmp_path))
    with pytest.raises(RecipeError, match="vegetation needs rasters, dataset or polygons"):
        run(root, base, out, "protocol.vegetation={dataset: null, polygons: null}")
    assert not out.exists()


def test_pictures_without_dates_are_refused_where_the_split_tells_years(root, base, tmp_path):
    described = (descriptor_folder() / "open-canopy/dataset.yaml").read_text()
    undated = described.replace(r"(?P<date>\d{8})", r"\d{8}")
    (tmp_path / "dataset.yaml").write_text(undated)
    with pytest.raises(SourceError, match=r"tells which year's images.* has no date"):
        run(root, base, tmp_path / "run", f"data.dataset={tmp_path}")
