"""Changes of colour, blur and solarisation, for many crops at once, each with its own strength.

The operations are torchvision's, on values from 0 to 1, but batched, without branches per pixel,
and blind to invalid pixels. Everything here works in place on crops nobody else holds.

On the CPU an operation visits only the crops it is on for; on a GPU it visits all and keeps the
others by selection, so that no size depends on the draws and nothing waits for the host.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601), as in torchvision."""

_BLOCK = 32
"""Output rows per matrix product of a blur on the CPU: each needs 32 + kernel - 1 input rows."""

Rows = slice | list[int]
"""Which rows an operation works on."""

Switch = Tensor | list[bool]
"""Per crop, on or off: on the host for the CPU, a tensor for devices that nothing may wait for."""


def switch(on: Bool[Tensor, " n"]) -> Switch:
    """Bring a switch to the host where that costs nothing."""
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
    for slot in range(3):
        mix(x, mixes[:, slot], valid)
    on_rows(x, hue != 0, lambda some, rows: turn_hue(some, hue[rows]))
    for slot in range(3, 7):
        mix(x, mixes[:, slot], valid)


def mix(
    x: Float[Tensor, "n 3 h w"],
    weights: Float[Tensor, "n 3"],
    valid: Float[Tensor, "n 1 h w"] | None,
) -> None:
    """Compute ``clip(a x + b grey + c mean(grey), 0, 1)``, one (a, b, c) per crop."""
    if x.device.type != "cpu":
        _mix(x, weights, valid)  # (1, 0, 0) leaves a crop exactly as it is
        return
    on_rows(
        x,
        changes(weights),
        lambda some, rows: _mix(some, weights[rows], None if valid is None else valid[rows]),
    )


def changes(mixes: Float[Tensor, "*n 3"]) -> Bool[Tensor, "*n"]:
    """Whether a mix (a, b, c) is anything but (1, 0, 0)."""
    a, b, c = mixes.unbind(dim=-1)
    return (a != 1.0) | (b != 0.0) | (c != 0.0)


def turn_hue(x: Float[Tensor, "n 3 h w"], turns: Float[Tensor, " n"]) -> None:
    """Turn the hue by ``turns`` of the circle, keeping HSV's value and saturation.

    Equal to going through HSV as torchvision does, without its branches: with minimum 0 and
    maximum 1, hue in sixths of the circle is ``+-(1 - r + g + b)``, positive where g >= b, and a
    channel whose own hue is h0 comes back as ``clip(||hue - h0| - 3| - 1, 0, 1)``.
    """
    r, g, b = x.unbind(dim=1)
    low = torch.minimum(r, g)
    high = torch.maximum(r, g)
    torch.minimum(low, b, out=low)
    torch.maximum(high, b, out=high)
    chroma = high - low
    hue = torch.add(g, b, out=high)
    hue.sub_(r).sub_(low).add_(chroma).div_(chroma.clamp_min(1e-20))
    hue.copysign_(g - b)
    low.sub_(chroma)
    for channel, own in zip((r, g, b), (0.0, 2.0, -2.0), strict=True):
        # Within +-3, so that the sum stays within the +-6 where the formula holds.
        shift = torch.remainder(6.0 * turns - own + 3.0, 6.0) - 3.0
        torch.add(hue, shift[:, None, None], out=channel)
        channel.abs_().sub_(3.0).abs_().clamp_(1.0, 2.0).mul_(chroma).add_(low)


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
    on_rows(
        x,
        sigma > 0,
        lambda some, rows: _blur(
            some, sigma[rows], None if valid is None else valid[rows], kernel=kernel
        ),
    )


def gaussian(sigma: Float[Tensor, " n"], kernel: int) -> Float[Tensor, "n kernel"]:
    """Return ``exp(-d^2 / (2 sigma^2))`` at whole distances d, summing to 1."""
    distance = torch.arange(kernel, device=sigma.device, dtype=sigma.dtype) - kernel // 2
    # Crops that are not blurred carry sigma 0; their result is thrown away but must be finite.
    return torch.softmax(-0.5 * (distance / sigma.clamp_min(1e-3)[:, None]) ** 2, dim=1)


