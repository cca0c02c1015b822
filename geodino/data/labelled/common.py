"""What the readers of labelled sets share: windows, digests of files, rasters, places."""

from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8
from numpy.typing import NDArray
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from geodino.data.labelled.sets import IGNORED, Image, PartName
from geodino.errors import SourceError
from geodino.geo.bands import Band, CommonName, Unit
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool, describe, read

_EDGE_BYTES = 1 << 15

HDF5_DAMAGE = (OSError, RuntimeError, KeyError, OverflowError, TypeError)
"""What h5py raises, by which of its structures is damaged; a flipped bit can lead to each."""

T = TypeVar("T", bound=NDArray[Any])


def cut(array: T, window: Window | None) -> T:
    """Return the window of an array ``[..., h, w]``, or all of it.

    Raises:
        ValueError: the window reaches out of the array.
    """
    if window is None:
        return array
    height, width = array.shape[-2:]
    if not Window(0, 0, height, width).contains(window):
        raise ValueError(f"{window} reaches out of an image of {height} x {width} pixels")
    rows, columns = window.slices
    return array[..., rows, columns]  # type: ignore[return-value]


def listed(folder: Path, *suffixes: str) -> list[Path]:
    """Return the files of a folder with one of some endings (``.png``, in any case), in order.

    Hidden ones are left out: archives packed on a Mac hold one, ``._NAME``, beside each file.
    """
    if not folder.is_dir():
        return []
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and not path.name.startswith(".")
    )


def usable(pixels: Shaped[np.ndarray, "c h w"]) -> Image:
    """Return pixels and where they are finite."""
    if pixels.dtype.kind == "f":
        return pixels, np.isfinite(pixels)
    return pixels, np.broadcast_to(True, pixels.shape)


def digest(files: Iterable[Path], parts: Mapping[PartName, Sequence[str]], *, root: Path) -> str:
    """Return a hash of files and of which key is in which part.

    Of each file its name below ``root``, its size, and its first and last 32 KiB enter: sets of
    many gigabytes would otherwise take minutes.
    """
    made = blake2b(digest_size=16)
    for path in sorted(set(files)):
        made.update(path.relative_to(root).as_posix().encode() + b"\0")
        try:
            size = path.stat().st_size
            made.update(size.to_bytes(8, "little"))
            with path.open("rb") as handle:
                made.update(handle.read(_EDGE_BYTES))
                if size > _EDGE_BYTES:
                    handle.seek(max(_EDGE_BYTES, size - _EDGE_BYTES))
                    made.update(handle.read(_EDGE_BYTES))
        except OSError as error:
            raise SourceError(
                f"{path} cannot be read ({error.strerror}). Restore it, or name another set."
            ) from error
    for name in sorted(parts):
        made.update(b"\1" + name.encode())
        for key in parts[name]:
            made.update(b"\0" + key.encode())
    return made.hexdigest()


def read_file(path: str | Path, window: Window | None, rule: ReadRule) -> Image:
    """Read a raster or a window of it; see :func:`geodino.io.raster.read`."""
    with HandlePool(max_open=1) as pool:
        return read(pool, path, window, rule=rule)


def check_dtype(path: Path, pixels: Shaped[np.ndarray, "c h w"], dtype: str) -> None:
    """Refuse an image that stores other numbers than its set: the same value means another thing.

    Raises:
        SourceError: its type is not the set's.
    """
    if str(pixels.dtype) != dtype:
        raise SourceError(
            f"{path} stores {pixels.dtype} values, but other images of the set {dtype}. Bring all to "
            "one type, or leave the image out."
        )


def outline_of(path: str | Path) -> tuple[float, float, float, float] | None:
    """Return west, south, east, north of a raster in degrees; None where it has no place."""
    grid = describe(path).grid
    if grid.crs is None:
        return None
    bounds = array_bounds(grid.height, grid.width, grid.transform)
    west, south, east, north = transform_bounds(grid.crs, "EPSG:4326", *bounds)
    return west, south, east, north


def class_map(
    values: Shaped[np.ndarray, "h w"],
    *,
    classes: int,
    source: str,
    ignore: Sequence[int] = (),
    valid: Bool[np.ndarray, "h w"] | None = None,
) -> UInt8[np.ndarray, "h w"]:
    """Return stored values as a map of classes, ``IGNORED`` where they do not count.

    Args:
        values: numbers of classes.
        classes: how many there are.
        source: the file, for the message.
        ignore: values that do not count; ``IGNORED`` is always one of them.
        valid: where the values may be used; None = everywhere.

    Raises:
        SourceError: a value that is none of the classes.
    """
    gone = np.isin(values, [*ignore, IGNORED])
    if valid is not None:
        gone |= ~valid
    if values.dtype.kind == "f":
        gone |= ~np.isfinite(values)
    kept = values[~gone]
    wrong = kept[(kept < 0) | (kept >= classes) | (kept != np.floor(kept))]
    if len(wrong):
        raise SourceError(
            f"{source} holds the label {wrong[0]:g}, but the classes are numbered 0 to "
            f"{classes - 1}. Declare the value as ignored, or mend the file."
        )
    return np.where(gone, IGNORED, np.where(gone, 0, values)).astype(np.uint8)


def number_map(
    values: Shaped[np.ndarray, "h w"],
    *,
    ignore: Sequence[float] = (),
    valid: Bool[np.ndarray, "h w"] | None = None,
) -> Float[np.ndarray, "h w"]:
    """Return stored values as float32 numbers, NaN where unknown."""
    gone = np.isin(values, list(ignore))
    if valid is not None:
        gone |= ~valid
    made: Float[np.ndarray, "h w"] = values.astype(np.float32)
    made[gone | ~np.isfinite(made)] = np.nan
    return made


def band(
    name: str,
    common: CommonName | None = None,
    wavelength_nm: float | None = None,
    *,
    unit: Unit = "unknown",
    scale: float = 1.0,
) -> Band:
    """Make a band in a line."""
    return Band(name=name, common_name=common, wavelength_nm=wavelength_nm, unit=unit, scale=scale)


_SENTINEL_2: Mapping[str, tuple[CommonName, float]] = {
    "B01": ("coastal", 443.0), "B02": ("blue", 490.0), "B03": ("green", 560.0),
    "B04": ("red", 665.0), "B05": ("rededge071", 705.0), "B06": ("rededge075", 740.0),
    "B07": ("rededge078", 783.0), "B08": ("nir", 842.0), "B8A": ("nir08", 865.0),
    "B09": ("nir09", 945.0), "B10": ("cirrus", 1375.0), "B11": ("swir16", 1610.0),
    "B12": ("swir22", 2190.0),
}  # fmt: skip


def sentinel_2(code: str, *, name: str | None = None, scale: float = 1e-4) -> Band:
    """Return a Sentinel-2 band by its code (``B04``); ``scale`` leads to reflectance."""
    common, wavelength = _SENTINEL_2[code]
    return band(name or code, common, wavelength, unit="reflectance", scale=scale)


def is_sentinel_2(code: str) -> bool:
    """Whether a code names a Sentinel-2 band."""
    return code in _SENTINEL_2


def season(month: int, latitude: float | None = None) -> str:
    """Return the season of a month on the side of the equator where the place lies."""
    names = ("winter", "spring", "summer", "autumn")
    shift = 2 if latitude is not None and latitude < 0 else 0
    return names[((month % 12) // 3 + shift) % 4]
