"""The picture beside a map of classes: their colours and a legend."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont
from rasterio.enums import Resampling
from rasterio.errors import RasterioError

from geodino.errors import SourceError
from geodino.files import replacing
from geodino.io.metadata import cause, open_raster
from geodino.report.quicklook import SIDE, north_up, quicklook_path

_LINE = 20
"""Rows of a line of the legend, pixels."""

_COLUMN = 170
"""Columns of an entry of the legend."""

_LEAST = 420
"""Columns of the picture at least; a small map is enlarged for it."""

_PAPER, _INK = (255, 255, 255, 255), (26, 31, 36, 255)


def write_class_quicklook(
    map_path: Path, classes: Mapping[int, tuple[str, tuple[int, int, int]]]
) -> Path:
    """Draw a map of classes with a legend of those that occur; no data are transparent.

    Args:
        map_path: a cloud-optimised GeoTIFF whose first band holds numbers of classes.
        classes: name and colour of each number.

    Returns:
        Where the picture was written.

    Raises:
        SourceError: the map cannot be read.
        RunError: the picture cannot be written.
    """
    numbers = _read(map_path)
    table = np.zeros((256, 4), np.uint8)
    for number, (_, colour) in classes.items():
        table[number] = (*colour, 255)
    picture = table[numbers]
    factor = max(1, -(-_LEAST // max(numbers.shape)))
    picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    there = [classes[n] for n in np.unique(numbers).tolist() if n in classes]
    path = quicklook_path(map_path)
    with replacing(path) as temporary:
        with_legend(picture, there).save(temporary, format="PNG")
    return path


def _read(map_path: Path) -> UInt8[ndarray, "h w"]:
    try:
        with open_raster(str(map_path)) as dataset:
            shrink = min(1.0, SIDE / dataset.width, SIDE / dataset.height)
            rows, columns = (max(1, round(n * shrink)) for n in dataset.shape)
            # GDAL takes the overview that is next in size, so little is read.
            shape = (rows, columns)
            numbers = dataset.read(1, out_shape=shape, resampling=Resampling.nearest)
            return np.asarray(north_up(numbers, dataset.transform, dataset.crs))
    except RasterioError as error:
        raise SourceError(
            f"{map_path} cannot be read for its picture: {cause(error)}. Make the map again."
        ) from error


def with_legend(
    picture: UInt8[ndarray, "h w 4"], classes: list[tuple[str, tuple[int, int, int]]]
) -> Image.Image:
    """Return a picture with the names and colours of classes below it."""
    height, width = picture.shape[:2]
    across = max(1, max(width, _LEAST) // _COLUMN)
    lines = -(-len(classes) // across)
    whole = Image.new("RGBA", (max(width, _LEAST), height + lines * _LINE + 8), (0, 0, 0, 0))
    whole.paste(Image.fromarray(picture), ((whole.width - width) // 2, 0))
    draw = ImageDraw.Draw(whole)
    draw.rectangle((0, height, whole.width, whole.height), fill=_PAPER)
    font = ImageFont.load_default(size=12)
    for place, (name, colour) in enumerate(classes):
        line, column = divmod(place, across)
        left, top = 8 + column * _COLUMN, height + 6 + line * _LINE
        draw.rectangle((left, top, left + 12, top + 12), fill=(*colour, 255), outline=_INK)
        draw.text((left + 18, top - 1), name, fill=_INK, font=font)
    return whole
