"""The STAC item of a map: what pystac reads back, and what the map's own tags say."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pystac
import pytest
from cog_support import layout_of, write_map

from geodino.errors import RunError, SourceError
from geodino.infer.heights import HeightProduct
from geodino.io.map_item import MapProduct, write_map_item

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


def written(folder, dtype="float32", **grid):
    """Heights of 0 to 19 m, the first row without data."""
    product = HeightProduct(dtype=dtype)
    heights = np.arange(20.0, dtype=np.float32).repeat(40).reshape(1, 20, 40)
    valid = np.ones((20, 40), dtype=bool)
    valid[0] = False
    (layer,) = product.layers
    values = product.stored(heights, valid)["height"]
    layout = layout_of(values, block=64, side=64, **grid)
    return write_map(folder / "out" / "scene.tif", values, layer, layout)


@pytest.fixture
def product(tmp_path):
    return MapProduct(
        path=written(tmp_path),
        title="Canopy height",
        model="tall",
        model_sha256="ab" * 32,
        model_item=tmp_path / "run" / "model" / "item.json",
        model_license="Apache-2.0",
        sources=(str(tmp_path / "tiles" / "a.tif"), "s3://bucket/b.tif"),
        source_sha256="cd" * 32,
        times=("2020-07-01T10:20:30Z",) * 2,
        software="0.1.0",
        command="geodino predict a.tif --model tall",
        chip_size=448,
        overlap=64,
        seam_score=1.23456,
        quicklook=tmp_path / "out" / "scene.png",
        style=tmp_path / "out" / "scene.qml",
    )


def read(product):
    return pystac.Item.from_file(str(write_map_item(product, now=NOW)))


def test_pystac_reads_it_and_finds_all_files_the_model_and_the_sources(product, tmp_path):
    item = read(product)
    assert item.id == "scene"
    assert item.datetime == datetime(2020, 7, 1, 10, 20, 30, tzinfo=UTC)
    west, south, _, north = item.bbox
    assert west == pytest.approx(-75, abs=0.01)
    assert south < north < 40.7
    assert {k: Path(a.get_absolute_href()) for k, a in item.assets.items()} == {
        "data": product.path, "thumbnail": product.quicklook, "style": product.style,
    }  # fmt: skip
    assert "cloud-optimized" in item.assets["data"].media_type
    (model,) = item.get_links("geodino:model")
    assert Path(model.get_absolute_href()).resolve() == product.model_item
    assert [link.href for link in item.get_links("derived_from")] == [
        "../tiles/a.tif", "s3://bucket/b.tif",
    ]  # fmt: skip


def test_it_says_how_the_map_was_made(product):
    properties = read(product).properties
    assert properties["processing:software"] == {"geodino": "0.1.0"}
    assert properties["processing:datetime"] == "2026-11-21T12:30:00Z"
    ours = {k.removeprefix("geodino:"): v for k, v in properties.items() if "geodino:" in k}
    assert ours == {
        "command": "geodino predict a.tif --model tall", "model": "tall",
        "model_sha256": "ab" * 32, "model_license": "Apache-2.0", "source_sha256": "cd" * 32,
        "chip_size": 448, "overlap": 64, "seam_score": 1.2346,
    }  # fmt: skip


def test_it_says_where_pixels_lie(product):
    properties = read(product).properties
    assert properties["proj:code"] == "EPSG:32618"
    assert properties["proj:shape"] == [20, 40]
    assert properties["proj:transform"] == [9.6, 0.0, 500_000.0, 0.0, -9.6, 4_500_000.0]
    assert properties["gsd"] == pytest.approx(9.6, abs=0.01)


def test_metres_with_nan_are_described_as_the_file_has_them(product):
    (band,) = read(product).assets["data"].extra_fields["raster:bands"]
    # 1 to 19 m, 40 pixels of each: mean 10, variance (19^2 - 1) / 12 = 30.
    statistics = band.pop("statistics")
    assert statistics == pytest.approx(
        {"minimum": 1, "maximum": 19, "mean": 10, "stddev": 30**0.5, "valid_percent": 95}
    )
    assert band.pop("spatial_resolution") == pytest.approx(9.6, abs=0.01)
    assert band == {"name": "height", "data_type": "float32", "nodata": "nan", "unit": "m"}


def test_centimetres_come_with_their_scale_and_stored_statistics(product, tmp_path):
    path = written(tmp_path / "cm", "uint16")
    (band,) = read(replace(product, path=path)).assets["data"].extra_fields["raster:bands"]
    assert (band["data_type"], band["nodata"], band["unit"]) == ("uint16", 65535, "m")
    assert (band["scale"], band["offset"]) == (0.01, 0.0)
    assert band["statistics"]["maximum"] == 1900


def test_what_is_not_known_is_not_said(product):
    bare = replace(
        product, seam_score=None, quicklook=None, style=None, model_license=None,
        times=(None, "2020-07-01T00:00:00Z"),
    )  # fmt: skip
    item = read(bare)
    assert set(item.assets) == {"data"}
    assert not {"geodino:seam_score", "geodino:model_license"} & set(item.properties)
    assert item.datetime is None
    assert item.properties["end_datetime"] == "2026-11-21T12:30:00Z"
    assert "only 1 of 2" in item.properties["geodino:datetime_note"]


def test_a_map_without_a_place_has_a_null_geometry(product, tmp_path):
    item = read(replace(product, path=written(tmp_path / "nowhere", crs=None)))
    assert item.geometry is None
    assert item.bbox is None
    (band,) = item.assets["data"].extra_fields["raster:bands"]
    assert "spatial_resolution" not in band


def test_further_properties_are_added_and_none_is_replaced(product):
    more = {"geodino:symmetries": "flips"}
    assert read(replace(product, more=more)).properties["geodino:symmetries"] == "flips"
    with pytest.raises(RunError, match="'created' is said twice"):
        write_map_item(replace(product, more={"created": "never"}))


def test_without_a_map_there_is_no_item(product, tmp_path):
    with pytest.raises(SourceError, match="gone"):
        write_map_item(replace(product, path=tmp_path / "gone.tif"))
    assert not (tmp_path / "gone.json").exists()
