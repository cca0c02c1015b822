"""The tile index on disk: GeoParquet 1.1, one row a tile, readable by QGIS and geopandas."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from affine import Affine

from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.io.geoparquet import RECORD, write_geoparquet
from geodino.io.metadata import RasterInfo

_VERSION = 2


def write_index(
    path: str | Path,
    *,
    grids: Sequence[Grid],
    rasters: Sequence[Sequence[RasterInfo]],
    columns: Mapping[str, Sequence[Any]],
    record: Mapping[str, Any],
) -> None:
    """Write tiles: grid and footprint in EPSG:4326, the rasters of each, and more columns.

    Args:
        path: where to; whole or absent.
        grids: of each tile, one per row.
        rasters: what the metadata of each tile's files says.
        columns: further columns, by name; one value per row.
        record: what belongs to all rows, as JSON values; kept in the file's own metadata.
    """
    import geopandas
    import pyarrow as pa

    rows = [_place(grid) for grid in grids]
    frame = geopandas.GeoDataFrame(
        {
            **{name: [row[name] for row in rows] for name in rows[0]},
            "files": [[info.path for info in infos] for infos in rasters],
            **columns,
        },
        geometry=[grid.footprint_wgs84() for grid in grids],
        crs="EPSG:4326",
    )
    details = pa.array([[_row(info) for info in infos] for infos in rasters])
    write_geoparquet(
        path, frame, record={"version": _VERSION, **record}, columns={"rasters": details}
    )


def read_index(
    path: str | Path,
) -> tuple[list[Grid], list[list[RasterInfo]], dict[str, list[Any]], dict[str, Any]]:
    """Read back what :func:`write_index` wrote: grids, rasters, all columns, record.

    Raises:
        SourceError: the file is missing, damaged, or not an index of ours.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise SourceError(
            f"{path} cannot be read as a tile index ({error}). Build the index again."
        ) from error
    note = (table.schema.metadata or {}).get(RECORD)
    if note is None:
        raise SourceError(
            f"{path} is a Parquet file, but not a tile index written by geodino. "
            "Name the folder of the tiles instead."
        )
    record = json.loads(note)
    if record.pop("version") != _VERSION:
        raise SourceError(f"{path} was written by another version. Build the index again.")
    columns = {
        name: table.column(name).to_pylist()
        for name in table.column_names
        if name not in ("geometry", "bbox", "rasters")
    }
    places = zip(
        columns["crs"], columns["transform"], columns["width"], columns["height"], strict=True
    )
    grids = [Grid(crs, Affine(*terms), width, height) for crs, terms, width, height in places]
    rasters = [[_info(row) for row in rows] for rows in table.column("rasters").to_pylist()]
    return grids, rasters, columns, record


def _place(grid: Grid) -> dict[str, Any]:
    return {
        "crs": grid.crs,
        "transform": list(grid.transform[:6]),
        "width": grid.width,
        "height": grid.height,
    }


_LISTS = frozenset({"colors", "descriptions", "scales", "offsets", "units"})


def _row(info: RasterInfo) -> dict[str, Any]:
    """Return the fields of a raster as values that Arrow keeps as they are."""
    row = {f.name: getattr(info, f.name) for f in fields(info) if f.name != "grid"}
    for name in _LISTS:
        row[name] = list(row[name])
    # As text: Arrow turns a NaN inside a list into a null, which means "no tag".
    row["nodata"] = [None if v is None else repr(v) for v in info.nodata]
    row["block"] = list(info.block)
    return row | _place(info.grid)


def _info(row: Mapping[str, Any]) -> RasterInfo:
    values = dict(row)
    crs, terms = values.pop("crs"), values.pop("transform")
    grid = Grid(crs, Affine(*terms), values.pop("width"), values.pop("height"))
    for name in _LISTS:
        values[name] = tuple(values[name])
    values["nodata"] = tuple(None if v is None else float(v) for v in values["nodata"])
    values["block"] = tuple(values["block"])
    return RasterInfo(grid=grid, **values)
