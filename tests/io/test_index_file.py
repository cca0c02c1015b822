"""The index file: what goes in comes out, and others can read it."""

import json

import geopandas
import pyarrow.parquet as pq
import pytest
from affine import Affine

from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.io.index_file import read_index, write_index
from geodino.io.raster import RasterInfo


def info(path, *, crs="EPSG:32618", nodata=(float("nan"), None, 0.0)):
    return RasterInfo(
        path=path,
        driver="GTiff",
        grid=Grid(crs, Affine(10.5, 0, 500_000, 0, -10.5, 4_500_000), 64, 32),
        count=3,
        dtype="float32",
        nodata=nodata,
        colors=("gray", "undefined", "undefined"),
        descriptions=("a", None, "c"),
        scales=(1.0, 0.1, 1.0),
        offsets=(0.0, -0.1, 0.0),
        mask="none",
        block=(32, 64),
        size=2**40,
        mtime_ns=1_700_000_000_123_456_789,
        datetime="2020-07-01T10:20:30",
        datetime_from="tiff tag",
        units=(None, "m", "dB"),
    )


def test_an_index_comes_back_as_it_was_even_nan_and_missing_tags(tmp_path):
    rasters = [[info("a.tif"), info("q.tif")], [info("b.tif", crs=None, nodata=(None,) * 3)]]
    grids = [infos[0].grid for infos in rasters]
    columns = {"bands": [[1, 2], [3, 1]], "share": [0.25, None]}
    record = {"root": "/x", "n": [1]}
    path = tmp_path / "i.parquet"
    write_index(path, grids=grids, rasters=rasters, columns=columns, record=record)
    places, found, extra, record = read_index(path)
    assert places == grids
    assert str(found[0]) == str(rasters[0])  # nan differs from itself, its text does not
    assert found[1] == rasters[1]
    assert extra["files"] == [["a.tif", "q.tif"], ["b.tif"]]
    assert extra["bands"] == columns["bands"]
    assert extra["share"] == columns["share"]
    assert record == {"root": "/x", "n": [1]}


def test_the_file_is_geoparquet_1_1_with_a_bbox_covering(tmp_path):
    one = info("a.tif")
    write_index(tmp_path / "i.parquet", grids=[one.grid], rasters=[[one]], columns={}, record={})
    geo = json.loads(pq.read_schema(tmp_path / "i.parquet").metadata[b"geo"])
    assert geo["version"] == "1.1.0"
    assert geo["columns"]["geometry"]["covering"]["bbox"]["xmin"] == ["bbox", "xmin"]
    frame = geopandas.read_parquet(tmp_path / "i.parquet")
    assert frame.crs.to_epsg() == 4326
    assert frame.geometry[0].bounds[0] == pytest.approx(-75, abs=1e-2)


def test_a_parquet_file_of_somebody_else_is_refused(tmp_path):
    geopandas.pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(SourceError, match="not a tile index written by geodino"):
        read_index(tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(SourceError, match=r"broken\.parquet cannot be read as a tile index"):
        read_index(tmp_path / "broken.parquet")
