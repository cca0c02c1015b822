"""Pictures of a report: stretched for people, hatched where invalid, small, inside the page."""

import base64
import io
import math
from typing import Literal

import matplotlib as mpl
import numpy as np
from jaxtyping import Bool, Float, UInt8
from matplotlib.image import imsave
from numpy import ndarray

Kind = Literal["photo", "map"]
"""Of a picture: of many colours, or of few and flat ones."""

SIDE = 160
"""Longest side of a picture in the page, pixels; pictures that are much smaller are enlarged."""

_HATCH = (np.array([120, 124, 128]), np.array([190, 194, 198]))
"""The two greys of the hatching."""

_PERIOD = 8
"""Pixels from one stroke of the hatching to the next."""


def stretched(
    values: Float[ndarray, "c h w"],
    valid: Bool[ndarray, "h w"],
    *,
    low: Float[ndarray, " c"],
    high: Float[ndarray, " c"],
    side: int | None = None,
) -> UInt8[ndarray, "h2 w2 3"]:
    """Show one band as grey or three as colour: linear from ``low`` to ``high``, then hatched.

    Pictures of more than ``side`` pixels are shrunk by a whole factor: means over valid pixels,
    hatched where less than half of them are. Much smaller ones are enlarged by one.

    Args:
        values: one or three bands; nothing under an invalid pixel is looked at.
        valid: where a pixel may be used.
        low: what becomes black, per band.
        high: what becomes white, per band.
        side: longest side of the picture, pixels; None is ``SIDE``.
    """
    side = SIDE if side is None else side
    span = np.maximum(high - low, np.finfo(np.float32).tiny)[:, None, None]
    share = np.where(valid, (values - low[:, None, None]) / span, 0.0).clip(0.0, 1.0)
    share, valid = shrunk(share, valid, side=side)
    grey = np.rint(255 * np.broadcast_to(share, (3, *share.shape[1:]))).astype(np.uint8)
    factor = enlargement(max(valid.shape), wanted=side)
    return hatched(enlarged(grey.transpose(1, 2, 0), factor), enlarged(valid, factor))


def hatched(rgb: UInt8[ndarray, "h w 3"], valid: Bool[ndarray, "h w"]) -> UInt8[ndarray, "h w 3"]:
    """Lay diagonal strokes over the pixels that are not valid."""
    rows, columns = np.indices(valid.shape)
    stroke = np.asarray((rows + columns) % _PERIOD < _PERIOD // 2)[..., None]
    strokes = np.where(stroke, *_HATCH).astype(np.uint8)
    return np.asarray(np.where(valid[..., None], rgb, strokes))


def coloured(values: Float[ndarray, "h w"], *, low: float, high: float) -> UInt8[ndarray, "h w 3"]:
    """Show values in a colour map that reads the same for all eyes, and in grey."""
    share = np.nan_to_num((values - low) / (high - low)).clip(0.0, 1.0)
    table = mpl.colormaps["cividis"]
    return np.asarray(np.rint(255 * np.asarray(table(share))[..., :3]), dtype=np.uint8)


def enlargement(side: int, *, wanted: int | None = None) -> int:
    """Return by which whole factor a picture of ``side`` pixels grows to ``wanted`` (``SIDE``)."""
    return max(1, (SIDE if wanted is None else wanted) // side)


def enlarged(picture: ndarray, factor: int) -> ndarray:
    """Repeat rows and columns."""
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def marked(
    rgb: UInt8[ndarray, "h w 3"], *, top: int, left: int, height: int, width: int
) -> UInt8[ndarray, "h w 3"]:
    """Draw a frame of white on black just outside a box."""
    out = rgb.copy()
    for grow, colour in ((3, 0), (2, 255)):
        inner = out[top : top + height, left : left + width].copy()
        y, x = max(top - grow, 0), max(left - grow, 0)
        out[y : top + height + grow, x : left + width + grow] = colour
        out[top : top + height, left : left + width] = inner
    return out


def data_uri(rgb: UInt8[ndarray, "h w 3"], *, kind: Kind) -> str:
    """Return a picture as a link that holds it: WebP for photos, PNG for flat colours."""
    buffer = io.BytesIO()
    if kind == "photo":
        imsave(buffer, rgb, format="webp", pil_kwargs={"quality": 80, "method": 4})
    else:
        imsave(buffer, rgb, format="png", metadata={"Software": "geodino"})
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f"data:image/{'webp' if kind == 'photo' else 'png'};base64,{text}"


def shrunk(
    values: Float[ndarray, "c h w"], valid: Bool[ndarray, "h w"], *, side: int
) -> tuple[Float[ndarray, "c h2 w2"], Bool[ndarray, "h2 w2"]]:
    """Average blocks of pixels until no side is longer than ``side``.

    Args:
        values: what is averaged; 0 where it is not valid.
        valid: where a pixel may be used.
        side: longest side of the result, pixels.

    Returns:
        Means over the valid pixels of each block, and where at least half of them are valid.
    """
    factor = math.ceil(max(valid.shape) / side)
    if factor == 1:
        return values, valid
    height, width = (pixels // factor for pixels in valid.shape)
    blocks = (height, factor, width, factor)
    inside = np.s_[: height * factor, : width * factor]
    count = valid[inside].reshape(blocks).sum(axis=(1, 3))
    total = values[:, *inside].reshape(len(values), *blocks).sum(axis=(2, 4))
    return total / np.maximum(count, 1), 2 * count >= factor**2
