"""Backscatter as a radar measures it: relief and speckle instead of sunlight."""

import math

import numpy as np
from jaxtyping import Float32

from geodino import seeds
from geodino.world.noise import Frame, grain

Map = Float32[np.ndarray, "h w"]

_LOOKS = 4.4
"""Independent looks in a pixel, as in ground-range products of Sentinel-1."""

_FLOOR = np.float32(0.0009)
"""The receiver's own noise, linear."""


def facing(relief_m: Map, *, gsd_m: float) -> Map:
    """How much brighter slopes towards the radar (in the west, above) are than flat ground."""
    slope = np.gradient(relief_m, np.float32(gsd_m), axis=1)
    return np.asarray(np.clip(1 + np.float32(1.6) * slope, np.float32(0.4), np.float32(2.5)))


def speckle(band: Map, frame: Frame, *key: seeds.Key) -> None:
    """Add the receiver's noise to a band and multiply it by speckle, in place.

    The mean of ``L`` looks is gamma distributed; its cube root is nearly normal, with mean
    ``1 - 1/9L`` and variance ``1/9L`` (Wilson and Hilferty 1931), which needs no logarithm.
    """
    ninth = 1 / (9 * _LOOKS)
    root = np.float32(1 - ninth) + np.float32(math.sqrt(ninth)) * grain(frame, *key)
    band += _FLOOR
    band *= root * root * root
