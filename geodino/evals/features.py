"""What an encoder says of images: a class token, a mean patch token, and patches where asked.

Images are read ahead by threads, encoded at their own size or resized, in batches of one size.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float16, Float32
from torch import Tensor

from geodino.data.parallel import in_order
from geodino.errors import RunError, SourceError
from geodino.models.backbone import Backbone, Tokens
from geodino.models.pooling import FeatureName, fit_to_patches, pool_patches, whole_patches

Read = Callable[[str], tuple[Float32[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]]
"""Reads an image by its key: what the model sees ``[c h w]`` and which pixels count ``[h w]``."""

_BATCHES_IN_MEMORY = 4
"""Where images have many sizes: then the largest group is encoded before it is full."""


Encode = Callable[[Tensor, Tensor], list[Tokens]]
"""Maps values ``[b c h w]`` (float32) and ``valid [b h w]`` to the tokens after its last blocks, the
last block last; normalises itself."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What one encoder says about each image, in the order of the images."""

    blocks: Float[np.ndarray, "n l d"]
    """Class tokens after each of the last ``l`` blocks, the last block last."""

    mean_patch: Float[np.ndarray, "n d"]
    """Means of the patch tokens, each patch weighted by its share of valid pixels."""

    @property
    def cls(self) -> Float[np.ndarray, "n d"]:
        """Class tokens after the last block."""
        return self.blocks[:, -1]

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

    patches: dict[str, Float16[np.ndarray, "n d h w"]]
    """Patch tokens of each encoder, where they were asked for; may lie in a file."""

    digests: tuple[str, ...]
    """A hash of what is seen of each image: equal ones are copies."""

    sizes: tuple[tuple[int, int], ...]
    """The distinct (height, width) of the images, sorted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Extraction:
    """How images are brought to encoders.

    Args:
        patch_size: side of a patch, pixels.
        image_size: side every image is resized to, bilinearly; None keeps each at its own size,
            enlarged to whole patches.
        batch: images per forward pass.
        device: where the encoders live.
        threads: that read ahead.
        patches: where the patch tokens are kept, a file each encoder; None keeps none.
    """

    patch_size: int
    image_size: int | None = None
    batch: int = 64
    device: torch.device
    threads: int = 2
    patches: Path | None = None

    def __post_init__(self) -> None:
        """Refuse sizes that are not whole patches.

        Raises:
            RunError: naming the next size that is.
        """
        if self.image_size is not None and self.image_size % self.patch_size:
            raise RunError(
                f"image_size {self.image_size} is no multiple of the model's patch size "
                f"{self.patch_size}. Choose {whole_patches(self.image_size, self.patch_size)}, or leave it out."
            )


def extract(
    encoders: Mapping[str, Encode],
    keys: Sequence[str],
    *,
    reader: Read,
    how: Extraction,
    progress: Callable[[int], None] | None = None,
) -> Extracted:
    """Encode images, grouped by size into batches.

    Resizing is bilinear (antialiased) and weighs pixels by validity; what lies under invalid
    pixels reaches nothing.

    Args:
        encoders: name -> encoder; each sees the same batches.
        keys: of the images.
        reader: reads one; called from threads.
        how: sizes, batches, devices.
        progress: called with the number of images done.

    Raises:
        SourceError: an image without a valid pixel.
        RunError: features are not finite, or patches are asked of images of several sizes.
    """
    rows: dict[str, list[Any]] = {name: [None] * len(keys) for name in encoders}
    statistics: list[Any] = [None] * len(keys)
    digests = [""] * len(keys)
    sizes: set[tuple[int, int]] = set()
    maps = _Maps(how.patches, len(keys))
    done = 0
    for batch in _batches(keys, reader, how):
        index = [one.index for one in batch]
        for one in batch:
            sizes.add((one.values.shape[1], one.values.shape[2]))
            statistics[one.index], digests[one.index] = one.statistics, one.digest
        image, valid = fit_to_patches(
            torch.from_numpy(np.stack([one.values for one in batch])).to(how.device),
            torch.from_numpy(np.stack([one.used for one in batch])).to(how.device),
            patch_size=how.patch_size,
            image_size=how.image_size,
        )
        for name, encode in encoders.items():
            both, tokens = _pooled(encode, image, valid)
            for i, row in zip(index, both, strict=True):
                rows[name][i] = row
            maps.keep(name, index, tokens)
        done += len(batch)
        if progress is not None:
            progress(done)
    features = {name: _stack(name, vectors) for name, vectors in rows.items()}
    return Extracted(
        features=features,
        statistics=np.stack(statistics),
        patches=maps.found,
        digests=tuple(digests),
        sizes=tuple(sorted(sizes)),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Looked:
    """An image as the model sees it, and what else is said of it."""

    index: int
    values: Float32[np.ndarray, "c h w"]
    used: Bool[np.ndarray, "h w"]
    statistics: Float[np.ndarray, " s"]
    digest: str


def _look(index: int, key: str, reader: Read) -> _Looked:
    """Read an image and count it; in the thread that reads, while its pixels are in the cache."""
    values, used = reader(key)
    if not used.any():
        raise SourceError(
            f"{key} has no valid pixel by the model's rule, so it cannot be judged. Remove it "
            "from the set, or look at its mask with `geodino inspect`."
        )
    whole = used.all()
    counted = np.ascontiguousarray(values if whole else np.where(used, values, 0))
    digest = blake2b(counted.data, digest_size=16)
    digest.update(repr(values.shape).encode())
    digest.update(np.packbits(used).tobytes())
    return _Looked(
        index=index,
        values=values,
        used=used,
        statistics=_band_statistics(values.reshape(len(values), -1) if whole else values[:, used]),
        digest=digest.hexdigest(),
    )


def _band_statistics(values: Float32[np.ndarray, "c n"]) -> Float[np.ndarray, " s"]:
    """Band means, then deviations, over the pixels that count."""
    exact = values.astype(np.float64)
    mean = exact.mean(axis=1)
    exact -= mean[:, None]
    return np.concatenate([mean, np.sqrt(np.einsum("cn,cn->c", exact, exact) / exact.shape[1])])


class _Maps:
    """Patch tokens on their way into files; nothing without a folder."""

    def __init__(self, folder: Path | None, images: int) -> None:
        self._folder, self._images = folder, images
        self.found: dict[str, Any] = {}

    def keep(self, name: str, index: list[int], tokens: Tokens) -> None:
        """Write the patches of some images.

        Raises:
            RunError: they have another grid than those before.
        """
        if self._folder is None:
            return
        maps = tokens.map.to(torch.float16).cpu().numpy()
        if name not in self.found:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{name.replace(' ', '-')}.npy"
            shape = (self._images, *maps.shape[1:])
            self.found[name] = np.lib.format.open_memmap(path, "w+", np.float16, shape)
        if self.found[name].shape[1:] != maps.shape[1:]:
            raise RunError(
                "The images of this set have several sizes, and their patches cannot be compared "
                "place by place: give one size to all (--image-size)."
            )
        self.found[name][index] = maps


def encoder(backbone: Backbone, *, blocks: int = 1) -> Encode:
    """Return how a backbone encodes; of a ConvNeXt, whose stages differ, the last one alone.

    Args:
        backbone: in evaluation mode.
        blocks: how many of its last blocks are asked.
    """
    count = min(blocks, backbone.depth) if backbone.depth else 1
    layers = range(backbone.layers - count, backbone.layers)

    def encode(image: Tensor, valid: Tensor) -> list[Tokens]:
        return backbone.tap(image, layers, valid)

    return encode


def _batches(keys: Sequence[str], reader: Read, how: Extraction) -> Iterator[list[_Looked]]:
    """Batches of equal size, the next one read meanwhile; at most a few are in memory at a time."""
    waiting: dict[tuple[int, ...], list[_Looked]] = {}

    def look(numbered: tuple[int, str]) -> _Looked:
        return _look(*numbered, reader)

    with closing(in_order(look, enumerate(keys), threads=how.threads, ahead=how.batch)) as read:
        for one in read:
            group = waiting.setdefault(one.values.shape, [])
            group.append(one)
            if len(group) == how.batch:
                yield waiting.pop(one.values.shape)
            elif sum(map(len, waiting.values())) >= how.batch * _BATCHES_IN_MEMORY:
                yield waiting.pop(max(waiting, key=lambda shape: len(waiting[shape])))
    yield from waiting.values()


@torch.inference_mode()
def _pooled(
    encode: Encode, image: Float[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
) -> tuple[Float[np.ndarray, "b l d"], Tokens]:
    after = encode(image, valid)
    last = after[-1]
    mean = pool_patches(last.patches.float(), valid, grid=last.grid)
    rows = torch.stack([*(tokens.cls.float() for tokens in after), mean], dim=1)
    return np.asarray(rows.cpu().numpy()), last


def _stack(name: str, vectors: list[Any]) -> Features:
    both = np.stack(vectors)
    if not np.isfinite(both).all():
        bad = int((~np.isfinite(both).all(axis=(1, 2))).sum())
        raise RunError(
            f"{name} gives features that are not finite for {bad} of {len(both)} images: its "
            f"weights hold NaN or infinity, or the pixels overflow. Check the checkpoint."
        )
    return Features(blocks=both[:, :-1], mean_patch=both[:, -1])
