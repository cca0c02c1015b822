"""Where the pixels of a zarr array lie: CRS and transform from the conventions in use.

CRS: the CF ``grid_mapping`` variable (rioxarray's ``spatial_ref``); GeoZarr's ``proj:`` attributes;
``crs``, ``epsg`` and ``crs_wkt`` attributes; an ``epsg`` coordinate (stackstac); or longitudes and
latitudes with CF units. Transform: ``GeoTransform``, ``spatial:transform``, ``proj:transform``,
``transform``, and the coordinates of rows and columns, which are centres of pixels.

A transform in an attribute is often left behind when a cube is cropped or thinned, while
coordinates are cut with the pixels: where the two differ, the coordinates hold.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from pyproj import CRS
from pyproj.exceptions import CRSError

from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.io.metadata import crs_name
from geodino.io.zarr.array import StoredArray, dimensions
from geodino.io.zarr.open import ZarrArray, attributes

_TOLERANCE = 0.1
"""Share of a step by which coordinates may leave an even spacing, or a declared transform:
longitudes stored in 32 bits leave a step of 10 m by 0.08 of it."""

_CRS_KEYS = ("crs_wkt", "spatial_ref", "proj:wkt2", "proj:projjson", "proj:code", "proj:epsg",
             "crs", "epsg", "EPSG")  # fmt: skip
_CRS_COORDINATES = ("epsg", "proj:epsg", "proj:code")
_GRID_MAPPINGS = ("spatial_ref", "crs")
_NORTH = re.compile("degrees?_?(north|N)")
_EAST = re.compile("degrees?_?(east|E)")


@dataclass(frozen=True, slots=True)
class Place:
    """What is known around an array.

    Args:
        name: what messages call it.
        array: the array.
        attributes: its own, before those of its group.
        find: returns an array of its group, or of those above it, by name.
    """

    name: str
    array: StoredArray
    attributes: Mapping[str, Any]
    find: Callable[[str], ZarrArray | None]

    def grid(self) -> tuple[Grid, tuple[str, ...]]:
        """Return CRS, transform and size, and what had to be decided, as sentences.

        Raises:
            SourceError: the coordinates are uneven, or the CRS cannot be understood.
        """
        notes: list[str] = []
        mapping = self._grid_mapping()
        transform = self._transform(mapping, notes)
        crs = self._crs(mapping, notes)
        lacks = [w for w, v in (("CRS", crs), ("transform or coordinates", transform)) if not v]
        if lacks:
            notes.append(f"{self.name} has no {' and no '.join(lacks)}: its pixels have no place.")
        grid = Grid(crs, transform or Affine.identity(), self.array.width, self.array.height)
        return grid, tuple(notes)

    def _grid_mapping(self) -> Mapping[str, Any]:
        # CF's longer form is "name: coordinate ... name: ..."; the first name is the CRS.
        named = str(self.attributes.get("grid_mapping", "")).split(":")[0].split(" ")[0]
        found = (self._scalar(name) for name in (named, *_GRID_MAPPINGS) if name)
        return next((attributes(array) for array in found if array is not None), {})

    def _crs(self, mapping: Mapping[str, Any], notes: list[str]) -> str | None:
        for source in (mapping, self.attributes):
            for key in _CRS_KEYS:
                if source.get(key):
                    return self._understood(source[key], f"attribute {key}")
        if "grid_mapping_name" in mapping:
            return self._understood(dict(mapping), "grid mapping")
        for key in _CRS_COORDINATES:
            if (scalar := self._scalar(key)) is not None:
                return self._understood(values(scalar, self.name).item(), f"coordinate {key}")
        y, x = (str(attributes(c).get("units", "")) if c else "" for c in self._coordinates())
        if _NORTH.fullmatch(y) and _EAST.fullmatch(x):
            notes.append(
                f"{self.name} names no CRS; its coordinates, in {y} and {x}, are read as EPSG:4326."
            )
            return "EPSG:4326"
        return None

    def _understood(self, value: Any, what: str) -> str:
        try:
            if isinstance(value, Mapping) and "grid_mapping_name" in value:
                crs = CRS.from_cf(dict(value))
            else:
                # "32633", as some write it, is the number of an EPSG code.
                crs = CRS.from_user_input(int(value) if str(value).isdecimal() else value)
        except (CRSError, KeyError, TypeError, ValueError) as error:
            raise SourceError(
                f"{self.name}: its {what} names no known CRS ({str(value)[:60]!r}). Write an EPSG "
                "code or WKT there."
            ) from error
        return crs_name(crs.to_wkt())

    def _transform(self, mapping: Mapping[str, Any], notes: list[str]) -> Affine | None:
        declared = self._declared(mapping)
        y, x = self._coordinates()
        if y is None or x is None or (declared is not None and (declared.b or declared.d)):
            return declared
        (y_0, dy), (x_0, dx) = self._even(y), self._even(x)
        if declared is not None:
            dy, dx = dy or declared.e, dx or declared.a
        if not dy or not dx:
            notes.append(f"{self.name} has a single row or column, hence no known pixel size.")
            return None
        centred = Affine(dx, 0.0, x_0 - dx / 2, 0.0, dy, y_0 - dy / 2)
        if declared is None:
            return centred
        if self._agree(declared, centred):
            return declared
        if self._agree(declared, centred @ Affine.translation(0.5, 0.5)):
            notes.append(
                f"{self.name}: its coordinates are those of pixel corners, as its transform says."
            )
            return declared
        notes.append(
            f"{self.name}: its transform {tuple(declared)[:6]} is not that of its coordinates "
            f"{tuple(centred)[:6]}, which were cut with the pixels: the coordinates hold."
        )
        return centred

    def _declared(self, mapping: Mapping[str, Any]) -> Affine | None:
        for source in (mapping, self.attributes):
            if "GeoTransform" in source:
                c, a, b, f, d, e = self._numbers(source["GeoTransform"], "GeoTransform")
                return Affine(a, b, c, d, e, f)
        for key in ("spatial:transform", "proj:transform", "transform"):
            if isinstance(self.attributes.get(key), (list, tuple)):
                transform = Affine(*self._numbers(self.attributes[key], key))
                # Of a grid of nodes the transform gives the centres of pixels, not their corners.
                nodes = self.attributes.get("spatial:registration") == "node"
                if key == "spatial:transform" and nodes:
                    transform @= Affine.translation(-0.5, -0.5)
                return transform
        return None

    def _numbers(self, value: Any, key: str) -> list[float]:
        try:
            numbers = [float(v) for v in (value.split() if isinstance(value, str) else value)]
        except (TypeError, ValueError):
            numbers = []
        if len(numbers) not in (6, 9) or not np.isfinite(numbers).all():
            raise SourceError(
                f"{self.name}: its attribute {key} is no transform ({str(value)[:60]!r}). Write "
                "six numbers there, or remove it."
            )
        return numbers[:6]

    def _coordinates(self) -> tuple[ZarrArray | None, ZarrArray | None]:
        """Return the coordinates of rows and of columns, where they are stored."""
        dims = dimensions(self.array.array)
        axes = self.array.axes
        found: list[ZarrArray | None] = []
        for axis, length in ((axes.y, self.array.height), (axes.x, self.array.width)):
            sibling = self.find(str(dims[axis]))
            fits = (
                sibling is not None and sibling.shape == (length,) and sibling.dtype.kind in "iuf"
            )
            found.append(sibling if fits else None)
        return found[0], found[1]

    def _scalar(self, name: str) -> ZarrArray | None:
        array = self.find(name)
        return array if array is not None and array.ndim == 0 else None

    def _even(self, coordinate: ZarrArray) -> tuple[float, float | None]:
        """Return the first coordinate and the step; None where there is but one."""
        centres = values(coordinate, self.name).astype(np.float64)
        if len(centres) == 1:
            return float(centres[0]), None
        step = float(centres[-1] - centres[0]) / (len(centres) - 1)
        off = np.abs(centres - (centres[0] + step * np.arange(len(centres)))).max()
        if not off <= _TOLERANCE * abs(step) or step == 0:
            raise SourceError(
                f"{self.name}: its coordinate {coordinate.basename} is not evenly spaced (steps "
                f"from {np.diff(centres).min():g} to {np.diff(centres).max():g}), so its pixels "
                "form no grid. Resample it to one first."
            )
        return float(centres[0]), step

    def _agree(self, one: Affine, other: Affine) -> bool:
        """Whether two transforms put the first and the last corner at the same place."""
        size = np.array([abs(one.a), abs(one.e)])
        corners = ((0, 0), (self.array.width, self.array.height))
        apart = (np.subtract(one @ c, other @ c) for c in corners)
        return all((np.abs(gap) <= _TOLERANCE * size).all() for gap in apart)


def values(array: ZarrArray, name: str) -> NDArray[Any]:
    """Read all of a coordinate.

    Args:
        array: a small array.
        name: what messages call its raster.

    Raises:
        SourceError: it is damaged.
    """
    try:
        return np.asarray(array[...])
    # Whatever the codecs, the store or the network raise.
    except Exception as error:
        raise SourceError(
            f"{name}: its coordinate {array.basename} cannot be read ({error}). Write it again."
        ) from error
