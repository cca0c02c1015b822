"""The quality layers that deliver with real scenes, derived from a scene and its truth."""

import numpy as np
from jaxtyping import Bool, UInt8, UInt16

from geodino.errors import SourceError
from geodino.world.clouds import CIRRUS, NEAR, SHADOW, SKY, THICK, THIN
from geodino.world.scene import CLASSES, Scene

Mask = Bool[np.ndarray, "h w"]

SCL = (
    "no data", "saturated or defective", "dark area", "cloud shadow", "vegetation",
    "not vegetated", "water", "unclassified", "cloud medium probability",
    "cloud high probability", "thin cirrus", "snow or ice",
)  # fmt: skip
"""Classes of Sentinel-2's scene classification, 0 to 11. No snow falls in the generated world,
and nothing in it is saturated, unclassified or a dark area."""

QA_FILL, QA_DILATED, QA_CIRRUS, QA_CLOUD, QA_SHADOW, QA_SNOW, QA_CLEAR, QA_WATER = range(8)
"""Bits of Landsat's QA_PIXEL (Collection 2); 8 to 15 are four confidences of two bits each:
cloud, cloud shadow, snow, cirrus; 1 is low, 2 medium, 3 high."""

_VEGETATION = 0.4
"""Least NDVI of vegetation in ``scene_classification``."""


def scene_classification(scene: Scene) -> UInt8[np.ndarray, "h w"]:
    """Return the classes of Sentinel-2's SCL layer (Sen2Cor), 0 where a pixel is not valid.

    Vegetation is where the NDVI of the pixels is at least 0.4, "not vegetated" elsewhere.

    Raises:
        SourceError: the sensor has no red and near infrared, or no scale.
    """
    vegetated = _ndvi(scene) >= _VEGETATION
    out = np.where(vegetated, np.uint8(4), np.uint8(5))
    out[scene.classes == CLASSES.index("water")] = 6
    for kind, value in ((CIRRUS, 10), (SHADOW, 3), (THIN, 8), (THICK, 9)):
        out[scene.sky == kind] = value
    out[~scene.valid] = 0
    return out


def qa_pixel(scene: Scene) -> UInt16[np.ndarray, "h w"]:
    """Return Landsat's QA_PIXEL bits; a pixel that is not valid is fill (1) and nothing else.

    "Clear" means neither cloud nor dilated cloud, as in Collection 2: shadows are clear.
    """
    sky = scene.sky
    cloud = (sky == THIN) | (sky == THICK)
    bits = {
        QA_DILATED: sky == NEAR,
        QA_CIRRUS: sky == CIRRUS,
        QA_CLOUD: cloud,
        QA_SHADOW: sky == SHADOW,
        QA_CLEAR: ~cloud & (sky != NEAR),
        QA_WATER: (scene.classes == CLASSES.index("water")) & ~cloud,
    }
    out = np.zeros(sky.shape, dtype=np.uint16)
    for bit, where in bits.items():
        out |= where.astype(np.uint16) << np.uint16(bit)
    confidence = np.ones((4, len(SKY)), dtype=np.uint16)
    confidence[0, [THIN, THICK]] = 3
    confidence[1, SHADOW] = 3
    confidence[3, CIRRUS] = 3
    for number, by_sky in enumerate(confidence):
        out |= by_sky[sky] << np.uint16(8 + 2 * number)
    out[~scene.valid] = 1 << QA_FILL
    return out


def _ndvi(scene: Scene) -> np.ndarray:
    names = [band.common_name for band in scene.sensor.bands]
    nir = next((names.index(name) for name in ("nir", "nir08") if name in names), None)
    if nir is None or scene.sensor.bands[nir].unit != "reflectance":
        raise SourceError(
            f"The sensor {scene.sensor.name!r} measures no reflectance in the near infrared, which "
            "a scene classification needs. Take 's2' or 'landsat'."
        )
    values = []
    for number in (nir, names.index("red")):
        band = scene.sensor.bands[number]
        values.append(scene.pixels[number] * np.float32(band.scale) + np.float32(band.offset))
    near, red = values
    return np.asarray((near - red) / np.maximum(near + red, np.float32(1e-3)))
