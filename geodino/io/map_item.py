"""The STAC item of a prediction: what it shows, of which images, by which model."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from geodino.errors import RunError
from geodino.files import write_json
from geodino.geo.grid import Grid
from geodino.io.cog.layout import Layer
from geodino.io.item import (
    PROCESSING,
    PROJECTION,
    RASTER,
    TABLE,
    asset,
    feature,
    item_path,
    link,
    place_fields,
    time_fields,
    written_at,
)
from geodino.io.metadata import RasterInfo, describe_file, open_raster

EXTENSIONS = (PROJECTION, PROCESSING, RASTER)

_STATISTICS = {
    "minimum": "STATISTICS_MINIMUM",
    "maximum": "STATISTICS_MAXIMUM",
    "mean": "STATISTICS_MEAN",
    "stddev": "STATISTICS_STDDEV",
    "valid_percent": "STATISTICS_VALID_PERCENT",
}
"""Names of the raster extension, and GDAL's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MapProduct:
    """What the item says beside what the map's own tags say."""

    path: Path
    """The map, a GeoTIFF that is already written; the item lies beside it."""

    title: str
    """What it shows: ``Canopy height``."""

    model: str
    """Name of the model."""

    model_sha256: str
    """Hash of its weights."""

    model_item: Path | str
    """The item of the model, or its address where it has none."""

    model_license: str | None
    """Licence of the weights, as the model names it; None where it names none."""

    sources: tuple[str, ...]
    """Files the map was made of."""

    source_sha256: str
    """Hash of the pixels that were read."""

    times: tuple[str | None, ...]
    """Acquisition of each source, RFC 3339; None where unknown."""

    software: str
    """Version of the program."""

    command: str
    """What was asked."""

    chip_size: int
    """Side of a chip, pixels that the model sees."""

    overlap: int
    """Pixels that neighbouring chips share."""

    seam_score: float | None
    """How much the borders of chips show, see :mod:`geodino.infer.seams`; None without borders."""

    quicklook: Path | None = None
    """Its picture, PNG."""

    style: Path | None = None
    """Its style, QML."""

    more: dict[str, Any] = field(default_factory=dict)
    """Further properties by name, such as ``geodino:symmetries``."""


def write_map_item(
    product: MapProduct, *, stored: tuple[Grid, Layer] | None = None, now: datetime | None = None
) -> Path:
    """Write the item of a map; return where.

    Grid, stored type, nodata, unit, scale and statistics of the bands are read from the map, so
    that both say the same. Statistics are of stored values, as GDAL keeps them. Without any
    acquisition time ``datetime`` is null, see :func:`geodino.io.item.time_fields`.

    Args:
        product: what else is said.
        stored: where the map lies and what it stores, of one that is no GeoTIFF: nothing is read,
            and there are no statistics.
        now: when it is written.

    Raises:
        SourceError: the map cannot be read.
        RunError: ``more`` names a property twice, or the item cannot be written.
    """
    if stored is None:
        info = describe_file(product.path, palette=True)
        grid, bands = info.grid, _bands(info)
    else:
        grid, layer = stored
        bands = [_of_layer(grid, layer, number) for number in range(layer.count)]
    return _write(product, [grid], EXTENSIONS, {"raster:bands": bands}, now=now)


def write_table_item(
    product: MapProduct,
    grids: Sequence[Grid],
    *,
    columns: Mapping[str, str],
    rows: int,
    now: datetime | None = None,
) -> Path:
    """Write the item of a table of objects that were found in rasters; return where.

    Args:
        product: what is said.
        grids: of the rasters.
        columns: of the table, name to what it holds.
        rows: how many objects there are.
        now: when it is written.

    Raises:
        RunError: ``more`` names a property twice, or the item cannot be written.
    """
    told = [{"name": name, "description": what} for name, what in columns.items()]
    table = {
        "table:columns": told,
        "table:primary_geometry": "geometry",
        "table:row_count": rows,
    }
    return _write(product, grids, (PROJECTION, PROCESSING, TABLE), table, now=now)


