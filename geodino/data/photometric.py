"""Changes of colour, blur and solarisation, for many crops at once, each with its own strength.

The operations are torchvision's, on values from 0 to 1, but batched, without branches per pixel,
and blind to invalid pixels. All work in place, on crops nobody else holds.

On the CPU an operation visits only the crops it is on for; on a GPU it visits all and keeps the
others by selection, so that no size depends on the draws and nothing waits for the host.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from geodino.data.resample import column_blocks, multiply_bands

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as in torchvision."""

Rows = slice | list[int]
"""Which crops an operation works on."""

Switch = Tensor | list[bool]
"""Per crop, on or off: a list on the CPU, a tensor on devices that nothing may wait for."""

Mixes = Tensor | list[list[list[float]]]
"""Per crop and slot (a, b, c): a list on the CPU, as :data:`Switch`."""

_NO_MIX = [1.0, 0.0, 0.0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Colours:
    """Changes of colour of ``n`` crops, ready to be applied."""

    mixes: Mixes
    """(n, 7, 3), see :class:`~geodino.data.view_plan.ViewPlan`."""

    shifts: Float[Tensor, "n 3"]
    """What is added to the hue, in sixths of the circle, for red, green and blue; within +-3."""

    turned: Switch
    """Whether the hue changes."""

    touched: Switch
    """Whether anything changes."""

    @classmethod
    def of(cls, mixes: Float[Tensor, "n 7 3"], hue: Float[Tensor, " n"]) -> "Colours":
        """Prepare the rows of a plan; ``hue`` in turns of the circle."""
        a, b, c = mixes.unbind(dim=-1)
        changed = ((a != 1.0) | (b != 0.0) | (c != 0.0)).any(dim=1)
        # Own hues 0, 2 and -2, within +-3: the sum with a hue stays where the formula holds.
        own = 4 * torch.arange(3, device=hue.device) + 3
        return cls(
            mixes=mixes.tolist() if mixes.device.type == "cpu" else mixes,
            shifts=torch.remainder(6.0 * hue[:, None] + own, 6.0) - 3.0,
            turned=switch(hue != 0),
            touched=switch(changed | (hue != 0)),
        )

    def __getitem__(self, rows: Rows) -> "Colours":
        return replace(self, **{f.name: _pick(getattr(self, f.name), rows) for f in fields(self)})


def switch(on: Bool[Tensor, " n"]) -> Switch:
    """Bring a switch to the host where nothing has to wait for that."""
    return on.tolist() if on.device.type == "cpu" else on


def _pick(values: Any, rows: Rows) -> Any:
    """Return some rows of a tensor or a list."""
    if isinstance(values, Tensor) or isinstance(rows, slice):
        return values[rows]
    return [values[row] for row in rows]


def on_rows(
    x: Float[Tensor, "n c h w"], on: Switch, operation: Callable[[Tensor, Rows], None]
) -> None:
    """Run ``operation(crops, rows)`` on the crops of ``x`` where ``on``; it works in place."""
    if isinstance(on, Tensor):
        changed = x.clone()
        operation(changed, slice(None))
        torch.where(on[:, None, None, None], changed, x, out=x)
    elif all(on):
        operation(x, slice(None))
    elif any(on):
        rows = [row for row, wanted in enumerate(on) if wanted]
        some = x[rows]
        operation(some, rows)
        x[rows] = some


def change_colour(
    x: Float[Tensor, "n 3 h w"],
    colours: Colours,
    valid: Float[Tensor, "n 1 h w"] | None,
) -> None:
    """Brightness, contrast, saturation and hue in their drawn order, then grayscale.

    Args:
        x: red, green, blue from 0 to 1.
        colours: what to change.
        valid: 1 where a pixel counts in a mean, else 0; None where all do.
    """
    x.clamp_(0.0, 1.0)
    mix(x, colours.mixes, slice(0, 3), valid)
    on_rows(x, colours.turned, lambda some, rows: turn_hue(some, colours.shifts[rows]))
    mix(x, colours.mixes, slice(3, 7), valid)


def mix(
    x: Float[Tensor, "n 3 h w"],
    mixes: Mixes,
    slots: slice,
    valid: Float[Tensor, "n 1 h w"] | None,
) -> None:
    """Compute ``clip(a x + b grey + c mean(grey), 0, 1)`` for each (a, b, c) of some slots."""
    if isinstance(mixes, Tensor):
        for slot in mixes[:, slots].unbind(dim=1):  # (1, 0, 0) leaves a crop exactly as it is
            a, b, c = slot.view(-1, 3, 1, 1, 1).unbind(dim=1)
            addend = _grey(x, b) + c * _grey(_mean(x, valid))
            x.mul_(a).add_(addend).clamp_(0.0, 1.0)
        return
    for row, program in enumerate(mixes):
        some = slice(row, row + 1)
        for one in program[slots]:
            if one != _NO_MIX:
                _mix_one(x[some], one, None if valid is None else valid[some])


def _mix_one(
    x: Float[Tensor, "1 3 h w"],
    weights: list[float],
    valid: Float[Tensor, "1 1 h w"] | None,
) -> None:
    of_pixel, of_grey, of_mean = weights
    grey = _grey(x, of_grey) if of_grey else None
    mean = 0.0
    if of_mean:
        means = _mean(x, valid).flatten().tolist()
        mean = of_mean * sum(weight * value for weight, value in zip(LUMA, means, strict=True))
    x.mul_(of_pixel)
    if grey is not None:
        x.add_(grey)
    if mean:
        x.add_(mean)
    if of_pixel > 1.0:  # else it is a mean of values from 0 to 1
        x.clamp_(0.0, 1.0)


def turn_hue(x: Float[Tensor, "n 3 h w"], shifts: Float[Tensor, "n 3"]) -> None:
    """Turn the hue, keeping HSV's value and saturation.

    Equal to going through HSV as torchvision does, without its branches: with minimum 0 and
    maximum 1, hue in sixths of the circle is ``+-(1 - r + g + b)``, positive where g >= b, and a
    channel whose own hue is h0 comes back as ``clip(||hue - h0| - 3| - 1, 0, 1)``.
    """
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    low = torch.minimum(r, g)
    high = torch.maximum(r, g)
    torch.minimum(low, b, out=low)
    torch.maximum(high, b, out=high)
    chroma = (high - low).clamp_(min=1e-20)  # greys must not divide by zero
    hue = torch.add(g, b, out=high)
    hue.sub_(r).sub_(low).add_(chroma)
    low.sub_(chroma)
    hue.div_(chroma)
    # The sign of g - b, plus where they are equal.
    hue.mul_(torch.sub(g, b).add_(1e-30).sgn_())
    torch.add(hue, shifts[:, :, None, None], out=x)
    x.abs_().sub_(3.0).abs_().clamp_(1.0, 2.0)
    torch.addcmul(low, x, chroma, out=x)


def solarise(x: Float[Tensor, "n 3 h w"]) -> None:
    """Invert values from a half on, after clipping to 0..1."""
    x.clamp_(0.0, 1.0)
    # |x - 1| = 1 - x where x rounds up, |x - 0| = x elsewhere.
    x.sub_((x + 0.5).floor_()).abs_()


def blur(
    x: Float[Tensor, "n c h w"],
    on: Switch,
    kernels: Float[Tensor, "n kernel"],
    valid: Float[Tensor, "n 1 h w"] | None,
) -> None:
    """Filter rows and columns of the crops where ``on`` with their kernels, mirrored at the edges.

    With ``valid`` (1 or 0), a pixel becomes the weighted mean of the valid ones around it.
    """

    def operation(some: Tensor, rows: Rows) -> None:
        if valid is None:
            _filter(some, kernels[rows], out=some)
            return
        both = torch.cat([some * valid[rows], valid[rows]], dim=1)
        _filter(both, kernels[rows], out=both)
        # A valid pixel sees at least itself, with the largest weight of the kernel.
        torch.div(both[:, :-1], both[:, -1:].clamp_min(1e-6), out=some)

    on_rows(x, on, operation)


def gaussian(sigma: Float[Tensor, " n"], kernel: int) -> Float[Tensor, "n kernel"]:
    """Return ``exp(-d^2 / (2 sigma^2))`` at whole distances d, summing to 1."""
    distance = torch.arange(kernel, device=sigma.device, dtype=sigma.dtype) - kernel // 2
    # Crops that are not blurred carry sigma 0; their result is thrown away but must be finite.
    return torch.softmax(-0.5 * (distance / sigma.clamp_min(1e-3)[:, None]) ** 2, dim=1)


def _grey(
    x: Float[Tensor, "n 3 h w"], factor: float | Float[Tensor, "n 1 1 1"] = 1.0
) -> Float[Tensor, "n 1 h w"]:
    r, g, b = x[:, 0:1], x[:, 1:2], x[:, 2:3]
    if isinstance(factor, Tensor):
        return _grey(x).mul_(factor)
    grey: Tensor = r * (factor * LUMA[0])
    return grey.add_(g, alpha=factor * LUMA[1]).add_(b, alpha=factor * LUMA[2])


def _mean(
    x: Float[Tensor, "n 3 h w"], valid: Float[Tensor, "n 1 h w"] | None
) -> Float[Tensor, "n 3 1 1"]:
    if valid is None:
        return x.mean(dim=(2, 3), keepdim=True)
    count = valid.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)
    return (x * valid).sum(dim=(2, 3), keepdim=True) / count


