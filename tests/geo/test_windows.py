"""Windows and tilings."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodino.geo.windows import Window, super_windows

lengths = st.integers(1, 300)
blocks = st.integers(1, 320)


# Small, since a window of one pixel for each of 300 x 300 says no more than for each of 60 x 60.
small = st.integers(1, 60)


@given(h=small, w=small, bh=small, bw=small, size=st.integers(1, 26), least=st.integers(1, 13))
def test_super_windows_cover_every_pixel_exactly_once(h, w, bh, bw, size, least):
    seen = np.zeros((h, w), dtype=int)
    for window in super_windows(h, w, block=(bh, bw), size=size, least=least):
        seen[window.slices] += 1
    assert (seen == 1).all()


@given(length=lengths, block=st.integers(1, 64), size=st.integers(32, 128))
def test_inner_edges_lie_on_block_edges_and_windows_stay_near_their_size(length, block, size):
    tiling = super_windows(length, 1, block=(block, 1), size=size)
    for window in tiling:
        assert window.top % block == 0
        assert window.height <= 1.5 * size + block


@given(length=lengths, block=blocks, size=st.integers(1, 128), least=st.integers(1, 64))
def test_no_window_is_too_short_for_a_chip_unless_the_raster_is(length, block, size, least):
    tiling = super_windows(length, 1, block=(block, 1), size=size, least=least)
    assert min(window.height for window in tiling) >= min(least, length)


def test_a_short_last_block_joins_the_window_before_it():
    # Blocks of 512: 1100 px are 512 + 512 + 76; 76 px hold no chip of 224.
    tiling = super_windows(1100, 512, block=(512, 512), size=512, least=224)
    assert tiling.rows == (0, 512, 1100)


def test_a_strip_as_long_as_the_raster_is_cut_anyway_to_bound_memory():
    tiling = super_windows(5000, 100_000, block=(1, 100_000), size=1000)
    assert max(window.area for window in tiling) <= 1000 * 1000
    assert len(tiling) == 5 * 100


def test_windows_are_numbered_row_by_row_and_numbers_end():
    tiling = super_windows(20, 30, block=(10, 10), size=10)
    assert len(tiling) == 6
    assert tiling[4] == Window(10, 10, 10, 10)
    with pytest.raises(IndexError):
        tiling[6]


def test_a_window_contains_another_only_with_all_its_pixels():
    outer = Window(10, 20, 30, 40)
    assert outer.contains(Window(10, 20, 30, 40))
    assert outer.contains(Window(39, 59, 1, 1))
    assert not outer.contains(Window(39, 59, 2, 1))
    assert Window(12, 25, 3, 4).inside(outer) == Window(2, 5, 3, 4)
    assert outer.area == 1200
