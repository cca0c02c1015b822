"""Small rasters and scenes of several files that tests write and read back whole."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine

from geodino.data.config import DataConfig
from geodino.data.index import TileReader, build_index
from geodino.data.tiles import Part, Tile
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.metadata import RasterInfo
from geodino.io.raster import HandlePool

LEFT, TOP = 500_000.0, 5_400_000.0


def write(
    path,
    pixels,
    *,
    pixel_m=10.0,
    left=LEFT,
    top=TOP,
    crs="EPSG:32632",
    transform=None,
    scale=None,
    offset=None,
    unit=None,
    names=None,
    **profile,
) -> Path:
    """Write ``pixels`` [h, w] or [c, h, w] as a raster; ``.jp2`` without loss."""
    pixels = np.asarray(pixels)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    count, height, width = pixels.shape
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"driver": "GTiff"}
    if path.suffix == ".jp2":
        kind = {"driver": "JP2OpenJPEG", "quality": 100, "reversible": "YES"}
    if path.suffix == ".png":
        kind = {"driver": "PNG"}
    where = transform or Affine(pixel_m, 0, left, 0, -pixel_m, top)
    with rasterio.open(
        path,
        "w",
        count=count,
        height=height,
        width=width,
        dtype=pixels.dtype,
        crs=crs,
        transform=where,
        **(kind | profile),
    ) as out:
        out.write(pixels)
        if scale is not None:
            out.scales = (scale,) * count
        if offset is not None:
            out.offsets = (offset,) * count
        if unit is not None:
            out.units = (unit,) * count
        if names is not None:
            out.descriptions = names
    return path


def numbers(height=8, width=8, *, start=1, dtype="uint16"):
    """Pixels [h, w] that count up from ``start``: each has its own value."""
    return (np.arange(height * width) + start).reshape(height, width).astype(dtype)


def index_of(src, **declared):
    """Index a source with what ``data.*`` declares."""
    return build_index(src, DataConfig(**declared), threads=2)


def read_all(index, tile=0, **how):
    """All pixels [c, h, w] of a tile and their validity [h, w], as training reads them."""
    window = Window(0, 0, index.tiles[tile].height, index.tiles[tile].width)
    with HandlePool() as pool:
        return TileReader(index, pool, **how)(tile, window)


def band_names(index):
    return [band.name for band in index.bands]


def bare_tile(
    name="t", *, left=LEFT, top=TOP, crs="EPSG:32632", side=100, pixel_m=10.0, when=None
) -> Tile:
    """A square tile of which no file exists; without a ``crs`` it has no place."""
    transform = Affine(pixel_m, 0, left, 0, -pixel_m, top) if crs else Affine.identity()
    grid = Grid(crs, transform, side, side)
    info = RasterInfo(
        path=name,
        driver="GTiff",
        grid=grid,
        count=1,
        dtype="uint8",
        nodata=(None,),
        colors=("gray",),
        descriptions=(None,),
        scales=(1.0,),
        offsets=(0.0,),
        mask="none",
        block=(64, 64),
        size=1000,
        mtime_ns=1,
        datetime=when,
        datetime_from=when and "tag",
    )
    return Tile(path=name, grid=grid, parts=(Part(info, (1,)),), gsd_m=grid.gsd_m, datetime=when)
