"""A labelled set of classes per pixel as a model reads it."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from geodino.errors import SourceError
from geodino.geo.windows import Window
from geodino.tasks.source import LabelledSource


@dataclass(frozen=True, kw_only=True)
class ClassSource(LabelledSource):
    """Images with a class for every pixel."""

    def label(self, key: str, window: Window) -> UInt8[np.ndarray, "h w"]:
        """Read the class of each pixel of a window of an image.

        Raises:
            SourceError: the set has no classes per pixel, or a file is damaged.
        """
        found = self.set.label(key, window)
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8:
            raise SourceError(f"{self.set.facts.name} holds no class per pixel: {key}.")
        return found
