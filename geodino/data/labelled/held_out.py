"""A labelled set whose validation part is drawn from its training part."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from jaxtyping import Bool

from geodino.data.labelled.sets import Image, Label, LabelledSet, PartName, SetFacts
from geodino.geo.windows import Window


@dataclass(frozen=True)
class HeldOut:
    """The same images in other parts (see :class:`geodino.data.labelled.sets.LabelledSet`).

    Args:
        whole: a set without a validation part.
        held: True for the training images that are for validation instead.
    """

    whole: LabelledSet
    held: Bool[np.ndarray, " n"]

    @property
    def facts(self) -> SetFacts:
        """What is known before any image is read."""
        return self.whole.facts

    @cached_property
    def parts(self) -> Mapping[PartName, tuple[str, ...]]:
        """Keys of each part."""
        held = dict(zip(self.whole.parts["train"], self.held.tolist(), strict=True))
        kept: Mapping[PartName, tuple[str, ...]] = {
            "train": tuple(key for key, is_held in held.items() if not is_held),
            "val": tuple(key for key, is_held in held.items() if is_held),
        }
        return {**kept, **{part: k for part, k in self.whole.parts.items() if part not in kept}}

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the files' content and of which key is in which part."""
        made = blake2b(self.whole.fingerprint.encode(), digest_size=16)
        made.update(np.packbits(self.held).tobytes())
        return made.hexdigest()

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image."""
        return self.whole.size(key)

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image, or a window of it."""
        return self.whole.image(key, window)

    def label(self, key: str, window: Window | None = None) -> Label:
        """Read the label of an image."""
        return self.whole.label(key, window)

    def traits(self, key: str) -> Mapping[str, str]:
        """Return what scores may be grouped by."""
        return self.whole.traits(key)

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north of an image in degrees."""
        return self.whole.outline(key)
