"""The STAC item: what pystac reads back, and honest times."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pystac
import pytest
from affine import Affine

from geodino.geo.grid import Grid
from geodino.io.embedding_item import Product, write_item

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
GRID = Grid("EPSG:32618", Affine(9.6, 0, 500_000, 0, -9.6, 4_500_000), width=20, height=10)


@pytest.fixture
def product(tmp_path):
    return Product(
        path=tmp_path / "out" / "scene.tif",
        preview=tmp_path / "out" / "scene.pca.tif",
        model_item=tmp_path / "run" / "model" / "item.json",
        sources=(str(tmp_path / "tiles" / "a.tif"), "s3://bucket/b.tif"),
        times=("2020-07-01T10:20:30Z", "2020-07-01T10:20:30Z"),
        grids=(GRID,),
        kind="pixel",
        dimensions=128,
        data_type="int8",
        chip=256,
        overlap=64,
        quantization={"method": "linear", "original_dtype": "float32"},
        software="0.1.0",
        parameters={"scale": None},
    )


def test_pystac_reads_it_and_finds_the_product_the_model_and_the_sources(product, tmp_path):
    item = pystac.Item.from_file(str(write_item(product, now=NOW)))
    assert item.id == "scene"
    assert item.datetime == datetime(2020, 7, 1, 10, 20, 30, tzinfo=UTC)
    west, south, _, north = item.bbox
    assert west == pytest.approx(-75, abs=0.01)
    assert south < north < 40.7
    asset = item.assets["embeddings"]
    assert Path(asset.get_absolute_href()) == tmp_path / "out" / "scene.tif"
    assert "cloud-optimized" in asset.media_type
    assert Path(item.assets["preview"].get_absolute_href()) == product.preview
    (model,) = item.get_links("emb:model")
    assert Path(model.get_absolute_href()).resolve() == product.model_item
    first, second = item.get_links("emb:source-data")
    assert first.href == "../tiles/a.tif"
    assert second.href == "s3://bucket/b.tif"


def test_fields_of_the_extensions_are_there(product):
    item = pystac.Item.from_file(str(write_item(product, now=NOW)))
    properties = item.properties
    assert properties["emb:type"] == "pixel"
    assert properties["emb:dimensions"] == 128
    assert properties["data_type"] == "int8"
    assert properties["emb:chip_layout"] == {
        "layout_type": "regular_grid", "chip_size": [256, 256], "stride": [192, 192],
    }  # fmt: skip
    assert properties["emb:quantization"]["method"] == "linear"
    assert properties["gsd"] == pytest.approx(9.6, abs=0.01)
    assert properties["proj:code"] == "EPSG:32618"
    assert properties["proj:shape"] == [10, 20]
    assert properties["proj:transform"] == [9.6, 0.0, 500_000.0, 0.0, -9.6, 4_500_000.0]
    assert any("embeddings" in url for url in item.stac_extensions)


def test_an_unknown_time_is_null_within_an_interval_that_says_so(product):
    item = pystac.Item.from_file(str(write_item(replace(product, times=(None, None)), now=NOW)))
    assert item.datetime is None
    assert item.properties["start_datetime"] == "1900-01-01T00:00:00Z"
    assert item.properties["end_datetime"] == "2026-11-21T12:30:00Z"
    assert "no source names its acquisition time" in item.properties["geodino:datetime_note"]


def test_several_times_are_an_interval(product):
    times = ("2020-07-02T00:00:00Z", "2020-07-01T00:00:00Z")
    properties = pystac.Item.from_file(
        str(write_item(replace(product, times=times), now=NOW))
    ).properties
    assert properties["datetime"] is None
    assert properties["start_datetime"] == "2020-07-01T00:00:00Z"
    assert properties["end_datetime"] == "2020-07-02T00:00:00Z"
    assert "geodino:datetime_note" not in properties


def test_times_known_in_part_are_not_passed_off_as_all(product):
    times = ("2020-07-02T00:00:00Z", None)
    properties = pystac.Item.from_file(
        str(write_item(replace(product, times=times), now=NOW))
    ).properties
    assert properties["end_datetime"] == "2026-11-21T12:30:00Z"
    assert "only 1 of 2" in properties["geodino:datetime_note"]


def test_several_zones_have_no_common_projection_and_one_outline(product):
    other = Grid("EPSG:32619", GRID.transform, width=20, height=10)
    item = pystac.Item.from_file(str(write_item(replace(product, grids=(GRID, other)), now=NOW)))
    assert "proj:code" not in item.properties
    assert item.geometry["type"] == "MultiPolygon"


def test_a_picture_without_a_place_has_a_null_geometry(product):
    nowhere = Grid(None, Affine.scale(8), width=20, height=10)
    item = pystac.Item.from_file(str(write_item(replace(product, grids=(nowhere,)), now=NOW)))
    assert item.geometry is None
    assert item.bbox is None
