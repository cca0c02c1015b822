"""Vector files, one of interest or of labels, as tables of geometries."""

import geopandas
import pandas as pd
import pyogrio
import pytest
import shapely

from geodino.errors import SourceError
from geodino.io.area import read_area
from geodino.io.vector import read_vector


def squares(*left):
    return geopandas.GeoDataFrame(
        geometry=[shapely.box(x, -4, x + 2, 0) for x in left], crs="EPSG:32611"
    )


def test_an_area_is_read_from_geoparquet_as_from_other_files(tmp_path):
    frame = squares(500_001)
    frame.to_parquet(tmp_path / "area.parquet")
    frame.to_file(tmp_path / "area.gpkg")
    found = [read_area(tmp_path / name, option="--aoi") for name in ("area.parquet", "area.gpkg")]
    assert [one.geometry[0].bounds for one in found] == [(500_001, -4, 500_003, 0)] * 2


def test_of_several_layers_none_is_taken_by_chance(tmp_path):
    path = tmp_path / "two.gpkg"
    squares(0).to_file(path, layer="wood")
    squares(9).to_file(path, layer="town")
    with pytest.raises(SourceError, match=r"--aoi: .* has 2 layers \(wood, town\).*ogr2ogr"):
        read_area(path, option="--aoi")


def test_the_table_in_which_qgis_keeps_its_styles_is_no_layer(tmp_path):
    path = tmp_path / "styled.gpkg"
    pyogrio.write_dataframe(pd.DataFrame({"styleName": ["a"]}), path, layer="layer_styles")
    squares(9).to_file(path, layer="wood")
    assert len(read_vector(path, called="it", what="a vector file")) == 1


def test_a_table_without_geometries_is_refused(tmp_path):
    pd.DataFrame({"a": [1]}).to_parquet(tmp_path / "plain.parquet")
    (tmp_path / "plain.csv").write_text("a\n1\n")
    with pytest.raises(
        SourceError, match=r"plain\.parquet cannot be read .* geo metadata in [^\n]*$"
    ):
        read_area(tmp_path / "plain.parquet", option="--aoi")
    with pytest.raises(SourceError, match=r"plain\.csv is a table without geometries"):
        read_area(tmp_path / "plain.csv", option="--aoi")
