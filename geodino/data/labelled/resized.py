"""A set of pictures with boxes whose images are all brought to one length."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float

from geodino.data.labelled.boxes import in_window, made_boxes
from geodino.data.labelled.common import cut
from geodino.data.labelled.sets import Boxes, Image, LabelledSet, PartName, SetFacts
from geodino.errors import SourceError
from geodino.geo.windows import Window
from geodino.models.pooling import resized


@dataclass(frozen=True)
class ResizedBoxes:
    """Images and boxes resized so that the longer side has ``side`` pixels.

    Bilinear, antialiased, weighed by validity; sides keep their ratio to within a pixel.

    Args:
        original: the set as its files are.
        side: length of the longer side, pixels.
    """

    original: LabelledSet
    side: int

    @cached_property
    def facts(self) -> SetFacts:
        """As of the original; the ground sampling distance is no longer one."""
        note = f"images are resized to {self.side} px along their longer side (size)"
        facts = self.original.facts
        return replace(facts, gsd_m=None, notes=(*facts.notes, note))

    @property
    def parts(self) -> Mapping[PartName, tuple[str, ...]]:
        """Keys of each part."""
        return self.original.parts

    @property
    def fingerprint(self) -> str:
        """That of the original: the length is part of the recipe."""
        return self.original.fingerprint

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of a resized image."""
        height, width = self.original.size(key)
        longer = max(height, width)
        return max(1, round(height * self.side / longer)), max(1, round(width * self.side / longer))

    def factors(self, key: str) -> Float[np.ndarray, " 4"]:
        """Return what left, top, right and bottom of the original are multiplied by."""
        (height, width), (tall, wide) = self.original.size(key), self.size(key)
        return np.array([wide / width, tall / height] * 2)

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image and resize it; return it, or a window of it."""
        pixels, valid = self.original.image(key)
        # Each band has a validity of its own.
        values = torch.from_numpy(pixels.astype(np.float32))[:, None]
        made, inside = resized(values, torch.from_numpy(np.array(valid)), self.size(key))
        found = made[:, 0].numpy()
        if pixels.dtype.kind in "iu":
            limits = np.iinfo(pixels.dtype)
            found = np.rint(found).clip(limits.min, limits.max)
        return cut(found.astype(pixels.dtype), window), cut(inside.numpy(), window)

    def label(self, key: str, window: Window | None = None) -> Boxes:
        """Return the boxes of a resized image, or of a window of it.

        Raises:
            SourceError: the set has no boxes.
        """
        found = self.original.label(key)
        if not isinstance(found, Boxes):
            raise SourceError(f"{self.original.facts.name} holds no boxes: {key}.")
        xyxy = found.xyxy * self.factors(key)
        return in_window(made_boxes(xyxy, found.classes.tolist(), found.difficult.tolist()), window)

    def traits(self, key: str) -> Mapping[str, str]:
        """Return those of the original."""
        return self.original.traits(key)

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return that of the original."""
        return self.original.outline(key)
