"""Parts of learning canopy heights: when losses count, percentiles, places, distances, crops."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino import seeds
from geodino.tasks.augment import Move
from geodino.tasks.canopy.applicability import fit_applicability, load_applicability
from geodino.tasks.canopy.batch import CanopyBatch, FootprintBatch
from geodino.tasks.canopy.config import CurriculumConfig, SamplingConfig
from geodino.tasks.canopy.crops import Windows
from geodino.tasks.canopy.objective import (
    CanopyObjective,
    footprint_percentiles,
    pinball_loss,
    weights_at,
)
from geodino.tasks.chips import Chips
from geodino.tasks.optim import HeadOptimConfig, rate_at


def test_the_log_loss_gives_way_to_metres_and_shapes_come_in_as_in_chmv2():
    # CHMv2: SiLog to Charbonnier over 30 k of 100 k steps, gradients 0 to .075 from 5 k to 50 k.
    config = CurriculumConfig()
    steps = 100_001
    first, after_5k, at_15k, at_30k, last = (
        weights_at(config, step, steps) for step in (0, 5_000, 15_000, 30_000, 100_000)
    )
    assert (first.silog, first.charbonnier, first.gradient) == (1.0, 0.0, 0.0)
    assert after_5k.gradient == 0.0
    assert at_15k.silog == pytest.approx(0.5)
    assert at_15k.gradient == pytest.approx(0.075 * 10 / 45)
    assert (at_30k.silog, at_30k.charbonnier) == (0.0, 1.0)
    assert last.gradient == 0.075


def test_the_rate_rises_through_the_warm_up_and_falls_to_nothing():
    optim = HeadOptimConfig(lr=1.0, warmup=0.1)
    rates = [rate_at(optim, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(1 / 11)
    assert rates[10] == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] < 1e-3


@given(
    counts=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    percentile=st.sampled_from([1.0, 50.0, 98.0, 100.0]),
    seed=st.integers(0, 99),
)
@settings(max_examples=30)
def test_percentiles_of_footprints_are_those_of_numpy(counts, percentile, seed):
    generator = np.random.default_rng(seed)
    maps = torch.from_numpy(generator.normal(size=(2, 3, 4, 5)).astype(np.float32))
    index = np.zeros((len(counts), max(counts)), dtype=np.int64)
    places = [generator.permutation(2 * 20)[:count] for count in counts]
    for row, inside in zip(index, places, strict=True):
        row[:] = inside[0]
        row[: len(inside)] = inside
    batch = FootprintBatch(
        index=torch.from_numpy(index), count=torch.tensor(counts), height_m=torch.zeros(len(counts))
    )
    found = footprint_percentiles(maps, batch, percentile)
    flat = maps.transpose(0, 1).flatten(1).numpy()
    wanted = [[np.percentile(flat[k][inside], percentile) for k in range(3)] for inside in places]
    np.testing.assert_allclose(found.numpy(), np.array(wanted), atol=1e-5)


def test_a_pinball_loss_is_least_at_the_quantile():
    truth = torch.arange(11.0)[None, None]
    known = torch.ones_like(truth, dtype=torch.bool)

    def loss(guess):
        return float(pinball_loss(torch.full((1, 1, 1, 11), guess), truth, known, (0.9,)))

    assert min(range(11), key=lambda guess: loss(float(guess))) == 9
    # Truth 0 and 10, guess 4, q = 0.9: (0.1 * 4 + 0.9 * 6) / 2.
    pair = torch.tensor([[[0.0, 10.0]]])
    got = pinball_loss(
        torch.full((1, 1, 1, 2), 4.0), pair, torch.ones_like(pair, dtype=torch.bool), (0.9,)
    )
    assert float(got) == pytest.approx(2.9)


def batch_of(heights, known, step=0):
    valid = torch.ones_like(known)
    valid[..., 0, 0] = False
    pixels = torch.zeros(len(known), 1, *known.shape[1:])
    return CanopyBatch(step=step, pixels=pixels, valid=valid, height_m=heights, known=known)


def test_neither_unknown_labels_nor_invalid_pixels_enter_a_loss():
    heights = torch.rand(2, 8, 8) * 20
    known = torch.rand(2, 8, 8) > 0.3
    known[:, 0, 0] = True  # a label on a pixel that is not valid
    objective = CanopyObjective(CurriculumConfig(), 10, quantiles=(0.5,))
    maps = torch.rand(2, 2, 8, 8) * 20
    other = heights.clone()
    other[~known] = torch.nan
    other[:, 0, 0] = 1e9
    for step in (0, 4, 9):
        a = objective(maps, batch_of(heights, known, step))
        b = objective(maps, batch_of(other, known, step))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a)


@given(seed=st.integers(0, 50), augment=st.sampled_from(["none", "flips", "turns"]))
@settings(max_examples=30)
def test_places_move_with_their_pixels(seed, augment):
    side = 5
    picture = np.random.default_rng(seed).normal(size=(side, side))
    places = np.array([0, 7, 24, 3])
    move = Move.drawn(augment, seeds.rng(seed, "test"))
    moved = move.pixels(picture)
    np.testing.assert_array_equal(
        moved.reshape(-1)[move.places(places, side)], picture.reshape(-1)[places]
    )


def test_ground_like_the_training_ground_is_near_and_other_ground_is_far(tmp_path):
    generator = torch.Generator().manual_seed(0)
    centre = torch.zeros(16)
    centre[0] = 5.0
    train, held_out, alike = (
        centre + torch.randn(n, 16, generator=generator) for n in (2000, 500, 500)
    )
    kept = fit_applicability(train, held_out, tokens=512, seed=0)
    assert kept is not None
    assert len(kept.tokens) == 512
    near = kept.distances(alike)
    assert float((near <= 1).float().mean()) == pytest.approx(0.95, abs=0.04)
    assert float(kept.distances(-alike).min()) > 1.2
    kept.save(tmp_path)
    again = load_applicability(tmp_path)
    assert again is not None
    torch.testing.assert_close(again.distances(alike.reshape(5, 100, 16)), near.reshape(5, 100))
    assert load_applicability(tmp_path / "nothing") is None
    assert fit_applicability(train[:3], held_out, tokens=512, seed=0) is None


def test_chips_are_whole_patches_and_overlap_by_at_most_half():
    assert Chips.fitting(chip=50, overlap=None, align=16) == Chips(chip=64, overlap=16)
    assert Chips.fitting(chip=64, overlap=60, align=16) == Chips(chip=64, overlap=32)
    assert Chips.fitting(chip=64, overlap=0, align=16) == Chips(chip=64, overlap=0)


class Nowhere:
    """A source whose labels and images are made up of the window that is asked for."""

    labels = None

    def grid(self, image):
        from affine import Affine

        from geodino.geo.grid import Grid

        return Grid("EPSG:32632", Affine(1, 0, 0, 0, -1, 0), 100, 80)

    def heights(self, image, window, which):
        shape = (window.height, window.width)
        return np.full(shape, float(image), np.float32), np.ones(shape, dtype=bool)

    def seen(self, image):
        class Seen:
            def read(self, window):
                rows, columns = np.mgrid[window.top : window.bottom, window.left : window.right]
                return np.stack([rows, columns]).astype(np.float32), rows >= 0

        return Seen()


def feed_of(config, *, batch=4, threads=2):
    from geodino.tasks.canopy.crops import CropFeed

    windows = Windows(
        image=np.arange(20), corner=np.zeros((20, 2), dtype=np.int64), usual_m=np.arange(20.0),
        crop=16, low=np.array([0]), tall=np.array([18, 19]), tall_m=18.0, labels=1,
    )  # fmt: skip
    make = CropFeed.__new__(CropFeed)
    for name, value in {
        "_source": Nowhere(), "_windows": windows, "_config": config, "_seed": 1, "_batch": batch,
        "_threads": threads, "waited_s": 0.0,
    }.items():  # fmt: skip
        setattr(make, name, value)
    return make


def test_a_step_has_the_same_crops_from_wherever_training_begins():
    config = SamplingConfig(augment="turns")
    whole = list(feed_of(config).batches(0, 6))
    later = list(feed_of(config, threads=1).batches(3, 6))
    assert [batch.step for batch in whole] == list(range(6))
    for a, b in zip(whole[3:], later, strict=True):
        assert torch.equal(a.pixels, b.pixels)
        assert torch.equal(a.height_m, b.height_m)


def test_low_and_tall_windows_are_drawn_as_often_as_asked():
    config = SamplingConfig(low_share=0.3, tall_share=0.4)
    drawn = torch.cat([b.height_m[:, 0, 0] for b in feed_of(config).batches(0, 150)])
    # A window of 20 is drawn by chance as well.
    assert float((drawn == 0).float().mean()) == pytest.approx(0.3 + 0.3 / 20, abs=0.07)
    assert float((drawn >= 18).float().mean()) == pytest.approx(0.4 + 0.3 / 10, abs=0.07)
