"""The grid on which a model sees each image: its own, or one of a wanted resolution."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, TypeVar

from geodino.geo.grid import Grid
from geodino.geo.regrid import source_window
from geodino.geo.windows import Window
from geodino.infer.chips import Raster
from geodino.infer.ground import Regrid

K = TypeVar("K")
"""What an image is called by: its number, or its key."""

_SAME = 1e-3
"""Resolutions that differ by less than this share are the same."""


@dataclass(frozen=True, kw_only=True)
class SeenSource(ABC, Generic[K]):
    """Images that a model sees at one resolution, whatever their own."""

    gsd_m: float | None
    """Pixel of the model's grid, metres; None is that of each image."""

    @abstractmethod
    def raster(self, image: K) -> Raster:
        """Return an image on its own grid."""

    def pixel_m(self, image: K) -> tuple[float, float] | None:
        """Return how long a column step and a row step of an image are, metres; None if unknown."""
        return self.raster(image).grid.gsd_m

    def regrid(self, image: K) -> Regrid | None:
        """Return how the model's grid lies on an image; None where they are one."""
        if self.gsd_m is None:
            return None
        pixel_m = self.pixel_m(image)
        if pixel_m is None or all(abs(own / self.gsd_m - 1) < _SAME for own in pixel_m):
            return None
        return Regrid.to_gsd(self.raster(image).grid, self.gsd_m, own_m=pixel_m)

    def grid(self, image: K) -> Grid:
        """Return the grid the model sees an image on."""
        regrid = self.regrid(image)
        return self.raster(image).grid if regrid is None else regrid.model

    def seen(self, image: K) -> Raster:
        """Return an image on the model's grid."""
        regrid, raster = self.regrid(image), self.raster(image)
        return raster if regrid is None else regrid.seen(raster)

    def under(self, image: K, window: Window) -> Window:
        """Return the pixels of an image under a window of the model's grid."""
        regrid = self.regrid(image)
        return window if regrid is None else source_window(*regrid.down, window, "average")
