"""Generated scenes as GeoTIFFs, with every way in which real files mark what is missing."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
from affine import Affine
from jaxtyping import Bool, Shaped
from rasterio.enums import ColorInterp

from geodino.files import replacing
from geodino.world.noise import Frame
from geodino.world.scene import Scene

Missing = Literal["nodata", "mask", "alpha", "unmarked"]
"""How a file says which pixels are missing: the nodata tag, a mask inside of the file, an alpha
band, or not at all."""

_COLORS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}
_BLOCK = 256
_OVERPASS = "10:30:00"
"""Time of day written beside the date; the world only knows days."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Placement:
    """Where on the Earth the origin of a generated world lies."""

    crs: str = "EPSG:32632"
    """A projected coordinate system in metres."""

    east_m: float = 430_020.0
    """Easting of the world's origin."""

    north_m: float = 5_850_000.0
    """Northing of the world's origin; its rows go south."""

    def transform(self, frame: Frame) -> Affine:
        """Return the way from (column, row) of a frame's pixel corners to coordinates."""
        # Products such as 7 * 0.6 end in a row of nines; a micrometre is enough.
        west = round(self.east_m + frame.left * frame.gsd_m, 6)
        north = round(self.north_m - frame.top * frame.gsd_m, 6)
        return Affine(frame.gsd_m, 0.0, west, 0.0, -frame.gsd_m, north)


HOME = Placement()
"""In Sentinel-2's tile 32UMD, in the north-west of Germany, on a multiple of 60 m."""


def write_geotiff(
    path: Path,
    scene: Scene,
    placement: Placement = HOME,
    *,
    missing: Missing = "nodata",
    nodata: float | None = None,
) -> Path:
    """Write a scene as a tiled GeoTIFF with band names, scale, offset and date.

    Args:
        path: the file; whole or absent.
        scene: its pixels are written as they are stored.
        placement: where it lies.
        missing: how pixels that are not valid are marked.
        nodata: value of the tag for ``nodata``; None takes the sensor's, and none without one.
    """
    bands = scene.sensor.bands
    tag = (nodata if nodata is not None else scene.sensor.nodata) if missing == "nodata" else None
    colors = [_COLORS.get(band.common_name or "", ColorInterp.undefined) for band in bands]
    if ColorInterp.red not in colors:
        colors[0] = ColorInterp.gray
    layers: Shaped[np.ndarray, "c h w"] = scene.pixels
    names: list[str] = [band.name for band in bands]
    if missing == "alpha":
        most = np.iinfo(scene.pixels.dtype).max
        layers = np.concatenate([layers, (scene.valid * most).astype(layers.dtype)[None]])
        colors, names = [*colors, ColorInterp.alpha], [*names, "alpha"]
    with (
        replacing(path) as temporary,
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        _create(temporary, layers, placement, scene.frame, nodata=tag) as target,
    ):
        target.colorinterp = colors
        target.write(layers)
        for number, name in enumerate(names, start=1):
            target.set_band_description(number, name)
        if missing != "alpha" and any((band.scale, band.offset) != (1, 0) for band in bands):
            target.scales = [band.scale for band in bands]
            target.offsets = [band.offset for band in bands]
        if missing == "mask":
            target.write_mask(scene.valid)
        day = f"{scene.date:%Y:%m:%d}"
        target.update_tags(TIFFTAG_DATETIME=f"{day} {_OVERPASS}", SENSOR=scene.sensor.name)
    return path


def write_layer(
    path: Path,
    layer: Shaped[np.ndarray, "h w"],
    scene: Scene,
    placement: Placement = HOME,
    *,
    name: str,
    nodata: float | None = None,
    unit: str | None = None,
    where: Bool[np.ndarray, "h w"] | None = None,
) -> Path:
    """Write one layer on the grid of a scene.

    Args:
        path: the file; whole or absent.
        layer: the values.
        scene: whose grid it is.
        placement: where it lies.
        name: description of the band.
        nodata: value of the nodata tag.
        unit: unit of the band.
        where: True where values are valid; ``nodata`` is stored elsewhere.
    """
    if where is not None and nodata is not None:
        layer = np.where(where, layer, layer.dtype.type(nodata))
    with (
        replacing(path) as temporary,
        _create(temporary, layer[None], placement, scene.frame, nodata=nodata) as target,
    ):
        target.write(layer, 1)
        target.set_band_description(1, name)
        if unit:
            target.units = (unit,)
    return path


def _create(
    path: Path,
    layers: Shaped[np.ndarray, "c h w"],
    placement: Placement,
    frame: Frame,
    *,
    nodata: float | None,
) -> Any:
    count, height, width = layers.shape
    return rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=width,
        height=height,
        count=count,
        dtype=layers.dtype,
        crs=placement.crs,
        transform=placement.transform(frame),
        nodata=nodata,
        tiled=True,
        blockxsize=_BLOCK,
        blockysize=_BLOCK,
        compress="zstd",
        interleave="band" if count > 4 else "pixel",
    )
