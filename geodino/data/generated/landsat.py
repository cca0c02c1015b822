"""Generated scenes in the layout of a Landsat 8 surface-reflectance product (Collection 2)."""

from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from geodino.data.generated.tiff import Placement, write_layer
from geodino.errors import SourceError
from geodino.files import write_json
from geodino.world.calendar import satellite_sun
from geodino.world.clouds import THICK, THIN
from geodino.world.quality import qa_pixel
from geodino.world.scene import Scene

_FILL = 1.0
"""QA_PIXEL's own nodata value: the bit for fill."""

_PATH, _ROW = 193, 27
MUNICH = Placement(east_m=690_000.0, north_m=5_335_020.0)
"""In the scenes of that path and row, on a multiple of 30 m."""


def product_id(day: date) -> str:
    """Name a product: ``LC08_L2SP_193027_20230701_20230710_02_T1``."""
    made = day + timedelta(days=9)
    return f"LC08_L2SP_{_PATH:03}{_ROW:03}_{day:%Y%m%d}_{made:%Y%m%d}_02_T1"


def write_landsat(folder: Path, scene: Scene, placement: Placement = MUNICH) -> Path:
    """Write a product: one GeoTIFF per band, QA_PIXEL, and ``MTL.json``.

    As in the real ones, scale and offset stand in ``MTL.json`` only, as texts; 0 is nodata in the
    bands. Thermal and aerosol bands are left out.

    Args:
        folder: where the product's own folder is made.
        scene: a scene of the sensor ``landsat``.
        placement: where it lies.

    Returns:
        The product's folder.

    Raises:
        SourceError: a scene of another sensor.
    """
    if scene.sensor.name != "landsat":
        raise SourceError(f"A Landsat product is written of 'landsat', not {scene.sensor.name!r}.")
    name = product_id(scene.date)
    target = folder / name
    files = {}
    for band, pixels in zip(scene.sensor.bands, scene.pixels, strict=True):
        file = f"{name}_SR_{band.name}.TIF"
        write_layer(
            target / file, pixels, scene, placement, name=f"SR_{band.name}", nodata=0.0,
            where=scene.valid,
        )  # fmt: skip
        files[f"FILE_NAME_BAND_{band.name[1:]}"] = file
    quality = f"{name}_QA_PIXEL.TIF"
    write_layer(target / quality, qa_pixel(scene), scene, placement, name="QA_PIXEL", nodata=_FILL)
    files["FILE_NAME_QUALITY_L1_PIXEL"] = quality
    write_json(target / f"{name}_MTL.json", _metadata(name, scene, placement, files))
    return target


def _metadata(
    name: str, scene: Scene, placement: Placement, files: dict[str, str]
) -> dict[str, Any]:
    """Return the groups of MTL.json that readers of the reflectances look at; all texts."""
    sun = satellite_sun(scene.date)
    south, east = sun.toward
    clouds = 100 * float(np.isin(scene.sky, (THIN, THICK)).mean())
    scaling = {}
    for band in scene.sensor.bands:
        number = band.name[1:]
        scaling[f"REFLECTANCE_MULT_BAND_{number}"] = f"{band.scale:g}"
        scaling[f"REFLECTANCE_ADD_BAND_{number}"] = f"{band.offset:f}"
    return {
        "LANDSAT_METADATA_FILE": {
            "PRODUCT_CONTENTS": {
                "LANDSAT_PRODUCT_ID": name,
                "PROCESSING_LEVEL": "L2SP",
                "COLLECTION_NUMBER": "02",
                "COLLECTION_CATEGORY": "T1",
                "OUTPUT_FORMAT": "GEOTIFF",
                **files,
            },
            "IMAGE_ATTRIBUTES": {
                "SPACECRAFT_ID": "LANDSAT_8",
                "SENSOR_ID": "OLI_TIRS",
                "WRS_PATH": f"{_PATH}",
                "WRS_ROW": f"{_ROW}",
                "DATE_ACQUIRED": f"{scene.date}",
                "SCENE_CENTER_TIME": "10:10:00.0000000Z",
                "CLOUD_COVER": f"{clouds:.2f}",
                "SUN_AZIMUTH": f"{np.degrees(np.arctan2(east, -south)):.8f}",
                "SUN_ELEVATION": f"{np.degrees(np.arctan(sun.tangent)):.8f}",
            },
            "PROJECTION_ATTRIBUTES": {
                "MAP_PROJECTION": "UTM",
                "DATUM": "WGS84",
                "UTM_ZONE": placement.crs[-2:],
                "GRID_CELL_SIZE_REFLECTIVE": "30.00",
                "REFLECTIVE_LINES": f"{scene.frame.height}",
                "REFLECTIVE_SAMPLES": f"{scene.frame.width}",
            },
            "LEVEL2_SURFACE_REFLECTANCE_PARAMETERS": scaling,
        }
    }
