"""The sensors that look at the generated world."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float32, Float64, Shaped

from geodino.geo.bands import Band

SensorName = Literal["rgb", "rgbn", "s2", "landsat", "s1"]
"""``rgb``, ``rgbn``: 0.6 m aerial pictures, uint8. ``s2``: Sentinel-2, 10 m, 12 bands, uint16.
``landsat``: Landsat 8, 30 m, 7 bands, uint16. ``s1``: Sentinel-1, 10 m, vv and vh, float32."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sensor:
    """How a scene is measured and stored."""

    name: SensorName
    """Which sensor."""

    gsd_m: float
    """Side of a pixel, metres."""

    dtype: Literal["uint8", "uint16", "float32"]
    """Type of the stored values."""

    bands: tuple[Band, ...]
    """Names, wavelengths, unit, scale and offset."""

    columns: tuple[int, ...]
    """Which columns of ``spectra.REFLECTANCE`` the bands are."""

    noise: float
    """Standard deviation of the sensor's noise, in reflectance."""

    brightest: tuple[float, ...] = ()
    """Reflectance per band that is stored as 255, for sensors with a tone curve."""

    nodata: float | None = None
    """The stored value that means "no data"; no true pixel holds it."""

    @property
    def radar(self) -> bool:
        """Whether it brings its own waves: no sun, no shadows, no clouds."""
        return self.columns[0] >= 12

    @property
    def resolves_objects(self) -> bool:
        """Whether single trees and houses are larger than a few pixels."""
        return self.gsd_m <= 2.0

    def table(self, reflectance: Float64[np.ndarray, "m 14"]) -> Float32[np.ndarray, "c m"]:
        """Pick the bands of a table of materials: one row per band."""
        return np.ascontiguousarray(reflectance[:, self.columns].T, dtype=np.float32)


def _bands(
    rows: tuple[tuple[str, str, int], ...], *, scale: float, offset: float
) -> tuple[Band, ...]:
    return tuple(
        Band.model_validate(
            {
                "name": name,
                "common_name": common,
                "wavelength_nm": wavelength,
                "unit": "reflectance",
                "scale": scale,
                "offset": offset,
            }
        )
        for name, common, wavelength in rows
    )


_S2 = (
    ("B01", "coastal", 443), ("B02", "blue", 490), ("B03", "green", 560), ("B04", "red", 665),
    ("B05", "rededge071", 705), ("B06", "rededge075", 740), ("B07", "rededge078", 783),
    ("B08", "nir", 842), ("B8A", "nir08", 865), ("B09", "nir09", 945), ("B11", "swir16", 1610),
    ("B12", "swir22", 2190),
)  # fmt: skip
_LANDSAT = (
    ("B1", "coastal", 443), ("B2", "blue", 482), ("B3", "green", 561), ("B4", "red", 655),
    ("B5", "nir08", 865), ("B6", "swir16", 1609), ("B7", "swir22", 2201),
)  # fmt: skip

SENSORS: dict[str, Sensor] = {
    "rgb": Sensor(
        name="rgb",
        gsd_m=0.6,
        dtype="uint8",
        bands=(
            Band(name="red", common_name="red"),
            Band(name="green", common_name="green"),
            Band(name="blue", common_name="blue"),
        ),
        columns=(3, 2, 1),
        noise=0.0015,
        brightest=(0.34, 0.34, 0.34),
    ),
    "rgbn": Sensor(
        name="rgbn",
        gsd_m=0.6,
        dtype="uint8",
        bands=(
            Band(name="red", common_name="red"),
            Band(name="green", common_name="green"),
            Band(name="blue", common_name="blue"),
            Band(name="nir", common_name="nir"),
        ),
        columns=(3, 2, 1, 7),
        noise=0.0015,
        brightest=(0.34, 0.34, 0.34, 0.75),
    ),
    "s2": Sensor(
        name="s2",
        gsd_m=10.0,
        dtype="uint16",
        bands=_bands(_S2, scale=1e-4, offset=-0.1),
        columns=tuple(range(12)),
        noise=0.002,
        nodata=0.0,
    ),
    "landsat": Sensor(
        name="landsat",
        gsd_m=30.0,
        dtype="uint16",
        bands=_bands(_LANDSAT, scale=2.75e-5, offset=-0.2),
        columns=(0, 1, 2, 3, 8, 10, 11),
        noise=0.002,
        nodata=0.0,
    ),
    "s1": Sensor(
        name="s1",
        gsd_m=10.0,
        dtype="float32",
        bands=(
            Band(name="vv", common_name="vv", unit="power"),
            Band(name="vh", common_name="vh", unit="power"),
        ),
        columns=(12, 13),
        noise=0.0,
    ),
}
"""Every sensor there is."""


def stored(
    reflectance: Float32[np.ndarray, "h w"], sensor: Sensor, number: int
) -> Shaped[np.ndarray, "h w"]:
    """Turn the reflectance (or backscatter) of band ``number`` into the sensor's stored values.

    Satellites in 16 bits: ``(reflectance - offset) / scale``, at least 1 because 0 is nodata
    there. Aerial pictures: a square-root tone curve that reaches 255 at ``brightest``, as for the
    eye. Radar: as it is.
    """
    if sensor.dtype == "float32":
        return reflectance
    if sensor.dtype == "uint16":
        scale, offset = sensor.bands[number].scale, sensor.bands[number].offset
        values = (reflectance - np.float32(offset)) * np.float32(1 / scale)
        return np.asarray(np.clip(values, 1, 65_535) + np.float32(0.5), dtype=np.uint16)
    tone = np.sqrt(np.clip(reflectance * np.float32(1 / sensor.brightest[number]), 0, 1))
    return np.asarray(tone * np.float32(255) + np.float32(0.5), dtype=np.uint8)
