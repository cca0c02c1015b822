"""Labelled images as a model sees them: its bands, one validity, one size."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Shaped

from geodino.data.labelled.sets import Image, LabelledSet, PartName
from geodino.errors import SourceError
from geodino.models.pooling import fit_to_patches

Seen = tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]
"""Values as a model reads them, and which pixels count."""


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """Everything that is read, whether to learn from it or to be judged by it.

    Safe to use from threads.
    """

    set: LabelledSet
    seen: Callable[[Image], Seen]
    """Takes the model's bands of an image."""

    image_size: int | None
    """Side that images are resized to; None: their own, in whole patches."""

    patch_size: int

    labels: Mapping[PartName, Shaped[np.ndarray, "n *k"]]
    """Of each part, in the order of its keys: the class of each image, or which it has."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.set.facts.classes

    def keys(self, part: PartName) -> Sequence[str]:
        """Return the images of a part."""
        return self.set.parts.get(part, ())

    def counts(self, part: PartName) -> Shaped[np.ndarray, " k"]:
        """Return how many images of a part have each class."""
        labels = self.labels[part]
        if labels.ndim == 2:
            return np.asarray(labels.sum(axis=0))
        return np.bincount(labels, minlength=len(self.classes))

    def read(self, key: str) -> Seen:
        """Read an image as the model sees it, at its size.

        Raises:
            SourceError: it is missing or damaged, or has no valid pixel.
        """
        values, used = self.seen(self.set.image(key))
        if not used.any():
            raise SourceError(
                f"{key} of {self.set.facts.name} has no valid pixel by the model's rule, so it shows "
                "nothing. Remove it from the set, or look at its mask with `geodino inspect`."
            )
        image, valid = fit_to_patches(
            torch.from_numpy(values)[None],
            torch.from_numpy(used)[None],
            patch_size=self.patch_size,
            image_size=self.image_size,
        )
        return image[0].numpy(), valid[0].numpy()
