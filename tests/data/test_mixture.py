"""Many sources in one order: shares, homogeneous steps, and any step without the ones before."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from images_support import write_pictures
from tests_support import textured, write_tile

from geodino.data.config import DataConfig, StatisticsConfig
from geodino.data.cuts import Shapes
from geodino.data.fit import FittedReader
from geodino.data.index import build_index, load_index, save_index
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.mixture import STEPS, Blocks, Mixture, Part, mixture_of
from geodino.data.order import Order, OrderConfig
from geodino.data.statistics import measure_source
from geodino.data.tiles import TileReader
from geodino.errors import BandError, RecipeError, SourceError
from geodino.io.raster import HandlePool


def order(tiles, seed, *, side=96, budget=0):
    side = np.full(tiles, side)
    shapes = Shapes(height=side, width=side, block_height=side, block_width=side,
                    pixel_bytes=np.full(tiles, 3), weight=np.ones(tiles))  # fmt: skip
    return Order(shapes, config(seed=seed, budget=budget))


def config(*, seed=0, batch=8, budget=0):
    return OrderConfig(
        seed=seed, batch=batch, chip=32, super_window=64, chips_per_window=4, budget_bytes=budget
    )


def mixture(*weights, pure=(), homogeneous=0.0, batch=8, seed=0, budget=0, **more):
    parts, first = [], 0
    for n, weight in enumerate(weights):
        tiles = np.arange(first, first + n + 3)
        first += n + 3
        parts.append(Part(order(n + 3, 100 + n, budget=budget), tiles, weight, n in pure))
    return Mixture(parts, config(seed=seed, batch=batch), homogeneous=homogeneous, **more)


def sources(of, draws):
    """Which part each row of a step comes from."""
    return draws.epoch % len(of.parts)


def same(one, other):
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("epoch", "position", "window", "last")
    )


@settings(max_examples=40)
@given(
    shares=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=5).filter(lambda s: sum(s) > 0.1),
    size=st.integers(20, 300),
    start=st.integers(0, 1000),
)
def test_blocks_hold_every_kind_by_its_share_and_count_what_came_before(shares, size, start):
    blocks = Blocks(shares, size, ("test",))
    exact = np.array(shares) / sum(shares)
    assert blocks.shares.sum() == pytest.approx(1)
    assert np.abs(blocks.shares - exact).max() <= len(shares) / size
    assert ((blocks.shares > 0) == (exact > 0)).all()
    kinds = [blocks.at(n) for n in range(start, start + 50)]
    counted = blocks.counts(start + 50) - blocks.counts(start)
    assert counted.tolist() == np.bincount(kinds, minlength=len(shares)).tolist()


def test_a_stretch_of_a_block_is_mixed_nearly_by_the_shares():
    blocks = Blocks([0.7, 0.2, 0.1], 1000, ("test",))
    for start in range(0, 3000, 100):
        counts = blocks.counts(start + 100) - blocks.counts(start)
        assert np.abs(counts - [70, 20, 10]).max() <= 3


def test_samples_come_by_weight_and_every_sample_of_a_source_in_its_own_order():
    of = mixture(0.5, 0.3, 0.2)
    assert of.shares == pytest.approx((0.5, 0.3, 0.2))
    seen = {n: [] for n in range(3)}
    for step in range(100):
        draws = of.step(step)
        assert draws.first == 8 * step
        assert len(draws.epoch) == 8
        for row, n in enumerate(sources(of, draws)):
            position, window = draws.position[row], draws.window[row] - of._windows[n]
            seen[n].append((draws.epoch[row] // 3, position, window))
    counts = [len(seen[n]) for n in range(3)]
    assert np.abs(np.array(counts) - [400, 240, 160]).max() <= 3
    for n, part in enumerate(of.parts):
        own = part.order.samples(0, counts[n])
        expected = Counter(zip(*(a.tolist() for a in (own.epoch, own.position, own.window)),
                               strict=True))  # fmt: skip
        assert Counter(seen[n]) == expected  # each once: none is left out, none comes twice


def test_the_share_of_homogeneous_steps_is_exact_and_each_comes_from_one_source():
    of = mixture(0.6, 0.3, 0.1, pure=(1, 2), homogeneous=0.1)
    # Of 1,000 steps 100 are of one source: by weight 75 of the second and 25 of the third.
    kinds = Counter(of.homogeneous(step) for step in range(STEPS, 2 * STEPS))
    assert kinds == {None: 900, 1: 75, 2: 25}
    for step in range(60):
        found = set(sources(of, of.step(step)).tolist())
        only = of.homogeneous(step)
        assert found == {only} if only is not None else len(found) > 1
    assert of.shares == pytest.approx((0.54, 0.345, 0.115))
    # Their places do not follow a beat that logging every 10 steps would share.
    pure = [step for step in range(STEPS) if of.homogeneous(step) is not None]
    assert len({step % 10 for step in pure}) == 10


@settings(max_examples=12)
@given(
    weights=st.lists(st.floats(0.05, 1.0), min_size=1, max_size=4),
    homogeneous=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    start=st.integers(0, 2500),
    batch=st.integers(1, 33),
)
def test_any_step_can_be_computed_first(weights, homogeneous, start, batch):
    make = lambda: mixture(*weights, pure=(0,), homogeneous=homogeneous, batch=batch)  # noqa: E731
    before, fresh = make(), make()
    for step in range(start - 3, start):
        before.step(max(step, 0))
    assert same(before.step(start), fresh.step(start))
    given = np.zeros(len(weights), dtype=np.int64)
    for step in range(40):
        draws = fresh.step(step)
        given += np.bincount(sources(fresh, draws), minlength=len(weights))
    steps = fresh._steps.counts(40) * batch
    assert given.tolist() == (steps[1:] + fresh._samples.counts(int(steps[0]))).tolist()


SIZES = (4, 12, 8, 1)


def uneven(step):
    """Steps of 4, 12, 8 and 1 samples in turn."""
    whole, rest = divmod(step, len(SIZES))
    return whole * sum(SIZES) + sum(SIZES[:rest]), SIZES[rest]


def test_steps_of_different_sizes_leave_no_sample_out():
    of = mixture(0.7, 0.3, pure=(0,), homogeneous=0.2, span=uneven)
    seen = {0: [], 1: []}
    for step in range(1100):
        draws = of.step(step)
        assert (draws.first, len(draws.epoch)) == uneven(step)
        for row, n in enumerate(sources(of, draws)):
            seen[n].append((draws.epoch[row] // 2, draws.position[row]))
    for n, part in enumerate(of.parts):
        own = part.order.samples(0, len(seen[n]))
        expected = Counter(zip(own.epoch.tolist(), own.position.tolist(), strict=True))
        assert Counter(seen[n]) == expected
    late = mixture(0.7, 0.3, pure=(0,), homogeneous=0.2, span=uneven)
    assert same(late.step(1090), of.step(1090))


@pytest.mark.parametrize("is_uneven", [False, True])
def test_a_later_phase_counts_from_its_start_and_goes_on_where_sources_were(is_uneven):
    """Of 300 samples before it, the first source gave 0.76, the second 0.24: 228 and 72."""
    origin = (37, 300)

    def span(step):
        first, count = uneven(step - 37) if is_uneven else (8 * (step - 37), 8)
        return 300 + first, count

    of = mixture(0.7, 0.3, pure=(0,), homogeneous=0.2, span=span, origin=origin)
    seen = {0: [], 1: []}
    for step in range(37, 137):
        draws = of.step(step)
        assert draws.first == span(step)[0]
        for row, n in enumerate(sources(of, draws)):
            seen[n].append((draws.epoch[row] // 2, draws.position[row]))
    for n, (part, first) in enumerate(zip(of.parts, (228, 72), strict=True)):
        own = part.order.samples(first, len(seen[n]))
        expected = Counter(zip(own.epoch.tolist(), own.position.tolist(), strict=True))
        assert Counter(seen[n]) == expected


def test_another_source_beside_it_does_not_change_what_a_source_gives(tmp_path):
    index = mixed(tmp_path)
    alone = index.part("fields")
    of = mixture_of(index, config(budget=2**30))
    same_seed = of.parts[1].order
    fields = Mixture([Part(same_seed, np.arange(len(alone.tiles)), 1.0)], config())
    assert fields.step(0).window.tolist() == same_seed.step(0).window.tolist()


def test_blocks_are_as_large_as_their_shares_are_fine():
    assert mixture(0.99999, 0.00001).shares == pytest.approx((0.99999, 0.00001))


def mixed(folder, text=None, **options):
    write_pictures(folder / "photos", 5)
    for n in range(3):
        write_tile(folder / "fields" / f"t{n}.tif", textured(n))
    (folder / "mix.yaml").write_text(
        text
        or "homogeneous: 0.25\n"
        "sources:\n"
        "  photos: {tiles: photos, weight: 0.75, data: {kind: images}}\n"
        "  fields: {tiles: fields/*.tif, weight: 0.25, homogeneous: true}\n"
    )
    return build_index(str(folder / "mix.yaml"), DataConfig(), threads=2, **options)


def batches(index, *, threads=2, first=0, stop=8, rank=0, world=1, budget=2**30):
    of = mixture_of(index, config(budget=budget))
    how = LoaderConfig(min_valid=0.5, threads=threads, prefetch=3)
    with HandlePool() as pool:
        reader = FittedReader(index, TileReader(index, pool), 32)
        with Loader(of, reader, how, rank=rank, world=world) as loader:
            return list(loader.batches(first, stop))


@pytest.mark.parametrize("budget", [2**30, 40_000])
def test_batches_of_a_mix_are_the_same_on_any_threads_ranks_and_resumes(tmp_path, budget):
    index = mixed(tmp_path)
    whole = batches(index, threads=3, budget=budget)
    late = batches(index, threads=1, first=5, budget=budget)
    for one, other in zip(whole[5:], late, strict=True):
        assert torch.equal(one.pixels, other.pixels)
    halves = [batches(index, rank=rank, world=2, budget=budget) for rank in (0, 1)]
    for one, left, right in zip(whole, *halves, strict=True):
        assert torch.equal(one.pixels, torch.cat([left.pixels, right.pixels]))
        assert one.source == left.source + right.source


def test_chips_of_a_mix_are_those_of_its_sources(tmp_path):
    index = mixed(tmp_path)
    of = mixture_of(index, config(budget=2**30))
    kinds = {}
    for step, batch in enumerate(batches(index, stop=24)):
        names = [index.tiles[tile].source for tile, _ in batch.source]
        kinds[step] = set(names)
        for pixels, (tile, window) in zip(batch.pixels.numpy(), batch.source, strict=True):
            if index.tiles[tile].source == "fields":
                n = int(index.tiles[tile].path[-5])
                down, across = window.slices
                np.testing.assert_array_equal(pixels, textured(n)[:, down, across])
    pure = [step for step in range(24) if of.homogeneous(step) is not None]
    assert 4 <= len(pure) <= 8
    assert all(kinds[step] == {"fields"} for step in pure)


def test_a_mix_is_indexed_saved_and_fingerprinted_source_by_source(tmp_path):
    index = mixed(tmp_path)
    assert Counter(t.source for t in index.tiles) == {"photos": 5, "fields": 3}
    # 0.75 of three quarters; 0.25 of three quarters and a quarter of its own.
    assert any("photos: 56.2% of the samples; 5 tiles" in note for note in index.notes)
    assert any("fields: 43.8% of the samples, 25.0% in batches" in note for note in index.notes)
    save_index(index, tmp_path / "tiles.parquet")
    assert load_index(tmp_path / "tiles.parquet") == index
    before = index.fingerprint()
    text = (tmp_path / "mix.yaml").read_text()
    assert mixed(tmp_path, text.replace("weight: 0.75", "weight: 0.5")).fingerprint() != before
    assert mixed(tmp_path, text).fingerprint() == before
    write_tile(tmp_path / "fields" / "t0.tif", textured(50))
    assert build_index(str(tmp_path / "mix.yaml"), DataConfig(), threads=1).fingerprint() != before


def test_statistics_of_a_mix_weigh_its_sources(tmp_path):
    for name, level, count in (("a", 10, 1), ("b", 50, 4)):
        for n in range(count):
            write_tile(tmp_path / name / f"{n}.tif", np.full((3, 64, 64), level, dtype=np.uint8))
    (tmp_path / "mix.yaml").write_text(
        "sources:\n  a: {tiles: a, weight: 0.75}\n  b: {tiles: b, weight: 0.25}\n"
    )
    index = build_index(str(tmp_path / "mix.yaml"), DataConfig(), threads=1)
    noted, contract = measure_source(index, DataConfig(), threads=1)
    # 0.75 x 10 + 0.25 x 50 = 20; 0.75 x 10^2 + 0.25 x 30^2 = 300 about it. A constant band's own
    # deviation is written as 1.
    assert contract.mean == pytest.approx((20,) * 3)
    assert contract.std == pytest.approx((301**0.5,) * 3)
    assert [t.valid_share for t in noted.tiles] == [1.0] * 5
    assert contract.statistics["sources"]["b"]["tiles"] == 4
    known = DataConfig(statistics=StatisticsConfig(source="imagenet"))
    with pytest.raises(SourceError, match="imagenet is for red, green and blue"):
        measure_source(replace(index, dtype="uint16"), known, threads=1)


def test_mixes_that_cannot_be_are_refused_in_words(tmp_path):
    one = "sources: {fields: {tiles: fields/*.tif, "
    with pytest.raises(RecipeError, match="no source says `homogeneous: true`"):
        mixed(tmp_path, f"homogeneous: 0.1\n{one}weight: 1}}}}")
    with pytest.raises(RecipeError, match=r"sources\.fields\.wieght: unknown key.*'weight'"):
        mixed(tmp_path, f"{one}wieght: 1}}}}")
    with pytest.raises(RecipeError, match="greater than 0"):
        mixed(tmp_path, f"{one}weight: 0}}}}")
    with pytest.raises(SourceError, match="is no mix"):
        mixed(tmp_path, "tiles: fields")
    with pytest.raises(SourceError, match="not valid YAML"):
        mixed(tmp_path, "sources: [")
    with pytest.raises(SourceError, match=r"data\.threads cannot be set for one source"):
        mixed(tmp_path, f"{one}data: {{threads: 2}}}}}}")
    with pytest.raises(SourceError, match="nothing-there does not exist"):
        mixed(tmp_path, "sources: {a: {tiles: nothing-there}}")
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        build_index(str(tmp_path / "gone.yaml"), DataConfig(), threads=1)
    write_tile(tmp_path / "nir" / "t.tif", textured(1, bands=4))
    with pytest.raises(BandError, match=r"same bands and type: fields has red, green, blue of ui"):
        mixed(tmp_path, f"{one}weight: 1}}, nir: {{tiles: nir}}}}")
    (tmp_path / "outer.yaml").write_text("sources: {inner: {tiles: mix.yaml}}")
    mixed(tmp_path)
    with pytest.raises(SourceError, match="inner of the mix is a mix itself"):
        build_index(str(tmp_path / "outer.yaml"), DataConfig(), threads=1)


def test_a_source_without_a_tile_that_holds_a_chip_is_named(tmp_path):
    index = mixed(tmp_path)
    with pytest.raises(SourceError, match=r"Source fields of the mix: The chip of 128 x 128"):
        mixture_of(index, OrderConfig(seed=0, batch=8, chip=128, super_window=64,
                                      chips_per_window=4, budget_bytes=2**30))  # fmt: skip