def _mix(
    x: Float[Tensor, "n 3 h w"],
    weights: Float[Tensor, "n 3"],
    valid: Float[Tensor, "n 1 h w"] | None,
) -> None:
    of_pixel, of_grey, of_mean = weights.unbind(dim=1)
    on_cpu = x.device.type == "cpu"
    grey = mean = None
    if not on_cpu or bool(of_mean.any()):
        mean = of_mean * _mean_grey(x, valid)
    if not on_cpu or bool(of_grey.any()):
        grey = _grey(x).mul_(of_grey[:, None, None, None])
    x.mul_(of_pixel[:, None, None, None])
    if grey is not None:
        x.add_(grey)
    if mean is not None:
        x.add_(mean[:, None, None, None])
    x.clamp_(0.0, 1.0)


def _grey(x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 1 h w"]:
    r, g, b = x.split(1, dim=1)
    return (r * LUMA[0]).add_(g, alpha=LUMA[1]).add_(b, alpha=LUMA[2])


def _mean_grey(
    x: Float[Tensor, "n 3 h w"], valid: Float[Tensor, "n 1 h w"] | None
) -> Float[Tensor, " n"]:
    if valid is None:
        means = x.mean(dim=(2, 3))
    else:
        means = (x * valid).sum(dim=(2, 3)) / valid.sum(dim=(2, 3)).clamp_min(1.0)
    r, g, b = means.unbind(dim=1)
    return LUMA[0] * r + LUMA[1] * g + LUMA[2] * b


def _blur(
    x: Float[Tensor, "n c h w"],
    sigma: Float[Tensor, " n"],
    valid: Float[Tensor, "n 1 h w"] | None,
    *,
    kernel: int,
) -> None:
    _, channels, height, width = x.shape
    weights = gaussian(sigma, kernel)
    rows = _mirrored_band(weights, height)
    columns = rows if height == width else _mirrored_band(weights, width)
    if valid is None:
        _separable(x, rows, columns, reach=kernel // 2, out=x)
        return
    both = torch.cat([x * valid, valid], dim=1)
    _separable(both, rows, columns, reach=kernel // 2, out=both)
    # A valid pixel sees at least itself, with the largest weight of the kernel.
    torch.div(both[:, :channels], both[:, channels:].clamp_min(1e-6), out=x)


def _mirrored_band(weights: Float[Tensor, "n kernel"], size: int) -> Float[Tensor, "n size size"]:
    """Matrix of a filter whose input continues mirrored past its ends, the end itself once."""
    n, kernel = weights.shape
    offsets = torch.arange(kernel, device=weights.device) - kernel // 2
    index = torch.arange(size, device=weights.device)[:, None] + offsets
    index = (size - 1) - ((size - 1) - index.abs()).abs()
    band = torch.zeros(n, size, size, device=weights.device)
    return band.scatter_add_(2, index.expand(n, -1, -1), weights[:, None].expand(-1, size, -1))


def _separable(
    x: Float[Tensor, "n c h w"],
    rows: Float[Tensor, "n h h"],
    columns: Float[Tensor, "n w w"],
    *,
    reach: int,
    out: Float[Tensor, "n c h w"],
) -> None:
    """Apply a banded matrix to the rows and one to the columns of every channel."""
    n, c, h, w = x.shape
    if x.device.type != "cpu":
        wide = torch.bmm(x.reshape(n, c * h, w), columns.transpose(1, 2)).view(n, c, h, w)
        torch.matmul(rows[:, None], wide, out=out)
        return
    # Most of a band matrix is zero: products of blocks along its diagonal do the same work.
    for i in range(n):
        flat, wide = x[i].reshape(c * h, w), x.new_empty(c * h, w)
        for start in range(0, w, _BLOCK):
            low, high, end = max(0, start - reach), start + _BLOCK + reach, start + _BLOCK
            block = columns[i, start:end, low:high].t()
            torch.mm(flat[:, low:high], block, out=wide[:, start:end])
        for channel in range(c):
            plane = wide[channel * h : (channel + 1) * h]
            for start in range(0, h, _BLOCK):
                low, high, end = max(0, start - reach), start + _BLOCK + reach, start + _BLOCK
                torch.mm(
                    rows[i, start:end, low:high], plane[low:high], out=out[i, channel, start:end]
                )
