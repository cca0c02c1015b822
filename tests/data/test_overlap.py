"""Ground that several tiles cover is not sampled more often than other ground."""

from dataclasses import replace

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Transformer
from scene_support import LEFT, TOP, bare_tile, index_of, numbers, write

from geodino.data.overlap import weigh
from geodino.geo.grid import Grid

laws = settings(max_examples=40)


def tile(left=0, top=0, **of):
    """A square of 100 pixels of 10 m; left and top in pixels."""
    return bare_tile(left=LEFT + 10.0 * left, top=TOP - 10.0 * top, **of)


def weights(*tiles):
    return [t.weight for t in weigh(tiles)]


@laws
@given(count=st.integers(1, 7), others=st.integers(0, 3))
def test_tiles_of_one_place_share_it(count, others):
    # As the dates of a series do; tiles elsewhere do not matter.
    elsewhere = [tile(1000 * (i + 1)) for i in range(others)]
    found = weights(*[tile() for _ in range(count)], *elsewhere)
    assert found == pytest.approx([1 / count] * count + [1.0] * others)


def test_tiles_that_touch_or_lie_apart_keep_all_of_their_ground():
    assert weights(tile(), tile(left=100), tile(top=100), tile(left=500)) == [1.0] * 4


def test_tiles_that_overlap_by_half_share_that_half():
    # Half of each is covered twice: 1 / (1 + 1/2), for a mean of 1/n of 3/4.
    assert weights(tile(), tile(left=50)) == pytest.approx([2 / 3] * 2, rel=1e-3)


def test_a_small_tile_inside_a_large_one_gives_way():
    # The small one is covered wholly, of the large one a quarter is: 1 / 2 and 1 / 1.25.
    found = weights(tile(side=50), tile(side=100))
    assert found == pytest.approx([0.5, 0.8], rel=1e-3)


def test_tiles_without_a_place_weigh_1():
    assert weights(tile(crs=None), tile(crs=None)) == [1.0, 1.0]
    assert weights(tile(crs=None), tile(), tile()) == [1.0, 0.5, 0.5]
    assert weigh([]) == []


def test_overlap_is_seen_across_reference_systems():
    # The same square kilometre in the next zone: 600 km from one meridian, 6 degrees on.
    here = tile()
    to_next = Transformer.from_crs("EPSG:32632", "EPSG:32633", always_xy=True)
    x, y = to_next.transform(500_500, 5_399_500)
    transform = Affine(10, 0, x - 500, 0, -10, y + 500)
    there = replace(here, grid=Grid("EPSG:32633", transform, 100, 100))
    # Turned by a few degrees of meridian convergence, so that corners stick out.
    assert weights(here, there) == pytest.approx([0.5, 0.5], abs=0.03)


@laws
@given(lefts=st.lists(st.integers(0, 250), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_weights_are_the_pairwise_formula_whatever_the_order(lefts, seed):
    def overlap(a, b):
        return max(0, 100 - abs(a - b)) / 100

    expected = [
        1 / (1 + sum(overlap(a, b) for j, b in enumerate(lefts) if j != i))
        for i, a in enumerate(lefts)
    ]
    tiles = [tile(left) for left in lefts]
    # Shares below a thousandth are rounding: the last metre of a square is none.
    assert weights(*tiles) == pytest.approx(expected, abs=3e-3)
    order = np.random.default_rng(seed).permutation(len(tiles))
    shuffled = weights(*[tiles[i] for i in order])
    assert shuffled == pytest.approx([weights(*tiles)[i] for i in order])


def test_weighing_again_changes_nothing():
    once = weigh([tile(), tile(left=50), tile(left=500)])
    assert weigh(once) == once


def test_tiles_that_were_filtered_out_share_nothing(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / f"{name}.tif", numbers())
    assert [t.weight for t in index_of(tmp_path).tiles] == [0.5, 0.5]
    assert [t.weight for t in index_of(tmp_path, overlap="all").tiles] == [1.0, 1.0]
    (alone,) = index_of(tmp_path, where="path.str.endswith('a.tif')").tiles
    assert alone.weight == 1.0


def test_overlapping_mosaics_of_two_systems_share_their_ground(shared_data):
    index = index_of(str(shared_data / "scenes/rio_tiler/mosaic_cog[23].tif"))
    assert [t.grid.crs for t in index.tiles] == ["EPSG:32618", "EPSG:4326"]
    for t in index.tiles:
        assert 0.3 < t.weight < 1.0
