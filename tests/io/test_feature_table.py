"""Tables of vectors that geopandas, pyarrow and DuckDB understand."""

import json

import geopandas
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import shapely

from geodino.io import feature_table
from geodino.io.feature_table import FeatureTable

COLUMNS = {"chip_id": "string", "row": "int64", "share": "double"}


def square(i):
    return shapely.box(i, 40 + i, i + 1, 41 + i)


def write(path, vectors, *, scales=None, footprint=square):
    with FeatureTable(
        path, dim=vectors.shape[1], dtype=str(vectors.dtype), columns=COLUMNS, scales=scales
    ) as table:
        for i, vector in enumerate(vectors):
            table.append(vector, footprint(i), {"chip_id": f"c{i}", "row": i, "share": None})
        table.record = {"x": 1}
    return path


def vectors(n=5, dtype="float32"):
    return np.random.default_rng(0).normal(size=(n, 3)).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
def test_vectors_come_back_in_lists_of_fixed_size(tmp_path, dtype):
    values = (vectors() * 20).astype(dtype)
    table = pq.read_table(write(tmp_path / "a.parquet", values))
    kind = table.schema.field("embedding").type
    assert pa.types.is_fixed_size_list(kind)
    assert kind.list_size == 3
    assert kind.value_type == pa.from_numpy_dtype(values.dtype)
    flat = table.column("embedding").combine_chunks().flatten().to_numpy()
    np.testing.assert_array_equal(flat.reshape(-1, 3), values)


def test_geopandas_reads_footprints_and_filters_by_their_bounds(tmp_path):
    path = write(tmp_path / "a.parquet", vectors())
    frame = geopandas.read_parquet(path)
    assert frame.crs == "EPSG:4326"
    assert list(frame.geometry) == [square(i) for i in range(5)]
    assert list(frame.columns) == ["chip_id", "row", "share", "embedding", "geometry"]
    some = geopandas.read_parquet(path, bbox=(2.5, 42.5, 2.6, 42.6))
    assert list(some["chip_id"]) == ["c2"]


def test_the_metadata_is_that_of_geoparquet_1_1(tmp_path):
    path = write(tmp_path / "a.parquet", vectors())
    metadata = pq.read_metadata(path).metadata
    assert pq.read_schema(path).metadata[b"geo"] == metadata[b"geo"]
    geo = json.loads(metadata[b"geo"])
    column = geo["columns"][geo["primary_column"]]
    assert geo["version"] == "1.1.0"
    assert column["encoding"] == "WKB"
    assert column["geometry_types"] == []
    assert column["crs"]["id"] == {"authority": "EPSG", "code": 4326}
    assert column["covering"]["bbox"]["xmax"] == ["bbox", "xmax"]
    assert json.loads(metadata[b"geodino"]) == {"x": 1}


def test_many_rows_are_written_in_groups(tmp_path, monkeypatch):
    monkeypatch.setattr(feature_table, "_GROUP_ROWS", 2)
    path = write(tmp_path / "a.parquet", vectors(5))
    assert pq.ParquetFile(path).num_row_groups == 3
    assert list(geopandas.read_parquet(path)["row"]) == list(range(5))


def test_rows_without_a_place_have_no_footprint(tmp_path):
    frame = geopandas.read_parquet(
        write(tmp_path / "a.parquet", vectors(), footprint=lambda _: None)
    )
    assert frame.geometry.isna().all()


def test_scales_stand_beside_the_column_they_belong_to(tmp_path):
    values = np.array([[1, -2, 3]], dtype=np.int8)
    field = pq.read_schema(write(tmp_path / "a.parquet", values, scales=[0.5, 1.0, 2.0])).field(
        "embedding"
    )
    assert json.loads(field.metadata[b"scale"]) == [0.5, 1.0, 2.0]


def test_an_empty_table_is_a_table(tmp_path):
    assert len(geopandas.read_parquet(write(tmp_path / "a.parquet", vectors(0)))) == 0


def test_a_job_that_dies_leaves_nothing(tmp_path):
    def job():
        with FeatureTable(tmp_path / "a.parquet", dim=3, dtype="float32", columns=COLUMNS) as table:
            table.append(vectors()[0], square(0), {"chip_id": "c", "row": 0, "share": 1.0})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job()
    assert list(tmp_path.iterdir()) == []
