"""Batches: the same samples whatever computes them, nothing invalid in them, no thread left."""

import threading
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino import seeds
from geodino.data.cuts import Shapes
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.errors import SourceError

CHIP = 16


class FakeTiles:
    """Tiles whose pixels say where they come from: (tile, row, column) as three uint16 bands."""

    def __init__(self, *sizes, valid=None, delay_s=0.0):
        self.sizes = sizes
        self.valid = valid or (lambda tile, height, width: np.ones((height, width), dtype=bool))
        self.delay_s = delay_s
        self.broken = set()
        self.reads = []

    def shapes(self):
        height, width = (np.array([s[i] for s in self.sizes], dtype=np.int64) for i in (0, 1))
        one = np.ones_like(height)
        return Shapes(
            height=height,
            width=width,
            block_height=16 * one,
            block_width=16 * one,
            pixel_bytes=6 * one,
            weight=np.ones(len(height)),
        )

    def __call__(self, tile, window):
        self.reads.append((tile, window))
        if self.delay_s:
            time.sleep(self.delay_s * (seeds.integer(tile, window.top) % 3))
        if tile in self.broken:
            raise SourceError(f"tile{tile}.tif is damaged.")
        height, width = self.sizes[tile]
        rows, columns = np.mgrid[:height, :width]
        pixels = np.stack([np.full_like(rows, tile), rows, columns]).astype(np.uint16) + 1
        return pixels[:, *window.slices].copy(), self.valid(tile, height, width)[window.slices]


def loader(tiles, *, batch=8, budget=0, most=4, seed=0, rank=0, world=1, read=None, **settings):
    plan_of, on_bad = settings.pop("plan_of", None), settings.pop("on_bad", None)
    config = OrderConfig(
        seed=seed,
        batch=batch,
        chip=CHIP,
        super_window=64,
        chips_per_window=most,
        budget_bytes=budget,
    )
    defaults = {"min_valid": 0.5, "threads": 2, "prefetch": 2}
    return Loader(
        Order(tiles.shapes(), config),
        read or tiles,
        LoaderConfig(**(defaults | settings)),
        rank=rank,
        world=world,
        plan_of=plan_of,
        on_bad=on_bad,
    )


def assert_same(a, b):
    assert (a.step, a.first, a.source) == (b.step, b.first, b.source)
    assert torch.equal(a.pixels, b.pixels)
    assert torch.equal(a.valid, b.valid)


TILES = ((200, 150), (64, 64), (90, 310), (16, 16), (130, 130))


def test_rows_hold_the_pixels_of_the_window_they_name():
    with loader(FakeTiles(*TILES)) as of:
        for step, batch in enumerate(of.batches(0, 10)):
            assert (batch.step, batch.first) == (step, 8 * step)
            assert batch.pixels.shape == (8, 3, CHIP, CHIP)
            assert batch.pixels.dtype == torch.uint16
            assert batch.valid.all()
            for pixels, (tile, window) in zip(batch.pixels.numpy(), batch.source, strict=True):
                assert (pixels[0] == tile + 1).all()
                np.testing.assert_array_equal(pixels[1, :, 0], np.arange(CHIP) + window.top + 1)
                np.testing.assert_array_equal(pixels[2, 0], np.arange(CHIP) + window.left + 1)


