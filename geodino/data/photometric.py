"""Changes of colour, blur and solarisation, for many crops at once, each with its own strength.

The operations are torchvision's, on values from 0 to 1, but batched, without branches per pixel,
and blind to invalid pixels. All work in place, on crops nobody else holds.

On the CPU an operation visits only the crops it is on for; on a GPU it visits all and keeps the
others by selection, so that no size depends on the draws and nothing waits for the host.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as in torchvision."""

Rows = slice | list[int]
"""Which crops an operation works on."""

Switch = Tensor | list[bool]
"""Per crop, on or off: a list for the CPU, a tensor for devices that nothing may wait for."""

Factor = float | Tensor
"""One number for all crops, or a tensor (n, 1, 1, 1)."""

_NO_MIX = [1.0, 0.0, 0.0]

_BLOCK = 32
"""Output columns of one matrix product of a blur on the CPU, at most."""


def switch(on: Bool[Tensor, " n"]) -> Switch:
    """Bring a switch to the host where nothing has to wait for that."""
    return on.tolist() if on.device.type == "cpu" else on


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
    mixes: Float[Tensor, "n 7 3"],
    hue: Float[Tensor, " n"],
    valid: Float[Tensor, "n 1 h w"] | None,
) -> None:
    """Brightness, contrast, saturation and hue in their drawn order, then grayscale.

    Args:
        x: red, green, blue from 0 to 1.
        mixes: as in :class:`~geodino.data.view_plan.ViewPlan`.
        hue: turns of the hue circle.
        valid: 1 where a pixel counts in a mean, else 0; None where all do.
    """
    _mix_all(x, mixes[:, :3], valid)
    on_rows(x, switch(hue != 0), lambda some, rows: turn_hue(some, hue[rows]))
    _mix_all(x, mixes[:, 3:], valid)


def changes(mixes: Float[Tensor, "*n 3"]) -> Bool[Tensor, "*n"]:
    """Whether a mix (a, b, c) is anything but (1, 0, 0)."""
    a, b, c = mixes.unbind(dim=-1)
    return (a != 1.0) | (b != 0.0) | (c != 0.0)


def mix(
    x: Float[Tensor, "n 3 h w"],
    of_pixel: Factor,
    of_grey: Factor,
    of_mean: Factor,
    valid: Float[Tensor, "n 1 h w"] | None,
) -> None:
    """Compute ``clip(a x + b grey + c mean(grey), 0, 1)``; a factor of 0.0 costs nothing."""
    mean = None if _is_zero(of_mean) else _mean_grey(x, valid).mul_(of_mean)
    grey = None if _is_zero(of_grey) else _grey(x).mul_(of_grey)
    x.mul_(of_pixel)
    for part in (grey, mean):
        if part is not None:
            x.add_(part)
    x.clamp_(0.0, 1.0)


def _is_zero(factor: Factor) -> bool:
    return isinstance(factor, float) and factor == 0.0


def turn_hue(x: Float[Tensor, "n 3 h w"], turns: Float[Tensor, " n"]) -> None:
    """Turn the hue by ``turns`` of the circle, keeping HSV's value and saturation.

    Equal to going through HSV as torchvision does, without its branches: with minimum 0 and
    maximum 1, hue in sixths of the circle is ``+-(1 - r + g + b)``, positive where g >= b, and a
    channel whose own hue is h0 comes back as ``clip(||hue - h0| - 3| - 1, 0, 1)``.
    """
    r, g, b = x.split(1, dim=1)
    low = torch.minimum(r, g)
    high = torch.maximum(r, g)
    torch.minimum(low, b, out=low)
    torch.maximum(high, b, out=high)
    chroma = high - low
    hue = torch.add(g, b, out=high)
    hue.sub_(r).sub_(low).add_(chroma).div_(chroma.clamp_min(1e-20))
    hue.copysign_(g - b)
    # Own hues 0, 2 and -2; within +-3, so that the sum stays within the +-6 the formula needs.
    own = 4 * torch.arange(3, device=x.device) + 3
    shift = torch.remainder(6.0 * turns[:, None] + own, 6.0) - 3.0
    torch.add(hue, shift.view(-1, 3, 1, 1), out=x)
    x.abs_().sub_(3.0).abs_().clamp_(1.0, 2.0)
    torch.addcmul(low.sub_(chroma), x, chroma, out=x)


def solarise(x: Float[Tensor, "n 3 h w"]) -> None:
    """Invert values from a half on, after clipping to 0..1."""
    x.clamp_(0.0, 1.0)
    # |x - 1| = 1 - x where x rounds up, |x - 0| = x elsewhere.
    x.sub_((x + 0.5).floor_()).abs_()


def blur(
    x: Float[Tensor, "n c h w"],
    sigma: Float[Tensor, " n"],
    valid: Float[Tensor, "n 1 h w"] | None,
    *,
    kernel: int,
) -> None:
    """Blur with a Gaussian of ``kernel`` pixels, mirrored at the edges; ``sigma`` 0 for none.

    With ``valid`` (1 or 0), a pixel becomes the weighted mean of the valid ones around it.
    """

    def operation(some: Tensor, rows: Rows) -> None:
        weights = gaussian(sigma[rows], kernel)
        inside = _some(valid, rows)
        if inside is None:
            some.copy_(_filter(some, weights))
            return
        both = _filter(torch.cat([some * inside, inside], dim=1), weights)
        # A valid pixel sees at least itself, with the largest weight of the kernel.
        torch.div(both[:, :-1], both[:, -1:].clamp_min(1e-6), out=some)

    on_rows(x, switch(sigma > 0), operation)


