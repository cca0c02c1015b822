"""Maps of classes: the same however they are made, named, coloured, with probabilities beside."""

import json

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rio_cogeo.cogeo import cog_validate
from segmentation_support import THREE, save_small_segmentation
from tests_support import textured, write_tile

import geodino
from geodino.data.labelled.class_files import class_file, named_values
from geodino.errors import CheckpointError, RecipeError
from geodino.infer.classes import ClassProduct, most_likely
from geodino.models.segmentation_folder import load_segmentation
from geodino.report.class_quicklook import write_class_quicklook
from geodino.runs.mapping.job import parse_shard
from geodino.runs.predict import PredictJob, predict


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_small_segmentation(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    pixels = np.maximum(np.tile(textured(0), (1, 3, 3))[:, :250, :200], 1)
    pixels[:, 100:140, 50:150] = 0
    return write_tile(tmp_path_factory.mktemp("scenes") / "scene.tif", pixels, nodata=0)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr("geodino.io.cog.layout.BLOCK", 64)
    monkeypatch.setattr("geodino.io.cog.layout.LARGEST_SIDE", 128)


def job(tile, model, out, **more):
    return PredictJob(
        rasters=(str(tile),), model=str(model), out=out, device="cpu", quiet=True, **more
    )


def test_its_picture_has_north_above_however_rows_run(tmp_path):
    numbers = np.zeros((420, 420), np.uint8)
    numbers[:210, :210] = 1  # the north-west
    classes = {0: ("rest", (200, 200, 200)), 1: ("wood", (0, 120, 0))}
    pictures = []
    for across, down in ((2, -2), (2, 2), (-2, 2)):
        stored = numbers[:: -1 if down > 0 else 1, :: -1 if across < 0 else 1]
        path = tmp_path / f"{across}{down}.tif"
        with rasterio.open(
            path, "w", driver="GTiff", height=420, width=420, count=1, dtype="uint8",
            crs="EPSG:32632", transform=Affine(across, 0, 500_000, 0, down, 4_500_000),
        ) as file:  # fmt: skip
            file.write(stored, 1)
        pictures.append(np.asarray(Image.open(write_class_quicklook(path, classes))))
    assert pictures[0][0, 0, :3].tolist() == [0, 120, 0]
    assert all(np.array_equal(pictures[0], one) for one in pictures[1:])


def test_a_map_of_classes_is_a_cog_that_says_what_its_numbers_mean(tile, model, tmp_path):
    out = tmp_path / "map.tif"
    predict(job(tile, model, out))
    valid, errors, _ = cog_validate(out, strict=True)
    assert valid, errors
    with rasterio.open(out) as file:
        numbers, colours = file.read(1), file.colormap(1)
        assert (file.dtypes[0], file.nodata, file.descriptions) == ("uint8", 255, ("class",))
        assert file.overviews(1)
        assert file.tags()["GEODINO_CLASSES"] == json.dumps([one.name for one in THREE])
        assert set(np.unique(file.read(1, out_shape=(62, 50)))) <= {0, 1, 2, 255}
    assert (numbers[100:140, 50:150] == 255).all()
    assert len(np.unique(numbers)) == 4
    assert colours[1] == (0, 0, 255, 255)
    assert named_values([class_file(str(out))]) == {"wood land": 0, "water": 1, "rest": 2}
    text = out.with_suffix(".qml").read_text()
    assert 'type="paletted"' in text
    assert 'label="wood land"' in text
    assert "<Category>wood land</Category>" in (tmp_path / "map.tif.aux.xml").read_text()
    item = json.loads(out.with_suffix(".json").read_text())
    assert item["properties"]["geodino:classes"][2] == {"value": 2, "name": "rest"}
    picture = np.asarray(Image.open(out.with_suffix(".png")))
    assert {(0, 120, 0, 255), (0, 0, 255, 255)} <= {
        tuple(c) for c in picture.reshape(-1, 4).tolist()
    }


def test_shards_make_the_same_map_and_the_array_in_memory_too(tile, model, tmp_path):
    predict(job(tile, model, tmp_path / "one.tif"))
    for part in ("1/2", "2/2"):
        predict(job(tile, model, tmp_path / "many.tif", shard=parse_shard(part)))
    predict(job(tile, model, tmp_path / "many.tif", assemble=True))
    with (
        rasterio.open(tmp_path / "one.tif") as one,
        rasterio.open(tmp_path / "many.tif") as many,
    ):
        np.testing.assert_array_equal(one.read(), many.read())
        found = geodino.load(str(model)).predict(str(tile))
        np.testing.assert_array_equal(found.values, one.read())
    assert found.dtype == np.uint8
    assert found.attrs["flag_meanings"] == "wood_land water rest"


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_probabilities_lie_beside_and_agree_with_the_classes(dtype, tile, model, tmp_path):
    predict(job(tile, model, tmp_path / "map.tif", probabilities=True, dtype=dtype))
    with (
        rasterio.open(tmp_path / "map.tif") as classes,
        rasterio.open(tmp_path / "map.probabilities.tif") as shares,
    ):
        numbers, stored = classes.read(1), shares.read()
        assert shares.descriptions == tuple(one.name for one in THREE)
        assert shares.dtypes[0] == dtype
        scale = shares.scales[0]
    there = numbers != 255
    empty = stored[0] == 255 if dtype == "uint8" else np.isnan(stored[0])
    np.testing.assert_array_equal(empty, ~there)
    total = (stored[:, there].astype(np.float64) * scale).sum(axis=0)
    np.testing.assert_allclose(total, 1.0, atol=0.008)
    taken = np.take_along_axis(stored[:, there], numbers[there][None].astype(int), axis=0)
    np.testing.assert_array_equal(taken[0], stored[:, there].max(axis=0))


def test_what_does_not_suit_a_task_is_refused(tile, model, tmp_path):
    with pytest.raises(RecipeError, match="classes are stored as uint8"):
        predict(job(tile, model, tmp_path / "a.tif", dtype="uint16"))
    with pytest.raises(RecipeError, match="probabilities are stored as float32 or uint8"):
        predict(job(tile, model, tmp_path / "a.tif", dtype="uint16", probabilities=True))
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError):
        predict(job(tile, tmp_path / "empty", tmp_path / "a.tif"))


def test_the_likeliest_class_is_stored_and_the_first_of_several():
    shares = np.array([[[0.2, 0.5, np.nan]], [[0.8, 0.5, np.nan]]], dtype=np.float32)
    valid = np.array([[True, True, False]])
    np.testing.assert_array_equal(most_likely(shares, valid), [[1, 0, 255]])
    product = ClassProduct(classes=THREE[:2], probabilities="uint8")
    stored = product.stored(shares, valid)
    np.testing.assert_array_equal(stored["probabilities"], [[[51, 127, 255]], [[203, 127, 255]]])
    empty = product.stored(None, np.zeros((1, 2), dtype=bool))
    assert (empty["classes"] == 255).all()
    assert (empty["probabilities"] == 255).all()


def test_a_model_folder_says_what_it_tells_apart(model):
    assert load_segmentation(model).classes == THREE
