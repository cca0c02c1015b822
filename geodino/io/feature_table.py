"""One vector per row, with a footprint: GeoParquet 1.1, written in row groups."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import shapely
from jaxtyping import Shaped

from geodino.files import replacing, writing

NAME = "embedding"

_GROUP_ROWS = 4096


class FeatureTable:
    """A table of vectors and their footprints in EPSG:4326; whole or absent.

    Leaving the context without an exception puts the file in its place.

    Args:
        path: the target.
        dim: length of the vectors.
        dtype: ``float32``, ``float16`` or ``int8``.
        columns: further columns, name to ``string``, ``double`` or ``int64``, in that order; each
            may hold None.
        scales: for int8, per dimension: ``feature = stored * scale``; kept as JSON in the
            metadata of the embedding's column, under ``scale``.

    Attributes:
        record: what belongs to all rows, as JSON values; kept in the file's own metadata under
            ``geodino``. It may be set until the end.
    """

    def __init__(
        self,
        path: Path,
        *,
        dim: int,
        dtype: str,
        columns: Mapping[str, str],
        scales: Sequence[float] | None = None,
    ) -> None:
        self._path = path
        self._dtype = np.dtype(dtype)
        self._rows: list[dict[str, Any]] = []
        self._vectors: list[np.ndarray] = []
        self._schema = _schema(dim, self._dtype, columns, scales)
        self.record: Mapping[str, Any] = {}
        self._stack = ExitStack()
        self._writer: Any = None

    def __enter__(self) -> "FeatureTable":
        import pyarrow.parquet as pq

        temporary = self._stack.enter_context(replacing(self._path))
        self._writer = pq.ParquetWriter(temporary, self._schema, compression="zstd")
        return self

    def append(
        self,
        vector: Shaped[np.ndarray, "d"],
        footprint: shapely.Geometry | None,
        values: Mapping[str, Any],
    ) -> None:
        """Add a row.

        Args:
            vector: as it is stored.
            footprint: in EPSG:4326; None without a place on Earth.
            values: of the further columns.
        """
        self._vectors.append(vector)
        self._rows.append({**values, "geometry": footprint})
        if len(self._rows) == _GROUP_ROWS:
            self._write()

    def _write(self) -> None:
        import pyarrow as pa

        if not self._rows:
            return
        footprints = [row["geometry"] for row in self._rows]
        boxes = shapely.bounds(np.array(footprints, dtype=object))
        flat = pa.array(np.concatenate(self._vectors), self._schema.field(NAME).type.value_type)
        arrays: dict[str, Any] = {
            NAME: pa.FixedSizeListArray.from_arrays(flat, len(self._vectors[0])),
            "geometry": [None if f is None else shapely.to_wkb(f) for f in footprints],
            "bbox": [
                None if f is None else dict(zip(_CORNERS, map(float, box), strict=True))
                for f, box in zip(footprints, boxes, strict=True)
            ],
        }
        for field in self._schema:
            if field.name not in arrays:
                arrays[field.name] = [row[field.name] for row in self._rows]
        columns = [pa.array(arrays[f.name], f.type) for f in self._schema]
        with writing(self._path):
            self._writer.write_table(pa.Table.from_arrays(columns, schema=self._schema))
        self._rows, self._vectors = [], []

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if kind is None:
                self._write()
                self._writer.add_key_value_metadata({"geodino": json.dumps(dict(self.record))})
        finally:
            self._writer.close()
            self._stack.__exit__(kind, error, trace)


_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def _schema(
    dim: int, dtype: np.dtype[Any], columns: Mapping[str, str], scales: Sequence[float] | None
) -> Any:
    import pyarrow as pa

    kinds = {"string": pa.string(), "double": pa.float64(), "int64": pa.int64()}
    described = None if scales is None else {"scale": json.dumps([float(s) for s in scales])}
    vector = pa.list_(pa.field("element", pa.from_numpy_dtype(dtype), nullable=False), dim)
    return pa.schema(
        [
            *(pa.field(name, kinds[kind]) for name, kind in columns.items()),
            pa.field(NAME, vector, metadata=described),
            pa.field("geometry", pa.binary()),
            pa.field("bbox", pa.struct([(corner, pa.float64()) for corner in _CORNERS])),
        ],
        metadata={"geo": json.dumps(_geo())},
    )


def _geo() -> dict[str, Any]:
    """Return the metadata GeoParquet 1.1 asks for; types and bounds of rows yet unknown stay open.

    Some readers look for it in the Arrow schema, which is written first.
    """
    from pyproj import CRS

    column: dict[str, Any] = {
        "encoding": "WKB",
        "geometry_types": [],
        "crs": CRS.from_epsg(4326).to_json_dict(),
        "edges": "planar",
        "covering": {"bbox": {corner: ["bbox", corner] for corner in _CORNERS}},
    }
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}
