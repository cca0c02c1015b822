"""Choosing tiles by area, by time and by a condition."""

import geopandas
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scene_support import bare_tile as tile
from scene_support import index_of, numbers, write
from shapely import box

from geodino.data.config import DataConfig
from geodino.data.filters import columns, select
from geodino.errors import SourceError

UTM = "EPSG:32632"


def kept(tiles, **filters):
    return [t.path for t in select(tiles, DataConfig(**filters))[0]]


# Area


def area(path, *shapes, crs=UTM):
    frame = geopandas.GeoDataFrame(geometry=list(shapes), crs=crs)
    frame.to_file(path)
    return str(path)


# Three tiles of 640 m in a row, 360 m apart.
ROW = [tile(name, left=500_000.0 + 1000 * i, side=64) for i, name in enumerate("abc")]


@pytest.mark.parametrize("crs", [UTM, "EPSG:4326", "EPSG:3857", "EPSG:32633"])
def test_tiles_that_the_area_touches_are_kept_in_whatever_system_it_is(tmp_path, crs):
    shape = geopandas.GeoSeries([box(500_100, 5_399_500, 501_100, 5_399_900)], crs=UTM)
    path = area(tmp_path / "area.gpkg", *shape.to_crs(crs), crs=crs)
    assert kept(ROW, aoi=path) == ["a", "b"]
    notes = select(ROW, DataConfig(aoi=path))[1]
    assert notes == [f"2 of 3 tiles pass data.aoi = {path}"]


def test_an_area_of_several_parts_is_all_of_them(tmp_path):
    parts = [box(x, 5_399_500, x + 10, 5_399_600) for x in (500_100, 502_100)]
    assert kept(ROW, aoi=area(tmp_path / "area.geojson", *parts)) == ["a", "c"]


def test_tiles_without_a_place_lie_in_no_area(tmp_path):
    path = area(tmp_path / "area.gpkg", box(0, 0, 1_000_000, 6_000_000))
    assert kept([*ROW, tile("photo", crs=None)], aoi=path) == ["a", "b", "c"]


def test_an_area_that_lets_nothing_through_says_how_many_tiles_have_a_place(tmp_path):
    path = area(tmp_path / "area.gpkg", box(600_000, 5_399_500, 600_100, 5_399_600))
    with pytest.raises(SourceError) as error:
        kept([*ROW, tile("photo", crs=None)], aoi=path)
    assert str(error.value) == (
        f"data.aoi = {path} lets none of the 4 tiles through. 3 of them have a place on the Earth; "
        "check the area's CRS."
    )


def test_areas_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"data\.aoi: .*nowhere\.gpkg does not exist"):
        kept(ROW, aoi=str(tmp_path / "nowhere.gpkg"))
    (tmp_path / "text.gpkg").write_text("no vectors")
    with pytest.raises(SourceError, match=r"text\.gpkg cannot be read as a vector file"):
        kept(ROW, aoi=str(tmp_path / "text.gpkg"))
    (tmp_path / "empty.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    with pytest.raises(SourceError, match=r"empty\.geojson (holds no geometry|has no CRS)"):
        kept(ROW, aoi=str(tmp_path / "empty.geojson"))
    bare = tmp_path / "bare.shp"
    geopandas.GeoDataFrame(geometry=[box(0, 0, 1, 1)], crs=UTM).to_file(bare)
    bare.with_suffix(".prj").unlink()
    with pytest.raises(SourceError, match=r"bare\.shp has no CRS"):
        kept(ROW, aoi=str(bare))


# Time


TIMES = [
    tile("new year", when="2020-01-01T00:00:00+00:00"),
    tile("summer", when="2020-07-01T12:00:00+02:00"),
    tile("last second", when="2020-12-31T23:59:59"),
    tile("next year", when="2021-01-01T00:00:00Z"),
    tile("unknown"),
]


@pytest.mark.parametrize(
    ("interval", "names"),
    [
        ("2020-01-01/2020-12-31", ["new year", "summer", "last second"]),
        ("2020-07-01/2020-07-01", ["summer"]),
        ("2020-07-01/..", ["summer", "last second", "next year"]),
        ("2020-07-01/", ["summer", "last second", "next year"]),
        ("../2020-07-01", ["new year", "summer"]),
        ("/2019-12-31T23:59:59.999999/..", None),
        ("../..", ["new year", "summer", "last second", "next year"]),
        # Noon at +02:00 is ten in universal time; both ends belong to the interval.
        ("2020-07-01T10:00:00Z/2020-07-01T10:00:00Z", ["summer"]),
        ("2020-07-01T12:00:00+02:00/2020-12-31T23:59:59", ["summer", "last second"]),
        # A day in any spelling is a whole day.
        ("20200701/20201231", ["summer", "last second"]),
        ("2020-W27-3/2020-W53-4", ["summer", "last second"]),
    ],
)
def test_an_interval_holds_its_ends_and_days_are_whole(interval, names):
    if names is None:
        with pytest.raises(SourceError, match="is not START/END"):
            kept(TIMES, datetime=interval)
    else:
        assert kept(TIMES, datetime=interval) == names


days = st.dates(
    min_value=np.datetime64("2019-12-01").item(), max_value=np.datetime64("2021-02-01").item()
)


@given(start=days, end=days)
def test_days_are_compared_as_days(start, end):
    expected = [t.path for t in TIMES[:4] if str(start) <= t.datetime[:10] <= str(end)]
    interval = f"{start}/{end}"
    if expected:
        assert kept(TIMES, datetime=interval) == expected
    else:
        with pytest.raises(SourceError, match=r"Their dates: 2020-01-01T00:00:00.* to 2021-01-01"):
            kept(TIMES, datetime=interval)


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        ("2020-07-01", "'2020-07-01' is not START/END, e.g. 2020-01-01/2020-12-31"),
        ("2020-13-01/..", "'2020-13-01' in '2020-13-01/..' is no ISO 8601 time"),
        ("July/August", "'July' in 'July/August' is no ISO 8601 time"),
    ],
)
def test_what_is_no_interval_is_refused(interval, said):
    with pytest.raises(SourceError) as error:
        kept(TIMES, datetime=interval)
    assert said in str(error.value)


