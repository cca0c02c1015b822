"""Labels that are footprints: the pixels inside each, their heights, and what is refused."""

import geopandas
import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod
from scene_support import LEFT, TOP, index_of, write
from shapely import LineString, Point, box

from geodino.data.labels.config import FootprintsConfig, LabelsConfig
from geodino.data.labels.footprint_reader import FootprintReader
from geodino.data.labels.footprints import footprint_index, pair_footprints
from geodino.data.labels.open import open_labels
from geodino.errors import BandError, SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window

UTM = "EPSG:32632"


def table(path, shapes, *, crs=UTM, **columns):
    frame = geopandas.GeoDataFrame(columns, geometry=shapes, crs=crs)
    if path.suffix == ".parquet":
        frame.to_parquet(path)
    else:
        frame.to_crs("EPSG:4326" if path.suffix == ".geojson" else crs).to_file(path)
    return path


def at(east_m, south_m):
    """A point so far from the first corner of the image."""
    return Point(LEFT + east_m, TOP - south_m)


def footprints_of(path, **declared):
    return footprint_index(path, LabelsConfig(**declared))


@pytest.fixture
def image(tmp_path):
    """100 x 100 pixels of 2 m."""
    return index_of(write(tmp_path / "i.tif", np.ones((100, 100), np.uint8), pixel_m=2.0))


def reader_of(labels, image):
    return FootprintReader(labels, pair_footprints(image, labels), image)


WHOLE = Window(0, 0, 100, 100)


@pytest.mark.parametrize("ending", ["parquet", "geojson", "gpkg"])
def test_a_point_stands_for_the_pixels_whose_centres_lie_in_its_circle(tmp_path, image, ending):
    path = table(tmp_path / f"gedi.{ending}", [at(50, 60), at(121, 81)], rh98=[20.0, 0.0])
    labels = footprints_of(path)
    found = reader_of(labels, image)(0, WHOLE)
    assert found.height_m.tolist() == [20.0, 0.0]
    # The definition: centres at most 12.5 m from the point.
    down, across = np.mgrid[0:100, 0:100]
    for i, (east, south) in enumerate(((50, 60), (121, 81))):
        away = np.hypot(2 * across + 1 - east, 2 * down + 1 - south)
        inside = np.flatnonzero(away.ravel() <= 12.5)
        sure = np.flatnonzero(away.ravel() <= 12.4)
        assert set(sure) <= set(found.of(i).tolist()) <= set(inside)
        assert len(found.of(i)) > 110


def test_the_circle_is_round_on_the_ground_at_any_latitude(tmp_path):
    path = table(tmp_path / "g.parquet", [Point(20.0, 68.0)], crs="EPSG:4326", rh98=[9.0])
    circle = footprints_of(path).polygons(np.array([0]))[0]
    lon, lat = np.array(circle.exterior.coords)[:-1].T
    _, _, away = Geod(ellps="WGS84").inv(lon, lat, np.full(32, 20.0), np.full(32, 68.0))
    np.testing.assert_allclose(away, 12.5, atol=1e-6)


def test_a_polygon_is_taken_as_it_is_and_its_percentile_is_that_of_its_pixels(tmp_path, image):
    # Four columns of five rows, half of a pixel inside the edges.
    shape = box(LEFT + 21, TOP - 31, LEFT + 27, TOP - 22)
    labels = footprints_of(
        table(tmp_path / "g.parquet", [shape], height=[150.0]), unit="dm",
        footprints=FootprintsConfig(percentile=50.0),
    )  # fmt: skip
    found = reader_of(labels, image)(0, WHOLE)
    assert found.height_m.tolist() == [15.0]
    rows, columns = np.divmod(found.of(0), 100)
    # Centres at odd metres from 21 to 27, and at odd metres from 23 to 31.
    assert sorted(set(rows.tolist())) == [11, 12, 13, 14, 15]
    assert sorted(set(columns.tolist())) == [10, 11, 12, 13]
    values = np.arange(10_000.0).reshape(100, 100)
    assert found.percentiles(values, labels.percentile).tolist() == [
        np.median(values[11:16, 10:14])
    ]


def test_footprints_that_reach_out_of_a_window_are_not_given(tmp_path, image):
    points = [at(50, 50), at(5, 50), at(50, 5), at(195, 50), at(50, 195)]
    labels = footprints_of(table(tmp_path / "g.parquet", points, rh98=[1.0, 2.0, 3.0, 4.0, 5.0]))
    reader = reader_of(labels, image)
    assert reader(0, WHOLE).height_m.tolist() == [1.0]
    assert len(reader(0, Window(20, 20, 50, 50))) == 0
    assert reader(0, Window(18, 18, 14, 14)).height_m.tolist() == [1.0]
    assert reader(0, Window(18, 18, 14, 14)).pixels.max() < 14 * 14


def test_a_footprint_smaller_than_a_pixel_has_the_pixel_it_lies_in(tmp_path, image):
    labels = footprints_of(table(tmp_path / "g.parquet", [at(65, 95)], rh98=[7.0]))
    grid = Grid(UTM, Affine(50, 0, LEFT, 0, -50, TOP), 4, 4)
    found = reader_of(labels, image)(0, Window(1, 1, 2, 2), grid)
    assert found.pixels.tolist() == [0]
    assert found.starts.tolist() == [0, 1]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("g")
    return folder, index_of(write(folder / "i.tif", np.ones((60, 60), np.uint8), pixel_m=3.0))


