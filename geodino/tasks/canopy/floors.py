"""What a canopy model must beat, on the pixels it is judged on: mean height, height by greenness."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from geodino.data.splits import SplitName
from geodino.geo.bands import Band, rgb_indices
from geodino.metrics.height_floors import (
    GreennessSums,
    HeightByGreenness,
    MeanHeight,
    excess_green,
    ndvi,
)
from geodino.tasks.canopy.areas import Area, Compared, compare
from geodino.tasks.canopy.source import CanopySource


@dataclass(frozen=True, slots=True)
class Greenness:
    """Which bands tell how green a pixel is: NDVI where there is near infrared, else excess green."""

    bands: tuple[Band, ...]

    @classmethod
    def of(cls, source: CanopySource) -> "Greenness":
        """Return that of images; where they do not name their bands, those the model takes them for."""
        own = cls(source.images.bands)
        return own if own.name is not None else cls(source.contract.bands)

    @property
    def name(self) -> str | None:
        """``NDVI``, ``excess green``, or None where the bands are not known."""
        names = [band.common_name for band in self.bands]
        if "nir" in names and "red" in names:
            return "NDVI"
        return None if rgb_indices(self.bands) is None else "excess green"

    def __call__(self, pixels: Shaped[np.ndarray, "c h w"]) -> Float[np.ndarray, "h w"]:
        """Return the greenness of stored values.

        Raises:
            ValueError: the bands are not known.
        """
        names = [band.common_name for band in self.bands]
        if self.name == "NDVI":
            return ndvi(
                self._value(pixels, names.index("red")), self._value(pixels, names.index("nir"))
            )
        found = rgb_indices(self.bands)
        if found is None:
            raise ValueError("no greenness without red, green and blue")
        return excess_green(*(self._value(pixels, i) for i in found))

    def _value(self, pixels: Shaped[np.ndarray, "c h w"], i: int) -> Float[np.ndarray, "h w"]:
        band = self.bands[i]
        values = pixels[i].astype(np.float64) * band.scale + band.offset
        return np.asarray(np.maximum(np.nan_to_num(values), 0.0))


@dataclass(frozen=True, kw_only=True, slots=True)
class Floors:
    """Both floors, fitted on training ground."""

    mean: MeanHeight
    by_greenness: HeightByGreenness | None
    greenness: Greenness


def green_map(source: CanopySource, area: Area, which: SplitName, greenness: Greenness) -> Compared:
    """Return the greenness of an area (0 where it is not known) on the pixels of its labels."""
    pixels, valid = source.read_image(area.image, area.window)
    green = np.zeros(valid.shape) if greenness.name is None else greenness(pixels)
    return compare(
        source, area, green[None].astype(np.float32), _copied(valid), which, is_height=False
    )


def _copied(valid: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    return np.array(valid, dtype=bool)


def fit_floors(source: CanopySource, areas: Iterable[Area]) -> Floors:
    """Fit both floors on areas of training ground.

    Raises:
        ValueError: there is no valid pixel in any of them.
    """
    greenness = Greenness.of(source)
    sums: GreennessSums | None = None
    for area in areas:
        green = green_map(source, area, "train", greenness)
        heights = np.maximum(green.true_m, 0.0)
        part = GreennessSums.of(heights, green.values[0].astype(np.float64), green.valid)
        sums = part if sums is None else sums.merge(part)
    if sums is None:
        raise ValueError("no training ground to fit floors on")
    known = greenness.name is not None
    return Floors(
        mean=sums.mean_height(),
        by_greenness=sums.height_by_greenness() if known else None,
        greenness=greenness,
    )
