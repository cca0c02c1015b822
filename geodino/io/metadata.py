"""What the metadata of a raster says, and whether the file can be used at all."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import rasterio
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioError

from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.geo.validity import ReadRule
from geodino.io.image_key import find_image
from geodino.io.image_key import stamp as image_stamp
from geodino.io.remote import (
    RemoteError,
    Told,
    far_options,
    forget,
    is_far,
    patiently,
    refusal,
    told_of,
)
from geodino.io.whole import missing
from geodino.io.zarr.key import stamp

MaskKind = Literal["none", "shared", "per_band", "nodata_values"]
"""Mask beside the pixels: none; one for all bands (in the file or in ``.msk``); one for each
band; or GDAL's NODATA_VALUES, which marks a pixel where all bands hold their value."""

Point = Literal["Area", "Point"]
"""What GDAL's AREA_OR_POINT says a pixel stands for."""

_OPTIONS = {
    # Sidecars (.msk, .aux.xml) are looked for by name: listing a folder of a million tiles for
    # each of them costs more than opening it.
    "GDAL_DISABLE_READDIR_ON_OPEN": "TRUE",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RasterInfo:
    """Everything the metadata of one raster says; no pixel was read."""

    path: str
    """The file, as it was named; in a zarr store ``STORE#ARRAYS@INDEX``; of a photograph
    ``image:FILE``."""

    driver: str
    """GDAL's name of the format; ``Zarr`` for a raster of a zarr store, ``image`` for a photograph."""

    grid: Grid
    """CRS, transform and size."""

    count: int
    """Bands in the file, alpha included."""

    dtype: str
    """Stored type, as numpy names it."""

    nodata: tuple[float | None, ...]
    """Nodata tag of each band."""

    colors: tuple[str, ...]
    """GDAL's colour interpretation of each band (``red``, ``gray``, ``alpha``, ``undefined``)."""

    descriptions: tuple[str | None, ...]
    """Description of each band."""

    scales: tuple[float, ...]
    """``value = stored * scale + offset``, per band."""

    offsets: tuple[float, ...]
    """See ``scales``."""

    mask: MaskKind
    """Mask beside the pixels; nodata tags and alpha bands are told by their own fields."""

    block: tuple[int, int]
    """Rows and columns of a stored block."""

    size: int
    """Bytes; 0 where that is not known (files in archives, servers that do not tell). Of a zarr
    store: of its metadata."""

    mtime_ns: int
    """Time of the last change, nanoseconds since 1970; 0 where not known."""

    datetime: str | None
    """ISO 8601 time, if the metadata has one."""

    datetime_from: str | None
    """Where the time came from; a ``tiff tag`` is often the time of writing, not acquisition."""

    units: tuple[str | None, ...] = ()
    """Unit of each band as the file words it; empty where the format knows none."""

    version: str = ""
    """What a server calls this state of the file (its ETag); empty for local files."""

    @property
    def alpha(self) -> int | None:
        """Number of the band tagged alpha; None without one, or where it is the only band."""
        return alpha_band(self.colors)

    def data_bands(self, rule: ReadRule) -> tuple[int, ...]:
        """Numbers of the bands that hold data: all but an alpha band that is believed."""
        masked = self.alpha if rule.alpha == "mask" else None
        return tuple(i for i in range(1, self.count + 1) if i != masked)


def describe_file(path: str | Path, *, palette: bool = False) -> RasterInfo:
    """Read the metadata of a raster file and check that the file is complete.

    Of a far file the server is asked for size and version; that its last block lies within the
    size is all that is checked.

    Args:
        path: the file.
        palette: whether it may store palette numbers: a map of classes does.

    Raises:
        SourceError: in one sentence, why the file cannot be used: missing, empty, cut off, not a
            raster, palette colours, complex values, bands of several types, or what its server
            answers.
    """
    name = str(path)
    known = _state_of(name)
    dataset = patiently(lambda: open_raster(name)) if is_far(name) else open_raster(name)
    with dataset:
        _refuse_unusable(name, dataset, palette=palette)
        if is_far(name):
            _refuse_cut(name, dataset, known.size)
        when, source = _datetime(dataset)
        return RasterInfo(
            path=name,
            driver=dataset.driver,
            grid=_grid(dataset),
            count=dataset.count,
            dtype=dataset.dtypes[0],
            nodata=tuple(dataset.nodatavals),
            colors=tuple(color.name for color in dataset.colorinterp),
            descriptions=tuple(dataset.descriptions),
            scales=tuple(float(v) for v in dataset.scales),
            offsets=tuple(float(v) for v in dataset.offsets),
            mask=mask_kind(dataset),
            block=tuple(dataset.block_shapes[0]),
            size=known.size,
            mtime_ns=known.mtime_ns,
            version=known.version,
            datetime=when,
            datetime_from=source,
            units=tuple(dataset.units),
        )


def is_unchanged(info: RasterInfo) -> bool:
    """Whether a file is still the one that was described; False where that cannot be told."""
    if info.driver == "Zarr":
        return info.mtime_ns > 0 and stamp(info.path) == (info.size, info.mtime_ns)
    image = find_image(info.path)
    if image is not None:
        try:
            return image_stamp(image) == (info.size, info.mtime_ns)
        except OSError:
            return False
    now = Told(info.size, info.mtime_ns, info.version)
    if now == Told(size=info.size):
        return False
    try:
        is_same = _state_of(info.path, whole=False) == now
    except SourceError:
        return False
    if not is_same and is_far(info.path):
        forget(info.path)
    return is_same


def _state_of(name: str, *, whole: bool = True) -> Told:
    """Return size and time of a file, and check that a local one is ``whole``."""
    if is_far(name):
        return told_of(name)
    local = Path(name)
    try:
        stat = local.stat() if local.is_file() else None
        lack = missing(local) if stat and whole else None
    except OSError as error:
        raise SourceError(
            f"{name} cannot be read: {error.strerror}. Mend its permissions, or remove it."
        ) from error
    if lack:
        raise SourceError(f"{name} cannot be read: {lack}. Copy it again, or remove it.")
    return Told(stat.st_size, stat.st_mtime_ns) if stat else Told()


def alpha_band(colors: Sequence[str]) -> int | None:
    """Return the number of the band tagged alpha; None without one, or where it is alone."""
    tagged = [i for i, color in enumerate(colors, start=1) if color == "alpha"]
    return tagged[-1] if tagged and len(colors) > 1 else None


def mask_kind(dataset: Any) -> MaskKind:
    """Tell which mask GDAL keeps beside the pixels of an open dataset."""
    flags = dataset.mask_flag_enums
    if any(not band for band in flags):
        return "per_band"
    first = set(flags[0])
    if MaskFlags.per_dataset not in first or MaskFlags.alpha in first:
        return "none"
    return "nodata_values" if MaskFlags.nodata in first else "shared"


def open_raster(name: str) -> Any:
    """Open a dataset of this thread's own.

    Raises:
        SourceError: the file vanished, its server does not hand it out, or GDAL cannot read it.
    """
    if is_far(name):
        try:
            return _open_far(name, far_options())
        except RemoteError as error:
            if not error.is_about_us:
                raise
            # Some servers refuse strangers' HEAD but not their GET, as signed addresses do.
            return _open_far(name, far_options() | {"CPL_VSIL_CURL_USE_HEAD": "NO"})
    try:
        with rasterio.Env(**_OPTIONS):
            return rasterio.open(name, sharing=False)
    except RasterioError as error:
        if "://" not in name and not name.startswith("/vsi") and not Path(name).exists():
            raise SourceError(
                f"{name} does not exist (any more). Restore it, or build the index again."
            ) from error
        raise SourceError(
            f"{name} cannot be read as a raster: {cause(error)}. Remove it, or name only rasters."
        ) from error


def _open_far(name: str, options: Mapping[str, str]) -> Any:
    try:
        with rasterio.Env(**options):
            return rasterio.open(name, sharing=False)
    except RasterioError as error:
        forget(name)
        raise refusal(name, cause(error)) from error


def _refuse_unusable(name: str, dataset: Any, *, palette: bool) -> None:
    if dataset.count == 0:
        raise SourceError(
            f"{name} has no bands of its own ({len(dataset.subdatasets)} sub-datasets). "
            "Name one of them, or convert it to GeoTIFF."
        )
    if len(set(dataset.dtypes)) > 1:
        raise SourceError(
            f"{name} has bands of several types ({', '.join(sorted(set(dataset.dtypes)))}). "
            "Convert it to one type."
        )
    if dataset.dtypes[0].startswith("complex"):
        raise SourceError(
            f"{name} stores complex values ({dataset.dtypes[0]}). Convert it to amplitude or dB."
        )
    if dataset.colorinterp[0] is ColorInterp.palette and not palette:
        raise SourceError(
            f"{name} stores palette numbers, not intensities. Convert it with "
            "`gdal_translate -expand rgb`, if it is an image."
        )


def _refuse_cut(name: str, dataset: Any, size: int) -> None:
    """Refuse a TIFF on a server that ends before its last block: a copy that broke off."""
    rows, columns = dataset.block_shapes[0]
    place = f"{(dataset.width - 1) // columns}_{(dataset.height - 1) // rows}"
    tags = (
        dataset.get_tag_item(f"BLOCK_{what}_{place}", "TIFF", bidx=dataset.count)
        for what in ("OFFSET", "SIZE")
    )
    end = sum(int(tag) for tag in tags if tag)
    if size and end > size:
        raise SourceError(
            f"{name} cannot be read: it is cut off: its last block ends at byte {end:,}, the "
            f"server has {size:,}. Upload it again, or leave it out."
        )


def _grid(dataset: Any) -> Grid:
    wkt = dataset.crs.to_wkt() if dataset.crs else None
    return Grid(
        crs=crs_name(wkt) if wkt else None,
        transform=dataset.transform,
        width=dataset.width,
        height=dataset.height,
    )


@lru_cache(maxsize=512)
def crs_name(wkt: str) -> str:
    """Return ``EPSG:32618`` where the CRS has such a name, else its WKT; the search is slow."""
    authority = rasterio.CRS.from_wkt(wkt).to_authority()
    return ":".join(authority) if authority else wkt


_DATES = (
    # (metadata domain, key, where it came from)
    ("IMAGERY", "ACQUISITIONDATETIME", "imagery metadata"),
    (None, "EXIF_DateTimeOriginal", "exif"),
    (None, "TIFFTAG_DATETIME", "tiff tag"),
)


def _datetime(dataset: Any) -> tuple[str | None, str | None]:
    for domain, key, source in _DATES:
        tags = dataset.tags(ns=domain) if domain else dataset.tags()
        when = _iso(tags.get(key, ""))
        if when is not None:
            return when, source
    return None, None


def _iso(text: str) -> str | None:
    """Return ISO 8601 for ``2020:07:01 10:20:30`` or an ISO time; None for anything else."""
    if text[4:5] == ":":
        text = text[:10].replace(":", "-") + text[10:]
    try:
        return datetime.fromisoformat(text).isoformat()
    except ValueError:
        return None


def cause(error: Exception) -> str:
    """Return GDAL's own words, from the deepest exception that has some."""
    deepest: BaseException = error
    while deepest.__cause__ is not None:
        deepest = deepest.__cause__
    return str(deepest).strip().rstrip(".") or type(error).__name__


def area_or_point(path: str) -> Point:
    """Return what a pixel of a raster stands for, as its tag says; ``Area`` without one."""
    with open_raster(path) as dataset:
        return "Point" if dataset.tags().get("AREA_OR_POINT") == "Point" else "Area"