@settings(max_examples=12)
@given(
    start=st.integers(0, 40),
    threads=st.integers(1, 5),
    prefetch=st.integers(1, 5),
    budget=st.sampled_from([0, 400_000, 10**8]),
)
def test_batches_depend_on_nothing_but_seed_and_step(start, threads, prefetch, budget):
    with loader(FakeTiles(*TILES), budget=budget) as of:
        expected = list(of.batches(0, start + 3))[start:]
    with loader(
        FakeTiles(*TILES, delay_s=0.0005), budget=budget, threads=threads, prefetch=prefetch
    ) as of:
        for a, b in zip(expected, of.batches(start, start + 3), strict=True):
            assert_same(a, b)


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_together_hold_the_batch_of_one_process(world):
    with loader(FakeTiles(*TILES)) as of:
        whole = list(of.batches(3, 6))
    shares = []
    for rank in range(world):
        with loader(FakeTiles(*TILES), rank=rank, world=world) as of:
            shares.append(list(of.batches(3, 6)))
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert [p.first for p in parts] == [batch.first + r * 8 // world for r in range(world)]
        assert torch.equal(torch.cat([p.pixels for p in parts]), batch.pixels)


def test_a_batch_that_cannot_be_shared_is_refused():
    with (
        loader(FakeTiles(*TILES), world=3) as of,
        pytest.raises(ValueError, match="8 cannot be cut into 3"),
    ):
        next(of.batches())


def test_two_epochs_hold_different_chips_of_the_same_tiles():
    with loader(FakeTiles((16, 16), (17, 17), (16, 18)), batch=3) as of:
        first, second = of.batches(0, 2)
    assert {t for t, _ in first.source} == {t for t, _ in second.source} == {0, 1, 2}
    assert set(first.source) != set(second.source) or first.source != second.source


def test_each_super_window_is_decoded_once_an_epoch():
    tiles = FakeTiles((256, 256))
    with loader(tiles) as of:
        assert not of.order.resident
        list(of.batches(0, of.order.samples_per_epoch // 8))
        # 16 windows of 64 x 64 px, 4 chips each: 64 samples, 8 steps.
        assert len(tiles.reads) == len(set(tiles.reads)) == of.counts.decoded == 16


def test_a_source_that_fits_into_memory_is_decoded_once_for_all():
    tiles = FakeTiles(*TILES)
    with loader(tiles, budget=10**8) as of:
        for _ in range(3):
            list(of.batches(0, 3 * of.order.samples_per_epoch // 8))
    assert sorted(tile for tile, _ in tiles.reads) == [0, 1, 2, 3, 4]


def test_threads_that_need_the_same_tile_at_once_decode_it_once():
    tiles = FakeTiles((16, 16), delay_s=0.01)
    with loader(tiles, budget=10**8, threads=4) as of:
        next(of.batches(0))
    assert len(tiles.reads) == 1


def half_valid(tile, height, width):
    """The left half of every tile is missing."""
    valid = np.ones((height, width), dtype=bool)
    valid[:, : width // 2] = False
    return valid


def test_chips_have_the_share_of_valid_pixels_asked_for_where_there_are_any():
    with loader(FakeTiles((64, 64), valid=half_valid), min_valid=0.9, budget=10**8) as of:
        shares = torch.cat([b.valid for b in of.batches(0, 20)]).float().mean((1, 2))
    assert shares.min() >= 0.9


def test_a_tiny_island_of_valid_pixels_is_found():
    def island(tile, height, width):
        valid = np.zeros((height, width), dtype=bool)
        valid[50, 7] = True
        return valid

    with loader(FakeTiles((64, 64), valid=island), budget=10**8) as of:
        batch = next(of.batches(0, 1))
    assert (batch.valid.sum((1, 2)) == 1).all()
    assert len(set(batch.source)) > 1


def test_pixels_that_are_not_valid_are_zero():
    with loader(FakeTiles(*TILES, valid=half_valid)) as of:
        batches = list(of.batches(0, 8))
    pixels = torch.cat([batch.pixels for batch in batches]).int()
    invalid = ~torch.cat([batch.valid for batch in batches])[:, None].expand_as(pixels)
    assert invalid.any()
    assert (pixels[invalid] == 0).all()
    assert (pixels[~invalid] > 0).all()


def test_dead_parts_are_replaced_by_others():
    def dead_left(tile, height, width):
        valid = np.ones((height, width), dtype=bool)
        valid[:, :128] = False
        return valid

    with loader(FakeTiles((256, 256), valid=dead_left)) as of:
        batches = list(of.batches(0, 16))
        assert of.counts.dead > 0
    assert all(batch.valid.any(2).any(1).all() for batch in batches)
    with loader(FakeTiles((256, 256), valid=dead_left)) as of:
        assert_same(next(of.batches(9)), batches[9])


def test_a_source_without_a_valid_pixel_is_an_error_that_says_so():
    def nothing(tile, height, width):
        return np.zeros((height, width), dtype=bool)

    with (
        loader(FakeTiles(*TILES, valid=nothing)) as of,
        pytest.raises(SourceError, match=r"No usable pixel was found.*data\.nodata"),
    ):
        next(of.batches(0))


def test_an_unreadable_tile_is_reported_once_and_replaced():
    told = []
    tiles = FakeTiles(*TILES)
    tiles.broken.add(2)
    with loader(tiles, on_bad=lambda tile, reason: told.append((tile, reason))) as of:
        batches = list(of.batches(0, 30))
        assert of.counts.unreadable > 1
        assert of.counts.bad_tiles == {2: "tile2.tif is damaged."}
    assert told == [(2, "tile2.tif is damaged.")]
    assert all(tile != 2 for batch in batches for tile, _ in batch.source)


def test_when_no_tile_is_readable_the_error_names_one():
    tiles = FakeTiles(*TILES)
    tiles.broken.update(range(5))
    with loader(tiles) as of, pytest.raises(SourceError, match=r"could not be read.*is damaged"):
        next(of.batches(0))


def test_an_unreadable_tile_is_fatal_when_strict():
    tiles = FakeTiles(*TILES)
    tiles.broken.add(2)
    with (
        loader(tiles, strict=True) as of,
        pytest.raises(SourceError, match=r"^tile2\.tif is damaged\.$"),
    ):
        list(of.batches(0, 30))


def test_a_mistake_in_a_thread_reaches_the_consumer_as_it_is():
    def broken_plan(step, first, valid):
        raise ZeroDivisionError(f"step {step}")

    with (
        loader(FakeTiles(*TILES), plan_of=broken_plan) as of,
        pytest.raises(ZeroDivisionError, match="step 4"),
    ):
        next(of.batches(4))


def test_plans_are_drawn_in_the_background_from_the_validity_of_the_batch():
    def plan_of(step, first, valid):
        return step, first, valid.mean(), threading.current_thread().name

    with loader(FakeTiles(*TILES, valid=half_valid), plan_of=plan_of) as of:
        for batch in of.batches(2, 5):
            step, first, share, thread = batch.plan
            assert (step, first) == (batch.step, batch.first)
            assert share == pytest.approx(batch.valid.float().mean().item())
            assert thread != threading.current_thread().name


def test_float64_becomes_float32_and_a_copy_keeps_everything():
    def read(tile, window):
        pixels = np.full((1, window.height, window.width), 0.1, dtype=np.float64)
        return pixels, np.ones((window.height, window.width), dtype=bool)

    with loader(FakeTiles((64, 64)), read=read) as of:
        batch = next(of.batches(0))
    assert batch.pixels.dtype == torch.float32
    assert_same(batch.to(torch.device("cpu")), batch)
    assert batch.plan is None


def geodino_threads():
    return [t for t in threading.enumerate() if t.name.startswith("geodino")]


def test_no_thread_is_left_after_an_iteration_that_was_given_up():
    with loader(FakeTiles(*TILES, delay_s=0.01), prefetch=4) as of:
        for _ in of.batches(0):
            break
        assert geodino_threads()
    assert not geodino_threads()


def test_no_thread_is_left_after_an_interruption():
    def interrupted():
        with loader(FakeTiles(*TILES, delay_s=0.01), prefetch=4) as of:
            for batch in of.batches(0):
                if batch.step == 1:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not geodino_threads()


def test_waiting_for_data_is_counted():
    with loader(FakeTiles((256, 256), delay_s=0.02), threads=1) as of:
        list(of.batches(0, 2))
        assert of.counts.wait_s > 0.005
