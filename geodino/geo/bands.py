"""What a channel means: declared or read from metadata, never guessed from the pixels."""

from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import Field

from geodino.config import Config

Unit = Literal["unknown", "reflectance", "radiance", "linear", "dB", "K", "m"]
"""Unit of ``stored * scale + offset``; ``unknown`` until somebody declares it. Radar backscatter
is ``linear`` (power, a ratio) or in ``dB``."""

CommonName = Literal[
    "pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071",
    "rededge075", "rededge078", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir",
    "lwir11", "lwir12", "vv", "vh", "hh", "hv",
]  # fmt: skip
"""Common names of the STAC eo and sar extensions."""


class Band(Config):
    """One channel of a source."""

    name: str
    """The sensor's or the file's name for it (``B04``, ``red``), else ``band_4`` by position."""

    common_name: CommonName | None = None
    """Name shared by sensors, as in STAC; None where nothing declares it."""

    wavelength_nm: float | None = Field(default=None, gt=0)
    """Centre wavelength, nanometres; None for bands that are not optical or not declared."""

    unit: Unit = "unknown"
    """Unit after decoding."""

    scale: float = 1.0
    """``value = stored * scale + offset``."""

    offset: float = 0.0
    """See ``scale``. Sentinel-2 processing baseline 04.00 and later stores -0.1 here."""


def common_name(name: str) -> CommonName | None:
    """Return ``name`` if it is itself a common name; ``B04`` is red on one sensor, not on all."""
    lower = name.lower()
    return next((known for known in get_args(CommonName) if known == lower), None)


def rgb_indices(bands: Sequence[Band]) -> tuple[int, int, int] | None:
    """Return the positions of red, green and blue (0-based), or None if one is not known."""
    names = [band.common_name for band in bands]
    if not {"red", "green", "blue"} <= set(names):
        return None
    return names.index("red"), names.index("green"), names.index("blue")
