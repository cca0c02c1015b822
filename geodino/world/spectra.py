"""What things reflect, and the sensors that look at them."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32

from geodino.geo.bands import Band

SensorName = Literal["rgb", "s2"]
"""``rgb``: 0.6 m aerial picture, uint8. ``s2``: 10 m surface reflectance, 12 bands, uint16."""

MATERIALS = (
    "grass", "green crop", "rape in flower", "ripe crop", "stubble", "brown soil", "light soil",
    "broadleaf", "conifer", "asphalt", "gravel", "red roof", "grey roof", "bright roof",
    "clear water", "turbid water",
)  # fmt: skip
"""Names of the rows of ``REFLECTANCE``."""

_S2_BANDS = (
    ("B01", "coastal", 443), ("B02", "blue", 490), ("B03", "green", 560), ("B04", "red", 665),
    ("B05", "rededge071", 705), ("B06", "rededge075", 740), ("B07", "rededge078", 783),
    ("B08", "nir", 842), ("B8A", "nir08", 865), ("B09", "nir09", 945), ("B11", "swir16", 1610),
    ("B12", "swir22", 2190),
)  # fmt: skip

REFLECTANCE: Float32[np.ndarray, "m 12"] = np.array([
    [.028, .034, .084, .052, .110, .250, .310, .330, .350, .350, .220, .120],
    [.020, .024, .082, .038, .090, .330, .420, .450, .470, .460, .200, .090],
    [.035, .045, .155, .140, .190, .340, .400, .430, .450, .440, .220, .120],
    [.060, .080, .125, .165, .200, .230, .250, .270, .290, .300, .350, .250],
    [.080, .100, .140, .175, .205, .230, .250, .270, .290, .300, .370, .290],
    [.050, .065, .090, .120, .145, .160, .175, .190, .205, .210, .280, .240],
    [.085, .110, .150, .190, .215, .235, .250, .265, .280, .290, .360, .310],
    [.014, .019, .050, .027, .070, .220, .290, .310, .330, .330, .160, .070],
    [.011, .016, .036, .019, .045, .120, .150, .165, .175, .175, .085, .040],
    [.085, .095, .105, .110, .115, .120, .125, .130, .135, .140, .160, .150],
    [.110, .140, .180, .215, .235, .250, .260, .270, .280, .280, .330, .300],
    [.055, .065, .085, .165, .200, .225, .240, .250, .260, .265, .300, .280],
    [.110, .120, .130, .135, .140, .145, .150, .150, .155, .155, .170, .160],
    [.210, .240, .255, .262, .270, .274, .277, .277, .277, .274, .262, .240],
    [.030, .032, .030, .018, .014, .010, .009, .008, .007, .006, .004, .003],
    [.050, .060, .075, .055, .045, .030, .028, .025, .022, .020, .008, .006],
], dtype=np.float32)  # fmt: skip
"""Surface reflectance per material and Sentinel-2 band: round values in the range of spectral
libraries, made for a plausible picture and not for inversion."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensor:
    """How a scene is measured and stored."""

    name: SensorName
    """Which sensor."""

    gsd_m: float
    """Side of a pixel, metres."""

    dtype: Literal["uint8", "uint16"]
    """Type of the stored values."""

    bands: tuple[Band, ...]
    """Names, wavelengths, unit, scale and offset."""

    columns: tuple[int, ...]
    """Which columns of ``REFLECTANCE`` the bands are."""

    noise: float
    """Standard deviation of the sensor's noise, in reflectance."""

    @property
    def table(self) -> Float32[np.ndarray, "c m"]:
        """Reflectance per band and material."""
        return np.ascontiguousarray(REFLECTANCE[:, self.columns].T)

    @property
    def resolves_objects(self) -> bool:
        """Whether single trees and houses are larger than a few pixels."""
        return self.gsd_m <= 2.0


SENSORS: dict[str, Sensor] = {
    "rgb": Sensor(
        name="rgb",
        gsd_m=0.6,
        dtype="uint8",
        bands=tuple(Band(name=name, common_name=name) for name in ("red", "green", "blue")),
        columns=(3, 2, 1),
        noise=0.0015,
    ),
    "s2": Sensor(
        name="s2",
        gsd_m=10.0,
        dtype="uint16",
        bands=tuple(
            Band(
                name=name,
                common_name=common,
                wavelength_nm=wavelength,
                unit="reflectance",
                scale=1e-4,
                offset=-0.1,
            )
            for name, common, wavelength in _S2_BANDS
        ),
        columns=tuple(range(len(_S2_BANDS))),
        noise=0.002,
    ),
}
"""Every sensor there is."""


def material(name: str) -> int:
    """Return the row of a material."""
    return MATERIALS.index(name)


def stored(reflectance: Float32[np.ndarray, "c h w"], sensor: Sensor) -> np.ndarray:
    """Turn reflectance into the sensor's stored values.

    ``s2``: ``(reflectance - offset) / scale``, at least 1 because 0 is nodata there. ``rgb``: a
    square-root tone curve that reaches 255 at a reflectance of 0.42, as a picture for the eye.
    """
    if sensor.dtype == "uint16":
        numbers = (reflectance + np.float32(0.1)) * np.float32(10_000)
        return np.asarray(np.floor(np.clip(numbers, 1, 65_535) + 0.5), dtype=np.uint16)
    tone = np.sqrt(np.clip(reflectance * np.float32(1 / 0.42), 0, 1)) * np.float32(255)
    return np.asarray(np.floor(tone + 0.5), dtype=np.uint8)
