import geopandas
import numpy as np
import pytest
import shapely
from labelled_support import write_tif

from geodino.data.config import DataConfig
from geodino.data.index import build_index
from geodino.data.labelled.box_file import read_box_table
from geodino.data.labelled.box_table import open_box_table
from geodino.data.labelled.boxes import BoxLabelsConfig
from geodino.data.labelled.sets import LabelledSet
from geodino.data.splits import SplitConfig
from geodino.errors import SourceError
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool

WEST, NORTH, CRS = 600_000.0, 5_400_000.0, "EPSG:32632"
"""Of the images: pixels of 10 m, 40 x 60 of them."""


def on_ground(x0, y0, x1, y1):
    return shapely.box(WEST + 10 * x0, NORTH - 10 * y1, WEST + 10 * x1, NORTH - 10 * y0)


def table(path, shapes, *, crs=CRS, to=None, **columns):
    frame = geopandas.GeoDataFrame(columns, geometry=list(shapes), crs=crs)
    frame = frame if to is None else frame.to_crs(to)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_file(path)
    return path


@pytest.fixture
def pool():
    with HandlePool() as made:
        yield made


@pytest.fixture
def images(tmp_path):
    write_tif(tmp_path / "tiles" / "a.tif", np.full((3, 40, 60), 7, np.uint8))
    return build_index(str(tmp_path / "tiles"), DataConfig(), threads=1)


@pytest.fixture
def halves(tmp_path):
    """The left half of the image is for training, the right one for validation."""
    shapes = [on_ground(0, 0, 30, 40), on_ground(30, 0, 60, 40)]
    return str(table(tmp_path / "split.geojson", shapes, split=["train", "val"]))


def opened(images, labels, pool, halves, **config):
    return open_box_table(
        images, labels, config=BoxLabelsConfig(**config), split=halves,
        split_config=SplitConfig(), pool=pool,
    )  # fmt: skip


OBJECTS = [on_ground(10, 5, 20, 15), on_ground(40, 30, 64, 38)]


@pytest.mark.parametrize("name", ["boxes.parquet", "boxes.geojson", "boxes.gpkg"])
def test_objects_on_the_ground_become_boxes_of_pixels(tmp_path, images, pool, halves, name):
    labels = table(tmp_path / name, OBJECTS, **{"class": ["house", "hall"]})
    found = opened(images, labels, pool, halves)
    assert isinstance(found, LabelledSet)
    assert found.facts.classes == ("hall", "house")
    assert found.parts == {"train": ("train/a.tif",), "val": ("val/a.tif",), "test": ()}
    label = found.label("train/a.tif")
    # The second reaches over the edge and is clipped there.
    np.testing.assert_allclose(label.xyxy, [[10, 5, 20, 15], [40, 30, 60, 38]], atol=1e-4)
    assert label.classes.tolist() == [1, 0]


def test_an_object_belongs_to_the_part_its_centre_lies_in(tmp_path, images, pool, halves):
    labels = table(tmp_path / "b.parquet", OBJECTS, **{"class": ["house", "hall"]})
    found = opened(images, labels, pool, halves)
    assert found.label("train/a.tif").difficult.tolist() == [False, True]
    assert found.label("val/a.tif").difficult.tolist() == [True, False]


def test_objects_in_another_crs_come_to_within_a_tenth_of_a_pixel(tmp_path, images, pool, halves):
    labels = table(tmp_path / "b.geojson", OBJECTS, to="EPSG:4326", **{"class": ["a", "b"]})
    label = opened(images, labels, pool, halves).label("train/a.tif")
    # A box that is upright in UTM is turned a little in degrees, so its upright box is larger.
    np.testing.assert_allclose(label.xyxy[0], [10, 5, 20, 15], atol=0.1)


def test_a_window_of_an_image_has_its_own_boxes(tmp_path, images, pool, halves):
    labels = table(tmp_path / "b.parquet", OBJECTS, **{"class": ["house", "hall"]})
    found = opened(images, labels, pool, halves)
    label = found.label("train/a.tif", Window(0, 5, 20, 30))
    np.testing.assert_allclose(label.xyxy, [[5, 5, 15, 15]], atol=1e-4)
    assert found.image("train/a.tif", Window(0, 5, 20, 30))[0].shape == (3, 20, 30)


def test_points_need_a_size_and_get_a_box_of_it(tmp_path, images, pool, halves):
    point = shapely.Point(WEST + 155, NORTH - 105)  # column 15.5, row 10.5
    labels = table(tmp_path / "trees.parquet", [point])
    with pytest.raises(SourceError, match=r"labels\.point_m"):
        opened(images, labels, pool, halves, column=None)
    found = opened(images, labels, pool, halves, column=None, point_m=50.0)
    # UTM's scale is 1 within some 0.1 % here: half of 5 pixels on each side.
    np.testing.assert_allclose(found.label("train/a.tif").xyxy, [[13, 8, 18, 13]], atol=0.01)
    assert found.facts.classes == ("object",)


def test_an_unknown_class_or_column_is_refused(tmp_path):
    labels = table(tmp_path / "b.parquet", OBJECTS, **{"class": ["house", "hal"]})
    with pytest.raises(SourceError, match=r"'hal' in row 1 .*Did you mean 'hall'"):
        read_box_table(labels, BoxLabelsConfig(classes=("house", "hall")))
    with pytest.raises(SourceError, match=r"no column 'kind' \(labels.column\)"):
        read_box_table(labels, BoxLabelsConfig(column="kind"))


def test_lines_and_empty_shapes_are_refused_and_flat_ones_left_out(tmp_path):
    line = shapely.LineString([(0, 0), (1, 1)])
    with pytest.raises(SourceError, match="row 0 is LineString"):
        read_box_table(table(tmp_path / "a.parquet", [line]), BoxLabelsConfig(column=None))
    empty = table(tmp_path / "b.parquet", [shapely.Polygon()])
    with pytest.raises(SourceError, match="row 0 is empty"):
        read_box_table(empty, BoxLabelsConfig(column=None))
    flat = [*OBJECTS, shapely.Polygon([(0, 0), (1, 1), (0, 0)])]
    found = read_box_table(table(tmp_path / "c.parquet", flat), BoxLabelsConfig(column=None))
    assert len(found.shapes) == 2
    assert "1 objects have no area and were left out" in found.notes


def test_objects_of_another_place_are_refused(tmp_path, images, pool, halves):
    far = table(tmp_path / "b.parquet", [on_ground(900, 900, 910, 910)])
    with pytest.raises(SourceError, match=r"No object of .* lies on an image"):
        opened(images, far, pool, halves, column=None)


def test_the_fingerprint_tells_objects_apart(tmp_path, images, pool, halves):
    one = table(tmp_path / "b.parquet", OBJECTS)
    other = table(tmp_path / "c.parquet", OBJECTS[:1])
    prints = {opened(images, p, pool, halves, column=None).fingerprint for p in (one, other)}
    assert len(prints) == 2
