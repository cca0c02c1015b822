import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from timm.layers.pos_embed_sincos import RotaryEmbeddingDinoV3, apply_rot_embed_cat

from geodino.models.rope import patch_centres, rope_periods, rope_tables, rotate

SETTINGS = settings(max_examples=25)


def test_the_centres_of_a_2_by_4_grid_fill_both_axes():
    centres = patch_centres((2, 4))
    assert centres[:, 0].tolist() == [-0.5] * 4 + [0.5] * 4
    assert centres[:4, 1].tolist() == [-0.75, -0.25, 0.25, 0.75]


def test_the_longer_side_can_set_the_scale_of_both_axes():
    # 2 x 4 patches divided by 4: rows at 0.125 and 0.375 of the side, so -0.75 and -0.25.
    assert patch_centres((2, 4), normalise="max")[::4, 0].tolist() == [-0.75, -0.25]
    # Divided by 2, columns run to 3.5 / 2 of the side: 2 * 1.75 - 1 = 2.5.
    assert patch_centres((2, 4), normalise="min")[3, 1].item() == 2.5


def test_periods_grow_from_1_to_below_the_base():
    # head_dim 16: 100 ** (2k / 8) for k = 0..3.
    expected = [1.0, 100**0.25, 10.0, 100**0.75]
    assert rope_periods(16).tolist() == pytest.approx(expected)


def test_periods_can_run_from_a_smallest_to_a_largest():
    found = rope_periods(16, base=None, min_period=1.0, max_period=8.0)
    assert found.tolist() == pytest.approx([1, 2, 4, 8])


@pytest.mark.parametrize("wrong", [{"base": None}, {"base": 1.5, "min_period": 1.0}])
def test_periods_need_one_way_to_be_made(wrong):
    with pytest.raises(ValueError, match="either"):
        rope_periods(16, **wrong)
    with pytest.raises(ValueError, match="divisible by 4"):
        rope_periods(18)


def test_a_quarter_turn_sends_the_first_half_to_the_second():
    # One patch at (0.25, 0.25), period 1, head dimension 4: the angle is 2 pi / 4.
    table = rope_tables(torch.tensor([[0.25, 0.25]]), torch.ones(1))[0]
    x = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    torch.testing.assert_close(
        rotate(x, table).flatten(), torch.tensor([-3.0, -4.0, 1.0, 2.0]), atol=1e-6, rtol=0
    )


@SETTINGS
@given(rows=st.integers(1, 6), columns=st.integers(1, 6), prefix=st.integers(0, 5))
def test_rotation_keeps_lengths_and_leaves_the_prefix_alone(rows, columns, prefix):
    table = rope_tables(patch_centres((rows, columns)), rope_periods(8), prefix=prefix)[0]
    x = torch.randn(2, prefix + rows * columns, 3, 8, generator=torch.Generator().manual_seed(0))
    turned = rotate(x, table)
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1), atol=1e-5, rtol=0)
    assert torch.equal(turned[:, :prefix], x[:, :prefix])


@SETTINGS
@given(shift=st.floats(-2, 2), row=st.floats(-1, 1), column=st.floats(-1, 1))
def test_scores_depend_on_distances_only(shift, row, column):
    # The property rotary positions exist for: moving both patches changes no score.
    periods = rope_periods(16)
    query, key = torch.randn(2, 1, 1, 1, 16, generator=torch.Generator().manual_seed(3))
    scores = []
    for move in (0.0, shift):
        places = torch.tensor([[0.0, 0.0], [row, column]]) + move
        table = rope_tables(places, periods)[0]
        scores.append((rotate(query, table[:, :1]) * rotate(key, table[:, 1:])).sum())
    assert scores[0].item() == pytest.approx(scores[1].item(), abs=1e-4)


def test_factors_shift_then_jitter_then_rescale():
    centres, periods = patch_centres((1, 1)) + 0.5, torch.ones(1)
    factors = torch.tensor([[0.25, -0.5, 2.0, 3.0, 0.5]])
    cosine, sine = rope_tables(centres, periods, factors)[0]
    rows, columns = (0.5 + 0.25) * 2 * 0.5, (0.5 - 0.5) * 3 * 0.5
    assert sine[0].tolist() == pytest.approx([math.sin(2 * math.pi * c) for c in (rows, columns)])
    assert cosine[0, 1].item() == 1.0


