"""GeoParquet 1.1 with a record of its making in the file's own metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geodino.files import replacing

RECORD = b"geodino"
"""Key of the metadata."""


def write_geoparquet(
    path: str | Path,
    frame: Any,
    *,
    record: Mapping[str, Any],
    columns: Mapping[str, Any] | None = None,
) -> None:
    """Write a GeoDataFrame.

    Args:
        path: where to; whole or absent.
        frame: its index is left out.
        record: what belongs to all rows, as JSON values.
        columns: arrow arrays that a frame cannot hold; they go before the geometry.

    Raises:
        RunError: the disk is full, or the file cannot be written.
    """
    import pyarrow.parquet as pq

    with replacing(path) as temporary:
        frame.to_parquet(temporary, index=False, write_covering_bbox=True, schema_version="1.1.0")
        table = pq.read_table(temporary)
        metadata = {**(table.schema.metadata or {}), RECORD: json.dumps(dict(record)).encode()}
        for name, values in (columns or {}).items():
            table = table.add_column(table.column_names.index("geometry"), name, values)
        pq.write_table(table.replace_schema_metadata(metadata), temporary, compression="zstd")
