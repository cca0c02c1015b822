"""The tile index on disk: GeoParquet 1.1, one row a tile, readable by QGIS and geopandas."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from affine import Affine

from geodino.errors import SourceError
from geodino.files import replacing
from geodino.geo.grid import Grid
from geodino.io.metadata import RasterInfo

_KEY = b"geodino"
_VERSION = 1


def write_index(
    path: str | Path,
    infos: Sequence[RasterInfo],
    *,
    columns: Mapping[str, Sequence[Any]],
    record: Mapping[str, Any],
) -> None:
    """Write what the metadata of tiles says, their footprints in EPSG:4326, and more columns.

    Args:
        path: where to; whole or absent.
        infos: one per row.
        columns: further columns, by name; one value per row.
        record: what belongs to all rows, as JSON values; kept in the file's own metadata.
    """
    import geopandas
    import pyarrow.parquet as pq

    rows = [_row(info) for info in infos]
    frame = geopandas.GeoDataFrame(
        {name: [row[name] for row in rows] for name in rows[0]} | dict(columns),
        geometry=[info.grid.footprint_wgs84() for info in infos],
        crs="EPSG:4326",
    )
    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False, write_covering_bbox=True, schema_version="1.1.0")
        table = pq.read_table(temporary)
        note = {"version": _VERSION, **record}
        metadata = {**(table.schema.metadata or {}), _KEY: json.dumps(note).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")


def read_index(
    path: str | Path,
) -> tuple[list[RasterInfo], dict[str, list[Any]], dict[str, Any]]:
    """Read back what :func:`write_index` wrote: infos, all columns, record.

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
    note = (table.schema.metadata or {}).get(_KEY)
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
        if name not in ("geometry", "bbox")
    }
    infos = [
        _info({name: values[i] for name, values in columns.items()}) for i in range(len(table))
    ]
    return infos, columns, record


def _row(info: RasterInfo) -> dict[str, Any]:
    gsd = info.grid.gsd_m
    return {
        "path": info.path,
        "driver": info.driver,
        "crs": info.grid.crs,
        "transform": list(info.grid.transform[:6]),
        "width": info.grid.width,
        "height": info.grid.height,
        "gsd_x_m": None if gsd is None else gsd[0],
        "gsd_y_m": None if gsd is None else gsd[1],
        "count": info.count,
        "dtype": info.dtype,
        # As text: Arrow turns a NaN inside a list into a null, which means "no tag".
        "nodata": [None if v is None else repr(v) for v in info.nodata],
        "colors": list(info.colors),
        "descriptions": list(info.descriptions),
        "scales": list(info.scales),
        "offsets": list(info.offsets),
        "mask": info.mask,
        "block_height": info.block[0],
        "block_width": info.block[1],
        "size": info.size,
        "mtime_ns": info.mtime_ns,
        "datetime": info.datetime,
        "datetime_from": info.datetime_from,
    }


def _info(row: Mapping[str, Any]) -> RasterInfo:
    return RasterInfo(
        path=row["path"],
        driver=row["driver"],
        grid=Grid(row["crs"], Affine(*row["transform"]), row["width"], row["height"]),
        count=row["count"],
        dtype=row["dtype"],
        nodata=tuple(None if v is None else float(v) for v in row["nodata"]),
        colors=tuple(row["colors"]),
        descriptions=tuple(row["descriptions"]),
        scales=tuple(row["scales"]),
        offsets=tuple(row["offsets"]),
        mask=row["mask"],
        block=(row["block_height"], row["block_width"]),
        size=row["size"],
        mtime_ns=row["mtime_ns"],
        datetime=row["datetime"],
        datetime_from=row["datetime_from"],
    )