def _filter(
    x: Float[Tensor, "n c h w"],
    kernels: Float[Tensor, "n kernel"],
    *,
    out: Float[Tensor, "n c h w"],
) -> None:
    """Filter rows and columns, the input going on mirrored past its ends (the end once)."""
    if x.device.type == "cpu" and out.is_contiguous():
        _filter_by_bags(x, kernels, out=out)
    else:
        out.copy_(_filter_by_products(x, kernels))


def _filter_by_products(
    x: Float[Tensor, "n c h w"], kernels: Float[Tensor, "n kernel"]
) -> Float[Tensor, "n c h w"]:
    n, c, h, w = x.shape
    wide = torch.bmm(x.reshape(n, c * h, w), _bands(kernels, w).transpose(1, 2))
    return torch.matmul(_bands(kernels, h)[:, None], wide.view(n, c, h, w))


def _filter_by_bags(
    x: Float[Tensor, "n c h w"],
    kernels: Float[Tensor, "n kernel"],
    *,
    out: Float[Tensor, "n c h w"],
) -> None:
    """The same with less to multiply: nine rows for each row, and only the band of the matrix."""
    n, c, h, w = x.shape
    width = kernels.shape[1]
    weights = kernels[:, None].expand(n, c * h, width)
    tall = F.embedding_bag(
        _mirrored_planes(h, width, n * c),
        x.reshape(n * c * h, w),
        mode="sum",
        per_sample_weights=weights.reshape(n * c * h, width),
    ).view(n, c * h, w)
    reach = width // 2
    blocks = [
        (start, end, max(0, start - reach), min(w, end + reach)) for start, end in column_blocks(w)
    ]
    bands = _bands(kernels, w).transpose(1, 2)
    multiply_bands(tall, bands, [blocks] * n, out=out.view(n, c * h, w))


def _bands(kernels: Float[Tensor, "n kernel"], size: int) -> Float[Tensor, "n size size"]:
    """Matrices that filter ``size`` positions, mirrored at both ends."""
    n, width = kernels.shape
    index = _mirrored(size, width, kernels.device).expand(n, size, width)
    bands = torch.zeros(n, size, size, device=kernels.device)
    return bands.scatter_add_(2, index, kernels[:, None].expand(n, size, width))


@lru_cache(maxsize=32)
def _mirrored(size: int, width: int, device: torch.device) -> Int64[Tensor, "size width"]:
    """Positions under a kernel at each position, mirrored at both ends."""
    offsets = torch.arange(width, device=device) - width // 2
    index = torch.arange(size, device=device)[:, None] + offsets
    return (size - 1) - ((size - 1) - index.abs()).abs()


@lru_cache(maxsize=32)
def _mirrored_planes(size: int, width: int, planes: int) -> Int64[Tensor, "rows width"]:
    """The same for ``planes`` images, one under the other."""
    starts = torch.arange(0, planes * size, size).view(-1, 1, 1)
    return (_mirrored(size, width, torch.device("cpu")) + starts).view(-1, width)