def _write(
    product: MapProduct,
    grids: Sequence[Grid],
    extensions: Sequence[str],
    of_data: Mapping[str, Any],
    *,
    now: datetime | None,
) -> Path:
    """Write an item; ``of_data`` is said of the product's own file."""
    path = item_path(product.path)
    made = written_at(now)
    item = feature(product.path.stem, grids, extensions)
    properties: dict[str, Any] = {
        **time_fields(product.times, made),
        "created": made,
        **place_fields(grids),
        "processing:datetime": made,
        "processing:software": {"geodino": product.software},
        "geodino:command": product.command,
        "geodino:model": product.model,
        "geodino:model_sha256": product.model_sha256,
        "geodino:source_sha256": product.source_sha256,
        "geodino:chip_size": product.chip_size,
        "geodino:overlap": product.overlap,
    }
    if product.model_license is not None:
        properties["geodino:model_license"] = product.model_license
    if product.seam_score is not None:
        properties["geodino:seam_score"] = round(product.seam_score, 4)
    if twice := sorted(set(properties) & set(product.more)):
        raise RunError(f"{path}: {twice[0]!r} is said twice: give it another name in `more`.")
    item["properties"] = properties | product.more
    item["links"] = [
        link("geodino:model", product.model_item, path, "application/geo+json"),
        *(link("derived_from", source, path) for source in product.sources),
    ]
    data = asset(product.path, path, title=product.title, roles=["data"])
    item["assets"] = {"data": {**data, **of_data}}
    if product.quicklook is not None:
        item["assets"]["thumbnail"] = asset(
            product.quicklook, path, title="Picture with a legend", roles=["thumbnail"]
        )
    if product.style is not None:
        item["assets"]["style"] = asset(
            product.style, path, title="Style for QGIS", roles=["metadata"]
        )
    write_json(path, item)
    return path


def _bands(info: RasterInfo) -> list[dict[str, Any]]:
    with open_raster(info.path) as dataset:
        tags = [dataset.tags(number) for number in range(1, info.count + 1)]
    return [_band(info, index, of_band) for index, of_band in enumerate(tags)]


def _of_layer(grid: Grid, layer: Layer, index: int) -> dict[str, Any]:
    band: dict[str, Any] = {"data_type": layer.dtype, "name": layer.descriptions[index]}
    if layer.nodata is not None:
        band["nodata"] = _json_number(layer.nodata)
    if unit := layer.units[index]:
        band["unit"] = unit
    if layer.scales:
        band |= {"scale": layer.scales[index], "offset": layer.offsets[index]}
    if grid.gsd_m is not None:
        band["spatial_resolution"] = round(sum(grid.gsd_m) / 2, 4)
    return band


def _band(info: RasterInfo, index: int, tags: dict[str, str]) -> dict[str, Any]:
    band: dict[str, Any] = {"data_type": info.dtype}
    if name := info.descriptions[index]:
        band["name"] = name
    nodata = info.nodata[index]
    if nodata is not None:
        band["nodata"] = _json_number(nodata)
    if unit := info.units[index] if info.units else None:
        band["unit"] = unit
    if (info.scales[index], info.offsets[index]) != (1.0, 0.0):
        band |= {"scale": info.scales[index], "offset": info.offsets[index]}
    if info.grid.gsd_m is not None:
        band["spatial_resolution"] = round(sum(info.grid.gsd_m) / 2, 4)
    statistics = {name: float(tags[tag]) for name, tag in _STATISTICS.items() if tag in tags}
    if statistics:
        band["statistics"] = statistics
    return band


def _json_number(value: float) -> float | int | str:
    """Return a nodata value as the extension writes it: JSON has no word for NaN."""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return int(value) if value.is_integer() else value
