"""Crop and resize with antialiasing, weighing by validity, for many boxes at once.

A resized crop is separable: every output row is a weighted sum of a few input rows, every output
column one of a few input columns. The weights (:class:`Taps`) are those of torchvision and Pillow
(``antialias=True``: the kernel is widened by the scale when shrinking), within the box only.
Applied to ``pixels * valid`` and to ``valid``, their quotient is the mean over valid pixels.

Rows are made by summing the few that matter on the CPU (:func:`shrink_rows`) and by a matrix
product on a GPU; columns by matrix products, on the CPU in blocks along the band that is not zero.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

Interpolation = Literal["bicubic", "bilinear"]

_REACH: dict[Interpolation, float] = {"bicubic": 2.0, "bilinear": 1.0}
_CUBIC = -0.5

_WHOLE_CHIP = 128 * 128
"""Up to so many pixels, the CPU resizes from whole chips; above, it copies each box first."""

_CHUNK = 1 << 16
"""Output pixels of a part on the CPU: 256 kB per band, so that a crop stays in the cache."""

_WHOLE_MATRIX, _BLOCK = 128, 32
"""Output columns above which a band matrix is multiplied in blocks on the CPU, and their size."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taps:
    """Along one axis: which input positions make an output position, and how much of each."""

    index: Int64[Tensor, "n out k"]
    """Positions in the chip, always within the box; past its end, the last with weight 0."""

    weight: Float[Tensor, "n out k"]
    """Summing to 1 over ``k``."""

    def __getitem__(self, rows: slice) -> "Taps":
        return Taps(index=self.index[rows], weight=self.weight[rows])

    def dense(self, size: int) -> Float[Tensor, "n out size"]:
        """Return the taps as matrices over ``size`` input positions, mostly zero."""
        n, out, _ = self.index.shape
        zeros = torch.zeros(n, out, size, device=self.weight.device)
        return zeros.scatter_add_(2, self.index, self.weight)


def tap_count(length: int, out: int, interpolation: Interpolation) -> int:
    """How many taps can weigh anything when ``length`` positions become ``out``."""
    return min(length, int(2 * _REACH[interpolation] * max(length / out, 1.0)) + 1)


def make_taps(
    start: Int64[Tensor, " n"],
    length: Int64[Tensor, " n"],
    mirrored: Bool[Tensor, " n"],
    *,
    longest: int,
    out: int,
    interpolation: Interpolation,
) -> Taps:
    """Return the taps that resize ``length`` positions from ``start`` on to ``out`` positions.

    Args:
        start: first position of each box.
        length: positions in each box.
        mirrored: whether the output runs backwards.
        longest: a bound on ``length``, known on the host.
        out: positions of the output.
        interpolation: kernel; ``bicubic`` is Keys' with a = -0.5.
    """
    device, reach = start.device, _REACH[interpolation]
    count = tap_count(longest, out, interpolation)
    scale = (length.to(torch.float32) / out)[:, None]
    stretch = scale.clamp_min(1.0)
    position = torch.arange(out, device=device, dtype=torch.float32)
    position = position + mirrored[:, None] * (out - 1 - 2 * position)
    centre = scale * (position + 0.5)
    first = (centre - reach * stretch + 0.5).floor_().clamp_min_(0.0)
    inside = first[..., None] + torch.arange(count, device=device, dtype=torch.float32)
    distance = (inside + (0.5 - centre)[..., None]).div_(stretch[..., None]).abs_()
    weight = _cubic(distance) if interpolation == "bicubic" else (1.0 - distance).clamp_min_(0.0)
    weight.mul_(inside < length[:, None, None])
    weight.div_(weight.sum(dim=-1, keepdim=True))
    index = inside.to(torch.int64).minimum(length[:, None, None] - 1).add_(start[:, None, None])
    return Taps(index=index, weight=weight)


