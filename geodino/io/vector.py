"""Vector files as tables of geometries."""

from pathlib import Path
from typing import Any

from geodino.errors import SourceError


def read_vector(path: str | Path, *, called: str, what: str) -> Any:
    """Return the rows of a vector file as a GeoDataFrame with a CRS.

    Args:
        path: GeoParquet, or any file of one layer that pyogrio opens.
        called: the file in messages.
        what: what it should be, for messages: ``a vector file``.

    Raises:
        SourceError: it cannot be read, holds no geometries or no CRS, or has several layers, of
            which nothing says which counts.
    """
    import geopandas
    import pyarrow as pa
    from pyogrio import list_layers
    from pyogrio.errors import DataLayerError, DataSourceError

    try:
        if Path(path).suffix.lower() in (".parquet", ".geoparquet"):
            frame = geopandas.read_parquet(path)
        else:
            # Tables without shapes lie beside a layer too: QGIS keeps its styles in one.
            layers = [str(name) for name, kind in list_layers(path) if kind is not None]
            if len(layers) > 1:
                raise SourceError(
                    f"{called} has {len(layers)} layers ({', '.join(layers)}): nothing says which "
                    f"one is meant. Write it to a file of its own (ogr2ogr one.gpkg {path} "
                    f"{layers[0]})."
                )
            frame = geopandas.read_file(path, layer=layers[0] if layers else None)
    except (DataSourceError, DataLayerError, ValueError, OSError, pa.ArrowException) as error:
        # What follows is advice on how to call GDAL or pandas.
        why = str(error).partition("\n")[0].partition(";")[0].rstrip(".")
        raise SourceError(f"{called} cannot be read as {what} ({why}).") from error
    if not isinstance(frame, geopandas.GeoDataFrame):
        raise SourceError(f"{called} is a table without geometries. Name {what}.")
    if frame.crs is None:
        raise SourceError(f"{called} has no CRS. Declare it in the file.")
    return frame
