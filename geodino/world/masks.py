"""Ways in which real scenes are incomplete: collars, holes, strips; and the values they leave."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool

from geodino import seeds
from geodino.errors import SourceError
from geodino.world.noise import Frame, fractal
from geodino.world.scene import Scene

Mask = Bool[np.ndarray, "h w"]


def collar(seed: int, *, height: int, width: int, margin: float = 0.08) -> Mask:
    """Make the footprint of a satellite scene: a rectangle turned by up to 20 degrees.

    Args:
        seed: draws the turn.
        height: rows.
        width: columns.
        margin: share of each side that lies outside before the turn.
    """
    t = -0.176 + 0.352 * float(seeds.rng(seed, "collar").random())
    cosine, sine = (1 - t * t) / (1 + t * t), 2 * t / (1 + t * t)
    y = ((np.arange(height) + 0.5) / height - 0.5)[:, None]
    x = ((np.arange(width) + 0.5) / width - 0.5)[None, :]
    reach = 0.5 - margin
    return (np.abs(x * cosine + y * sine) < reach) & (np.abs(y * cosine - x * sine) < reach)


def frame_collar(*, height: int, width: int, pixels: int) -> Mask:
    """Make a straight collar: ``pixels`` are missing along each side."""
    valid = np.zeros((height, width), dtype=bool)
    valid[pixels : height - pixels, pixels : width - pixels] = True
    return valid


def holes(seed: int, *, height: int, width: int, share: float, size: float = 40.0) -> Mask:
    """Make holes in the shape of clouds, over ``share`` of the pixels (to the pixel).

    Args:
        seed: draws the shapes.
        height: rows.
        width: columns.
        share: share of pixels that are missing.
        size: wavelength of the shapes, pixels.
    """
    frame = Frame(top=0, left=0, height=height, width=width, gsd_m=1.0)
    noise = fractal(frame, seed, "holes", wavelength_m=size, octaves=4)
    valid = np.ones(height * width, dtype=bool)
    valid[np.argsort(noise, axis=None, kind="stable")[: round(share * height * width)]] = False
    return valid.reshape(height, width)


def stripes(*, height: int, width: int, period: int, missing: int) -> Mask:
    """Make gaps in lines, as of Landsat 7: ``missing`` of every ``period`` rows."""
    rows = np.arange(height) % period >= missing
    return np.repeat(rows[:, None], width, axis=1)


def masked(
    scene: Scene,
    valid: Mask,
    *,
    fill: float | int,  # noqa: PYI041  (the type checker of the tests tells int from float)
    dtype: str | None = None,
) -> Scene:
    """Return the scene with pixels outside ``valid`` set to ``fill``.

    Args:
        scene: the scene; masks add up.
        valid: True where pixels stay.
        fill: what is stored elsewhere: 0, 255, 65535, -9999, NaN.
        dtype: store pixels as this type instead, e.g. ``float32`` for NaN.

    Raises:
        SourceError: the type cannot hold the fill value.
    """
    kind = np.dtype(dtype or scene.pixels.dtype)
    if kind.kind in "iu":
        limits = np.iinfo(kind)
        if not (float(fill).is_integer() and limits.min <= fill <= limits.max):
            raise SourceError(
                f"{kind.name} cannot hold the fill value {fill}. Choose an integer from "
                f"{limits.min} to {limits.max}, or another dtype."
            )
    keep = scene.valid & valid
    pixels = np.where(keep, scene.pixels.astype(kind), kind.type(fill))
    return replace(scene, pixels=pixels, valid=keep)
