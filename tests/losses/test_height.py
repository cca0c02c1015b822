"""Heights: arithmetic by hand, the definitions, laws, masks that leak nothing, and the reference."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from geodino.losses.height import (
    LOG_EPSILON_M,
    charbonnier_loss,
    huber_loss,
    l1_loss,
    log_height,
    silog_loss,
)
from geodino.losses.height_edges import gradient_loss, patch_gradient_loss

LOSSES = [silog_loss, l1_loss, huber_loss, charbonnier_loss, gradient_loss, patch_gradient_loss]
SHAPED = [gradient_loss, patch_gradient_loss]
laws = settings(max_examples=25)
seeds_ = st.integers(0, 10_000)


def pair(seed, shape=(2, 13, 11), dtype=torch.float64):
    """Heights with bare ground, and a mask with holes of one pixel and a missing corner."""
    g = torch.Generator().manual_seed(seed)
    target = (torch.rand(shape, generator=g, dtype=dtype) * 40 - 8).clamp_min(0)
    predicted = (target + torch.randn(shape, generator=g, dtype=dtype) * 3).clamp_min(0)
    valid = torch.rand(shape, generator=g) > 0.04
    valid[..., :3, :4] = False
    return predicted.requires_grad_(), target, valid


def value_and_grad(loss, predicted, target, valid, **options):
    leaf = predicted.detach().clone().requires_grad_()
    value = loss(leaf, target, valid, **options)
    (grad,) = torch.autograd.grad(value, leaf)
    return value.detach(), grad


# Hand arithmetic


def test_silog_of_two_pixels_by_hand():
    # Log gaps with epsilon 1: log(4/2) = log 2 and log(8/1) = 3 log 2; mean 2 log 2, variance
    # (n - 1 below) 2 log(2)^2. Loss: log 2 times sqrt(2 + .15 * 4).
    predicted, target = torch.tensor([3.0, 7.0]), torch.tensor([1.0, 0.0])
    valid = torch.ones(2, dtype=torch.bool)
    got = silog_loss(predicted, target, valid)
    assert float(got) == pytest.approx(math.log(2) * math.sqrt(2.6), rel=1e-6)
    warm = silog_loss(predicted, target, valid, variance_weight=0.0)
    assert float(warm) == pytest.approx(math.log(2) * math.sqrt(0.6), rel=1e-6)


def test_errors_of_4_and_half_a_metre_by_hand():
    # L1: 4.5 / 2. Huber with beta 1: 4 - .5 and .5^2 / 2. Charbonnier with c = 3: sqrt(25) - 3 = 2
    # and sqrt(9.25) - 3.
    predicted, target = torch.tensor([14.0, 9.5]), torch.tensor([10.0, 10.0])
    valid = torch.ones(2, dtype=torch.bool)
    assert float(l1_loss(predicted, target, valid)) == 2.25
    assert float(huber_loss(predicted, target, valid)) == (3.5 + 0.125) / 2
    got = charbonnier_loss(predicted, target, valid, scale_m=3.0)
    assert float(got) == pytest.approx((2 + math.sqrt(9.25) - 3) / 2, rel=1e-6)


def test_logarithms_go_on_below_the_ground_as_a_straight_line():
    heights = torch.tensor([0.0, -1.0, -3.0, 1.0], requires_grad=True)
    got = log_height(heights, epsilon_m=0.5)
    wanted = torch.tensor([math.log(0.5), math.log(0.5) - 2, math.log(0.5) - 6, math.log(1.5)])
    torch.testing.assert_close(got, wanted)
    (slope,) = torch.autograd.grad(got.sum(), heights)
    torch.testing.assert_close(slope, torch.tensor([2.0, 2.0, 2.0, 1 / 1.5]))


def test_two_ramps_of_log_heights_by_hand():
    # Slopes of .1 (predicted) and .3 (true) per column, 3 x 3 pixels, one scale: one stencil.
    # Magnitudes .1 and .3, ranges .2 and .6, the same direction: .3 * .2 + .6 * .4 = .3.
    columns = torch.arange(3.0).expand(1, 3, 3)
    predicted, target = ((columns * s).exp() - 1 for s in (0.1, 0.3))
    valid = torch.ones(1, 3, 3, dtype=torch.bool)
    options = {"scales": (1,), "windows": (3,)}
    got = patch_gradient_loss(predicted, target, valid, **options)
    assert float(got) == pytest.approx(0.3, rel=1e-5)
    # A quarter turn: magnitudes and ranges agree, the cosine is 0: .4 * s^2 / (s^2 + flat^2).
    turned = patch_gradient_loss(target.mT, target, valid, **options, flat=0.3)
    assert float(turned) == pytest.approx(0.4 / 2, rel=1e-5)


def test_a_slope_is_the_same_whichever_way_it_runs():
    # 5 percent in log units along 0, 30, 45 and 80 degrees against flat ground.
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(9.0), indexing="ij")
    valid = torch.ones(1, 9, 9, dtype=torch.bool)
    for degrees in (0, 30, 45, 80):
        a = math.radians(degrees)
        plane = (0.05 * (columns * math.cos(a) + rows * math.sin(a))).exp()[None] - 1
        got = patch_gradient_loss(
            plane, torch.zeros_like(plane), valid, scales=(1,), range_weight=0.0
        )
        assert float(got) == pytest.approx(0.3 * 0.05, rel=1e-4)


def test_the_gradient_loss_of_one_step_by_hand():
    # Errors 0 0 3 over three columns of one row: |3 - 0| across a gap of 2, over 3 pixels. Without
    # the first pixel there is no difference left.
    predicted = torch.tensor([[[5.0, 6.0, 10.0]]])
    target = torch.tensor([[[5.0, 6.0, 7.0]]])
    valid = torch.ones(1, 1, 3, dtype=torch.bool)
    assert float(gradient_loss(predicted, target, valid, steps=(1,))) == 1.0
    valid[..., 0] = False
    assert float(gradient_loss(predicted, target, valid, steps=(1,))) == 0.0


# Definitions, slow and obvious


def slow_silog(predicted, target, valid, epsilon_m=LOG_EPSILON_M):
    gaps = [
        (p + epsilon_m).log() - (t + epsilon_m).log()
        for p, t, v in zip(predicted.flatten(), target.flatten(), valid.flatten(), strict=True)
        if v
    ]
    mean = sum(gaps) / len(gaps)
    variance = sum((g - mean) ** 2 for g in gaps) / (len(gaps) - 1)
    return (variance + 0.15 * mean**2).sqrt()


def slow_pixels(kind):
    def loss(predicted, target, valid):
        errors = (predicted - target)[valid].abs()
        if kind == "l1":
            return errors.mean()
        if kind == "huber":
            return torch.where(errors < 1, errors**2 / 2, errors - 0.5).mean()
        return ((errors**2 + 1).sqrt() - 1).mean()

    return loss


def slow_shrink(image, valid, scale):
    rows, columns = (math.ceil(side / scale) for side in image.shape)
    out, there = image.new_zeros(rows, columns), torch.zeros(rows, columns, dtype=torch.bool)
    for r in range(rows):
        for c in range(columns):
            box = (slice(r * scale, (r + 1) * scale), slice(c * scale, (c + 1) * scale))
            if valid[box].any():
                out[r, c], there[r, c] = image[box][valid[box]].mean(), True
    return out, there


KERNELS = [
    torch.tensor(rows, dtype=torch.float64) / size
    for rows, size in (
        ([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], 8),
        ([[-1, -2, -1], [0, 0, 0], [1, 2, 1]], 8),
        ([[-2, -1, 0], [-1, 0, 1], [0, 1, 2]], 6 * 2**0.5),
        ([[0, -1, -2], [1, 0, -1], [2, 1, 0]], 6 * 2**0.5),
    )
]


def slow_patch_gradient(predicted, target, valid, flat=0.05):
    """One stencil at a time."""
    total = 0.0
    for scale in (1, 2, 4):
        parts = {"magnitude": [], "direction": [], 3: [], 5: []}
        for p, t, v in zip(predicted, target, valid, strict=True):
            a, there = slow_shrink((p + LOG_EPSILON_M).log(), v, scale)
            b, _ = slow_shrink((t + LOG_EPSILON_M).log(), v, scale)
            for side in (3, 5):
                for r in range(a.shape[0] - side + 1):
                    for c in range(a.shape[1] - side + 1):
                        box = (slice(r, r + side), slice(c, c + side))
                        if not there[box].all():
                            continue
                        x, y = a[box], b[box]
                        parts[side].append(((x.max() - x.min()) - (y.max() - y.min())).abs())
                        if side == 3:
                            gx = torch.stack([(x * k).sum() for k in KERNELS])
                            gy = torch.stack([(y * k).sum() for k in KERNELS])
                            sx, sy = (gx @ gx / 2).sqrt(), (gy @ gy / 2).sqrt()
                            parts["magnitude"].append((sx - sy).abs())
                            turn = (sx * sy - gx @ gy / 2) / (sx * sy + flat**2)
                            parts["direction"].append(turn)
        weights = {"magnitude": 0.3, "direction": 0.4, 3: 0.3, 5: 0.3}
        for name, values in parts.items():
            if values:
                total = total + weights[name] * torch.stack(values).mean() / 3
    return total


@pytest.mark.parametrize(
    ("loss", "slow"),
    [
        (silog_loss, slow_silog),
        (l1_loss, slow_pixels("l1")),
        (huber_loss, slow_pixels("huber")),
        (charbonnier_loss, slow_pixels("charbonnier")),
    ],
)
@laws
@given(seed=seeds_)
def test_a_loss_of_pixels_and_its_gradient_are_those_of_the_definition(loss, slow, seed):
    predicted, target, valid = pair(seed, (1, 5, 6))
    predicted = predicted.detach() + 0.01
    got, want = (
        value_and_grad(loss, predicted, target, valid),
        value_and_grad(slow, predicted, target, valid),
    )
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_patch_gradient_loss_and_its_gradient_are_those_of_the_definition(seed):
    predicted, target, valid = pair(seed)
    # Moved off the ground: a slope of exactly 0 has no gradient that two ways could agree on.
    g = torch.Generator().manual_seed(seed)
    predicted, target = (
        m.detach() + torch.rand(m.shape, generator=g, dtype=m.dtype) for m in (predicted, target)
    )
    got = value_and_grad(patch_gradient_loss, predicted, target, valid)
    want = value_and_grad(slow_patch_gradient, predicted, target, valid)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-13)


# Laws


@laws
@given(seed=seeds_, factor=st.floats(0.2, 5.0))
def test_a_common_factor_costs_silog_its_logarithm_and_nothing_at_full_focus(seed, factor):
    _, target, valid = pair(seed)
    target = target + 1.0
    tiny = {"epsilon_m": 1e-9}
    got = silog_loss(target * factor, target, valid, **tiny)
    want = math.sqrt(0.15) * abs(math.log(factor))
    assert float(got) == pytest.approx(want, rel=1e-6, abs=1e-7)
    free = silog_loss(target * factor, target, valid, **tiny, variance_focus=1.0)
    assert float(free) < 1e-6
    # Nor does it have a shape: log heights are only shifted.
    assert float(patch_gradient_loss(target * factor, target, valid, **tiny)) < 1e-6


@laws
@given(seed=seeds_, shift=st.floats(-5.0, 5.0))
def test_a_common_shift_costs_the_gradient_loss_nothing(seed, shift):
    predicted, target, valid = pair(seed)
    got = gradient_loss(predicted + shift, target, valid)
    torch.testing.assert_close(got, gradient_loss(predicted, target, valid), rtol=1e-9, atol=0)


@pytest.mark.parametrize("loss", LOSSES)
@laws
@given(seed=seeds_)
def test_truth_and_prediction_may_change_places(loss, seed):
    predicted, target, valid = pair(seed)
    there, back = loss(predicted, target, valid), loss(target, predicted, valid)
    torch.testing.assert_close(there, back, rtol=1e-10, atol=0)
    assert float(there.detach()) > 0


@pytest.mark.parametrize("loss", LOSSES)
def test_the_truth_itself_costs_nothing_and_is_left_alone(loss):
    _, target, valid = pair(3)
    value, grad = value_and_grad(loss, target, target, valid)
    # Small slopes are differences of logarithms, hence not exactly equal after squaring and rooting.
    assert abs(float(value)) < 1e-15
    assert float(grad.abs().max()) < (1e-7 if loss is patch_gradient_loss else 1e-15)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("rubbish", [math.nan, -3.4e38, 1e30, math.inf, -9999.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_what_lies_under_an_invalid_pixel_changes_no_bit(loss, rubbish, dtype):
    predicted, target, valid = pair(5)
    predicted, target = predicted.detach().to(dtype), target.to(dtype)
    clean = value_and_grad(loss, predicted, target, valid)
    dirty = value_and_grad(
        loss, predicted.where(valid, rubbish), target.where(valid, rubbish), valid
    )
    assert clean[0].dtype == torch.float32
    for a, b in zip(clean, dirty, strict=True):
        assert torch.equal(a, b)
    assert not clean[1][~valid].any()


@pytest.mark.parametrize("loss", LOSSES)
def test_a_batch_without_valid_pixels_costs_exactly_nothing(loss):
    predicted, target, valid = pair(6)
    nan = torch.full_like(predicted, math.nan).detach()
    value, grad = value_and_grad(loss, nan, target, torch.zeros_like(valid))
    assert float(value) == 0.0
    assert not grad.any()


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("side", [1, 2, 3])
def test_small_images_and_single_pixels_have_a_finite_loss(loss, side):
    predicted = torch.full((side, side), 4.0)
    valid = torch.zeros(side, side, dtype=torch.bool)
    valid[0, 0] = True
    value, grad = value_and_grad(loss, predicted, torch.zeros(side, side), valid)
    assert value.isfinite()
    assert grad.isfinite().all()


@pytest.mark.parametrize("loss", LOSSES)
def test_flat_and_negative_predictions_have_a_finite_gradient_everywhere(loss):
    _, target, valid = pair(7)
    for flat in (-0.5, 0.0, 3.0):
        value, grad = value_and_grad(loss, torch.full_like(target, flat), target, valid)
        assert value.isfinite()
        assert grad.isfinite().all()


@pytest.mark.parametrize("loss", SHAPED)
def test_images_of_a_batch_do_not_touch(loss):
    """A stencil never reaches from one image into the next: weights are the stencils' counts."""
    predicted, target, _ = pair(8)
    valid = torch.ones_like(target, dtype=torch.bool)
    one, other = (loss(predicted[i], target[i], valid[i]) for i in (0, 1))
    torch.testing.assert_close(loss(predicted, target, valid), (one + other) / 2)