def test_every_block_gets_its_own_table_in_one_call():
    centres, periods = patch_centres((3, 5)), rope_periods(16)
    factors = torch.rand(4, 5, generator=torch.Generator().manual_seed(0)) + 0.5
    together = rope_tables(centres, periods, factors, prefix=5)
    for block, row in enumerate(factors):
        assert torch.equal(together[block], rope_tables(centres, periods, row[None], prefix=5)[0])


@pytest.mark.parametrize("grid", [(1, 1), (4, 4), (3, 5), (14, 14)])
def test_tables_and_rotation_are_timms_bit_for_bit(grid):
    theirs = RotaryEmbeddingDinoV3(dim=64, temperature=100.0).get_embed(shape=grid)
    ours = rope_tables(patch_centres(grid), rope_periods(64))[0]
    sine, cosine = theirs.chunk(2, dim=-1)
    assert torch.equal(torch.cat((ours[0], ours[0]), dim=-1), cosine)
    assert torch.equal(torch.cat((ours[1], ours[1]), dim=-1), sine)
    x = torch.randn(2, grid[0] * grid[1], 3, 64, generator=torch.Generator().manual_seed(0))
    expected = apply_rot_embed_cat(x.transpose(1, 2), theirs, half=True).transpose(1, 2)
    assert torch.equal(rotate(x, ours), expected)


def test_half_precision_queries_are_turned_in_float32():
    x = torch.randn(1, 16, 2, 16, generator=torch.Generator().manual_seed(0)).bfloat16()
    table = rope_tables(patch_centres((4, 4)), rope_periods(16))[0]
    turned = rotate(x, table)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), table).bfloat16())


CASES = {
    "hd16_separate_f32": {"head_dim": 16},
    "hd64_separate_f32": {"head_dim": 64},
    "hd128_separate_f32": {"head_dim": 128},
    "hd64_separate_f64": {"head_dim": 64, "dtype": torch.float64},
    "hd16_max_f32": {"head_dim": 16, "normalise": "max"},
    "hd16_min_f32": {"head_dim": 16, "normalise": "min"},
    "hd16_minmaxperiod_f32": {
        "head_dim": 16,
        "periods": {"base": None, "min_period": 0.3, "max_period": 12.0},
    },
}


def halves(table):
    assert torch.equal(*table.chunk(2, dim=-1))
    return table.chunk(2, dim=-1)[0]


@pytest.mark.parametrize("case", CASES)
def test_tables_agree_with_the_reference(shared_golden, case):
    golden = load_file(shared_golden / "rope_tables.safetensors")
    options = CASES[case]
    dtype = options.get("dtype", torch.float32)
    tolerance = 1e-12 if dtype == torch.float64 else 2e-6
    periods = rope_periods(options["head_dim"], dtype=dtype, **options.get("periods", {}))
    torch.testing.assert_close(periods, golden[f"{case}.periods"], atol=0, rtol=1e-6)
    grids = {k.split(".")[1] for k in golden if k.startswith(f"{case}.") and "x" in k.split(".")[1]}
    assert grids
    for grid in grids:
        size = tuple(int(side) for side in grid.split("x"))
        centres = patch_centres(size, normalise=options.get("normalise", "separate"), dtype=dtype)
        cosine, sine = rope_tables(centres, periods)[0]
        for name, ours in (("cos", cosine), ("sin", sine)):
            expected = halves(golden[f"{case}.{grid}.{name}"])
            torch.testing.assert_close(ours, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("case", ["aug_rescale2", "aug_shift0.3", "aug_jitter1.5", "aug_all"])
def test_augmented_tables_agree_with_the_reference(shared_golden, case):
    golden = load_file(shared_golden / "rope_tables.safetensors")
    factors = torch.cat(
        (
            golden.get(f"{case}.drawn_shift_hw", torch.zeros(2)),
            golden.get(f"{case}.drawn_jitter_hw", torch.ones(2)),
            golden.get(f"{case}.drawn_rescale", torch.ones(1)),
        )
    )
    cosine, sine = rope_tables(patch_centres((3, 5)), rope_periods(16), factors[None])[0]
    for name, ours in (("cos", cosine), ("sin", sine)):
        expected = halves(golden[f"{case}.3x5.{name}"])
        torch.testing.assert_close(ours, expected, atol=5e-6, rtol=0)
