"""Labelled images: what every benchmark and training set offers, whatever its files are.

A set is a list of keys in three parts. Images are stored values with their validity; labels are of
one kind per set. Reading is lazy, thread-safe, and a window of a large image reads that window.
"""

from collections.abc import Mapping, Sized
from dataclasses import dataclass, field
from typing import Literal, Protocol, get_args, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, Shaped, UInt8

from geodino.geo.bands import Band
from geodino.geo.grid import Grid
from geodino.geo.windows import Window

Kind = Literal["classification", "multilabel", "segmentation", "regression", "detection"]
"""What a label is: one class, any number of classes, a class per pixel, a number per pixel (or one
for the image), or boxes."""

PartName = Literal["train", "val", "test"]
PARTS: tuple[PartName, ...] = get_args(PartName)

IGNORED = 255
"""In a map of classes: a pixel that is neither learnt from nor scored."""

Image = tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "c h w"]]
"""Stored values, and which of them may be used; values elsewhere mean nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Boxes:
    """The objects of an image, or of a window of it."""

    xyxy: Float32[np.ndarray, "n 4"]
    """Left, top, right, bottom; pixels from the upper left corner of the first pixel."""

    classes: Int64[np.ndarray, " n"]
    """Number of the class of each."""

    difficult: Bool[np.ndarray, " n"]
    """Objects that are neither learnt from nor counted as missed."""

    def __len__(self) -> int:
        return len(self.xyxy)


Label = (
    int
    | Bool[np.ndarray, " k"]
    | UInt8[np.ndarray, "h w"]
    | Float[np.ndarray, "h w"]
    | float
    | Boxes
)
"""By the set's kind: the number of the class; which classes are there; the class of each pixel, 255
where it does not count; a number per pixel, NaN where unknown, or one number; boxes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BandStatistics:
    """Statistics of stored values that a benchmark publishes with its images, one value a band."""

    low: tuple[float, ...]
    """Minimum."""

    high: tuple[float, ...]
    """Maximum."""

    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SetFacts:
    """What is known of a set before any image of it is read."""

    name: str
    """As its benchmark calls it: ``m-eurosat``, ``LoveDA``."""

    kind: Kind

    classes: tuple[str, ...]
    """Names of the classes by number; empty for regression."""

    bands: tuple[Band, ...]
    """What the images hold, in order."""

    dtype: str
    """Stored type, as numpy names it."""

    metric: str
    """The number the benchmark itself reports: ``accuracy``, ``micro_f1``, ``micro_map``, ``miou``,
    ``rmse``, ``map50``."""

    gsd_m: float | None = None
    """Ground sampling distance, metres."""

    unit: str = ""
    """Of a regression's numbers."""

    statistics: BandStatistics | None = None
    """Published statistics of the stored values, in the order of ``bands``; None where there are
    none."""

    background: int | None = None
    """Number of a class that the metric leaves out of its mean although it is predicted; None for
    none."""

    partition: str = "default"
    """Which of its benchmark's partitions: ``0.01x_train`` has a hundredth of the training images."""

    notes: tuple[str, ...] = ()
    """Decisions on how the files are read, as sentences."""

    source: str = ""
    """Where the set comes from and its licence, in a line."""


def parts_in_words(parts: Mapping[PartName, Sized]) -> str:
    """Say how many images each part has.

    Args:
        parts: the images of each.
    """
    return ", ".join(f"{len(keys)} {part}" for part, keys in parts.items())


@runtime_checkable
class LabelledSet(Protocol):
    """Labelled images in parts."""

    @property
    def facts(self) -> SetFacts:
        """What is known before any image is read."""

    @property
    def parts(self) -> Mapping[PartName, tuple[str, ...]]:
        """Keys of each part, in a fixed order; a part that the set lacks is missing or empty."""

    @property
    def fingerprint(self) -> str:
        """A hash of the files' content and of which key is in which part."""

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image without reading its pixels.

        Raises:
            SourceError: the file is missing or damaged.
        """

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image, or a window of it, all bands.

        Raises:
            SourceError: the file is missing or damaged.
        """

    def label(self, key: str, window: Window | None = None) -> Label:
        """Read the label of an image; a map of classes or numbers, and boxes, of a window of it.

        Boxes of a window are clipped to it and counted from its corner; objects less than a
        quarter of which lies in it are left out.

        Raises:
            SourceError: the file is missing or damaged, or a value is none of the classes.
        """

    def traits(self, key: str) -> Mapping[str, str]:
        """Return what scores may be grouped by: ``region``, ``sensor``, ``season``, ``date``."""

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return west, south, east, north of an image in degrees; None where it has no place."""


@runtime_checkable
class PlacedSet(Protocol):
    """A set that knows where each image lies."""

    def grid(self, key: str) -> Grid:
        """Return the georeference of an image; it may have none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Why a set cannot be opened here, and what to do about it."""

    name: str
    reason: str
    """What was looked for and not found."""

    cure: str
    """How to get it, in a sentence."""

    looked_at: tuple[str, ...] = field(default=())
