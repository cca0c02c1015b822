"""Objects as GeoParquet and GeoJSON: the same boxes, on the ground where their pixels are."""

import json

import geopandas
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely
from affine import Affine

from geodino.geo.grid import Grid
from geodino.io.object_table import COLUMNS, Objects, crs_of, write_objects

UTM = Grid("EPSG:32632", Affine(0.5, 0, 500_000, 0, -0.5, 5_400_000), width=400, height=300)
TURNED = Grid(
    "EPSG:32632",
    Affine.translation(500_000, 5_400_000) @ Affine.rotation(90) @ Affine.scale(0.5, -0.5),
    width=400, height=300,
)  # fmt: skip
BOXES = np.array([[10.0, 20, 30, 60], [0.25, 0.5, 1, 2]])


def found(grid, boxes=BOXES, raster="a.tif"):
    names = ["house", "hall"][: len(boxes)]
    return Objects(
        raster=raster, grid=grid, xyxy=boxes, names=names, scores=np.array([0.9, 0.5])[: len(boxes)]
    )


def test_boxes_lie_on_the_ground_of_their_pixels(tmp_path):
    path = tmp_path / "boxes.parquet"
    write_objects(path, [found(UTM)], crs=crs_of([UTM], path), record={"model": "small"})
    frame = geopandas.read_parquet(path)
    assert frame.crs == "EPSG:32632"
    # Pixels of half a metre, from the corner down: 10 px are 5 m east, 60 px are 30 m south.
    assert frame.geometry[0].equals(shapely.box(500_005, 5_399_970, 500_015, 5_399_990))
    assert list(frame.columns) == [*list(COLUMNS)[:-1], "geometry"]
    np.testing.assert_array_equal(frame[["x0", "y0", "x1", "y1"]], BOXES)
    assert frame["class"].tolist() == ["house", "hall"]
    assert frame["score"].tolist() == [0.9, 0.5]
    metadata = pq.read_schema(path).metadata
    assert json.loads(metadata[b"geodino"]) == {"model": "small"}
    assert json.loads(metadata[b"geo"])["version"] == "1.1.0"


def test_a_rotated_raster_has_rotated_boxes(tmp_path):
    path = tmp_path / "boxes.parquet"
    write_objects(path, [found(TURNED)], crs=crs_of([TURNED], path), record={})
    shape = geopandas.read_parquet(path).geometry[0]
    # A quarter turn: columns go north, rows east.
    expected = shapely.box(500_010, 5_400_005, 500_030, 5_400_015)
    assert shape.symmetric_difference(expected).area < 1e-6


def test_geojson_is_in_longitude_and_latitude_and_turns_left(tmp_path):
    path = tmp_path / "boxes.geojson"
    write_objects(path, [found(UTM)], crs=crs_of([UTM], path), record={"model": "small"})
    told = json.loads(path.read_text())
    assert told["geodino"] == {"model": "small"}
    assert "crs" not in told  # RFC 7946 knows one alone
    for feature in told["features"]:
        (ring,) = feature["geometry"]["coordinates"]
        assert ring[0] == ring[-1]
        assert shapely.LinearRing(ring).is_ccw
    frame = geopandas.read_file(path)
    assert frame.crs == "EPSG:4326"
    back = frame.geometry.to_crs("EPSG:32632")
    expected = found(UTM).shapes("EPSG:32632")
    assert shapely.hausdorff_distance(back.array, expected).max() < 0.01


def test_a_box_across_the_antimeridian_is_cut_in_two(tmp_path):
    path = tmp_path / "boxes.geojson"
    zone = Grid("EPSG:32660", Affine(10, 0, 800_000, 0, -10, 5_000), width=4000, height=100)
    both = found(zone, np.array([[0.0, 0, 4000, 50]]))
    write_objects(path, [both], crs="EPSG:4326", record={})
    (shape,) = geopandas.read_file(path).geometry
    assert shape.geom_type == "MultiPolygon"
    assert [part.bounds[2] - part.bounds[0] < 1 for part in shape.geoms] == [True, True]


@pytest.mark.parametrize("name", ["boxes.parquet", "boxes.geojson"])
def test_no_box_is_a_valid_table_with_columns_and_crs(name, tmp_path):
    path = tmp_path / name
    none = found(UTM, np.zeros((0, 4)))
    crs = crs_of([UTM], path)
    write_objects(path, [none], crs=crs, record={})
    if name.endswith("parquet"):
        frame = geopandas.read_parquet(path)
        assert list(frame.columns) == [*list(COLUMNS)[:-1], "geometry"]
        kinds = pq.read_schema(path)
        assert [str(kinds.field(n).type) for n in ("score", "x0")] == ["double", "double"]
        assert "string" in str(kinds.field("class").type)
    else:
        frame = geopandas.read_file(path)
    assert len(frame) == 0
    assert frame.crs == crs


def test_rasters_of_several_crs_share_a_table_in_longitude_and_latitude(tmp_path):
    other = Grid("EPSG:32633", UTM.transform, width=400, height=300)
    path = tmp_path / "boxes.parquet"
    crs = crs_of([UTM, other], path)
    write_objects(path, [found(UTM), found(other, raster="b.tif")], crs=crs, record={})
    frame = geopandas.read_parquet(path)
    assert frame.crs == "EPSG:4326"
    assert frame["raster"].tolist() == ["a.tif", "a.tif", "b.tif", "b.tif"]
    assert frame.geometry[2].centroid.x - frame.geometry[0].centroid.x == pytest.approx(6)


def test_without_a_crs_boxes_are_where_the_transform_says(tmp_path):
    plain = Grid(None, Affine.identity(), width=400, height=300)
    path = tmp_path / "boxes.parquet"
    write_objects(path, [found(plain)], crs=crs_of([plain], path), record={})
    frame = geopandas.read_parquet(path)
    assert frame.crs is None
    assert frame.geometry[0].equals(shapely.box(10, 20, 30, 60))
