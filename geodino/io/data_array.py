"""xarray's side: an array of pixels as something to read, and a map of features as an array."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float, Shaped

from geodino.errors import BandError, SourceError, suggest
from geodino.geo.bands import Band, common_name
from geodino.geo.grid import Grid
from geodino.geo.validity import Combine, combine
from geodino.geo.windows import Window

if TYPE_CHECKING:
    import xarray

_ReadWindow = Callable[[Window], tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]]


@dataclass(frozen=True, kw_only=True, slots=True)
class ArrayRaster:
    """A DataArray as a raster."""

    name: str
    grid: Grid
    bands: tuple[Band, ...]
    dtype: str
    """Type the values were stored in: that of the file, where they are still its values."""

    read: _ReadWindow
    """Values and which of them may be used; only the window asked for is loaded."""


def open_array(
    array: "xarray.DataArray",
    *,
    valid: Combine = "all",
    fill: Sequence[float] = (),
    choose: Sequence[str | int] | None = None,
) -> ArrayRaster:
    """Describe a DataArray of dimensions (band, y, x) or (y, x) without loading it.

    Its place is what rioxarray finds; bands are named by its ``band`` coordinate or its
    ``long_name``. Pixels are valid where they are finite and are not ``rio.nodata``.

    Args:
        array: the pixels.
        valid: whether a pixel needs all of its bands, or any, to be valid.
        fill: for ``any``, what stands in the invalid bands of a valid pixel, per band chosen.
        choose: bands to read, in this order: names, or numbers (the first is 1); None reads all.

    Raises:
        SourceError: it is no DataArray, its dimensions are those of no image, it has no pixel, or
            its rows or columns are not evenly spaced.
        BandError: a chosen band is not there.
    """
    import rioxarray  # noqa: F401  (registers .rio)
    import xarray

    if not isinstance(array, xarray.DataArray):
        raise SourceError(
            f"Found {type(array).__name__}, expected a path or an xarray.DataArray (band, y, x): "
            "dataset.to_dataarray('band') makes one of a Dataset, xarray.DataArray(values, "
            "dims=('band', 'y', 'x')) of an array without a place."
        )
    name = "the array" if array.name is None else f"the array {array.name!r}"
    image = _as_image(array, name)
    transform = _transform(image)
    _refuse_uneven(image, transform, name)
    height, width = image.shape[1:]
    crs = image.rio.crs
    every = _bands(image)
    places = range(len(every)) if choose is None else [_place(b, every, name) for b in choose]
    authority = None if crs is None else crs.to_authority()
    nodata = image.rio.nodata

    def read(
        window: Window,
    ) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        pixels = np.asarray(image[(list(places), *window.slices)].values)
        usable = np.isfinite(pixels)
        if nodata is not None and np.isfinite(nodata):
            usable &= pixels != nodata
        if valid == "any":
            values = np.asarray(fill, dtype=np.float64)[:, None, None]
            if pixels.dtype.kind in "iu":
                values = np.rint(values)
            pixels = np.where(usable, pixels, values.astype(pixels.dtype))
        return pixels, combine(usable, valid)

    return ArrayRaster(
        name=name,
        grid=Grid(
            None if crs is None else (":".join(authority) if authority else crs.to_wkt()),
            transform,
            width=width,
            height=height,
        ),
        bands=tuple(every[i] for i in places),
        dtype=_stored_type(image),
        read=read,
    )


def feature_array(
    values: Float[np.ndarray, "d h w"], grid: Grid, *, attributes: Mapping[str, Any]
) -> "xarray.DataArray":
    """Return features as a DataArray ``embedding (band, y, x)`` that knows where it lies."""
    return map_array(
        values, grid, name="embedding", bands=np.arange(len(values)), attributes=attributes
    )


def map_array(
    values: Shaped[np.ndarray, "k h w"],
    grid: Grid,
    *,
    name: str,
    bands: Sequence[Any] | np.ndarray,
    attributes: Mapping[str, Any],
    nodata: float = float("nan"),
) -> "xarray.DataArray":
    """Return a map as a DataArray (band, y, x) that knows where it lies.

    Args:
        values: the map.
        grid: where its pixels lie.
        name: of the array.
        bands: coordinate of the bands: numbers or names.
        attributes: of the array.
        nodata: what it holds where there are no data.
    """
    import rioxarray  # noqa: F401  (registers .rio)
    import xarray

    t = grid.transform
    coordinates: dict[str, Any] = {"band": bands}
    if not (t.b or t.d):
        coordinates["x"] = t.c + t.a * (np.arange(grid.width) + 0.5)
        coordinates["y"] = t.f + t.e * (np.arange(grid.height) + 0.5)
    array = xarray.DataArray(
        values, dims=("band", "y", "x"), coords=coordinates, name=name, attrs=dict(attributes)
    )
    if grid.crs is not None:
        array = array.rio.write_crs(grid.crs)
    array = array.rio.write_transform(grid.transform)
    return array.rio.write_nodata(nodata)  # type: ignore[no-any-return]


def _transform(image: "xarray.DataArray") -> Affine:
    """Return the transform that was stored, unless the array was cut since: then its coordinates'."""
    stored, measured = image.rio.transform(), image.rio.transform(recalc=True)
    corners = np.array([[0, 0], [image.shape[2], image.shape[1]]]).T
    moved = ~measured @ (stored @ corners) - corners
    kept: Affine = stored if np.abs(moved).max() < 1e-3 else measured
    return kept


