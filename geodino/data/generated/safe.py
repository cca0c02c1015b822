"""Generated scenes in the layout of a Sentinel-2 Level-2A product: a SAFE folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import rasterio
from affine import Affine
from jaxtyping import Bool, Shaped, UInt8, UInt16

from geodino.data.generated.tiff import HOME, Placement
from geodino.errors import SourceError
from geodino.files import replacing, write_text
from geodino.world.quality import SCL, scene_classification
from geodino.world.scene import Scene

Baseline = Literal["02.14", "05.09"]
"""Processing baselines before and after the offset came in."""

TILE = "T32UMD"

_NATIVE_M = {
    10: ("B02", "B03", "B04", "B08"),
    20: ("B05", "B06", "B07", "B8A", "B11", "B12"),
    60: ("B01", "B09"),
}
_BAND_IDS = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B10", "B11", "B12")
_OFFSET = 1000
"""Added to all values since baseline 04.00, so that dark pixels are not cut off at 0."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Product:
    """Names of a product's parts."""

    scene: Scene
    baseline: Baseline

    @property
    def time(self) -> str:
        return f"{self.scene.date:%Y%m%d}T102031"

    @property
    def name(self) -> str:
        number = self.baseline.replace(".", "")
        return f"S2A_MSIL2A_{self.time}_N{number}_R065_{TILE}_{self.scene.date:%Y%m%d}T150000.SAFE"

    @property
    def granule(self) -> str:
        return f"L2A_{TILE}_A041935_{self.time}"

    @property
    def offset(self) -> int:
        return 0 if self.baseline == "02.14" else _OFFSET

    def image(self, band: str, gsd_m: int) -> str:
        """Path within the product, without its ending."""
        file = f"{TILE}_{self.time}_{band}_{gsd_m}m"
        return f"GRANULE/{self.granule}/IMG_DATA/R{gsd_m}m/{file}"