def test_no_tile_has_a_date_is_said():
    with pytest.raises(SourceError, match=r"lets none of the 3 tiles through\. No tile has a date"):
        kept(ROW, datetime="2020-01-01/..")


# Conditions


MIXED = [
    tile("a", pixel_m=0.5, side=512, when="2020-01-01"),
    tile("b", pixel_m=0.5, side=100),
    tile("c", pixel_m=30.0, side=512),
    tile("photo", crs=None, side=512),
]


@pytest.mark.parametrize(
    ("condition", "names"),
    [
        ("gsd_x_m < 1 and width >= 512", ["a"]),
        ("gsd_x_m < 1 or gsd_x_m > 20", ["a", "b", "c"]),
        ("not width < 512", ["a", "c", "photo"]),
        ("path == 'b'", ["b"]),
        ("path in ['a', 'c']", ["a", "c"]),
        ("path.str.startswith('ph')", ["photo"]),
        ("crs == 'EPSG:32632' & height < 200", ["b"]),
        ("datetime.notna()", ["a"]),
        ("driver == 'GTiff' and files == 1 and size == 1000 and dtype == 'uint8'",
         ["a", "b", "c", "photo"]),
    ],
)  # fmt: skip
def test_a_condition_on_columns_chooses_tiles(condition, names):
    assert kept(MIXED, where=condition) == names


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("heigth < 1", "there is no column 'heigth'. Did you mean 'height'?"),
        ("width >", "'width >' cannot be understood"),
        ("width", "'width' is no condition: it gives int64"),
        ("width + 1", "is no condition"),
        ("1 < 2", "is no condition"),
        ("width < 'x'", "cannot be understood"),
        ("width = 3", "is no condition"),
        ("1 if width else 2", "cannot be understood"),
        ("", "cannot be understood"),
        ("width > @limit", "may name columns and values only"),
        ("path.__class__", "may name columns and values only"),
    ],
)
def test_what_is_no_condition_is_refused(condition, said):
    with pytest.raises(SourceError) as error:
        kept(MIXED, where=condition)
    assert str(error.value).startswith("data.where: ")
    assert said in str(error.value)


def test_a_condition_that_lets_nothing_through_is_said():
    with pytest.raises(SourceError, match=r"data\.where = width > 999 lets none of the 4 tiles"):
        kept(MIXED, where="width > 999")


def test_every_column_that_the_documentation_names_is_there():
    assert {"path", "gsd_x_m", "width", "datetime"} <= columns(MIXED).keys()
    assert all(len(values) == len(MIXED) for values in columns(MIXED).values())


# All of them, and as part of an index


def test_filters_work_one_after_the_other():
    notes = select(MIXED, DataConfig(where="gsd_x_m < 1", datetime="2020-01-01/.."))
    assert [t.path for t in notes[0]] == ["a"]
    assert notes[1] == [
        "1 of 4 tiles pass data.datetime = 2020-01-01/..",
        "1 of 1 tiles pass data.where = gsd_x_m < 1",
    ]


def test_no_filter_lets_everything_through():
    assert select(MIXED, DataConfig()) == (MIXED, [])


def test_an_index_holds_the_tiles_that_were_chosen_and_says_so(tmp_path):
    for side in (8, 16):
        write(tmp_path / f"{side}.tif", numbers(side, side))
    index = index_of(tmp_path, where="width > 10")
    assert [t.width for t in index.tiles] == [16]
    assert "1 of 2 tiles pass data.where = width > 10" in index.notes
