"""Names of classes beside a map, where GDAL looks for them: ``FILE.tif.aux.xml``."""

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from pathlib import Path

from geodino.files import write_text


def category_path(map_path: Path) -> Path:
    """Return where the names of a map's classes lie."""
    return map_path.with_name(map_path.name + ".aux.xml")


def write_category_names(map_path: Path, names: Sequence[str]) -> Path:
    """Write the names of the numbers 0, 1, ... of band 1; an older file is replaced.

    GDAL calls them category names; a GeoTIFF has no place for them.

    Raises:
        RunError: the file cannot be written.
    """
    root = ET.Element("PAMDataset")
    band = ET.SubElement(root, "PAMRasterBand", band="1")
    listed = ET.SubElement(band, "CategoryNames")
    for name in names:
        ET.SubElement(listed, "Category").text = name
    ET.indent(root, space="  ")
    path = category_path(map_path)
    write_text(path, ET.tostring(root, encoding="unicode") + "\n")
    return path
