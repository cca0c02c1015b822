"""Block masks: exact counts, the shapes of the reference, no favourite place when rolled."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino import seeds
from geodino.data.masking import MaskConfig, draw_masks, mask_counts, token_budget


def masks_of(count, images, grid, **config):
    """Many masks of exactly ``count`` cells: a group in which every image is masked alike."""
    share = (count + 0.5) / (grid[0] * grid[1])
    settings = MaskConfig(probability=1.0, ratio=(share, share), **config)
    drawn = draw_masks(settings, rng=seeds.rng(0, "masks", count), images=images, grid=grid)
    return drawn.reshape(images, *grid)


def parts(mask):
    """Number of 4-connected parts, by flood fill."""
    left, found = {tuple(cell) for cell in np.argwhere(mask)}, 0
    while left:
        found += 1
        stack = [left.pop()]
        while stack:
            row, column = stack.pop()
            for cell in (
                (row - 1, column),
                (row + 1, column),
                (row, column - 1),
                (row, column + 1),
            ):
                if cell in left:
                    left.remove(cell)
                    stack.append(cell)
    return found


def neighbour_share(masks):
    """Per mask: the share of the four neighbours of masked cells that are masked themselves."""
    padded = np.pad(masks, ((0, 0), (1, 1), (1, 1))).astype(int)
    around = padded[:, :-2, 1:-1] + padded[:, 2:, 1:-1] + padded[:, 1:-1, :-2] + padded[:, 1:-1, 2:]
    return (around * masks).sum((1, 2)) / (4 * masks.sum((1, 2)))


def test_half_of_eight_images_get_the_upper_ends_of_four_steps_from_a_tenth_to_a_half():
    # 256 patches; shares 0.2, 0.3, 0.4, 0.5 -> 51.2, 76.8, 102.4, 128.
    assert mask_counts(MaskConfig(), images=8, patches=256) == [51, 76, 102, 128]
    assert token_budget(MaskConfig(), images=8, grid=(16, 16)) == 357


@settings(max_examples=60)
@given(
    images=st.integers(1, 24),
    rows=st.integers(1, 20),
    columns=st.integers(1, 20),
    shift=st.booleans(),
    seed=st.integers(0, 99),
)
def test_counts_are_exact_on_any_grid(images, rows, columns, shift, seed):
    config = MaskConfig(circular_shift=shift)
    masks = draw_masks(config, rng=seeds.rng(seed, "masks"), images=images, grid=(rows, columns))
    assert masks.shape == (images, rows * columns)
    counts = mask_counts(config, images=images, patches=rows * columns)
    expected = [0] * (images - len(counts)) + counts
    assert sorted(masks.sum(axis=1).tolist()) == sorted(expected)
    assert masks.sum() == token_budget(config, images=images, grid=(rows, columns))


def test_the_same_generator_draws_the_same_masks_and_another_does_not():
    draw = lambda seed: draw_masks(  # noqa: E731
        MaskConfig(), rng=seeds.rng(seed, "masks"), images=8, grid=(14, 14)
    )
    assert (draw(1) == draw(1)).all()
    assert (draw(1) != draw(2)).any()


def test_which_images_are_masked_and_how_much_is_shuffled():
    totals = np.stack(
        [
            draw_masks(MaskConfig(), rng=seeds.rng(i, "masks"), images=4, grid=(8, 8)).sum(axis=1)
            for i in range(400)
        ]
    )
    # 2 of 4 images, 19 or 32 patches: each image is masked half of the time, each amount a quarter.
    assert np.abs((totals > 0).mean(axis=0) - 0.5).max() < 0.1
    assert np.abs((totals == 32).mean(axis=0) - 0.25).max() < 0.09


def test_rolled_masks_cover_every_cell_equally_often_and_plain_ones_favour_the_centre():
    rolled = masks_of(77, 1500, (16, 16), circular_shift=True).mean(axis=0)
    # Cells of one mask come in blocks, so a cell's mean has the spread of independent draws.
    error = (0.3 * 0.7 / 1500) ** 0.5
    assert np.abs(rolled - 77 / 256).max() < 4.5 * error
    plain = masks_of(77, 1500, (16, 16)).mean(axis=0)
    assert plain[6:10, 6:10].mean() > 0.45
    assert plain[0].mean() < 0.15


def test_rolling_changes_where_a_mask_lies_but_not_its_shape_on_the_torus():
    plain = neighbour_share(masks_of(40, 400, (12, 10)))
    rolled = masks_of(40, 400, (12, 10), circular_shift=True)
    around = sum(np.roll(rolled, step, axis) for axis in (1, 2) for step in (1, -1))
    wrapped = (around * rolled).sum((1, 2)) / 160
    assert wrapped.mean() == pytest.approx(plain.mean(), abs=0.02)


def test_a_single_masked_patch_and_no_masked_image_are_possible():
    one = MaskConfig(probability=1.0, ratio=(0.25, 0.25))
    assert draw_masks(one, rng=seeds.rng(0), images=1, grid=(2, 2)).sum() == 1
    none = MaskConfig(probability=0.0)
    assert draw_masks(none, rng=seeds.rng(0), images=4, grid=(4, 4)).sum() == 0


def test_a_ratio_out_of_order_is_refused():
    with pytest.raises(ValueError, match="in order"):
        MaskConfig(ratio=(0.5, 0.1))


def test_counts_of_a_batch_are_those_of_the_reference(shared_golden):
    stats = json.loads((shared_golden / "mask_generator_stats.json").read_text())
    for batch in stats["collate"]:
        images, patches = batch["n_images_2B"], batch["grid"] ** 2
        counts = mask_counts(MaskConfig(), images=images, patches=patches)
        assert [0] * (images - len(counts)) + counts == batch["sorted_counts_last_rep"]
        budget = token_budget(MaskConfig(), images=images, grid=(batch["grid"], batch["grid"]))
        assert budget == batch["upperbound"][0]


def test_masks_look_like_those_of_the_reference(shared_golden):
    stats = json.loads((shared_golden / "mask_generator_stats.json").read_text())
    images = 600
    for name in ("grid16_max128_10000draws", "grid14_max98"):
        size, per_ratio = stats[name]["grid"], stats[name]["per_ratio"]
        theirs = stats[name]["n_draws_per_ratio"]
        spread = (1 / images + 1 / theirs) ** 0.5
        for wanted in per_ratio.values():
            masks = masks_of(wanted["requested"], images, (size, size))
            assert (masks.sum((1, 2)) == wanted["requested"]).all()
            share = neighbour_share(masks)
            deviation = wanted["neighbour_fraction_std"]
            assert abs(share.mean() - wanted["neighbour_fraction_mean"]) < 4 * deviation * spread
            assert share.std() == pytest.approx(deviation, rel=0.15)
            found = np.mean([parts(mask) for mask in masks])
            assert abs(found - wanted["parts_mean"]) < 4 * wanted["parts_std"] * spread
            middle = slice(size // 2 - 2, size // 2 + 2)
            # Cells of a block go together: the error is that of one cell, not of sixteen.
            centre, p = masks[:, middle, middle].mean(), wanted["freq_centre4x4"]
            assert abs(centre - p) < 4 * (p * (1 - p)) ** 0.5 * spread
            edges = np.mean([masks[:, i].mean() + masks[:, :, i].mean() for i in (0, -1)]) / 2
            p = wanted["freq_border_mean"]
            assert abs(edges - p) < 4 * (p * (1 - p) / 4) ** 0.5 * spread
            corners = masks[:, [0, 0, -1, -1], [0, -1, 0, -1]].mean()
            p = wanted["freq_corners"]
            assert abs(corners - p) < 4 * (p * (1 - p) / 4) ** 0.5 * spread + 1e-3