def write_safe(
    folder: Path, scene: Scene, placement: Placement = HOME, *, baseline: Baseline = "05.09"
) -> Path:
    """Write a product: lossless JP2 of every band at its own 10, 20 or 60 m, SCL, metadata.

    Coarser bands are the exact means of the valid pixels below them, halves rounded up. Values
    are ``10000 * reflectance``, and 1000 more from baseline 04.00 on; 0 is nodata.

    Args:
        folder: where the product's own folder is made.
        scene: a scene of the sensor ``s2`` whose sides are multiples of 6 pixels.
        placement: where it lies.
        baseline: ``05.09``, or ``02.14`` for a product without the offset.

    Returns:
        The product's folder, ``S2A_MSIL2A_....SAFE``.

    Raises:
        SourceError: a scene of another sensor, or sides that 60 m do not divide.
    """
    if scene.sensor.name != "s2":
        raise SourceError(f"A Sentinel-2 product is written of 's2', not {scene.sensor.name!r}.")
    if scene.frame.height % 6 or scene.frame.width % 6:
        raise SourceError(
            "The sides of a Sentinel-2 product must be multiples of 6 pixels of 10 m, "
            f"so that 60 m divide them, not {scene.frame.height} x {scene.frame.width}."
        )
    product = _Product(scene=scene, baseline=baseline)
    target = folder / product.name
    names = [band.name for band in scene.sensor.bands]
    for gsd_m, bands in _NATIVE_M.items():
        for name in bands:
            stored = scene.pixels[names.index(name)].astype(np.int64) - _OFFSET + product.offset
            pixels = np.clip(stored, 1, 65_535).astype(np.uint16)
            pixels, valid = mean_of_blocks(pixels, scene.valid, gsd_m // 10)
            pixels = np.where(valid, pixels, np.uint16(0))
            _write_jp2(target / f"{product.image(name, gsd_m)}.jp2", pixels, scene, placement)
    classes = most_frequent(scene_classification(scene), 2)
    _write_jp2(target / f"{product.image('SCL', 20)}.jp2", classes, scene, placement)
    write_text(target / "MTD_MSIL2A.xml", _product_metadata(product))
    write_text(
        target / "GRANULE" / product.granule / "MTD_TL.xml", _tile_metadata(product, placement)
    )
    return target


def mean_of_blocks(
    pixels: UInt16[np.ndarray, "h w"], valid: Bool[np.ndarray, "h w"], side: int
) -> tuple[UInt16[np.ndarray, "r c"], Bool[np.ndarray, "r c"]]:
    """Average the valid pixels of ``side`` x ``side`` blocks; halves are rounded up.

    A block without a valid pixel is not valid, and 0.
    """
    inside = np.where(valid, pixels, 0).astype(np.int64)
    total = _blocks(inside, side).sum(axis=2)
    count = _blocks(valid.astype(np.int64), side).sum(axis=2)
    mean = (2 * total + count) // np.maximum(2 * count, 1)
    return mean.astype(np.uint16), count > 0


def most_frequent(classes: UInt8[np.ndarray, "h w"], side: int) -> UInt8[np.ndarray, "r c"]:
    """Return the most frequent class of each block; of two, the one with the smaller number."""
    blocks = _blocks(classes, side)
    counts = np.stack([(blocks == value).sum(axis=2) for value in range(len(SCL))])
    return np.asarray(counts.argmax(axis=0), dtype=np.uint8)


def _blocks(layer: np.ndarray, side: int) -> Shaped[np.ndarray, "r c n"]:
    rows, columns = layer.shape[0] // side, layer.shape[1] // side
    blocks = layer.reshape(rows, side, columns, side).swapaxes(1, 2)
    return blocks.reshape(rows, columns, side * side)


def _write_jp2(
    path: Path, pixels: Shaped[np.ndarray, "h w"], scene: Scene, placement: Placement
) -> None:
    height, width = pixels.shape
    times = scene.frame.height / height
    transform = placement.transform(scene.frame) @ Affine.scale(times)
    with (
        replacing(path) as temporary,
        rasterio.open(
            temporary, "w", driver="JP2OpenJPEG", width=width, height=height, count=1,
            dtype=pixels.dtype, crs=placement.crs, transform=transform,
            quality=100, reversible="YES", codec="JP2",
        ) as target,
    ):  # fmt: skip
        target.write(pixels, 1)


def _product_metadata(product: _Product) -> str:
    """Return MTD_MSIL2A.xml, as far as readers look into it."""
    files = [
        f"<IMAGE_FILE>{product.image(name, gsd_m)}</IMAGE_FILE>"
        for gsd_m, bands in _NATIVE_M.items()
        for name in (*bands, *(("SCL",) if gsd_m == 20 else ()))
    ]
    offsets = [
        f'<BOA_ADD_OFFSET band_id="{number}">{-product.offset}</BOA_ADD_OFFSET>'
        for number in range(len(_BAND_IDS))
    ]
    listed = f"<BOA_ADD_OFFSET_VALUES_LIST>{''.join(offsets)}</BOA_ADD_OFFSET_VALUES_LIST>"
    return _PRODUCT.format(
        time=f"{product.scene.date}T10:20:31.024Z",
        name=product.name,
        baseline=product.baseline,
        take=f"GS2A_{product.time}",
        granule=product.granule,
        files="\n          ".join(files),
        offsets=listed if product.offset else "",
        bands="\n      ".join(_spectral_information(product.scene)),
    )


def _spectral_information(scene: Scene) -> list[str]:
    gsd_m = {name.replace("B0", "B"): gsd for gsd, names in _NATIVE_M.items() for name in names}
    wave = {band.name.replace("B0", "B"): band.wavelength_nm for band in scene.sensor.bands}
    return [
        f'<Spectral_Information bandId="{number}" physicalBand="{name}">'
        f"<RESOLUTION>{gsd_m[name]}</RESOLUTION>"
        f'<Wavelength><CENTRAL unit="nm">{wave[name]:g}</CENTRAL></Wavelength>'
        "</Spectral_Information>"
        for number, name in enumerate(_BAND_IDS)
        if name in gsd_m
    ]


def _tile_metadata(product: _Product, placement: Placement) -> str:
    """Return MTD_TL.xml: where the tile lies and how large it is."""
    frame = product.scene.frame
    corner = placement.transform(frame)
    sizes = [
        f'<Size resolution="{gsd}"><NROWS>{frame.height * 10 // gsd}</NROWS>'
        f"<NCOLS>{frame.width * 10 // gsd}</NCOLS></Size>"
        for gsd in _NATIVE_M
    ]
    places = [
        f'<Geoposition resolution="{gsd}"><ULX>{corner.c:.0f}</ULX><ULY>{corner.f:.0f}</ULY>'
        f"<XDIM>{gsd}</XDIM><YDIM>{-gsd}</YDIM></Geoposition>"
        for gsd in _NATIVE_M
    ]
    return _TILE.format(
        granule=product.granule,
        time=f"{product.scene.date}T10:20:31.024Z",
        crs=placement.crs,
        geocoding="\n      ".join(sizes + places),
    )


_PRODUCT = """\
<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd">
  <n1:General_Info>
    <Product_Info>
      <PRODUCT_START_TIME>{time}</PRODUCT_START_TIME>
      <PRODUCT_STOP_TIME>{time}</PRODUCT_STOP_TIME>
      <PRODUCT_URI>{name}</PRODUCT_URI>
      <PROCESSING_LEVEL>Level-2A</PROCESSING_LEVEL>
      <PRODUCT_TYPE>S2MSI2A</PRODUCT_TYPE>
      <PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE>
      <Datatake datatakeIdentifier="{take}">
        <SPACECRAFT_NAME>Sentinel-2A</SPACECRAFT_NAME>
      </Datatake>
      <Query_Options completeSingleTile="true">
        <PRODUCT_FORMAT>SAFE_COMPACT</PRODUCT_FORMAT>
      </Query_Options>
      <Product_Organisation><Granule_List>
        <Granule granuleIdentifier="{granule}" imageFormat="JPEG2000">
          {files}
        </Granule>
      </Granule_List></Product_Organisation>
    </Product_Info>
    <Product_Image_Characteristics>
      <Special_Values>
        <SPECIAL_VALUE_TEXT>NODATA</SPECIAL_VALUE_TEXT>
        <SPECIAL_VALUE_INDEX>0</SPECIAL_VALUE_INDEX>
      </Special_Values>
      <QUANTIFICATION_VALUES_LIST>
        <BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
      </QUANTIFICATION_VALUES_LIST>
      {offsets}
      <Spectral_Information_List>
      {bands}
      </Spectral_Information_List>
    </Product_Image_Characteristics>
  </n1:General_Info>
</n1:Level-2A_User_Product>
"""

_TILE = """\
<?xml version="1.0" encoding="UTF-8"?>
<n1:Level-2A_Tile_ID xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/S2_PDI_Level-2A_Tile_Metadata.xsd">
  <n1:General_Info>
    <TILE_ID>{granule}</TILE_ID>
    <SENSING_TIME>{time}</SENSING_TIME>
  </n1:General_Info>
  <n1:Geometric_Info>
    <Tile_Geocoding>
      <HORIZONTAL_CS_NAME>WGS84 / UTM</HORIZONTAL_CS_NAME>
      <HORIZONTAL_CS_CODE>{crs}</HORIZONTAL_CS_CODE>
      {geocoding}
    </Tile_Geocoding>
  </n1:Geometric_Info>
</n1:Level-2A_Tile_ID>
"""
