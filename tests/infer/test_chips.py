"""Chips cover a raster, patches know their validity, and a hash sees only what is valid."""

import numpy as np
import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st

from geodino.geo.grid import Grid
from geodino.infer.chips import (
    Chipping,
    ContentHash,
    Raster,
    all_chips,
    drawn_chips,
    patch_grid,
    patch_validity,
)

PLACE = Affine(10, 0, 500_000, 0, -10, 4_500_000)

sides = st.integers(1, 70)


def raster(pixels, valid=None, name="r"):
    valid = np.ones(pixels.shape[1:], dtype=bool) if valid is None else valid
    height, width = valid.shape
    return Raster(
        name=name,
        grid=Grid("EPSG:32618", PLACE, width=width, height=height),
        read=lambda w: (pixels[(slice(None), *w.slices)], valid[w.slices]),
    )


def coordinates(height, width):
    """Each pixel stores its own row and column, counted from 1: 0 is what padding holds."""
    return np.stack(np.mgrid[1 : height + 1, 1 : width + 1]).astype(np.uint16)


@given(height=sides, width=sides, patch=st.integers(1, 5), side=st.integers(1, 5))
def test_every_pixel_lies_in_exactly_one_chip_at_its_place(height, width, patch, side):
    chip = patch * side
    pixels = coordinates(height, width)
    seen = np.zeros((2, height, width), dtype=np.uint16)
    count = np.zeros((height, width), dtype=int)
    for found in all_chips([raster(pixels)], chip=chip, patch=patch):
        assert found.pixels.shape == (2, chip, chip)
        rows, columns = np.nonzero(found.valid)
        y, x = found.row * chip + rows, found.column * chip + columns
        seen[:, y, x] = found.pixels[:, rows, columns]
        count[y, x] += 1  # no pixel twice within one chip
        assert (found.pixels[:, ~found.valid] == 0).all()
    assert (count == 1).all()
    np.testing.assert_array_equal(seen, pixels)


@given(height=sides, width=sides, patch=st.integers(1, 9))
def test_the_patch_grid_covers_the_raster_and_no_row_more(height, width, patch):
    grid = Grid("EPSG:32618", PLACE, width=width, height=height)
    coarse = patch_grid(grid, patch)
    assert (coarse.height - 1) * patch < height <= coarse.height * patch
    assert (coarse.width - 1) * patch < width <= coarse.width * patch
    # The corner of pixel (0, 0) stays; one step on the coarse grid is `patch` steps on the fine.
    assert coarse.transform @ (0, 0) == grid.transform @ (0, 0)
    assert coarse.transform @ (1, 1) == pytest.approx(grid.transform @ (patch, patch))
    cut = Chipping(height, width, 3 * patch, patch)
    assert (cut.patch_rows, cut.patch_columns) == (coarse.height, coarse.width)


def test_the_share_of_a_chip_counts_only_pixels_of_the_raster():
    valid = np.ones((5, 4), dtype=bool)
    valid[4, :2] = False  # the second chip has one row of four pixels in the raster, two valid
    first, second = all_chips([raster(coordinates(5, 4), valid)], chip=4, patch=2)
    assert (first.share, second.share) == (1.0, 0.5)


def test_the_validity_of_a_patch_is_its_share_of_valid_pixels():
    valid = np.array([[1, 1, 0, 0], [1, 0, 0, 0]], dtype=bool)
    np.testing.assert_array_equal(patch_validity(valid, 2), np.float32([[0.75, 0.0]]))


def content(pixels, valid, heights):
    digest, top = ContentHash(), 0
    for height in heights:
        digest.add(pixels[:, top : top + height], valid[top : top + height])
        top += height
    return digest.hexdigest()


def test_the_hash_sees_neither_strips_nor_what_lies_under_invalid_pixels():
    pixels = coordinates(6, 5).astype(np.float32)
    valid = np.ones((6, 5), dtype=bool)
    valid[2:4, 1:3] = False
    hashes = set()
    for fill in (0.0, -9999.0, np.nan, np.inf):
        filled = np.where(valid, pixels, np.float32(fill))
        hashes |= {content(filled, valid, (6,)), content(filled, valid, (1, 3, 2))}
    assert len(hashes) == 1
    other = pixels.copy()
    other[1, 0, 0] += 1
    assert content(other, valid, (6,)) not in hashes
    assert content(np.where(valid, pixels, 0), np.ones_like(valid), (6,)) not in hashes


def test_drawn_chips_hold_valid_pixels_come_once_and_follow_the_seed():
    valid = np.zeros((40, 40), dtype=bool)
    valid[:8, :] = True
    rasters = [raster(coordinates(40, 40), valid), raster(coordinates(17, 9))]

    def places(seed, count=100):
        found = drawn_chips(rasters, chip=8, patch=4, count=count, seed=seed)
        return [(c.raster, c.row, c.column) for c in found]

    # 5 chips of the first raster are valid, all 3 x 2 of the second.
    expected = {(0, 0, c) for c in range(5)} | {(1, r, c) for r in range(3) for c in range(2)}
    assert set(places(0)) == expected
    assert len(places(0)) == len(expected)
    assert places(0) == places(0) != places(1)
    assert places(0, count=3) == places(0)[:3]


def test_a_reading_error_reaches_the_reader_of_the_chips():
    broken = Raster(
        name="b",
        grid=Grid(None, Affine.identity(), width=4, height=40),
        read=lambda w: 1 / 0 if w.top else (np.ones((1, 4, 4), "uint8"), np.ones((4, 4), bool)),
    )
    chips = all_chips([broken], chip=4, patch=4)
    assert next(chips).row == 0
    with pytest.raises(ZeroDivisionError):
        list(chips)
