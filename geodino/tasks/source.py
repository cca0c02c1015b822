"""A labelled set as a model reads it: its bands, one validity, windows of any image."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from affine import Affine
from jaxtyping import Bool, Float64, Shaped

from geodino.data.labelled.sets import LabelledSet, PlacedSet
from geodino.geo.contract import InputContract
from geodino.geo.grid import Grid
from geodino.geo.validity import combine
from geodino.geo.windows import Window
from geodino.infer.chips import Pixels, Raster
from geodino.tasks.seen import SeenSource


@dataclass(frozen=True, kw_only=True)
class LabelledSource(SeenSource[str]):
    """Everything that is read, whether to learn from it or to be judged by it.

    Safe to use from threads.
    """

    set: LabelledSet
    contract: InputContract
    """Of the model: how invalid bands are filled."""

    bands: tuple[int, ...]
    """Places in the set of the bands the model reads, in its order."""

    gsd_m: float | None = None
    """Pixel of the model's grid, metres; None is that of each image."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.set.facts.classes

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image as the model reads it."""
        return self.set.size(key)

    def read(self, key: str, window: Window) -> Pixels:
        """Read a window of an image: the model's bands, and where they may be used."""
        return self._filled(*self.set.image(key, window))

    def _filled(
        self, pixels: Shaped[np.ndarray, "c h w"], valid: Bool[np.ndarray, "c h w"]
    ) -> Pixels:
        """The model's bands, those that are invalid alone replaced by their mean."""
        chosen = list(self.bands)
        whole = chosen == list(range(len(pixels)))
        pixels, valid = (pixels, valid) if whole else (pixels[chosen], valid[chosen])
        joined = combine(valid, self.contract.valid)
        if self.contract.valid == "any":
            pixels = np.where(valid, pixels, self._fill.astype(pixels.dtype))
        return pixels, joined

    @cached_property
    def _fill(self) -> Float64[np.ndarray, "c 1 1"]:
        values = np.asarray(self.contract.mean, dtype=np.float64)
        whole = np.dtype(self.set.facts.dtype).kind in "iu"
        return np.asarray((np.rint(values) if whole else values)[:, None, None])

    def raster(self, image: str) -> Raster:
        """Return an image as something to predict, on its own grid."""
        if isinstance(self.set, PlacedSet):
            grid = self.set.grid(image)
        else:
            height, width = self.size(image)
            grid = Grid(crs=None, transform=Affine.identity(), width=width, height=height)

        def read(window: Window) -> Pixels:
            return self.read(image, window)

        return Raster(name=image, grid=grid, read=read)

    def pixel_m(self, image: str) -> tuple[float, float] | None:
        """Return how long the steps of an image are, metres: by its place, or as its set says."""
        if isinstance(self.set, PlacedSet):
            return self.set.grid(image).gsd_m
        said = self.set.facts.gsd_m
        return None if said is None else (said, said)


def bands_in(have: tuple[str, ...], wanted: tuple[str, ...]) -> tuple[int, ...] | None:
    """Return the places of the wanted bands; by position where counts agree, None without them."""
    if have == wanted:
        return tuple(range(len(have)))
    if set(wanted) <= set(have):
        return tuple(have.index(name) for name in wanted)
    return tuple(range(len(have))) if len(have) == len(wanted) else None
