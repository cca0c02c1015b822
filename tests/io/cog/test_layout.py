"""Blocks, supertiles and overviews: arithmetic of where everything is."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.errors import RunError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.io.cog.layout import Layer, Layout

laws = settings(max_examples=25)


def layer(count=1, dtype="float32", nodata=None, **fields):
    return Layer(name="map", count=count, dtype=dtype, nodata=nodata, **fields)


def plan(height, width, *layers):
    return Layout.plan(Grid(None, Affine.identity(), width=width, height=height), layers)


@pytest.mark.parametrize(
    ("layers", "block", "side"),
    [
        # 4 bytes: 2048 px hold 16 MiB, 4096 px 64 MiB, and there the side ends.
        ([layer()], 512, 4096),
        ([layer(), layer(3, "uint8")], 512, 4096),
        # 64 bytes: 1024 px hold 64 MiB, doubled once more; 2048 px hold 256.
        ([layer(16)], 512, 2048),
        # 1,536 bytes: 512 px hold 384 MiB, 256 px 96 MiB: more than a supertile is to hold.
        ([layer(384)], 256, 256),
        # 4,096 bytes: 128 px hold 64 MiB, doubled once.
        ([layer(1024)], 128, 256),
        ([layer(100_000)], 64, 64),
    ],
)
def test_blocks_and_supertiles_shrink_with_the_bytes_of_a_pixel(layers, block, side):
    found = plan(50_000, 60_000, *layers)
    assert (found.block, found.side) == (block, side)


@pytest.mark.parametrize(
    ("height", "block"), [(600, 512), (512, 512), (500, 512), (40, 48), (3, 16)]
)
def test_a_small_map_is_one_block_of_a_multiple_of_16(height, block):
    found = plan(height, 2, layer())
    assert found.block == block
    assert found.levels == (1 if height > 512 else 0)


def test_places_of_a_map_of_two_by_three_supertiles():
    # 4096 px a supertile: rows end at 4096, 5000; columns at 4096, 8192, 9000.
    found = plan(5000, 9000, layer())
    assert len(found) == 6
    assert found.window(0) == Window(0, 0, 4096, 4096)
    assert found.window(5) == Window(4096, 8192, 904, 808)
    assert found.block_rows(0) == 8
    assert found.block_rows(5) == 2
    assert found.block_window(5, 1) == Window(4608, 8192, 392, 808)
    # 9000 px are 18 blocks; 9000 / 32 = 281.25 px fit in one.
    assert found.levels == 5
    assert found.inner == 3
    assert found.size(5) == (157, 282)
    assert found.tiles(0) == (10, 18)
    assert found.corner(5, 3) == (1, 2)
    assert list(found.covering(Window(4000, 4095, 97, 2))) == [0, 1, 3, 4]


sizes = st.integers(1, 9000)


@laws
@given(height=sizes, width=sizes, count=st.sampled_from([1, 40, 500, 3000]))
def test_every_pixel_is_in_one_row_of_blocks_and_every_tile_in_one_supertile(height, width, count):
    found = plan(height, width, layer(count))
    area = 0
    tiles = [np.zeros(found.tiles(level), dtype=int) for level in range(found.inner + 1)]
    for number in range(len(found)):
        window = found.window(number)
        rows = [found.block_window(number, r) for r in range(found.block_rows(number))]
        assert sum(r.area for r in rows) == window.area
        assert all(window.contains(r) for r in rows)
        area += window.area
        for level, seen in enumerate(tiles):
            row, column = found.corner(number, level)
            step = found.block << level
            down, right = -(-window.height // step), -(-window.width // step)
            assert row + down <= seen.shape[0]
            assert column + right <= seen.shape[1]
            seen[row : row + down, column : column + right] += 1
    assert area == height * width
    assert all((seen == 1).all() for seen in tiles)
    assert found.tiles(found.levels) == (1, 1)


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"count": 0}, "0 bands"),
        ({"count": 2, "units": ("m",)}, "1 units for 2 band"),
        ({"colours": True}, "3 bands of uint8, not 1 of float32"),
        ({"colour_table": {1: (1, 2, 3, 255)}}, "colour table is of 1 band of uint8"),
        ({"dtype": "uint8", "nodata": 256.0}, "nodata 256.0 is no value of uint8"),
        ({"dtype": "uint16", "nodata": float("nan")}, "nodata nan is no value of uint16"),
        ({"nodata": 1e39}, "is no value of float32"),
    ],
)
def test_layers_that_no_geotiff_can_hold_are_refused(fields, why):
    with pytest.raises(RunError, match=why):
        layer(**fields)
