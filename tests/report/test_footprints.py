import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodino.report.content import Place
from geodino.report.footprints import closer_map, footprint_map, framed, nice_length, unrolled


def square(west, south, side=0.01):
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1], [0, 0]])
    return side * corners + np.array([west, south])


def place(outlines):
    return Place(outlines=tuple(outlines), tiles=len(outlines), without=0)


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def test_tiles_on_both_sides_of_the_antimeridian_stay_together():
    outlines = unrolled([square(179.5, -17), square(-179.9, -17), square(-178, -17)])
    assert [round(float(o[0, 0]), 3) for o in outlines] == [179.5, 180.1, 182.0]


@pytest.mark.parametrize("wests", [(8.0, 9.0), (-120.0, 140.0 - 90), (0.0,), (-100.0, 0.0, 120.0)])
def test_tiles_elsewhere_stay_where_they_are(wests):
    outlines = [square(w, 10) for w in wests]
    for before, after in zip(outlines, unrolled(outlines), strict=True):
        np.testing.assert_array_equal(before, after)


@given(wests=st.lists(st.floats(-180, 179.9), min_size=1, max_size=12))
def test_no_way_to_cut_the_globe_is_narrower(wests):
    outlines = [square(w, 0) for w in wests]
    moved = np.array([o[0, 0] for o in unrolled(outlines)])
    width = moved.max() - moved.min()
    for cut in wests:
        other = np.array([w + 360 if w < cut else w for w in wests])
        assert width <= other.max() - other.min() + 0.011


def test_a_square_on_the_ground_is_a_square_on_the_map():
    # At 60 degrees a degree of longitude is half as long as one of latitude.
    (west, south, east, north), height = framed([square(10, 60) * [1, 1]])
    shown = height / (0.84 * 5.0)
    ground = (north - south) / ((east - west) * math.cos(math.radians(60.005)))
    assert shown == pytest.approx(ground, rel=1e-6)


@given(
    wests=st.lists(st.floats(-170, 170), min_size=1, max_size=5),
    south=st.floats(-85, 85),
    side=st.floats(1e-5, 3),
)
def test_every_footprint_is_inside_the_map(wests, south, side):
    outlines = [square(w, south, side) for w in wests]
    (west, low, east, high), height = framed(outlines)
    assert 1.4 <= height <= 3.6
    for outline in outlines:
        assert west < outline[:, 0].min() < outline[:, 0].max() < east
        assert low < outline[:, 1].min() < outline[:, 1].max() < high


def test_the_map_has_a_graticule_in_degrees_and_a_scale():
    labels = texts(footprint_map(place([square(8.0, 47.0), square(8.1, 47.05)]), label="x"))
    assert "8.05° E" in labels
    assert any(label.endswith("° N") for label in labels)
    assert any(re.fullmatch(r"\d+ k?m", label) for label in labels)


def test_degrees_beyond_180_are_written_as_west():
    labels = texts(footprint_map(place([square(178, -17), square(-178, -17)]), label="x"))
    assert {"178° E", "180°", "178° W"} <= set(labels)
    assert any(label.endswith("° S") for label in labels)


@pytest.mark.parametrize(
    ("length", "nice"), [(1.0, 1.0), (4.9, 2.0), (5.0, 5.0), (999.0, 500.0), (123_456.0, 100_000.0)]
)
def test_scales_have_round_lengths(length, nice):
    assert nice_length(length) == nice


def test_the_scale_bar_is_as_long_as_it_says():
    svg = footprint_map(place([square(0.0, 0.0, 1.0)]), label="x")
    # The map is 1.12 degrees of 111.32 km high and, at the equator, as wide per degree.
    (label,) = [t for t in texts(svg) if t.endswith(" km")]
    (west, _, east, _), _ = framed([square(0.0, 0.0, 1.0)])
    ends = re.findall(r'd="M ([\d.]+) ([\d.]+) \nL ([\d.]+) \2 \n"[^>]*stroke-width: 2\b', svg)
    (x0, _, x1) = (float(v) for v in ends[0])
    units_per_degree = 0.84 * 5.0 * 72 / (east - west)
    km = (x1 - x0) / units_per_degree * 111.32
    assert km == pytest.approx(float(label.removesuffix(" km")), rel=0.01)


def test_tiny_footprints_get_dots_and_a_closer_map_of_the_crowd():
    crowd = [square(8 + 0.02 * i, 47 + 0.03 * (i % 3)) for i in range(10)]
    far = [square(20.0, 40.0)]
    assert closer_map(place(crowd), label="x") is None  # seen well enough
    closer = closer_map(place([*crowd, *far]), label="x")
    labels = texts(closer)
    assert "8.10° E" in labels or "8.1° E" in labels
    assert not any(label.startswith("20") and "E" in label for label in labels)


def test_tiles_that_are_all_far_apart_have_no_closer_map():
    assert closer_map(place([square(8, 47), square(20, 40), square(-60, 10)]), label="x") is None


def test_equal_places_have_no_closer_map_and_do_not_hang():
    assert closer_map(place([square(8, 47, 1e-9)] * 5), label="x") is None


def test_thousands_of_footprints_stay_small():
    rng = np.random.default_rng(0)
    many = [square(*rng.uniform((-10, 40), (30, 60))) for _ in range(3000)]
    svg = footprint_map(place(many), label="x")
    assert len(svg) < 400_000
    assert "data:image/png;base64" in svg


def test_a_few_footprints_follow_the_style_sheet():
    svg = footprint_map(place([square(8, 47)]), label="x")
    assert "data:image" not in svg
    assert "var(--accent)" in svg
