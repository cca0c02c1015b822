"""Styles beside maps and tables: QGIS loads ``FILE.qml`` by itself when it opens ``FILE.tif``."""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from geodino.files import write_text
from geodino.geo.height_colours import STOPS, check_highest, height_colours, height_ticks_m

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

_DOCTYPE = "<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n"

_VERSION = "3.28.0"
"""Version of QGIS whose style files these follow."""


def style_path(map_path: Path) -> Path:
    """Return where the style of a map or table lies: beside it, with the ending ``.qml``."""
    return map_path.with_suffix(".qml")


def write_height_style(map_path: Path, *, highest_m: float) -> Path:
    """Write the style of a map of heights: band 1 in pseudocolour, nodata transparent.

    Values of the style are metres, also for a map that stores centimetres: QGIS multiplies by the
    scale that a band declares before it looks a colour up.

    Args:
        map_path: the map, whose first band holds heights.
        highest_m: height of the darkest colour; taller trees have that colour too.

    Returns:
        Where the style was written.

    Raises:
        ValueError: ``highest_m`` is not above 0.
        RunError: the file cannot be written.
    """
    return _write_ramp(map_path, highest=highest_m, unit=" m")


def write_change_style(map_path: Path, *, highest: float) -> Path:
    """Write the style of a map of change: as of heights, without a unit.

    Args:
        map_path: the map, whose first band holds change.
        highest: change of the darkest colour; more of it has that colour too.

    Returns:
        Where the style was written.

    Raises:
        ValueError: ``highest`` is not above 0.
        RunError: the file cannot be written.
    """
    return _write_ramp(map_path, highest=highest, unit="")


def write_class_style(map_path: Path, classes: Mapping[int, tuple[str, Colour]]) -> Path:
    """Write the style of a map of classes: band 1 by palette; other values are transparent.

    Args:
        map_path: the map, whose first band holds classes.
        classes: stored value to name and colour.

    Returns:
        Where the style was written.

    Raises:
        ValueError: no class, or a colour out of range.
        RunError: the file cannot be written.
    """
    if not classes:
        raise ValueError(f"a style for {map_path.name} needs at least one class")
    root, renderer = _style("paletted")
    palette = ET.SubElement(renderer, "colorPalette")
    for value, (name, colour) in sorted(classes.items()):
        ET.SubElement(
            palette, "paletteEntry", value=str(value), label=name, color=_hex(colour), alpha="255"
        )
    return _write(map_path, root)


def write_box_style(table_path: Path, classes: Mapping[str, Colour]) -> Path:
    """Write the style of a table of boxes: outlines in the colour of the column ``class``.

    Args:
        table_path: the vector file.
        classes: colour of each name.

    Returns:
        Where the style was written.

    Raises:
        ValueError: no class, or a colour out of range.
        RunError: the file cannot be written.
    """
    if not classes:
        raise ValueError(f"a style for {table_path.name} needs at least one class")
    root = ET.Element("qgis", version=_VERSION, styleCategories="Symbology")
    renderer = ET.SubElement(root, "renderer-v2", type="categorizedSymbol", attr="class")
    categories = ET.SubElement(renderer, "categories")
    symbols = ET.SubElement(renderer, "symbols")
    for number, (name, colour) in enumerate(classes.items()):
        ET.SubElement(
            categories, "category", symbol=str(number), value=name, label=name, render="true",
            type="string",
        )  # fmt: skip
        symbol = ET.SubElement(symbols, "symbol", type="fill", name=str(number), alpha="1")
        layer = ET.SubElement(symbol, "layer", attrib={"class": "SimpleFill", "enabled": "1"})
        _options(layer, {
            "style": "no", "outline_style": "solid", "outline_color": _opaque(colour),
            "outline_width": "0.5", "outline_width_unit": "MM",
        })  # fmt: skip
    ET.SubElement(root, "blendMode").text = "0"
    ET.SubElement(root, "layerGeometryType").text = "2"
    return _write(table_path, root)


def _write_ramp(map_path: Path, *, highest: float, unit: str) -> Path:
    """Write a style that gives band 1 the colours of heights, light to dark, up to ``highest``."""
    check_highest(highest)
    root, renderer = _style("singlebandpseudocolor")
    renderer.set("classificationMin", "0")
    renderer.set("classificationMax", _number(highest))
    origin = ET.SubElement(renderer, "minMaxOrigin")
    # Else QGIS stretches the colours to what happens to be on the screen.
    ET.SubElement(origin, "limits").text = "None"
    ET.SubElement(origin, "extent").text = "WholeRaster"
    shader = ET.SubElement(
        ET.SubElement(renderer, "rastershader"),
        "colorrampshader",
        colorRampType="INTERPOLATED",
        classificationMode="1",
        clip="0",
        minimumValue="0",
        maximumValue=_number(highest),
    )
    shader.append(_ramp())
    heights = height_ticks_m(highest)
    colours = height_colours(np.array(heights), highest_m=highest).tolist()
    for height, (red, green, blue) in zip(heights, colours, strict=True):
        more = " and more" if height == highest else ""
        ET.SubElement(
            shader,
            "item",
            value=_number(height),
            label=f"{_number(height)}{unit}{more}",
            color=_hex((red, green, blue)),
            alpha="255",
        )
    ET.SubElement(shader, "rampLegendSettings", useContinuousLegend="0", suffix=unit, prefix="")
    return _write(map_path, root)


def _style(kind: str) -> tuple[ET.Element, ET.Element]:
    """Return an empty style and its renderer."""
    root = ET.Element(
        "qgis", version=_VERSION, styleCategories="Symbology", hasScaleBasedVisibilityFlag="0"
    )
    pipe = ET.SubElement(root, "pipe")
    renderer = ET.SubElement(
        pipe, "rasterrenderer", type=kind, band="1", opacity="1", alphaBand="-1", nodataColor=""
    )
    ET.SubElement(renderer, "rasterTransparency")
    ET.SubElement(root, "blendMode").text = "0"
    return root, renderer


def _ramp() -> ET.Element:
    """Return the ramp that QGIS shows, and makes new classes from when a user asks for them."""
    (_, first), *between, (_, last) = STOPS
    stops = ":".join(
        f"{i / (len(STOPS) - 1):.4g};{_opaque(rgb)}" for i, (_, rgb) in enumerate(between, start=1)
    )
    values = {
        "color1": _opaque(first), "color2": _opaque(last), "discrete": "0", "rampType": "gradient",
        "stops": stops,
    }  # fmt: skip
    ramp = ET.Element("colorramp", name="[source]", type="gradient")
    _options(ramp, values)
    return ramp


def _options(of: ET.Element, values: Mapping[str, str]) -> None:
    options = ET.SubElement(of, "Option", type="Map")
    for name, value in values.items():
        ET.SubElement(options, "Option", type="QString", name=name, value=value)
    for name, value in values.items():  # as versions before 3.26 read them
        ET.SubElement(of, "prop", k=name, v=value)


def _opaque(colour: Colour) -> str:
    return ",".join(str(part) for part in (*_checked(colour), 255))


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*_checked(colour))


def _checked(colour: Colour) -> Colour:
    if not all(0 <= part <= 255 for part in colour):
        raise ValueError(f"a colour is red, green and blue from 0 to 255, not {colour}")
    return colour


def _number(value: float) -> str:
    return f"{value:.10g}"


def _write(map_path: Path, root: ET.Element) -> Path:
    ET.indent(root, space=" ")
    path = style_path(map_path)
    write_text(path, _DOCTYPE + ET.tostring(root, encoding="unicode") + "\n")
    return path
