"""What a channel means: declared or read from metadata, never guessed from the pixels."""

import re
from collections.abc import Sequence
from typing import Literal, get_args

from pydantic import Field

from geodino.config import Config

Unit = Literal["unknown", "reflectance", "radiance", "power", "dB", "K", "m"]
"""Unit of ``stored * scale + offset``; ``power`` is linear radar backscatter, ``dB`` ten times its
logarithm; ``unknown`` until somebody declares it."""

CommonName = Literal[
    "pan", "coastal", "blue", "green", "green05", "yellow", "red", "rededge", "rededge071",
    "rededge075", "rededge078", "nir", "nir08", "nir09", "cirrus", "swir16", "swir22", "lwir",
    "lwir11", "lwir12", "vv", "vh", "hh", "hv",
]  # fmt: skip
"""Common names of the STAC eo and sar extensions."""

_POSITIONAL = re.compile(r"band_\d+")


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

    @property
    def is_positional(self) -> bool:
        """Whether its name was given by position, as the file declares none: it says nothing."""
        return _POSITIONAL.fullmatch(self.name) is not None and self.common_name is None

    @property
    def decoding(self) -> str:
        """What a stored value means: ``stored * 0.0001 - 0.1``, or what is left of it."""
        scaled = "stored" if self.scale == 1.0 else f"stored * {self.scale:g}"
        if self.offset == 0.0:
            return scaled
        return f"{scaled} {'-' if self.offset < 0 else '+'} {abs(self.offset):g}"

    def is_like(self, other: "Band") -> bool:
        """Whether both are called the same: by their common names, or where one has none by name."""
        if self.common_name is not None and other.common_name is not None:
            return self.common_name == other.common_name
        return self.name.lower() == other.name.lower()


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
