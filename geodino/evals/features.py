"""One vector per image: the class token, the mean patch token, and plain band statistics."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from geodino.data.config import DataConfig
from geodino.data.evidence import decide
from geodino.errors import RunError, SourceError
from geodino.geo.contract import InputContract
from geodino.geo.validity import ReadRule
from geodino.io.raster import HandlePool, describe, read
from geodino.models.backbone import Tokens

FeatureName = Literal["cls", "mean", "concat"]
"""Class token, mean of the patch tokens, or both side by side."""

Read = Callable[[Path], tuple[np.ndarray, np.ndarray]]
"""Reads an image: pixels ``[c h w]`` in the stored dtype and which of them to use ``[c h w]``."""

_BATCHES_IN_MEMORY = 4


Encode = Callable[[Tensor, Tensor], Tokens]
"""Maps stored values ``[b c h w]`` (float32) and ``valid [b h w]`` to tokens; normalises itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What one encoder says about each image, in the order of the images."""

    cls: Float[np.ndarray, "n d"]
    """Class tokens."""

    mean_patch: Float[np.ndarray, "n d"]
    """Means of the patch tokens, each patch weighted by its share of valid pixels."""

    @property
    def concat(self) -> Float[np.ndarray, "n d2"]:
        """Class token and mean patch token side by side."""
        return np.concatenate([self.cls, self.mean_patch], axis=1)

    def named(self, name: FeatureName) -> Float[np.ndarray, "n d"]:
        """Return the features called ``name``."""
        return {"cls": self.cls, "mean": self.mean_patch, "concat": self.concat}[name]


@dataclass(frozen=True, kw_only=True, slots=True)
class Extracted:
    """Features of several encoders on the same images, read once."""

    features: dict[str, Features]
    """One entry per encoder."""

    statistics: Float[np.ndarray, "n s"]
    """Mean and standard deviation of each band over the valid pixels of each image."""

    sizes: tuple[tuple[int, int], ...]
    """The distinct (height, width) of the images, sorted."""


def extract(
    encoders: Mapping[str, Encode],
    images: Sequence[Path],
    *,
    reader: Read,
    contract: InputContract,
    patch_size: int,
    image_size: int | None = None,
    batch: int = 64,
    device: torch.device | str = "cpu",
    progress: Callable[[int], None] | None = None,
) -> Extracted:
    """Encode images at their own size, grouped by size into batches.

    An image whose sides are no multiples of ``patch_size`` is enlarged to the next multiples; with
    ``image_size`` every image is resized to that square. Resizing is bilinear (antialiased) and
    weighs pixels by validity; what lies under invalid pixels reaches nothing.

    Args:
        encoders: name -> encoder; each sees the same batches.
        images: image files.
        reader: how to read one.
        contract: bands of the model, with the means that stand in for invalid pixels.
        patch_size: side of a patch, pixels.
        image_size: side every image is resized to; None keeps each at its own size.
        batch: images per forward pass.
        device: where the encoders live.
        progress: called with the number of images done.

    Raises:
        SourceError: an image without a valid pixel.
        RunError: ``image_size`` is no multiple of ``patch_size``, or features are not finite.
    """
    if image_size is not None and image_size % patch_size:
        raise RunError(
            f"image_size {image_size} is no multiple of the model's patch size {patch_size}. "
            f"Choose {_up(image_size, patch_size)}, or leave it out."
        )
    mean = np.asarray(contract.mean, dtype=np.float32)
    rows: dict[str, list[Any]] = {name: [None] * len(images) for name in encoders}
    statistics: list[Any] = [None] * len(images)
    sizes: set[tuple[int, int]] = set()
    done = 0
    for index, pixels, valid in _batches(images, reader, contract, batch):
        sizes.add((pixels.shape[2], pixels.shape[3]))
        for i, row in zip(index, _band_statistics(pixels, valid, mean), strict=True):
            statistics[i] = row
        used = np.asarray(valid.all(axis=1) if contract.valid == "all" else valid.any(axis=1))
        _refuse_empty(index, used, images)
        # Band means stand in where single bands lack; the encoder sees to the other pixels.
        filled = np.where(valid, pixels.astype(np.float32), mean[:, None, None])
        image, mask = fit_to_patches(
            torch.from_numpy(filled).to(device),
            torch.from_numpy(used).to(device),
            patch_size=patch_size,
            image_size=image_size,
        )
        for name, encode in encoders.items():
            for i, row in zip(index, _pooled(encode, image, mask), strict=True):
                rows[name][i] = row
        done += len(index)
        if progress is not None:
            progress(done)
    features = {name: _stack(name, vectors) for name, vectors in rows.items()}
    return Extracted(features=features, statistics=np.stack(statistics), sizes=tuple(sorted(sizes)))


def choose_rule(images: Sequence[Path], *, threads: int = 2) -> ReadRule:
    """Decide once for all images, from their pixels, whether alpha and nodata tags are believed.

    Raises:
        SourceError: an image that cannot be read, or was cut off in transfer.
    """
    rule, bad = decide([describe(path) for path in images], DataConfig(), threads=threads)
    if bad:
        path, reason = bad[0]
        raise SourceError(f"{path} cannot be read: {reason}. Copy it again, or remove it.")
    return rule


def image_reader(pool: HandlePool, rule: ReadRule) -> Read:
    """Return a function that reads a whole image by ``rule``."""
    return partial(read, pool, rule=rule)


def fit_to_patches(
    image: Float[Tensor, "b c h w"],
    valid: Bool[Tensor, "b h w"],
    *,
    patch_size: int,
    image_size: int | None = None,
) -> tuple[Float[Tensor, "b c h2 w2"], Bool[Tensor, "b h2 w2"]]:
    """Resize to whole patches: up to the next multiples, or to the square ``image_size``.

    A resized pixel is the mean of the valid pixels under its bilinear (antialiased) kernel, and
    valid where they hold at least half of the kernel's weight. Images that fit are returned as
    they are.
    """
    height, width = image.shape[2:]
    if image_size is None:
        target = (_up(height, patch_size), _up(width, patch_size))
    else:
        target = (image_size, image_size)
    if target == (height, width):
        return image, valid
    weight = valid[:, None].to(image.dtype)
    share = _resize(weight, target)
    total = _resize(image.masked_fill(~valid[:, None], 0.0), target)
    return total / share.clamp_min(1e-6), share[:, 0] >= 0.5


def pool_patches(
    patches: Float[Tensor, "b n d"], valid: Bool[Tensor, "b h w"], *, grid: tuple[int, int]
) -> Float[Tensor, "b d"]:
    """Mean of the patch tokens, each weighted by the share of valid pixels under it."""
    share = F.adaptive_avg_pool2d(valid[:, None].to(patches.dtype), grid).flatten(1)
    total = torch.einsum("bn,bnd->bd", share, patches)
    return total / share.sum(dim=1, keepdim=True).clamp_min(1e-6)


def _batches(
    images: Sequence[Path], reader: Read, contract: InputContract, batch: int
) -> Iterator[tuple[list[int], np.ndarray, np.ndarray]]:
    """Batches of equal size; at most a few batches of images are in memory at a time."""
    for start in range(0, len(images), batch * _BATCHES_IN_MEMORY):
        by_size: dict[tuple[int, ...], list[tuple[int, np.ndarray, np.ndarray]]] = {}
        stop = min(start + batch * _BATCHES_IN_MEMORY, len(images))
        for i in range(start, stop):
            pixels, valid = reader(images[i])
            contract.check_bands(count=pixels.shape[0], dtype=str(pixels.dtype), source=images[i])
            by_size.setdefault(pixels.shape, []).append((i, pixels, valid))
        for group in by_size.values():
            for first in range(0, len(group), batch):
                part = group[first : first + batch]
                yield (
                    [i for i, _, _ in part],
                    np.stack([pixels for _, pixels, _ in part]),
                    np.stack([valid for _, _, valid in part]),
                )


def _band_statistics(
    pixels: np.ndarray, valid: np.ndarray, fallback: np.ndarray
) -> Float[np.ndarray, "b s"]:
    """Per image: band means, then deviations; a band without values has the fallback and 0."""
    values = np.where(valid, pixels, 0).astype(np.float64)
    count = np.maximum(valid.sum(axis=(2, 3)), 1)
    mean = values.sum(axis=(2, 3)) / count
    spread = np.where(valid, values - mean[:, :, None, None], 0.0)
    std = np.sqrt((spread * spread).sum(axis=(2, 3)) / count)
    mean = np.where(valid.any(axis=(2, 3)), mean, fallback)
    return np.concatenate([mean, std], axis=1)


def _refuse_empty(index: list[int], used: np.ndarray, images: Sequence[Path]) -> None:
    lacking = ~np.asarray(used.any(axis=(1, 2)))
    empty = [images[i] for i, lacks in zip(index, lacking, strict=True) if lacks]
    if empty:
        raise SourceError(
            f"{empty[0]} has no valid pixel by the model's rule, so it cannot be classified. "
            f"Remove it from the suite, or look at its mask with `geodino inspect`."
        )


@torch.inference_mode()
def _pooled(
    encode: Encode, image: Float[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
) -> Float[np.ndarray, "b two d"]:
    tokens = encode(image, valid)
    mean = pool_patches(tokens.patches.float(), valid, grid=tokens.grid)
    both = torch.stack([tokens.cls.float(), mean], dim=1)
    return np.asarray(both.cpu().numpy())


def _stack(name: str, vectors: list[Any]) -> Features:
    both = np.stack(vectors)
    if not np.isfinite(both).all():
        bad = int((~np.isfinite(both).all(axis=(1, 2))).sum())
        raise RunError(
            f"{name} gives features that are not finite for {bad} of {len(both)} images: its "
            f"weights hold NaN or infinity, or the pixels overflow. Check the checkpoint."
        )
    return Features(cls=both[:, 0], mean_patch=both[:, 1])


def _resize(image: Float[Tensor, "b c h w"], size: tuple[int, int]) -> Float[Tensor, "b c h2 w2"]:
    return F.interpolate(image, size=size, mode="bilinear", antialias=True, align_corners=False)


def _up(length: int, multiple: int) -> int:
    return -(-length // multiple) * multiple
