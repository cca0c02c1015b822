"""Quality layers: which pixels a provider's own classes or flags declare unusable.

A layer stores either one class number per pixel (Sentinel-2 SCL), flags as bits (Landsat QA_PIXEL,
HLS Fmask), or one 0/1 band per class (Planet UDM2). Masks are True where a pixel may be used.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Shaped

from geodino.config import Config
from geodino.errors import BandError, suggest

Encoding = Literal["values", "bits", "bands"]
"""How a layer stores classes: a number per pixel, a bit each, or a band each (numbers from 1)."""


class QualityClasses(Config):
    """The classes of a quality layer, by name."""

    encoding: Encoding
    """How the numbers of ``classes`` are stored."""

    classes: dict[str, int]
    """Class name to value, bit (0 is the lowest) or band number (the first is 1)."""

    def numbers(self, names: Sequence[str], *, source: str) -> tuple[int, ...]:
        """Return the numbers of classes.

        Raises:
            BandError: a name the layer does not have.
        """
        for name in names:
            if name not in self.classes:
                raise BandError(
                    f"The quality layer of {source} has no class {name!r}."
                    f"{suggest(name, self.classes)} It has: {', '.join(self.classes)}. "
                    "Change data.mask."
                )
        return tuple(self.classes[name] for name in names)


QUALITY: dict[str, QualityClasses] = {
    # Sentinel-2 Level-2A Algorithm Theoretical Basis Document, scene classification.
    "scl": QualityClasses(
        encoding="values",
        classes={
            "no_data": 0, "saturated_or_defective": 1, "dark_area": 2, "cloud_shadow": 3,
            "vegetation": 4, "not_vegetated": 5, "water": 6, "unclassified": 7,
            "cloud_medium": 8, "cloud_high": 9, "thin_cirrus": 10, "snow": 11,
        },
    ),
    # Landsat 8-9 Collection 2 Level 2 Science Product Guide, table 6-3.
    "landsat-qa-pixel": QualityClasses(
        encoding="bits",
        classes={
            "fill": 0, "dilated_cloud": 1, "cirrus": 2, "cloud": 3, "cloud_shadow": 4, "snow": 5,
            "clear": 6, "water": 7,
        },
    ),
    # Landsat Collection 1 Level 1 Quality Assessment Band. Confidences take two bits; their upper
    # bit is set from "medium" on, and with the lower one means "high".
    "landsat-c1-bqa": QualityClasses(
        encoding="bits",
        classes={"fill": 0, "terrain_occlusion": 1, "cloud": 4, "cloud_shadow": 8, "snow": 10,
                 "cirrus": 12},
    ),
    # HLS Product User Guide 2.0, Fmask.
    "hls-fmask": QualityClasses(
        encoding="bits",
        classes={"cirrus": 0, "cloud": 1, "adjacent_to_cloud": 2, "cloud_shadow": 3, "snow": 4,
                 "water": 5},
    ),
    # Planet Usable Data Mask 2.1, bands.
    "udm2": QualityClasses(
        encoding="bands",
        classes={"clear": 1, "snow": 2, "cloud_shadow": 3, "light_haze": 4, "heavy_haze": 5,
                 "cloud": 6, "unusable": 8},
    ),
}  # fmt: skip
"""The quality layers geodino knows by name."""


def usable(
    layer: Shaped[np.ndarray, "c h w"], encoding: Encoding, numbers: Sequence[int]
) -> Bool[np.ndarray, "h w"]:
    """Return where none of the masked classes is present.

    Args:
        layer: the quality layer as stored, of an integer type; for ``bands`` the bands of
            ``numbers`` in their order, else one band.
        encoding: how classes are stored.
        numbers: values, bits or bands of the masked classes.
    """
    if encoding == "bands":
        return np.asarray(~(layer != 0).any(axis=0))
    if encoding == "values":
        return ~np.isin(layer[0], np.array(numbers, dtype=np.int64))
    flags = np.zeros((), dtype=np.int64) + sum(1 << bit for bit in set(numbers))
    return np.asarray((layer[0].astype(np.int64) & flags) == 0)