def _refuse_uneven(image: "xarray.DataArray", transform: Affine, name: str) -> None:
    """Refuse coordinates that a transform does not tell: after rows were left out, for example."""
    if transform.b or transform.d:
        return
    for dim, origin, step in (
        (image.dims[1], transform.f, transform.e),
        (image.dims[2], transform.c, transform.a),
    ):
        if dim not in image.coords or image.coords[dim].dtype.kind not in "iuf":
            continue
        found = image.coords[dim].values.astype(np.float64)
        off = np.abs((found - origin) / step - 0.5 - np.arange(len(found)))
        if not off.max() < 0.5:  # NaN as well
            raise SourceError(
                f"{name}: its coordinate {dim} is not evenly spaced (value {int(off.argmax())} lies "
                f"{off.max():.3g} pixels from its place), so it is no raster. Bring it to a regular "
                "grid first (interp, or rio.reproject)."
            )


def _as_image(array: "xarray.DataArray", name: str) -> "xarray.DataArray":
    rows, columns = array.rio.y_dim, array.rio.x_dim
    if array.ndim == 2:
        array = array.expand_dims("band")
    others = [str(dim) for dim in array.dims if dim not in (rows, columns)]
    if len(others) != 1:
        raise SourceError(
            f"{name} has the dimensions {', '.join(map(str, array.dims))}; an image has a band, a "
            "row and a column. Choose one of the others first, such as array.isel(time=0)."
        )
    if not array.size:
        sizes = ", ".join(f"{dim} {size}" for dim, size in array.sizes.items())
        raise SourceError(f"{name} has no pixel ({sizes}).")
    return array.transpose(others[0], rows, columns)


def _bands(image: "xarray.DataArray") -> tuple[Band, ...]:
    """Name bands by the band coordinate where it holds texts, else by ``long_name``."""
    count = image.shape[0]
    dimension = image.dims[0]
    names: Sequence[str] = ()
    if dimension in image.coords and image.coords[dimension].dtype.kind in "UOT":
        names = [str(name) for name in image.coords[dimension].values]
    long_name = image.attrs.get("long_name", ())
    if not names and isinstance(long_name, tuple | list) and len(long_name) == count:
        names = [str(name) for name in long_name]
    scale = np.broadcast_to(np.asarray(image.attrs.get("scale_factor", 1.0), float), count)
    offset = np.broadcast_to(np.asarray(image.attrs.get("add_offset", 0.0), float), count)
    names = names or [f"band_{i + 1}" for i in range(count)]
    return tuple(
        Band(name=name, common_name=common_name(name), scale=float(a), offset=float(b))
        for name, a, b in zip(names, scale, offset, strict=True)
    )


def _place(wanted: str | int, bands: Sequence[Band], name: str) -> int:
    names = [band.name for band in bands]
    if isinstance(wanted, int) and 1 <= wanted <= len(names):
        return wanted - 1
    if wanted in names:
        return names.index(str(wanted))
    raise BandError(
        f"{name} has no band {wanted!r}.{suggest(str(wanted), names)}\n"
        f"  it has:    {', '.join(names)} (numbers 1 to {len(names)})"
    )


def _stored_type(image: "xarray.DataArray") -> str:
    """Return the type of the values; that of the file where xarray only made room for NaN."""
    encoding = image.encoding
    stored = encoding.get("rasterio_dtype", encoding.get("dtype"))
    is_decoded = "scale_factor" in encoding or "add_offset" in encoding
    if image.dtype.kind == "f" and stored is not None and not is_decoded:
        return str(np.dtype(stored))
    return str(image.dtype)
