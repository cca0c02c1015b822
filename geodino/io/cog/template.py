"""Tags that GDAL writes better than we could: asked of it with a map of one block."""

import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from affine import Affine
from rasterio.enums import ColorInterp
from rasterio.errors import NotGeoreferencedWarning
from rasterio.io import DatasetWriter, MemoryFile

from geodino.geo.grid import Grid
from geodino.io.cog.layout import Layer
from geodino.io.metadata import Point
from geodino.metrics.moments import Moments

TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 16: 8}
"""Bytes of the field types of TIFF 6.0; 16 is BigTIFF's unsigned 64-bit integer."""

_SIDE = 16
_METADATA, _ASCII = 42112, 2
_EMPTY = b"<GDALMetadata>\n</GDALMetadata>\n\0"


@dataclass(frozen=True, slots=True)
class Field:
    """One entry of a TIFF directory."""

    tag: int
    kind: int
    count: int
    data: bytes


def described(
    layer: Layer,
    grid: Grid,
    *,
    tags: Mapping[str, str],
    area_or_point: Point,
    moments: Moments | None,
) -> list[Field]:
    """Return the fields that say what a raster is, as GDAL encodes them.

    Size and place of the pixels in the file are among them too, those of the one block.
    """
    options = {
        "driver": "GTiff",
        "width": _SIDE,
        "height": _SIDE,
        "count": layer.count,
        "dtype": layer.dtype,
        "nodata": layer.nodata,
        "crs": grid.crs,
        "interleave": layer.interleave,
        "tiled": True,
        "blockxsize": _SIDE,
        "blockysize": _SIDE,
        "compress": layer.compression,
        "predictor": layer.predictor,
        "photometric": "RGB" if layer.colours else "MINISBLACK",
        "SPARSE_OK": "TRUE",
        "BIGTIFF": "NO",
        "ENDIANNESS": "LITTLE",
    }
    if grid.transform != Affine.identity():
        options["transform"] = grid.transform
    with MemoryFile() as memory:
        with warnings.catch_warnings():
            # A map without a place is a legal one; its source was reported already.
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with memory.open(**options) as target:
                _describe(target, layer, area_or_point, moments, grid.width * grid.height)
                target.update_tags(**tags)
        fields = _fields(bytes(memory.read()))
    if grid.crs is None and area_or_point == "Point":
        return _with_point(fields)
    return fields


def _describe(
    target: DatasetWriter,
    layer: Layer,
    area_or_point: Point,
    moments: Moments | None,
    pixels: int,
) -> None:
    if target.crs is not None:
        target.update_tags(AREA_OR_POINT=area_or_point)
    for number, text in enumerate(layer.descriptions, start=1):
        target.set_band_description(number, text)
    for number, unit in enumerate(layer.units, start=1):
        target.set_band_unit(number, unit)
    if layer.scales or layer.offsets:
        target.scales = layer.scales or (1.0,) * layer.count
        target.offsets = layer.offsets or (0.0,) * layer.count
    if layer.colour_table:
        target.write_colormap(1, dict(layer.colour_table))
    if layer.colours:
        target.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
    if moments is None:
        return
    for band in range(layer.count):
        if moments.count[band]:
            target.update_tags(
                band + 1,
                STATISTICS_MINIMUM=f"{moments.low[band]:.9g}",
                STATISTICS_MAXIMUM=f"{moments.high[band]:.9g}",
                STATISTICS_MEAN=f"{moments.mean[band]:.9g}",
                STATISTICS_STDDEV=f"{moments.std[band]:.9g}",
                STATISTICS_VALID_PERCENT=f"{100 * moments.count[band] / pixels:.4g}",
            )


def _with_point(fields: list[Field]) -> list[Field]:
    """Say in GDAL's metadata that pixels are points.

    Georeference keys, where it is said otherwise, would make up a CRS for a map that has none.
    """
    text = next((f.data for f in fields if f.tag == _METADATA), _EMPTY)
    item = b'  <Item name="AREA_OR_POINT">Point</Item>\n</GDALMetadata>'
    data = text.replace(b"</GDALMetadata>", item)
    kept = [field for field in fields if field.tag != _METADATA]
    return [*kept, Field(_METADATA, _ASCII, len(data), data)]


def _fields(content: bytes) -> list[Field]:
    """Parse the first directory of a little-endian classic TIFF."""
    (first,) = struct.unpack_from("<I", content, 4)
    (entries,) = struct.unpack_from("<H", content, first)
    found = []
    for number in range(entries):
        at = first + 2 + 12 * number
        tag, kind, count = struct.unpack_from("<HHI", content, at)
        length = TYPE_BYTES[kind] * count
        start = at + 8 if length <= 4 else struct.unpack_from("<I", content, at + 8)[0]
        found.append(Field(tag, kind, count, content[start : start + length]))
    return found