def gaussian(sigma: Float[Tensor, " n"], kernel: int) -> Float[Tensor, "n kernel"]:
    """Return ``exp(-d^2 / (2 sigma^2))`` at whole distances d, summing to 1."""
    distance = torch.arange(kernel, device=sigma.device, dtype=sigma.dtype) - kernel // 2
    # Crops that are not blurred carry sigma 0; their result is thrown away but must be finite.
    return torch.softmax(-0.5 * (distance / sigma.clamp_min(1e-3)[:, None]) ** 2, dim=1)


def _mix_all(
    x: Float[Tensor, "n 3 h w"],
    mixes: Float[Tensor, "n slots 3"],
    valid: Float[Tensor, "n 1 h w"] | None,
) -> None:
    if x.device.type != "cpu":
        for slot in mixes.unbind(dim=1):  # (1, 0, 0) leaves a crop exactly as it is
            a, b, c = slot.view(-1, 3, 1, 1, 1).unbind(dim=1)
            mix(x, a, b, c, valid)
        return
    for row, slots in enumerate(mixes.tolist()):
        for a, b, c in slots:
            if [a, b, c] != _NO_MIX:
                some = slice(row, row + 1)
                mix(x[some], a, b, c, None if valid is None else valid[some])


def _some(
    valid: Float[Tensor, "n 1 h w"] | None, rows: Rows
) -> Float[Tensor, "m 1 h w"] | None:
    return None if valid is None else valid[rows]


def _grey(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    r, g, b = x.split(1, dim=1)
    return (r * LUMA[0]).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


def _mean_grey(
    x: Float[Tensor, "n 3 h w"], valid: Float[Tensor, "n 1 h w"] | None
) -> Float[Tensor, "n 1 1 1"]:
    if valid is None:
        return _grey(x.mean(dim=(2, 3), keepdim=True))
    count = valid.sum(dim=(2, 3), keepdim=True).clamp_min(1.0)
    return _grey((x * valid).sum(dim=(2, 3), keepdim=True) / count)


def _filter(
    x: Float[Tensor, "n c h w"], weights: Float[Tensor, "n kernel"]
) -> Float[Tensor, "n c h w"]:
    """Filter rows and columns, the input going on mirrored past its ends (the end once)."""
    by = _filter_by_bags if x.device.type == "cpu" else _filter_by_products
    return by(x, weights)


def _filter_by_products(
    x: Float[Tensor, "n c h w"], weights: Float[Tensor, "n kernel"]
) -> Float[Tensor, "n c h w"]:
    n, c, h, w = x.shape
    wide = torch.bmm(x.reshape(n, c * h, w), _band(weights, w).transpose(1, 2))
    return torch.matmul(_band(weights, h)[:, None], wide.view(n, c, h, w))


def _filter_by_bags(
    x: Float[Tensor, "n c h w"], weights: Float[Tensor, "n kernel"]
) -> Float[Tensor, "n c h w"]:
    """The same with less to multiply: nine rows for each row, blocks of columns around the band."""
    n, c, h, w = x.shape
    kernel = weights.shape[1]
    index = _mirrored(h, kernel, x.device) + torch.arange(0, n * c * h, h).view(-1, 1, 1)
    tall = F.embedding_bag(
        index.view(-1, kernel),
        x.reshape(n * c * h, w),
        mode="sum",
        per_sample_weights=weights.repeat_interleave(c * h, dim=0),
    )
    block = next(size for size in range(min(_BLOCK, w), 0, -1) if w % size == 0)
    windows = _windows(tall, block=block, reach=kernel // 2)
    return torch.bmm(windows.view(n, -1, windows.shape[2]), _toeplitz(weights, block)).view(x.shape)


def _windows(
    x: Float[Tensor, "m w"], *, block: int, reach: int
) -> Float[Tensor, "m blocks wide"]:
    """Cut rows into blocks with ``reach`` more positions at either side, mirrored past the ends."""
    m, w = x.shape
    blocks = w // block
    windows = x.new_empty(m, blocks, block + 2 * reach)
    windows[:, 0, :reach] = x[:, 1 : reach + 1].flip(1)
    windows[:, -1, -reach:] = x[:, -reach - 1 : -1].flip(1)
    if blocks == 1:
        windows[:, 0, reach:-reach] = x
    else:
        windows[:, 0, reach:] = x[:, : block + reach]
        windows[:, -1, :-reach] = x[:, -block - reach :]
        inner = x[:, block - reach :].unfold(1, block + 2 * reach, block)
        windows[:, 1:-1] = inner[:, : blocks - 2]
    return windows


def _toeplitz(weights: Float[Tensor, "n kernel"], size: int) -> Float[Tensor, "n wide size"]:
    """Matrices that filter ``size + kernel - 1`` positions to ``size``."""
    n, kernel = weights.shape
    matrix = torch.zeros(n, size, size + kernel - 1, device=weights.device)
    diagonals = matrix.as_strided((n, size, kernel), (matrix.stride(0), matrix.stride(1) + 1, 1))
    diagonals.copy_(weights[:, None])
    return matrix.transpose(1, 2)


def _band(weights: Float[Tensor, "n kernel"], size: int) -> Float[Tensor, "n size size"]:
    """Matrices that filter ``size`` positions, mirrored at both ends."""
    n, kernel = weights.shape
    index = _mirrored(size, kernel, weights.device).expand(n, size, kernel)
    band = torch.zeros(n, size, size, device=weights.device)
    return band.scatter_add_(2, index, weights[:, None].expand(n, size, kernel))


def _mirrored(size: int, kernel: int, device: torch.device) -> Int64[Tensor, "size kernel"]:
    """Positions under a kernel at each position, mirrored at both ends."""
    offsets = torch.arange(kernel, device=device) - kernel // 2
    index = torch.arange(size, device=device)[:, None] + offsets
    return (size - 1) - ((size - 1) - index.abs()).abs()
