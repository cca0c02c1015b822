"""The order of samples: laws that hold for any tiles, and arithmetic on small ones."""

import hashlib
import time
from collections import Counter, defaultdict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.data.cuts import Shapes
from geodino.data.order import Order, OrderConfig
from geodino.errors import SourceError


def shapes(*sizes, block=(256, 256), pixel_bytes=3, weight=None):
    height, width = (np.array([size[i] for size in sizes], dtype=np.int64) for i in (0, 1))
    one = np.ones_like(height)
    return Shapes(
        height=height,
        width=width,
        block_height=one * block[0],
        block_width=one * block[1],
        pixel_bytes=one * pixel_bytes,
        weight=np.ones(len(sizes)) if weight is None else np.array(weight, dtype=np.float64),
    )


def order(tiles, *, seed=0, batch=8, chip=64, super_window=256, most=16, budget=0):
    return Order(
        tiles,
        OrderConfig(
            seed=seed,
            batch=batch,
            chip=chip,
            super_window=super_window,
            chips_per_window=most,
            budget_bytes=budget,
        ),
    )


def epoch_counts(of, epoch=0):
    """How often each super-window occurs among all samples of one epoch."""
    counts = Counter()
    first = epoch * of.samples_per_epoch // of.config.batch
    stop = -(-(epoch + 1) * of.samples_per_epoch // of.config.batch)
    for step in range(first, stop):
        draws = of.step(step)
        counts.update(draws.window[draws.epoch == epoch].tolist())
    return counts


def places(of, epoch=0):
    """The places of all super-windows, by tile."""
    found = defaultdict(list)
    for window in range(of.windows):
        tile, place = of.place(epoch, window)
        found[tile].append(place)
    return found


def assert_tiled(windows, height, width):
    """Every pixel of the tile lies in exactly one window."""
    covered = np.zeros((height, width), dtype=np.int64)
    for window in windows:
        covered[window.slices] += 1
    assert (covered == 1).all()


sizes = st.tuples(st.integers(64, 700), st.integers(64, 700))
blocks = st.sampled_from([(1, 700), (8, 700), (16, 16), (64, 64), (128, 128), (512, 512), (700, 1)])


@settings(max_examples=60)
@given(
    tiles=st.lists(sizes, min_size=1, max_size=5),
    block=blocks,
    super_window=st.integers(64, 300),
    budget=st.sampled_from([0, 10**6, 10**9]),
    epoch=st.integers(0, 3),
)
def test_super_windows_cover_every_pixel_once_and_hold_a_chip(
    tiles, block, super_window, budget, epoch
):
    of = order(shapes(*tiles, block=block), super_window=super_window, budget=budget)
    for tile, windows in places(of, epoch).items():
        assert_tiled(windows, *tiles[tile])
        assert all(min(w.height, w.width) >= 64 for w in windows)


@settings(max_examples=60)
@given(
    tiles=st.lists(sizes, min_size=1, max_size=6),
    seed=st.integers(0, 1000),
    budget=st.sampled_from([0, 10**6, 10**9]),
    epoch=st.integers(0, 2),
)
def test_every_epoch_cuts_the_same_number_of_chips_from_each_super_window(
    tiles, seed, budget, epoch
):
    of = order(shapes(*tiles), seed=seed, budget=budget)
    expected = epoch_counts(of, 0)
    assert set(expected) == set(range(of.windows))
    assert expected.total() == of.samples_per_epoch
    assert epoch_counts(of, epoch) == expected


@settings(max_examples=30)
@given(
    tiles=st.lists(sizes, min_size=1, max_size=6),
    batch=st.integers(1, 40),
    budget=st.sampled_from([0, 3 * 10**6, 10**9]),
)
def test_exactly_one_chip_of_a_visit_is_its_last_and_comes_after_all_others(tiles, batch, budget):
    of = order(shapes(*tiles), batch=batch, budget=budget)
    ended = set()
    for step in range(2 * of.samples_per_epoch // batch):
        draws = of.step(step)
        visits = list(zip(draws.epoch.tolist(), draws.position.tolist(), strict=True))
        assert not ended.intersection(visits)
        now = [v for v, last in zip(visits, draws.last, strict=True) if last]
        assert len(set(now)) == len(now)
        ended.update(now)


def test_a_step_is_the_same_whatever_was_asked_before():
    tiles = shapes((1000, 900), (512, 512), (700, 3000))
    fresh = order(tiles).step(77)
    used = order(tiles)
    for step in (500, 3, 76):
        used.step(step)
    again = used.step(77)
    for name in ("epoch", "position", "window", "last"):
        np.testing.assert_array_equal(getattr(fresh, name), getattr(again, name))


def test_borders_lie_on_blocks_and_move_between_epochs():
    of = order(shapes((2048, 2048), block=(64, 64)))
    tops = {e: sorted({w.top for w in places(of, e)[0]}) for e in range(8)}
    assert all(top % 64 == 0 for found in tops.values() for top in found)
    assert len({tuple(found) for found in tops.values()}) > 1
    # 2048 / 256 = 8 rows of windows in every epoch.
    assert all(len(found) == 8 for found in tops.values())


def test_pixels_beside_a_border_are_seen_as_chips_of_other_epochs():
    # 512 px cut into two windows of 256, chips of 128: with fixed borders the pixels beside row
    # 256 would lie in 1 of 129 chips; moved borders must bring them near the mean.
    of = order(shapes((512, 4096), block=(32, 32)), chip=128)
    seen = np.zeros(512)
    for sample in range(4000):
        epoch = sample // of.windows
        _, place = of.place(epoch, sample % of.windows)
        top, _ = of.corner(sample, 0, place.height, place.width)
        seen[place.top + top : place.top + top + 128] += 1
    assert seen[250:262].min() > 0.4 * seen.mean()


def test_strips_are_read_whole_in_bands_of_rows():
    # 1000 columns in strips of 16 rows: windows span all columns (at most 4 x 256 = 1024), with
    # fewer rows: 256^2 / 1000 = 65 -> 64 rows, four strips.
    of = order(shapes((640, 1000), block=(16, 1000)))
    windows = places(of)[0]
    assert {(w.left, w.width) for w in windows} == {(0, 1000)}
    assert all(w.top % 16 == 0 for w in windows)
    assert len(windows) == 10


def test_blocks_larger_than_a_super_window_are_read_whole():
    # Blocks of 512 for windows of 256: cutting a block would decode it four times.
    of = order(shapes((1024, 1024), block=(512, 512)))
    assert {(w.height, w.width) for w in places(of)[0]} <= {(512, 512), (1024, 512), (512, 1024)}
    assert of.windows == 4


def test_a_small_tile_is_one_super_window():
    of = order(shapes((300, 200), (64, 64)))
    assert of.windows == 2
    tile, place = of.place(0, 0)
    assert (tile, place.top, place.left, place.height, place.width) == (0, 0, 0, 300, 200)
    # 300 * 200 / 64^2 = 14.6 -> 15 chips, and one.
    assert epoch_counts(of) == {0: 15, 1: 1}


def test_chips_of_a_super_window_follow_its_area_and_the_limit():
    # 256^2 / 64^2 = 16 chips; at most 4 asked: 4. The smaller tile: 128 x 64 -> 2, no limit hit.
    of = order(shapes((256, 256), (128, 64)), most=4)
    assert epoch_counts(of) == {0: 4, 1: 2}


def test_no_more_super_windows_are_in_use_than_memory_allows():
    # 64 tiles of one window (256^2 px of 3 bytes and a mask: 262,144 bytes); memory for 12.
    of = order(shapes(*[(256, 256)] * 64), budget=12 * 262_144, batch=16)
    assert of.depth == 12
    begun, most = set(), 0
    for step in range(3 * of.samples_per_epoch // 16):
        draws = of.step(step)
        visits = list(zip(draws.epoch.tolist(), draws.position.tolist(), strict=True))
        begun.update(visits)
        most = max(most, len(begun))
        begun.difference_update(v for v, last in zip(visits, draws.last, strict=True) if last)
    # Those of the mixture, and those that begin and end within the step: 16 samples at 16 chips
    # per window are one, two where a chunk ends.
    assert most <= 12 + 3


def test_batches_mix_as_many_super_windows_as_are_held():
    of = order(shapes(*[(256, 256)] * 256), budget=64 * 262_144, batch=64)
    assert of.depth == 64
    steps = range(of.samples_per_epoch // 64)
    different = [len(np.unique(of.step(s).window)) for s in steps]
    # A new window begins every 16 samples, so a batch of 64 holds chips of about 64 windows; an
    # epoch's first and last batches come from fewer, and none from one.
    assert np.median(different) > 48
    assert min(different) > 20


def test_epochs_and_seeds_have_their_own_orders():
    tiles = shapes(*[(64, 64)] * 50)
    of = order(tiles, batch=50, budget=0)
    assert of.samples_per_epoch == 50
    first, second = of.step(0).window, of.step(1).window
    other = order(tiles, batch=50, seed=1).step(0).window
    assert sorted(first) == sorted(second) == sorted(other) == list(range(50))
    # By position: rows lie in lanes.
    assert (of.step(0).position != of.step(1).position).any()
    assert not np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_ranks_seldom_need_the_same_super_window():
    of = order(shapes(*[(256, 256)] * 128), budget=64 * 262_144, batch=64)
    of_rank = [set(), set()]
    for step in range(of.samples_per_epoch // 64):
        for rank in range(2):
            part = of.step(step).rows(rank * 32, rank * 32 + 32)
            of_rank[rank].update(zip(part.epoch.tolist(), part.position.tolist(), strict=True))
    # 16 chips each: if rows were dealt at random, every window would be needed by both.
    assert len(of_rank[0] & of_rank[1]) < 0.35 * 128
    assert len(of_rank[0] | of_rank[1]) == 128


def test_rows_of_ranks_are_the_rows_of_the_global_batch():
    of = order(shapes((1000, 900), (512, 512)), batch=12)
    whole = of.step(5)
    parts = [of.step(5).rows(r * 4, r * 4 + 4) for r in range(3)]
    assert [p.first for p in parts] == [60, 64, 68]
    np.testing.assert_array_equal(np.concatenate([p.window for p in parts]), whole.window)


def test_a_source_that_fits_into_memory_has_one_super_window_per_tile():
    tiles = shapes((2000, 1500), (64, 64))
    needed = (2000 * 1500 + 64 * 64) * 4
    assert order(tiles, budget=needed).resident
    assert order(tiles, budget=needed).windows == 2
    # 2000 * 1500 / 64^2 = 732.4 chips: nothing is decoded twice, so there is no limit.
    assert epoch_counts(order(tiles, budget=needed)) == {0: 732, 1: 1}
    assert not order(tiles, budget=needed - 1).resident


def test_tiles_smaller_than_the_chip_are_left_out_and_counted():
    of = order(shapes((63, 500), (200, 200), (500, 10)))
    assert of.too_small == 2
    assert {of.place(0, w)[0] for w in range(of.windows)} == {1}


def test_a_chip_larger_than_every_tile_is_an_error_that_names_the_largest():
    with pytest.raises(SourceError, match=r"64 x 64 px is larger than every tile.*63 x 500.*=63"):
        order(shapes((63, 500), (50, 50)))
    with pytest.raises(SourceError, match="no readable tile"):
        order(shapes())


def test_corners_reach_every_place_and_no_other():
    of = order(shapes((67, 66)))
    found = {of.corner(n, 0, 67, 66) for n in range(400)}
    assert found == {(top, left) for top in range(4) for left in range(3)}
    assert of.corner(7, 0, 67, 66) == of.corner(7, 0, 67, 66)
    assert len({of.corner(n, 1, 67, 66) == of.corner(n, 0, 67, 66) for n in range(50)}) == 2


# Tiles that share their ground


def chips_of_tiles(of, epochs):
    """Mean number of chips an epoch cuts from each tile."""
    tile_of = np.array([of.place(0, window)[0] for window in range(of.windows)])
    steps = epochs * of.samples_per_epoch // of.config.batch
    windows = np.concatenate([of.step(step).window for step in range(steps)])
    return np.bincount(tile_of[windows]) / epochs


def test_without_overlaps_the_order_is_the_one_it_was_before_there_were_weights():
    # Digests of the order of commit 07f7b86.
    expected = {0: "4ecccf3d4b435972", 3 * 10**6: "2e3fc63a707daed7", 10**9: "e7889bef2663439d"}
    for budget, wanted in expected.items():
        tiles = shapes((1000, 900), (512, 512), (700, 3000), (64, 64))
        of = order(tiles, seed=3, batch=24, budget=budget)
        digest = hashlib.sha256()
        for step in (0, 1, 5, 77, 500):
            draws = of.step(step)
            for values in (draws.epoch, draws.position, draws.window):
                digest.update(values.astype("<i8").tobytes())
            digest.update(draws.last.tobytes())
            for epoch, window in zip(draws.epoch.tolist(), draws.window.tolist(), strict=True):
                tile, place = of.place(epoch, window)
                where = (tile, place.top, place.left, place.height, place.width)
                digest.update(repr(where).encode())
        assert digest.hexdigest()[:16] == wanted


@settings(max_examples=40)
@given(
    tiles=st.lists(
        st.tuples(st.integers(64, 400), st.integers(64, 400), st.floats(0.05, 1.0)),
        min_size=1, max_size=8,
    ),
    seed=st.integers(0, 1000),
    budget=st.sampled_from([0, 10**9]),
    epoch=st.integers(0, 5),
)  # fmt: skip
def test_every_epoch_has_one_length_and_each_share_is_rounded_up_or_down(
    tiles, seed, budget, epoch
):
    sizes, weight = [t[:2] for t in tiles], [t[2] for t in tiles]
    of = order(shapes(*sizes, weight=weight), seed=seed, budget=budget)
    full = epoch_counts(order(shapes(*sizes), seed=seed, budget=budget))
    counts = epoch_counts(of, epoch)
    assert counts.total() == of.samples_per_epoch
    shares = {w: full[w] * weight[of.place(0, w)[0]] for w in range(of.windows)}
    total = sum(shares.values())
    assert of.samples_per_epoch == max(1, round(total))
    for window, share in shares.items():
        # All shares are stretched alike, so that they sum to whole chips.
        exact = share * of.samples_per_epoch / total
        assert np.floor(exact - 1e-9) <= counts[window] <= np.ceil(exact + 1e-9)


@pytest.mark.parametrize(
    ("sizes", "weight", "expected"),
    [
        # Two dates of one place: (256 / 64)^2 = 16 chips, eight from each.
        ([(256, 256)] * 2, [1 / 2] * 2, [8, 8]),
        # Single chips of shares below a half are cut as often as their share says.
        ([(64, 64)] * 2, [0.3, 0.7], [0.3, 0.7]),
        ([(64, 64)] * 5, [0.1, 0.2, 0.3, 0.4, 1.0], [0.1, 0.2, 0.3, 0.4, 1.0]),
        # Nineteen dates and a tile of its own: 16 / 19 chips from each date, 16 from the other.
        ([(256, 256)] * 20, [1 / 19] * 19 + [1.0], [16 / 19] * 19 + [16]),
    ],
)
def test_over_many_epochs_every_tile_gives_its_share_of_chips(sizes, weight, expected):
    epochs = 320
    found = chips_of_tiles(order(shapes(*sizes, weight=weight)), epochs)
    for tile, wanted in enumerate(expected):
        # Each epoch rounds up or down, by a fair draw: four standard errors.
        part = wanted % 1
        error = 4 * (part * (1 - part) / epochs) ** 0.5
        assert found[tile] == pytest.approx(wanted, abs=error + 1e-9)


def test_a_window_of_a_small_share_has_its_turn_in_some_epochs_and_none_in_others():
    of = order(shapes(*[(64, 64)] * 10, weight=[0.25] * 10))
    # 10 * 0.25 = 2.5, rounded to the even 2.
    assert of.samples_per_epoch == 2
    seen = [set(epoch_counts(of, epoch)) for epoch in range(60)]
    assert all(len(windows) == 2 for windows in seen)
    assert set.union(*seen) == set(range(10))


@settings(max_examples=20)
@given(
    weight=st.lists(st.floats(0.05, 1.0), min_size=1, max_size=6),
    batch=st.integers(1, 30),
    budget=st.sampled_from([0, 10**9]),
)
def test_visits_end_once_with_shares_too(weight, batch, budget):
    of = order(shapes(*[(200, 150)] * len(weight), weight=weight), batch=batch, budget=budget)
    ended = set()
    for step in range(max(4, 3 * of.samples_per_epoch // batch)):
        draws = of.step(step)
        visits = list(zip(draws.epoch.tolist(), draws.position.tolist(), strict=True))
        assert not ended.intersection(visits)
        now = [v for v, last in zip(visits, draws.last, strict=True) if last]
        assert len(set(now)) == len(now)
        ended.update(now)


def test_a_hundred_thousand_tiles_are_ordered_within_two_seconds():
    sizes = np.random.default_rng(0).integers(200, 4000, (2, 100_000))
    one = np.ones(100_000, dtype=np.int64)
    tiles = Shapes(
        height=sizes[0],
        width=sizes[1],
        block_height=256 * one,
        block_width=256 * one,
        pixel_bytes=3 * one,
        weight=np.ones(100_000),
    )
    began = time.process_time()
    of = order(tiles, chip=200, super_window=1024, budget=2**31)
    of.step(10**7)
    assert time.process_time() - began < 2.0
    assert of.windows > 400_000
