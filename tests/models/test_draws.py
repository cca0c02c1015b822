import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.models.draws import draw_encode, kept_rows
from geodino.models.sizes import ModelConfig

SETTINGS = settings(max_examples=30)


def draw(config, **changes):
    given = {
        "depth": 3,
        "seed": 7,
        "step": 11,
        "first_group": 0,
        "groups": 2,
        "group": 4,
        "crops_per_set": (2, 5),
    }
    return draw_encode(config, **(given | changes))


def test_nothing_is_drawn_for_a_model_without_drop_path_and_augmentation():
    draws = draw(ModelConfig(name="vit_nano", rope={"rescale": 1}))
    assert draws.drop is None
    assert draws.rope is None


@pytest.mark.parametrize(
    ("rows", "rate", "kept"), [(10, 0.4, 6), (8, 0.3, 5), (2, 0.9, 1), (10, 0.1, 9), (3, 0.0, 3)]
)
def test_the_kept_share_is_rounded_down_and_at_least_one(rows, rate, kept):
    assert kept_rows(rows, drop_path=rate) == kept


@SETTINGS
@given(
    rate=st.floats(0.05, 0.95),
    group=st.integers(1, 6),
    groups=st.integers(1, 4),
    crops=st.tuples(st.integers(1, 3), st.integers(1, 4)),
)
def test_every_group_keeps_the_same_number_of_its_own_rows(rate, group, groups, crops):
    config = ModelConfig(name="vit_nano", drop_path=rate)
    draws = draw(config, group=group, groups=groups, crops_per_set=crops)
    local = group * groups
    for rows, count in zip(draws.drop, crops, strict=True):
        assert rows.dtype == torch.int64
        kept = kept_rows(group * count, drop_path=rate)
        assert rows.shape == (3, 2, groups * kept)
        for subset in rows.flatten(0, 1):
            assert len(subset.unique()) == len(subset)
            # Row j * local + i belongs to the group of sample i.
            owners = (subset % local) // group
            assert torch.bincount(owners, minlength=groups).tolist() == [kept] * groups
            assert subset.max() < local * count


def as_samples(rows, local, first):
    """Rows of one rank as (crop, global sample) pairs."""
    return {(int(r) // local, first + int(r) % local) for r in rows}


@SETTINGS
@given(ranks=st.sampled_from([2, 4]), seed=st.integers(0, 99), step=st.integers(0, 10**6))
def test_ranks_draw_together_what_one_process_draws_alone(ranks, seed, step):
    config = ModelConfig(name="vit_nano", drop_path=0.3)
    keys = {"seed": seed, "step": step, "group": 2}
    alone = draw(config, groups=8, **keys)
    share = 8 // ranks
    parts = [draw(config, first_group=r * share, groups=share, **keys) for r in range(ranks)]
    for number in range(2):
        for block in range(3):
            for half in range(2):
                joint = as_samples(alone.drop[number][block, half], 16, 0)
                local = 2 * share
                split = [
                    as_samples(part.drop[number][block, half], local, rank * local)
                    for rank, part in enumerate(parts)
                ]
                assert joint == set().union(*split)
    for part in parts:
        assert torch.equal(part.rope, alone.rope)


def test_halves_blocks_sets_steps_and_seeds_differ():
    config = ModelConfig(name="vit_nano", drop_path=0.5)
    first = draw(config, groups=8)
    assert not torch.equal(first.drop[0][0, 0], first.drop[0][0, 1])
    assert not torch.equal(first.drop[0][0, 0], first.drop[0][1, 0])
    assert first.rope.flatten(0, 1)[:, 4].unique().numel() == 6
    for change in ({"step": 12}, {"seed": 8}):
        other = draw(config, groups=8, **change)
        assert not torch.equal(first.drop[0], other.drop[0])
        assert not torch.equal(first.rope, other.rope)
    again = draw(config, groups=8)
    assert torch.equal(first.drop[1], again.drop[1])
    assert torch.equal(first.rope, again.rope)


def test_every_row_is_kept_equally_often():
    # 4 of 8 rows, 2 groups x 500 blocks x 2 halves: each row 500 times, +- 5 standard deviations.
    config = ModelConfig(name="vit_nano", drop_path=0.5)
    draws = draw(config, depth=500, crops_per_set=(2,), groups=1)
    counts = torch.bincount(draws.drop[0].flatten(), minlength=8).numpy()
    assert np.abs(counts - 500).max() < 5 * np.sqrt(1000 * 0.25)


def test_factors_stay_in_their_ranges_and_fill_them():
    rope = {"shift": 0.3, "jitter": 1.5, "rescale": 2.0}
    draws = draw(ModelConfig(name="vit_nano", rope=rope), depth=2000)
    shift, jitter, rescale = draws.rope[..., :2], draws.rope[..., 2:4], draws.rope[..., 4]
    for values, low, high in ((shift, -0.3, 0.3), (jitter, 1 / 1.5, 1.5), (rescale, 0.5, 2.0)):
        assert values.min() == pytest.approx(low, rel=0.02)
        assert values.max() == pytest.approx(high, rel=0.02)
    # Log-uniform: half of the rescalings shrink.
    assert (rescale < 1).float().mean().item() == pytest.approx(0.5, abs=0.05)
    assert rescale.log().mean().item() == pytest.approx(0.0, abs=0.03)


def test_a_convnext_draws_nothing():
    draws = draw(ModelConfig(name="convnext_atto"), depth=0)
    assert (draws.drop, draws.rope) == (None, None)


def test_draws_move_between_devices_as_one():
    draws = draw(ModelConfig(name="vit_nano", drop_path=0.5)).to("meta")
    assert {t.device.type for t in (*draws.drop, draws.rope)} == {"meta"}
