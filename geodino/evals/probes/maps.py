"""What the probes of maps share: patch tokens beside maps of labels, image by image."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Float64, Int, Int64, Integer, Shaped
from torch import Tensor

from geodino.metrics.segmentation import IGNORED


@runtime_checkable
class Items(Protocol):
    """Anything with a length and items by number: an array, a memory map, a lazy list."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a set: features and labels, read one image at a time where they are lazy."""

    features: Items
    """Vectors ``[n d]``, or patch tokens ``[d h w]`` of each image (sizes may differ)."""

    labels: Items
    """A class, a row of classes or a number of each image; or a map ``[H W]`` of each: classes with
    255 where unknown, or numbers with NaN where unknown. A map may be any size."""

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, index: Int[np.ndarray, " s"]) -> "Part":
        """Return some of the images, still lazily."""
        return Part(features=_Chosen(self.features, index), labels=_Chosen(self.labels, index))

    def images(
        self,
    ) -> Iterator[tuple[Float32[np.ndarray, "d h w"], Shaped[np.ndarray, "rows columns"]]]:
        """Yield features and label map of each image in turn."""
        for i in range(len(self)):
            yield np.asarray(self.features[i], dtype=np.float32), np.asarray(self.labels[i])

    def label_maps(self) -> Iterator[Shaped[np.ndarray, "rows columns"]]:
        """Yield the label map of each image in turn."""
        for i in range(len(self)):
            yield np.asarray(self.labels[i])


@dataclass(frozen=True, slots=True)
class _Chosen:
    """Some items of another list."""

    items: Items
    index: Int[np.ndarray, " s"]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, place: int, /) -> Any:
        return self.items[int(self.index[place])]


def split(part: Part, share: float, generator: np.random.Generator) -> tuple[Part, Part]:
    """Return the images to fit on, and ``share`` of all to choose on; one image stays."""
    order = generator.permutation(len(part))
    count = min(round(share * len(part)), len(part) - 1)
    return part.subset(np.sort(order[count:])), part.subset(np.sort(order[:count]))


def enlarged(
    maps: Float[Tensor, "b c h w"], size: tuple[int, int]
) -> Float[Tensor, "b c rows columns"]:
    """Resize maps on the patch grid to the labels' size, bilinearly (corners not aligned)."""
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=False)


def patch_of_pixel(
    size: tuple[int, int], grid: tuple[int, int]
) -> Int64[np.ndarray, "rows columns"]:
    """Return the number of the patch (row by row) under each pixel's centre."""
    rows, columns = (
        (np.arange(length) * 2 + 1) * cells // (2 * length)
        for length, cells in zip(size, grid, strict=True)
    )
    return np.asarray(rows[:, None] * grid[1] + columns)


def patch_class_counts(
    label: Integer[np.ndarray, "rows columns"], grid: tuple[int, int], *, classes: int
) -> Int64[np.ndarray, "p k"]:
    """Count the labelled pixels of each class in each patch, patches row by row.

    Raises:
        ValueError: a class that does not exist.
    """
    scored = label != IGNORED
    if scored.any() and label[scored].max() >= classes:
        raise ValueError(f"a label lies outside 0 to {classes - 1}: {label[scored].max()}")
    cell = patch_of_pixel((label.shape[0], label.shape[1]), grid)[scored]
    flat = cell * classes + label[scored]
    patches = grid[0] * grid[1]
    return np.bincount(flat, minlength=patches * classes).reshape(patches, classes)


def patch_means(
    label: Float[np.ndarray, "rows columns"], grid: tuple[int, int]
) -> tuple[Float64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Return the mean of the known pixels of each patch (0 where there are none), and how many."""
    known = np.isfinite(label)
    cell = patch_of_pixel((label.shape[0], label.shape[1]), grid)[known]
    patches = grid[0] * grid[1]
    count = np.bincount(cell, minlength=patches)
    total = np.bincount(cell, label[known].astype(np.float64), minlength=patches)
    return total / np.maximum(count, 1), count


def token_statistics(part: Part) -> tuple[Float32[Tensor, "d 1"], Float32[Tensor, "d 1"]]:
    """Return mean and the inverse deviation of each feature over all patches of a part.

    A constant feature has the factor 0 and says nothing.
    """
    count = 0
    total: Any = 0.0
    squares: Any = 0.0
    # Shifted by the first patch: sums of squares of features with a large mean would lose digits.
    shift = np.asarray(part.features[0], dtype=np.float64)[:, :1, :1]
    for features, _ in part.images():
        values = (features - shift).reshape(len(features), -1)
        count += values.shape[1]
        total = total + values.sum(axis=1)
        squares = squares + np.square(values).sum(axis=1)
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean * mean, 0.0))
    centre = mean + shift[:, 0, 0]
    informative = std > 1e-6 * np.maximum(1e-6, np.abs(centre))
    factor = np.where(informative, 1.0 / np.where(informative, std, 1.0), 0.0)
    return (
        torch.from_numpy(centre.astype(np.float32))[:, None],
        torch.from_numpy(factor.astype(np.float32))[:, None],
    )