@pytest.mark.parametrize("loss", LOSSES)
def test_the_gradient_is_that_of_finite_differences(loss):
    g = torch.Generator().manual_seed(9)
    target = torch.rand(1, 7, 8, generator=g, dtype=torch.float64) * 20
    predicted = (target + torch.randn(1, 7, 8, generator=g, dtype=torch.float64)).clamp_min(0.1)
    valid = torch.rand(1, 7, 8, generator=g) > 0.05
    assert torch.autograd.gradcheck(
        lambda p: loss(p, target, valid), predicted.requires_grad_(), eps=1e-7, atol=1e-6
    )


def test_half_precision_is_widened_under_autocast():
    predicted, target, valid = (m.detach() for m in pair(10))
    wanted = patch_gradient_loss(predicted.float(), target.float(), valid)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = patch_gradient_loss(predicted.float(), target.float(), valid)
    assert torch.equal(got, wanted)


# Reference numbers


REFERENCE = {
    "sig_nowarm": (silog_loss, {"epsilon_m": 1e-3}),
    "sig_first_call_warm": (silog_loss, {"epsilon_m": 1e-3, "variance_weight": 0.0}),
    "grad": (gradient_loss, {}),
    "gradlog": (gradient_loss, {"log_epsilon_m": 1e-3}),
    "l1": (l1_loss, {}),
}


@pytest.mark.parametrize("name", REFERENCE)
@pytest.mark.parametrize(("kind", "tolerance"), [("f64", 1e-10), ("f32", 1e-5)])
def test_the_reference_numbers(shared_golden, name, kind, tolerance):
    golden = load_file(shared_golden / "depth_losses_metrics.safetensors")
    loss, options = REFERENCE[name]
    dtype = torch.float64 if kind == "f64" else torch.float32
    predicted, target = golden["in.pred"].to(dtype), golden["in.gt"].to(dtype)
    value, grad = value_and_grad(loss, predicted, target, golden["in.valid"], **options)
    close = {"rtol": tolerance, "atol": tolerance}
    torch.testing.assert_close(value, golden[f"{name}.{kind}"], **close)
    torch.testing.assert_close(grad, golden[f"{name}.{kind}.grad"], **close)
    everywhere = torch.ones_like(golden["in.valid"])
    whole = loss(predicted, target, everywhere, **options)
    torch.testing.assert_close(whole, golden[f"{name}.{kind}.nomask"], **close)