@settings(max_examples=20)
@given(data=st.data())
def test_pixels_of_a_footprint_do_not_depend_on_the_window(small, data):
    folder, image = small
    metres = st.floats(0, 180)
    points = [(90.0, 90.0), *data.draw(st.lists(st.tuples(metres, metres), max_size=5))]
    path = table(folder / "g.parquet", [at(*p) for p in points], rh98=[5.0] * len(points))
    reader = reader_of(footprints_of(path), image)
    whole = reader(0, Window(0, 0, 60, 60))
    top, left = data.draw(st.integers(0, 30)), data.draw(st.integers(0, 30))
    window = Window(top, left, data.draw(st.integers(5, 30)), data.draw(st.integers(5, 30)))
    part = reader(0, window)
    for i, number in enumerate(part.numbers.tolist()):
        row, column = np.divmod(part.of(i), window.width)
        place = whole.numbers.tolist().index(number)
        np.testing.assert_array_equal((row + top) * 60 + column + left, whole.of(place))


def test_quality_area_and_time_choose_footprints_and_say_how_many(tmp_path, image):
    path = table(
        tmp_path / "g.parquet", [at(50, 50), at(80, 50), at(50, 90)], RH_98=[1.0, 2.0, 3.0],
        quality_flag=[1, 0, 1], date=["2020-05-01", "2020-05-02", "2021-05-03"],
    )  # fmt: skip
    labels = footprints_of(path, where="quality_flag == 1", datetime="2020-01-01/2020-12-31")
    assert labels.height_m.tolist() == [1.0]
    assert labels.rows.tolist() == [0]
    assert labels.datetime == ("2020-05-01T00:00:00+00:00",)
    assert labels.notes[:2] == (
        "2 of 3 footprints pass labels.datetime = 2020-01-01/2020-12-31",
        "2 of 3 footprints pass labels.where = quality_flag == 1",
    )
    with pytest.raises(SourceError, match=r"labels\.where: there is no column 'qualty_flag'\. Did"):
        footprints_of(path, where="qualty_flag == 1")
    with pytest.raises(SourceError, match="lets none of the 3 footprints through"):
        footprints_of(path, where="quality_flag == 7")


def test_heights_that_are_missing_or_out_of_range_are_left_out(tmp_path):
    path = table(
        tmp_path / "g.parquet", [at(10 * i, 50) for i in range(5)],
        rh98=[4.0, np.nan, -9999.0, -0.4, 300.0],
    )  # fmt: skip
    with pytest.raises(BandError, match=r"below -5 m \(lowest -9999 m"):
        footprints_of(path)
    labels = footprints_of(path, nodata=-9999.0, accept=("range",))
    assert labels.height_m.tolist() == [4.0, 0.0]
    assert labels.rows.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("columns", "declared", "message"),
    [
        ({"top": [3.0]}, {}, r"no column rh98, rh_98, height.*labels\.footprints\.height.*top"),
        ({"height": [3.0]}, {}, r"in which unit its column 'height'.*labels\.unit"),
        ({"rh98": [3.0], "height": [3.0]}, {}, r"several columns.*\(rh98, height\)"),
        ({"rh98": [3.0]}, {"band": 1}, r"labels\.band is about rasters"),
        ({"rh98": [3.0]}, {"footprints": FootprintsConfig(height="rh89")}, "Did you mean 'rh98'"),
    ],
)
def test_what_cannot_be_decided_is_refused(tmp_path, columns, declared, message):
    path = table(tmp_path / "g.parquet", [at(50, 50)], **columns)
    with pytest.raises(BandError, match=message):
        footprints_of(path, **declared)


def test_other_files_are_refused_with_the_reason(tmp_path, image):
    line = table(tmp_path / "line.parquet", [LineString([at(1, 1), at(2, 2)])], rh98=[3.0])
    with pytest.raises(SourceError, match=r"neither points nor polygons, e\.g\. a LineString"):
        footprints_of(line)
    placeless = tmp_path / "no_crs.parquet"
    geopandas.GeoDataFrame({"rh98": [1.0]}, geometry=[at(1, 1)]).to_parquet(placeless)
    with pytest.raises(SourceError, match="has no CRS"):
        footprints_of(placeless)
    with pytest.raises(SourceError, match="does not exist"):
        footprints_of(tmp_path / "none.gpkg")
    (tmp_path / "text.gpkg").write_text("no table")
    with pytest.raises(SourceError, match="cannot be read as a vector file of labels"):
        footprints_of(tmp_path / "text.gpkg")
    far = footprints_of(table(tmp_path / "far.parquet", [at(90_000, 50)], rh98=[3.0]))
    with pytest.raises(SourceError, match="None of the 1 footprints lies on any of the 1 images"):
        pair_footprints(image, far)


def test_images_and_footprints_that_do_not_meet_are_counted(tmp_path, image):
    points = [at(50, 50), at(60, 60), at(9000, 60)]
    path = table(tmp_path / "g.gpkg", points, rh98=[3.0, 4.0, 5.0])
    labels = open_labels(path, LabelsConfig(), threads=1)
    pairs = pair_footprints(image, labels)
    assert [numbers.tolist() for numbers in pairs.by_image] == [[0, 1]]
    assert pairs.labelled == (0,)
    assert pairs.notes[:2] == (
        "1 of 1 images have at least one footprint", "1 of 3 footprints lie on no image"
    )  # fmt: skip
