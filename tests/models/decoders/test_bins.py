import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from safetensors.torch import load_file

from geodino.models.decoders.bins import (
    BinsConfig,
    bin_weights,
    expected_height,
    height_bins,
    initial_logits,
)

WEIGHTINGS = ["relu", "relu_floor", "softmax", "sigmoid"]


def test_two_bins_are_the_ends_of_the_scale():
    # t is 1 at the bottom (logarithmic: 0.001) and 0 at the top (linear: 96 / 8), times 8.
    torch.testing.assert_close(height_bins(2, 96.0), torch.tensor([0.008, 96.0]))
    torch.testing.assert_close(height_bins(2, 96.0, "linear"), torch.tensor([0.001, 96.0]))
    torch.testing.assert_close(height_bins(2, 96.0, "log"), torch.tensor([0.001, 96.0]))


def test_the_middle_of_three_mixed_bins_is_half_way_between_the_two_scales():
    # On eighths of 80 m: the geometric mean of 0.001 and 10 is 0.1, the arithmetic 5.0005.
    middle = float(height_bins(3, 80.0, dtype=torch.float64)[1])
    assert middle == pytest.approx(8 * (0.5 * 0.1 + 0.5 * 5.0005), rel=1e-6)


def test_chmv2s_bins_are_dense_near_the_ground():
    bins = height_bins(256, 96.0)
    assert int((bins < 1).sum()) == 26
    assert int((bins < 5).sum()) == 58
    gaps = bins.diff()
    assert float(gaps[bins[:-1] < 21.6][-1]) == pytest.approx(0.37, abs=0.01)
    assert float(gaps[bins[:-1] < 62][-1]) == pytest.approx(0.64, abs=0.01)


@settings(max_examples=30)
@given(
    count=st.integers(2, 300),
    ceiling_m=st.floats(0.1, 200),
    spacing=st.sampled_from(["mixlog", "log", "linear"]),
)
def test_bins_ascend_from_just_above_the_ground_to_the_ceiling(count, ceiling_m, spacing):
    bins = height_bins(count, ceiling_m, spacing)
    assert bool((bins.diff() > 0).all())
    assert 0 < float(bins[0]) < 0.0081
    assert float(bins[-1]) == pytest.approx(ceiling_m, rel=1e-5)


def test_a_weighted_mean_by_hand():
    bins = torch.tensor([1.0, 3.0, 8.0])
    logits = torch.tensor([[[1.0], [3.0], [-5.0]]])  # one image, three bins, one pixel
    # relu: weights 1/4, 3/4, 0; with a floor of 0.1: 1.1, 3.1 and 0.1 of 4.3.
    torch.testing.assert_close(expected_height(logits, bins), torch.tensor([[2.5]]))
    floored = (1.1 * 1 + 3.1 * 3 + 0.1 * 8) / 4.3
    torch.testing.assert_close(
        expected_height(logits, bins, weighting="relu_floor"), torch.tensor([[floored]])
    )


@pytest.mark.parametrize("weighting", WEIGHTINGS)
def test_weights_are_shares_of_one(weighting):
    logits = 3 * torch.randn(2, 7, 4, 5, generator=torch.Generator().manual_seed(0))
    weights = bin_weights(logits, weighting)
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 4, 5))


def test_a_dead_head_shows_a_forest_and_has_no_gradient():
    bins = height_bins(256, 96.0)
    dead = torch.full((1, 256, 2, 2), -1.0, requires_grad=True)
    height = expected_height(dead, bins)
    torch.testing.assert_close(height, torch.full((1, 2, 2), 33.147), atol=1e-3, rtol=0)
    height.sum().backward()
    assert not dead.grad.any()


@pytest.mark.parametrize("weighting", WEIGHTINGS)
@pytest.mark.parametrize("height_m", [1.5, 4.0, 20.0])
def test_initial_logits_predict_the_height_they_were_asked_for(weighting, height_m):
    bins = height_bins(256, 96.0)
    logits = initial_logits(bins, height_m, weighting=weighting)
    predicted = expected_height(logits[None], bins, weighting=weighting)
    assert float(predicted) == pytest.approx(height_m, rel=1e-3)
    if weighting == "relu":
        assert float(logits.min()) > 0  # no bin is dead
        assert float(logits.max()) == pytest.approx(1)


def test_heights_beyond_the_bins_are_brought_within():
    bins = height_bins(16, 30.0)
    for asked, low, high in ((1000.0, 25, 30), (0.0, 0, 1)):
        assert low < float(expected_height(initial_logits(bins, asked)[None], bins)) < high


def test_half_precision_is_summed_in_single():
    bins = height_bins(256, 96.0)
    logits = torch.rand(1, 256, 3, generator=torch.Generator().manual_seed(0)).bfloat16()
    height = expected_height(logits, bins)
    assert height.dtype == torch.float32
    torch.testing.assert_close(height, expected_height(logits.float(), bins))


@pytest.mark.parametrize("wrong", [{"count": 1}, {"ceiling_m": 0}, {"ceiling_m": float("nan")}])
def test_bins_that_cannot_be_are_refused(wrong):
    with pytest.raises(ValidationError):
        BinsConfig(**wrong)


SPACINGS = {"linear": "linear", "log": "log", "chmv2_mixlog": "mixlog"}
NORMS = {
    "linear": "relu_floor",
    "softmax": "softmax",
    "sigmoid": "sigmoid",
    "chmv2_mixlog": "relu",
}


def test_bins_and_heights_are_the_references(shared_golden):
    golden = load_file(shared_golden / "chmv2_bins.safetensors")
    for count in (2, 16, 256):
        assert torch.equal(height_bins(count, 96.0) / 8, golden[f"mixlog_bins.{count}"])
    logits = golden["in.logits16"]
    for ceiling in (10.0, 96.0):
        for theirs, spacing in SPACINGS.items():
            for norm, weighting in NORMS.items():
                bins = height_bins(16, ceiling, spacing)
                height = expected_height(logits, bins, weighting=weighting)
                # The reference takes bins for eighths, and back, in two places that need not agree.
                unit = {(True, False): 8, (False, True): 1 / 8}.get(
                    (spacing == "mixlog", weighting == "relu"), 1
                )
                expected = golden[f"to_depth.max{ceiling:g}.bins_{theirs}.norm_{norm}"][:, 0] * unit
                torch.testing.assert_close(height, expected, atol=1e-5, rtol=1e-6)
    bins = height_bins(16, 96.0)
    torch.testing.assert_close(
        expected_height(golden["in.logits16_all_negative"], bins),
        golden["to_depth.chmv2.all_negative"][:, 0],
        atol=1e-5,
        rtol=1e-6,
    )


def test_heights_in_double_precision_and_gradients_are_the_references(shared_golden):
    golden = load_file(shared_golden / "chmv2_bins.safetensors")
    bins = height_bins(16, 96.0)  # the reference's bins are float32 there, too
    height = expected_height(golden["in.logits16"].double(), bins)
    torch.testing.assert_close(height, golden["to_depth.chmv2.f64"][:, 0], atol=1e-10, rtol=0)
    logits = golden["in.logits16"].requires_grad_()
    expected_height(logits, bins).sum().backward()
    torch.testing.assert_close(
        logits.grad, golden["to_depth.chmv2.grad_of_sum"], atol=1e-5, rtol=1e-5
    )
