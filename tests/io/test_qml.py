"""Styles: well-formed, with the entries QGIS reads. QGIS itself is not asked here."""

import xml.etree.ElementTree as ET

import numpy as np
import pytest

from geodino.geo.height_colours import STOPS, height_colours
from geodino.io.qml import write_box_style, write_class_style, write_height_style


def parse(path):
    assert path.read_text().startswith("<!DOCTYPE qgis ")
    root = ET.fromstring(path.read_text())  # noqa: S314  (our own file)
    assert root.tag == "qgis"
    (renderer,) = root.findall("pipe/rasterrenderer")
    return renderer


def rgb(text):
    return [int(text[i : i + 2], 16) for i in (1, 3, 5)]


def test_a_style_lies_beside_its_map(tmp_path):
    for name, expected in (("a.tif", "a.qml"), ("a.b.tif", "a.b.qml")):
        assert write_height_style(tmp_path / name, highest_m=40.0) == tmp_path / expected


def test_heights_are_labelled_in_metres_from_the_ground_to_the_tallest(tmp_path):
    renderer = parse(write_height_style(tmp_path / "map.tif", highest_m=40.0))
    assert renderer.get("type") == "singlebandpseudocolor"
    assert renderer.get("band") == "1"
    (shader,) = renderer.findall("rastershader/colorrampshader")
    assert shader.get("colorRampType") == "INTERPOLATED"
    assert shader.get("clip") == "0"  # taller trees are shown, in the last colour
    items = shader.findall("item")
    assert [float(item.get("value")) for item in items] == [0, 5, 10, 15, 20, 25, 30, 35, 40]
    assert [item.get("label") for item in items][:2] == ["0 m", "5 m"]
    assert items[-1].get("label") == "40 m and more"
    assert [rgb(item.get("color")) for item in items] == [list(colour) for _, colour in STOPS]
    assert {item.get("alpha") for item in items} == {"255"}  # 0 m is a height like any other


def test_nodata_is_transparent_and_colours_are_not_stretched_to_the_screen(tmp_path):
    renderer = parse(write_height_style(tmp_path / "map.tif", highest_m=40.0))
    assert renderer.get("nodataColor") == ""
    assert renderer.findtext("minMaxOrigin/limits") == "None"
    assert renderer.get("classificationMin") == "0"
    assert renderer.get("classificationMax") == "40"


@pytest.mark.parametrize("highest", [5.0, 25.0, 42.0, 61.5])
def test_colours_between_the_labels_are_those_of_the_ramp(tmp_path, highest):
    items = parse(write_height_style(tmp_path / "map.tif", highest_m=highest)).findall(".//item")
    values = [float(item.get("value")) for item in items]
    colours = np.array([rgb(item.get("color")) for item in items])
    heights = np.linspace(0, highest, 200)
    shown = np.stack([np.interp(heights, values, band) for band in colours.T], axis=-1)
    ours = height_colours(heights, highest_m=highest)
    assert np.abs(shown - ours).max() < 25  # of 255: no eye sees which one it is


def test_the_ramp_a_user_can_classify_anew_with_is_the_same(tmp_path):
    (ramp,) = parse(write_height_style(tmp_path / "m.tif", highest_m=9.0)).findall(".//colorramp")
    (options,) = ramp.findall("Option")
    new = {o.get("name"): o.get("value") for o in options}
    assert new == {p.get("k"): p.get("v") for p in ramp.findall("prop")}
    assert new["color1"] == "245,227,196,255"
    assert new["stops"].split(":")[3] == "0.5;65,145,81,255"
    assert len(new["stops"].split(":")) == len(STOPS) - 2


def test_classes_keep_names_values_and_colours_whatever_characters_they_have(tmp_path):
    classes = {7: ('wet & "wild" <meadow>', (1, 2, 255)), 2: ("Wald – forêt", (0, 128, 16))}
    renderer = parse(write_class_style(tmp_path / "classes.tif", classes))
    assert renderer.get("type") == "paletted"
    entries = renderer.findall("colorPalette/paletteEntry")
    assert [e.get("value") for e in entries] == ["2", "7"]
    assert [e.get("label") for e in entries] == ["Wald – forêt", 'wet & "wild" <meadow>']
    assert [e.get("color") for e in entries] == ["#008010", "#0102ff"]


def test_styles_that_say_nothing_are_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one class"):
        write_class_style(tmp_path / "a.tif", {})
    with pytest.raises(ValueError, match="0 to 255"):
        write_class_style(tmp_path / "a.tif", {1: ("water", (0, 0, 256))})
    with pytest.raises(ValueError, match="ends above 0 m"):
        write_height_style(tmp_path / "a.tif", highest_m=0.0)
    assert list(tmp_path.iterdir()) == []


def test_boxes_are_outlined_in_the_colour_of_their_class(tmp_path):
    path = write_box_style(tmp_path / "boxes.parquet", {"house": (255, 0, 0), "a & b": (0, 9, 8)})
    assert path == tmp_path / "boxes.qml"
    root = ET.fromstring(path.read_text())  # noqa: S314  (our own file)
    (renderer,) = root.findall("renderer-v2")
    assert (renderer.get("type"), renderer.get("attr")) == ("categorizedSymbol", "class")
    categories = renderer.findall("categories/category")
    assert [one.get("value") for one in categories] == ["house", "a & b"]
    symbols = {s.get("name"): s for s in renderer.findall("symbols/symbol")}
    options = {
        o.get("name"): o.get("value")
        for o in symbols[categories[1].get("symbol")].findall("layer/Option/Option")
    }
    assert options["outline_color"] == "0,9,8,255"
    assert options["style"] == "no"
