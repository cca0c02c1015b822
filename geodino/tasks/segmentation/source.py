"""A labelled set of classes per pixel as a model reads it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from geodino.data.labelled.sets import IGNORED
from geodino.errors import SourceError
from geodino.geo.align import OfClasses
from geodino.geo.regrid import resample_classes
from geodino.geo.windows import Window
from geodino.tasks.source import LabelledSource


@dataclass(frozen=True, kw_only=True)
class ClassSource(LabelledSource):
    """Images with a class for every pixel."""

    statistic: OfClasses = "majority"
    """How finer label pixels become one of the model's grid."""

    def label(self, key: str, window: Window) -> UInt8[np.ndarray, "h w"]:
        """Read the class of each pixel of a window of an image.

        Raises:
            SourceError: the set has no classes per pixel, or a file is damaged.
        """
        found = self.set.label(key, window)
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8:
            raise SourceError(f"{self.set.facts.name} holds no class per pixel: {key}.")
        return found

    def seen_label(self, key: str, window: Window) -> UInt8[np.ndarray, "h w"]:
        """Return the class of each pixel of a window of the model's grid; raises as ``label``."""
        regrid = self.regrid(key)
        if regrid is None:
            return self.label(key, window)
        (rows, columns), under = regrid.down, self.under(key, window)
        return resample_classes(
            self.label(key, under), read=under, rows=rows, columns=columns, window=window,
            how=self.statistic, ignored=IGNORED,
        )  # fmt: skip
