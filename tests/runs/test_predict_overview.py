from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from maps_support import picture, raster_of

from geodino.geo.bands import Band
from geodino.geo.windows import Window
from geodino.runs.predict.overview import overview

BANDS = (Band(name="a"), Band(name="b"))


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


def test_pixels_of_an_overview_are_means_of_what_lies_under_them(threads):
    pixels, valid = picture(60, 90)
    raster = raster_of(pixels, valid)
    seen = overview(raster, BANDS, Window(0, 0, 60, 90), side=30, threads=threads)
    assert seen.steps == (3, 3)
    assert seen.valid.shape == (20, 30)
    means = pixels[:1].reshape(1, 20, 3, 30, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(seen.values, means, rtol=1e-5)
    assert seen.placed(np.array([[30.0, 15, 60, 30]])).tolist() == [[10, 5, 20, 10]]


@pytest.mark.parametrize("side", [10, 50, 1000])
def test_a_part_of_a_raster_fills_its_overview(threads, side):
    raster = raster_of(*picture(100, 200))
    seen = overview(raster, BANDS, Window(50, 120, 40, 30), side=side, threads=threads)
    assert max(seen.valid.shape) <= side
    height, width = seen.valid.shape
    (x0, y0, x1, y1) = seen.placed(np.array([[120.0, 50, 150, 90]]))[0]
    assert -1e-9 <= x0 < 1
    assert -1e-9 <= y0 < 1
    assert x1 <= width + 1
    assert y1 <= height + 1
    if side == 1000:
        assert (height, width) == (40, 30)
