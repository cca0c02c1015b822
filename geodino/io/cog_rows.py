"""Writing cloud-optimised GeoTIFFs from rows, with any number of bands.

GDAL's COG driver interleaves bands by pixel: with hundreds of bands one block of 512 x 512 pixels
is hundreds of megabytes, and a viewer that wants three bands decodes all of them. The GTiff
driver writes the same layout (directories first, then overviews, then full resolution) with each
band's blocks apart, which validators accept as well.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import rasterio
import rasterio.shutil
from jaxtyping import Bool, Shaped
from rasterio._err import CPLE_BaseError  # what copying and overviews raise; has no public name
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window as GdalWindow

from geodino import files
from geodino.errors import RunError
from geodino.geo.grid import Grid
from geodino.io.metadata import Point, cause
from geodino.io.whole import missing
from geodino.metrics.moments import Moments

BLOCK = 512
"""Side of a block; a smaller raster is one block of a multiple of 16, as TIFF asks for."""


class CogWriter:
    """A GeoTIFF that is written top to bottom, then rearranged and put in its place.

    Rows go into an uncompressed file beside the target; :meth:`finish` adds overviews (averages
    of valid pixels), compresses and renames. Leaving the context without it leaves no file.

    Args:
        path: the target.
        grid: CRS, transform and size.
        count: number of bands.
        dtype: ``float32``, ``int8`` or ``uint8``.
        nodata: value of pixels without data.
        area_or_point: what a pixel stands for, as in the source.
        colours: whether three bands are red, green and blue.
    """

    def __init__(
        self,
        path: Path,
        *,
        grid: Grid,
        count: int,
        dtype: str,
        nodata: float,
        area_or_point: Point = "Area",
        colours: bool = False,
    ) -> None:
        self._path = path
        self._rows = path.with_name(f".{path.name}.{os.getpid()}.rows.tif")
        self._colours = colours
        self._dtype = np.dtype(dtype)
        self._moments = Moments.empty(count)
        self._pixels = grid.width * grid.height
        # A block is stored whole: of a small map with a thousand bands most would be padding.
        self._block = min(BLOCK, -(-max(grid.width, grid.height) // 16) * 16)
        path.parent.mkdir(parents=True, exist_ok=True)
        with _writing(path):
            self._target = rasterio.open(
                self._rows,
                "w",
                driver="GTiff",
                crs=grid.crs,
                transform=grid.transform,
                width=grid.width,
                height=grid.height,
                count=count,
                dtype=dtype,
                nodata=nodata,
                interleave="band",
                photometric="RGB" if colours else "MINISBLACK",
                BIGTIFF="IF_SAFER",
                SPARSE_OK="TRUE",
            )
        self._target.update_tags(AREA_OR_POINT=area_or_point)

    def write(
        self,
        top: int,
        values: Shaped[np.ndarray, "c h w"],
        valid: Bool[np.ndarray, "h w"],
        *,
        left: int = 0,
    ) -> None:
        """Write some rows; those without a valid pixel cost nothing.

        Args:
            top: the first row.
            values: as they are stored, nodata included.
            valid: which pixels the statistics are of.
            left: the first column.
        """
        if not valid.any():
            return
        window = GdalWindow(left, top, values.shape[2], values.shape[1])
        with _writing(self._path):
            self._target.write(values, window=window)
        self._moments = self._moments.merge(Moments.of([band[valid] for band in values]))

    def finish(
        self,
        *,
        descriptions: Sequence[str],
        tags: Mapping[str, str],
        scales: Sequence[float] | None = None,
    ) -> None:
        """Describe the bands and put the file in its place.

        Args:
            descriptions: one per band.
            tags: of the file.
            scales: per band, ``value = stored * scale``; None where values are stored.
        """
        target = self._target
        factors = _overviews(target.height, target.width)
        for number, text in enumerate(descriptions, start=1):
            target.set_band_description(number, text)
            statistics = self._statistics(number - 1)
            if statistics:
                target.update_tags(number, **statistics)
        if scales is not None:
            target.scales, target.offsets = tuple(scales), (0.0,) * len(scales)
        if self._colours:
            target.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue]
        target.update_tags(**tags)
        with _writing(self._path):
            target.close()
            _refuse_cut_off(self._rows, self._path)
            if factors:
                with rasterio.open(self._rows, "r+") as rows:
                    rows.build_overviews(factors, Resampling.average)
            with files.replacing(self._path) as temporary:
                rasterio.shutil.copy(self._rows, temporary, driver="GTiff", **self._layout())
                _refuse_cut_off(temporary, self._path)
        self._rows.unlink()

    def _layout(self) -> dict[str, Any]:
        return {
            "COPY_SRC_OVERVIEWS": "YES",
            "TILED": "YES",
            "BLOCKXSIZE": str(self._block),
            "BLOCKYSIZE": str(self._block),
            "INTERLEAVE": "PIXEL" if self._colours else "BAND",
            "COMPRESS": "ZSTD",
            "PREDICTOR": "3" if self._dtype.kind == "f" else "2",
            "BIGTIFF": "IF_SAFER",
            "ZSTD_LEVEL": "1",  # features are near noise: higher levels gain 2 % for twice the time
            "SPARSE_OK": "TRUE",
            "NUM_THREADS": "2",
        }

    def _statistics(self, band: int) -> dict[str, str]:
        found = self._moments
        if found.count[band] == 0:
            return {}
        return {
            "STATISTICS_MINIMUM": f"{found.low[band]:.9g}",
            "STATISTICS_MAXIMUM": f"{found.high[band]:.9g}",
            "STATISTICS_MEAN": f"{found.mean[band]:.9g}",
            "STATISTICS_STDDEV": f"{found.std[band]:.9g}",
            "STATISTICS_VALID_PERCENT": f"{100 * found.count[band] / self._pixels:.4g}",
        }

    def __enter__(self) -> "CogWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._target.closed:
            self._target.close()
        self._rows.unlink(missing_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn the refusals of GDAL, which do not say why, into one clear sentence."""
    with files.writing(path):
        try:
            yield
        except (RasterioError, CPLE_BaseError) as error:
            free = shutil.disk_usage(path.parent).free / 2**20
            raise RunError(
                f"{path} could not be written: {cause(error)}; {free:,.0f} MiB are free on its "
                "disk. Free some space, or choose another --out."
            ) from error


def _refuse_cut_off(written: Path, path: Path) -> None:
    """GDAL does not tell when the last blocks of a file did not fit on the disk."""
    lack = missing(written)
    if lack:
        raise RunError(
            f"{path} could not be written: {lack}. Its disk may be full: free some space, or "
            "choose another --out."
        )


def _overviews(height: int, width: int) -> list[int]:
    """Return factors of 2, until a block holds the smallest overview."""
    factors: list[int] = []
    while max(height, width) / 2 ** len(factors) > BLOCK:
        factors.append(2 ** (len(factors) + 1))
    return factors
