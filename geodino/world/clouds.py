"""Clouds between the land and a sensor: what they hide, and where their shadows fall."""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import date

import numpy as np
from jaxtyping import Float32, UInt8

from geodino import seeds
from geodino.world.calendar import Sun
from geodino.world.noise import Frame, fractal
from geodino.world.spectra import CLOUD

Map = Float32[np.ndarray, "h w"]
Sky = UInt8[np.ndarray, "h w"]

SKY = ("clear", "cirrus", "near cloud", "shadow", "thin cloud", "cloud")
"""Names of the values of ``Scene.sky``; "near cloud" is clear, but within a cloud's fringe."""

CLEAR, CIRRUS, NEAR, SHADOW, THIN, THICK = range(len(SKY))

# The share of places where the clouds' noise lies above a value: nearly that of a normal variable,
# measured over 2.4 million places.
_ABOVE = (
    (0.0, 4.6), (0.01, 2.32), (0.02, 2.05), (0.05, 1.655), (0.10, 1.285), (0.15, 1.03),
    (0.20, 0.832), (0.30, 0.51), (0.40, 0.244), (0.50, 0.0), (0.60, -0.244), (0.70, -0.51),
    (0.80, -0.832), (0.90, -1.285), (0.95, -1.655), (0.98, -2.05), (1.0, -4.6),
)  # fmt: skip

_EDGE = np.float32(2.2)
"""Opacity gained per unit of the noise."""

_FRINGE = np.float32(0.3)
"""How far below the noise at a cloud's edge its neighbourhood reaches."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clouds:
    """The sky over a frame."""

    opacity: Map
    """Share of the ground's light that clouds hide; 1 under thick ones."""

    bright: Map
    """Brightness of the clouds, around 1."""

    cirrus: Map
    """Share hidden by thin high clouds."""

    shadow: Map
    """Share of the sun's direct light that clouds take away."""

    sky: Sky
    """An index into ``SKY``."""

    def hide(self, band: Map, column: int) -> None:
        """Hide the ground in a band, in place; ``column`` is the band's column of the spectra."""
        white = CLOUD[column]
        band += self.cirrus * (np.float32(0.6) * white - band)
        band += self.opacity * (white * self.bright - band)


def clouds(frame: Frame, seed: int, day: date, share: float, sun: Sun) -> Clouds | None:
    """Draw the clouds of a date over a frame; None without any.

    Their shapes belong to the place, as everything does: windows of one world agree. Hence
    ``share`` is met over many square kilometres, and not in every small window.

    Args:
        frame: the pixels.
        seed: which world.
        day: which sky.
        share: share of the world under clouds, 0 to 1.
        sun: shadows fall away from it.
    """
    if share == 0:
        return None
    key = day.toordinal()
    rng = seeds.rng(seed, "sky", key)
    base_m, veil = 900 + 1300 * float(rng.random()), float(rng.random())
    level = np.float32(_level(share))
    excess = _field(frame, seed, key) - level
    # The cloud between a pixel and the sun lies further towards the sun.
    dy, dx = (round(base_m / sun.tangent * part / frame.gsd_m) for part in sun.toward)
    cast = _field(frame.cut(dy, dx, frame.height, frame.width), seed, key) - level
    opacity = np.clip(np.float32(0.5) + _EDGE * excess, 0, 1)
    shadow = np.clip(np.float32(0.5) + _EDGE * cast, 0, 1)
    detail = fractal(frame, seed, "billows", key, wavelength_m=420.0, octaves=1)
    bright = np.float32(0.86) + np.float32(0.16) * np.clip(excess, 0, 1.5)
    high = fractal(frame, seed, "cirrus", key, wavelength_m=9000.0, octaves=1)
    streaks = fractal(frame, seed, "streaks", key, wavelength_m=1600.0, octaves=4)
    cirrus = np.clip((high + np.float32(0.35) * streaks - np.float32(0.7)) * np.float32(0.25), 0, 1)
    cirrus *= np.float32(1 if veil < 0.5 else 0)
    sky = np.zeros(frame.shape, dtype=np.uint8)
    sky[cirrus > np.float32(0.06)] = CIRRUS
    sky[excess > np.float32(-0.5) / _EDGE - _FRINGE] = NEAR
    sky[shadow >= np.float32(0.5)] = SHADOW
    sky[opacity >= np.float32(0.3)] = THIN
    sky[opacity >= np.float32(0.7)] = THICK
    return Clouds(
        opacity=opacity,
        bright=bright + np.float32(0.035) * detail,
        cirrus=cirrus,
        shadow=shadow,
        sky=sky,
    )


def _field(frame: Frame, seed: int, key: int) -> Map:
    return fractal(frame, seed, "clouds", key, wavelength_m=2600.0, octaves=8, gain=0.55)


def _level(share: float) -> float:
    """Return the value that the clouds' noise exceeds on this share of the world."""
    shares = [s for s, _ in _ABOVE]
    after = min(max(bisect_right(shares, share), 1), len(_ABOVE) - 1)
    (first, high), (last, low) = _ABOVE[after - 1], _ABOVE[after]
    return high + (low - high) * (share - first) / (last - first)
