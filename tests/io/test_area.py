"""An area of interest, as pixels of a raster."""

import numpy as np
import shapely
from tests_support import at_once

from geodino.geo.windows import Window
from geodino.io.area import Area

WINDOWS = [Window(top, left, 80, 80) for top in range(1, 480, 80) for left in range(1, 480, 80)]


def asked(area):
    return [(area.touches(window), area.inside(window)) for window in WINDOWS]


def test_a_pixel_is_inside_when_its_centre_is():
    area = Area(shapely.box(2.4, 1.6, 5.4, 3.4))
    # Columns 2 to 4 have centres 2.5 to 4.5 and row 2 has 2.5; rows 1 (1.5) and 3 (3.5) are out.
    expected = np.zeros((4, 8), dtype=bool)
    expected[1, 1:4] = True
    np.testing.assert_array_equal(area.inside(Window(1, 1, 4, 8)), expected)


def test_threads_that_ask_one_area_at_once_get_what_one_thread_gets():
    turn = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    reach = 200 + 30 * np.sin(40 * turn)
    star = np.column_stack([256 + reach * np.cos(turn), 256 + reach * np.sin(turn)])
    hole = np.column_stack([256 + 50 * np.cos(turn), 256 + 50 * np.sin(turn)])
    outline = shapely.MultiPolygon([shapely.Polygon(star, [hole]), shapely.box(0, 0, 20, 20)])
    expected = asked(Area(outline))
    area = Area(shapely.from_wkb(outline.wkb))
    for found in at_once(lambda: asked(area), threads=8):
        for (touches, inside), (touches_too, inside_too) in zip(found, expected, strict=True):
            assert touches == touches_too
            np.testing.assert_array_equal(inside, inside_too)
