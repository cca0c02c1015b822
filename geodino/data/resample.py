"""Crop and resize with antialiasing, weighing by validity, for many boxes at once.

A resized crop is separable: every output row is a weighted sum of a few input rows, every output
column one of a few input columns. The weights (:class:`Taps`) are those of torchvision and Pillow
(``antialias=True``: the kernel is widened by the scale when shrinking), within the box only.
Applied to ``pixels * valid`` and to ``valid``, their quotient is the mean over valid pixels.

Rows are made by summing the few that matter on the CPU (:func:`sum_rows`) and by a matrix
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

_WHOLE_CHIP = 192 * 192
"""Up to so many pixels, the CPU resizes from whole chips; above, it copies each box first."""

_CHUNK = 1 << 16
"""Output pixels of a part on the CPU: 256 kB per band, so that a crop stays in the cache."""

_WHOLE_MATRIX, _BLOCK = 128, 32
"""Output columns above which a band matrix is multiplied in blocks on the CPU, and their size."""


Block = tuple[int, int, int, int]
"""First and past-the-last column of a block; first and past-the-last row it is not zero in."""


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
    reach = _REACH[interpolation]
    count = tap_count(longest, out, interpolation)
    scale = (length.to(torch.float32) / out)[:, None]
    stretch = scale.clamp_min(1.0)
    position = torch.arange(out, device=start.device, dtype=torch.float32)
    position = position + mirrored[:, None] * (out - 1 - 2 * position)
    centre = scale * (position + 0.5)
    first = (centre - reach * stretch + 0.5).floor_().clamp_min_(0.0)
    step = torch.arange(count, device=start.device)
    distance = ((first + 0.5 - centre) / stretch)[..., None] + (step / stretch)[:, None]
    distance.abs_()
    weight = _cubic(distance) if interpolation == "bicubic" else (1.0 - distance).clamp_min_(0.0)
    within = first.to(torch.int64)
    last = length[:, None] - 1
    weight.mul_(step <= (last - within)[..., None])
    weight.div_(weight.sum(dim=-1, keepdim=True))
    index = ((within + start[:, None])[..., None] + step).clamp_max_(
        (last + start[:, None])[..., None]
    )
    return Taps(index=index, weight=weight)


def resized_crops(
    pixels: Shaped[Tensor, "b c h w"],
    valid: Bool[Tensor, "b h w"] | None,
    boxes: Int64[Tensor, "crops b 4"],
    mirrored: Bool[Tensor, "crops b 2"],
    *,
    complete: Bool[Tensor, " b"],
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
        complete: whether all pixels of a chip are valid; on the CPU such a chip may be spared.
        size: side of the crops.
        interpolation: kernel.

    Yields:
        Crops; where they have one channel more than the chips, these are ``pixels * valid`` and
        ``valid``, both resized.
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
        masks = [None if valid is None or c else valid[i] for i, c in enumerate(complete.tolist())]
        yield from _from_boxes(pixels, masks, flat, rows, columns, interpolation)
        return
    chips = _floats(pixels, valid)
    if not on_cpu:
        whole = [slice(k * b, (k + 1) * b) for k in range(crops)]
        small = [_by_products(chips, rows[part], columns[part]) for part in whole]
        yield from [(slice(0, crops * b), torch.cat(small))] if small else []
        return
    step = max(1, _CHUNK // size**2)
    for first in range(0, crops * b, b):
        for start in range(0, b, step):
            some = slice(start, min(start + step, b))
            part = slice(first + some.start, first + some.stop)
            yield part, _by_bags(chips[some], rows[part], columns[part])


def sum_rows(
    table: Float[Tensor, "rows w"],
    index: Int64[Tensor, "n c out k"],
    weight: Float[Tensor, "n out k"],
) -> Float[Tensor, "n c out w"]:
    """Add up weighted rows of ``table``; channels have the same weights (on the CPU)."""
    n, c, out, count = index.shape
    weights = weight[:, None].expand(n, c, out, count)
    summed = F.embedding_bag(
        index.view(-1, count), table, mode="sum", per_sample_weights=weights.reshape(-1, count)
    )
    return summed.view(n, c, out, -1)


def keep(
    pixels: Float[Tensor, "*n c h w"], valid: Bool[Tensor, "... h w"]
) -> Float[Tensor, "*n c h w"]:
    """Set float32 ``pixels`` to +0 where not ``valid``, in place, whatever was there, NaN too."""
    # Masking bits is exact for any value and several times faster than where() on the CPU.
    pixels.view(torch.int32).bitwise_and_(valid.to(torch.int32).neg_())
    return pixels


def _from_boxes(
    pixels: Shaped[Tensor, "b c h w"],
    valid: list[Bool[Tensor, "h w"] | None],
    boxes: Int64[Tensor, "m 4"],
    rows: Taps,
    columns: Taps,
    interpolation: Interpolation,
) -> Iterator[tuple[slice, Float[Tensor, "n c1 size size"]]]:
    """Resize a few boxes of one chip after the other, converting only their own pixels.

    The boxes of a part are cut as wide as the widest of them, one below the other.
    """
    b, size = len(pixels), rows.index.shape[1]
    for part in _parts(len(boxes) // b, b, size):
        place = boxes[part].tolist()
        tall, wide = (max(box[axis] for box in place) for axis in (2, 3))
        chip = part.start % b
        lefts = [min(left, pixels.shape[3] - wide) for _, left, _, _ in place]
        table, starts = _stack_boxes(pixels[chip], valid[chip], place, lefts, wide)
        taps = tap_count(tall, size, interpolation)
        index = rows.index[part, :, :taps][:, None] + starts[:, :, None, None]
        thin = sum_rows(table, index, rows.weight[part, :, :taps]).view(len(place), -1, wide)
        taps = tap_count(wide, size, interpolation)
        moved = torch.tensor([[[box[1] - left]] for box, left in zip(place, lefts, strict=True)])
        index = columns.index[part, :, :taps] + moved
        bands = Taps(index=index, weight=columns.weight[part, :, :taps]).dense(wide)
        crops = torch.empty(len(place), thin.shape[1], size)
        multiply_bands(thin, bands.transpose(1, 2), _tap_blocks(index, wide), out=crops)
        yield part, crops.view(len(place), -1, size, size)


def _stack_boxes(
    chip: Shaped[Tensor, "c h w"],
    valid: Bool[Tensor, "h w"] | None,
    boxes: list[list[int]],
    lefts: list[int],
    wide: int,
) -> tuple[Float[Tensor, "rows wide"], Int64[Tensor, "n c1"]]:
    """Convert boxes to float32, channel by channel, one below the other.

    Returns:
        The rows, and where each channel of each box starts.
    """
    c = len(chip)
    channels = c + (valid is not None)
    starts, total = [], 0
    for _, _, height, _ in boxes:
        starts.append([total + k * height for k in range(channels)])
        total += channels * height
    table = torch.empty(total, wide)
    for (top, _, height, _), left, start in zip(boxes, lefts, starts, strict=True):
        place = table[start[0] : start[0] + channels * height].view(channels, height, wide)
        inside = slice(top, top + height), slice(left, left + wide)
        place[:c] = chip[:, *inside]
        if valid is not None:
            place[c] = valid[*inside]
            keep(place, valid[*inside])
    return table, torch.tensor(starts)


def _parts(crops: int, b: int, size: int) -> Iterator[slice]:
    """Rows (crop-major) to work on together: crops of one sample, so that its chip stays cached."""
    most = max(1, _CHUNK // size**2)
    count = -(-crops // most)
    for i in range(b):
        for k in range(count):
            first, stop = crops * k // count, crops * (k + 1) // count
            yield slice(first * b + i, (stop - 1) * b + i + 1, b)


def column_blocks(size: int) -> list[tuple[int, int]]:
    """Cut output columns into the blocks that :func:`multiply_bands` works on; none if few."""
    if size <= _WHOLE_MATRIX:
        return []
    return [(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]


def multiply_bands(
    x: Float[Tensor, "n m w"],
    bands: Float[Tensor, "n w size"],
    blocks: list[list[Block]],
    *,
    out: Float[Tensor, "n m size"],
) -> None:
    """Multiply by band matrices, a block of columns at a time: most of them is zero.

    Args:
        x: what to multiply.
        bands: the matrices.
        blocks: of each matrix; where there are none, it is multiplied as a whole.
        out: where the products go.
    """
    if not all(blocks):
        torch.bmm(x, bands, out=out)
        return
    for one, band, product, some in zip(x, bands, out, blocks, strict=True):
        for start, end, low, high in some:
            torch.mm(one[:, low:high], band[low:high, start:end], out=product[:, start:end])


def _tap_blocks(index: Int64[Tensor, "n out k"], size: int) -> list[list[Block]]:
    _, out, count = index.shape
    cuts = column_blocks(out)
    ends = index[:, [end for start, stop in cuts for end in (start, stop - 1)], 0].tolist()
    # Mirrored columns run from right to left.
    return [
        [
            (start, stop, min(pair), min(max(pair) + count, size))
            for (start, stop), pair in zip(cuts, zip(row[::2], row[1::2], strict=True), strict=True)
        ]
        for row in ends
    ]


def _by_bags(
    chips: Float[Tensor, "n c h w"], rows: Taps, columns: Taps
) -> Float[Tensor, "n c out out"]:
    n, c, h, w = chips.shape
    starts = torch.arange(0, n * c * h, h).view(n, c, 1, 1)
    thin = sum_rows(chips.reshape(n * c * h, w), rows.index[:, None] + starts, rows.weight)
    small = torch.bmm(thin.view(n, -1, w), columns.dense(w).transpose(1, 2))
    return small.view(n, c, -1, small.shape[2])


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