def resized_crops(
    pixels: Shaped[Tensor, "b c h w"],
    valid: Bool[Tensor, "b h w"] | None,
    boxes: Int64[Tensor, "crops b 4"],
    mirrored: Bool[Tensor, "crops b 2"],
    *,
    size: int,
    interpolation: Interpolation,
) -> Iterator[tuple[slice, Float[Tensor, "n c1 size size"]]]:
    """Resize all boxes to ``size``; yield rows of the crop-major result, a part at a time.

    On the CPU parts are small, so that what follows stays in the cache; elsewhere there is one.

    Args:
        pixels: chips in their stored type.
        valid: where pixels may be used; None where all are.
        boxes: top, left, height, width.
        mirrored: whether rows and whether columns run backwards.
        size: side of the crops.
        interpolation: kernel.

    Yields:
        With ``valid``, the crops have one channel more: resized ``pixels * valid``, then ``valid``.
    """
    crops, b, _ = boxes.shape
    on_cpu = pixels.device.type == "cpu"
    one_by_one = on_cpu and pixels.shape[2] * pixels.shape[3] > _WHOLE_CHIP
    flat, mirror = boxes.flatten(0, 1), mirrored.flatten(0, 1)
    longest = flat[:, 2:].amax(dim=0).tolist() if on_cpu and crops else pixels.shape[2:]
    rows, columns = (
        make_taps(
            torch.zeros_like(flat[:, axis]) if one_by_one else flat[:, axis],
            flat[:, axis + 2],
            mirror[:, axis],
            longest=longest[axis],
            out=size,
            interpolation=interpolation,
        )
        for axis in (0, 1)
    )
    if one_by_one:
        yield from _from_boxes(pixels, valid, flat, rows, columns, interpolation)
        return
    chips = _floats(pixels, valid)
    step = max(1, _CHUNK // size**2) if on_cpu else b
    for crop in range(crops):
        for start in range(0, b, step):
            some = slice(start, min(start + step, b))
            part = slice(crop * b + some.start, crop * b + some.stop)
            resize = _by_bags if on_cpu else _by_products
            yield part, resize(chips[some], rows[part], columns[part])


def shrink_rows(
    chips: Float[Tensor, "n c h w"],
    index: Int64[Tensor, "n out k"],
    weight: Float[Tensor, "n out k"],
) -> Float[Tensor, "n c out w"]:
    """Make the output rows by adding up weighted input rows, few for each (on the CPU)."""
    n, c, h, w = chips.shape
    _, out, count = index.shape
    planes = torch.arange(0, n * c * h, h).view(n, c, 1, 1)
    thin = F.embedding_bag(
        (index.view(n, 1, out, count) + planes).view(-1, count),
        chips.reshape(n * c * h, w),
        mode="sum",
        per_sample_weights=weight.repeat(1, c, 1).view(-1, count),
    )
    return thin.view(n, c, out, w)


def keep(
    pixels: Float[Tensor, "*n c h w"], valid: Bool[Tensor, "*n #c h w"]
) -> Float[Tensor, "*n c h w"]:
    """Set float32 ``pixels`` to +0 where not ``valid``, in place, whatever was there, NaN too."""
    # Masking bits is exact for any value and several times faster than where() on the CPU.
    pixels.view(torch.int32).bitwise_and_(valid.to(torch.int32).neg_())
    return pixels


def _from_boxes(
    pixels: Shaped[Tensor, "b c h w"],
    valid: Bool[Tensor, "b h w"] | None,
    boxes: Int64[Tensor, "m 4"],
    rows: Taps,
    columns: Taps,
    interpolation: Interpolation,
) -> Iterator[tuple[slice, Float[Tensor, "n c1 size size"]]]:
    """Resize one box after the other, converting only its own pixels."""
    b, c = pixels.shape[:2]
    size = rows.index.shape[1]
    blocks = band_blocks(size)
    firsts = columns.index[:, [end for block in blocks for end in (block[0], block[1] - 1)], 0]
    ends = firsts.tolist()
    # One matrix serves all crops: only the weights of the last one need to be cleared.
    matrix = torch.zeros(size, int(boxes[:, 3].max()) if len(boxes) else 0)
    where = boxes.tolist()
    for part in _parts(len(boxes) // b, b, size):
        crops = torch.empty(len(range(*part.indices(len(boxes)))), c + (valid is not None), size, size)
        for row, crop in zip(range(*part.indices(len(boxes))), crops, strict=True):
            top, left, height, width = where[row]
            i, box = row % b, (slice(top, top + height), slice(left, left + width))
            chip = pixels[i, :, *box].to(torch.float32, memory_format=torch.contiguous_format)
            if valid is not None:
                inside = valid[i, *box]
                chip = keep(torch.cat([chip, inside[None]]), inside)
            count = tap_count(height, size, interpolation)
            index, weight = rows.index[row, :, :count], rows.weight[row, :, :count]
            thin = shrink_rows(chip[None], index[None], weight[None])
            count = tap_count(width, size, interpolation)
            index, weight = columns.index[row, :, :count], columns.weight[row, :, :count]
            matrix.scatter_add_(1, index, weight)
            # Mirrored columns run from right to left.
            spans = [
                (min(pair), min(max(pair) + count, width))
                for pair in zip(ends[row][::2], ends[row][1::2], strict=True)
            ]
            multiply_band(
                thin.view(-1, width), matrix.t(), blocks, spans, out=crop.view(-1, size)
            )
            matrix.scatter_(1, index, 0.0)
        yield part, crops


def _parts(crops: int, b: int, size: int) -> Iterator[slice]:
    """Rows (crop-major) to work on together: crops of one sample, so that its chip stays cached."""
    most = max(1, _CHUNK // size**2)
    count = -(-crops // most)
    for i in range(b):
        for k in range(count):
            first, stop = crops * k // count, crops * (k + 1) // count
            yield slice(first * b + i, (stop - 1) * b + i + 1, b)


def band_blocks(size: int) -> list[tuple[int, int]]:
    """Cut output columns into the blocks that :func:`multiply_band` works on."""
    step = size if size <= _WHOLE_MATRIX else _BLOCK
    return [(start, min(start + step, size)) for start in range(0, size, step)]


def multiply_band(
    x: Float[Tensor, "m w"],
    matrix: Float[Tensor, "longer size"],
    blocks: list[tuple[int, int]],
    spans: list[tuple[int, int]],
    *,
    out: Float[Tensor, "m size"],
) -> None:
    """Multiply by a band matrix, a block of columns at a time: most of it is zero.

    Args:
        x: what to multiply.
        matrix: may be longer than ``x`` is wide.
        blocks: first and past-the-last column of each block.
        spans: the rows of ``matrix`` outside which a block is zero.
        out: where the product goes.
    """
    for (start, end), (low, high) in zip(blocks, spans, strict=True):
        torch.mm(x[:, low:high], matrix[low:high, start:end], out=out[:, start:end])


def _by_bags(
    chips: Float[Tensor, "n c h w"], rows: Taps, columns: Taps
) -> Float[Tensor, "n c out out"]:
    n, c, _, w = chips.shape
    thin = shrink_rows(chips, rows.index, rows.weight).view(n, -1, w)
    return torch.bmm(thin, columns.dense(w).transpose(1, 2)).view(n, c, -1, columns.index.shape[1])


def _by_products(
    chips: Float[Tensor, "n c h w"], rows: Taps, columns: Taps
) -> Float[Tensor, "n c out out"]:
    n, c, h, w = chips.shape
    out = rows.index.shape[1]
    # Columns come first and go last, so that neither product needs a matrix per channel.
    thin = torch.bmm(columns.dense(w), chips.reshape(n, c * h, w).transpose(1, 2))
    small = torch.bmm(thin.view(n, out * c, h), rows.dense(h).transpose(1, 2))
    return small.view(n, out, c, out).permute(0, 2, 3, 1).contiguous()


def _floats(
    pixels: Shaped[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None
) -> Float[Tensor, "b c1 h w"]:
    """Convert to float32; with ``valid``, 0 where invalid and ``valid`` as one more channel."""
    chips = pixels.to(torch.float32)
    if valid is None:
        return chips
    return keep(torch.cat([chips, valid[:, None].to(torch.float32)], dim=1), valid[:, None])


def _cubic(distance: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Keys' cubic convolution kernel at distances >= 0 (IEEE TASSP 29, 1981, Eq. 4)."""
    # Each piece is 0 at the end the other takes over, so clipping selects without a branch.
    a = _CUBIC
    near = distance.clamp(max=1.0)
    far = distance.clamp(1.0, 2.0)
    near = ((a + 2.0) * near - (a + 3.0)).mul_(near).mul_(near).add_(1.0)
    far = (far - 5.0).mul_(far).add_(8.0).mul_(far).sub_(4.0).mul_(a)
    return near.add_(far)
