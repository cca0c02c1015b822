"""The iBOT loss: weights per image, the plain definition, and the reference."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from geodino.losses.cross_entropy import prototype_cross_entropy
from geodino.losses.ibot import ibot_cross_entropy, ibot_loss, ibot_weights
from geodino.losses.sinkhorn import Targets, sinkhorn


def test_weights_share_each_image_among_its_tokens_and_count_unmasked_images():
    # Images with 2, 0, 1 and 0 masked tokens: 1/2/4 twice, then 1/1/4.
    weights = ibot_weights(torch.tensor([2, 0, 1, 0]), tokens=3)
    assert weights.tolist() == [0.125, 0.125, 0.25]


def test_the_fused_loss_is_the_plain_definition():
    g = torch.Generator().manual_seed(0)
    features = F.normalize(torch.randn(9, 6, generator=g, dtype=torch.float64), dim=1)
    prototypes = torch.randn(13, 6, generator=g, dtype=torch.float64, requires_grad=True)
    targets = sinkhorn(torch.randn(9, 13, generator=g, dtype=torch.float64), temp=0.07)
    features.requires_grad_()
    masked = torch.tensor([4, 0, 2, 0, 0, 3])
    got = ibot_loss(features, prototypes, targets, masked=masked)
    weights = ibot_weights(masked, tokens=9).double()
    want = ibot_cross_entropy(features @ prototypes.T, targets.dense(), weights, student_temp=0.1)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=0)
    mine, theirs = (torch.autograd.grad(v, (features, prototypes)) for v in (got, want))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12)


def test_nothing_masked_costs_nothing():
    features = torch.zeros(0, 6, requires_grad=True)
    targets = sinkhorn(torch.zeros(0, 5), temp=0.1)
    value = ibot_loss(features, torch.ones(5, 6), targets, masked=torch.tensor([0, 0]))
    value.backward()
    assert float(value.detach()) == 0.0
    assert features.grad.shape == (0, 6)


@pytest.mark.parametrize(("name", "tolerance"), [("f32", 1e-5), ("f64", 1e-10)])
def test_values_and_gradients_agree_with_the_reference(shared_golden, name, tolerance):
    golden = load_file(shared_golden / "losses.safetensors")
    dtype = {"f32": torch.float32, "f64": torch.float64}[name]
    images = len(golden["in.masks"])
    weights = golden["in.masks_weight"].to(dtype) / images
    probs = golden["in.teacher_patch_probs"].to(dtype)
    student = golden["in.student_patch"].to(dtype).requires_grad_()
    plain = ibot_cross_entropy(student, probs, weights, student_temp=0.1)
    fused = prototype_cross_entropy(
        student,
        torch.eye(48, dtype=dtype),
        Targets.from_probs(probs),
        target_rows=None,
        row_weights=weights,
        student_temp=0.1,
    )
    # The reference's probabilities are float32: their sums are 1 to 1e-7, which the fused form
    # takes to be exact.
    for value, close in ((plain, tolerance), (fused, max(tolerance, 1e-6))):
        expected = golden[f"ibot.masked.{name}"]
        torch.testing.assert_close(value.detach(), expected, rtol=0, atol=close)
        (gradient,) = torch.autograd.grad(value, student)
        expected = golden[f"ibot.masked.{name}.grad"]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=close)


@pytest.mark.parametrize(("name", "tolerance"), [("f32", 1e-5), ("f64", 1e-6)])
def test_weights_worked_out_from_the_masks_agree_with_the_reference(shared_golden, name, tolerance):
    golden = load_file(shared_golden / "losses.safetensors")
    dtype = {"f32": torch.float32, "f64": torch.float64}[name]
    value = ibot_loss(
        golden["in.student_patch"].to(dtype),
        torch.eye(48, dtype=dtype),
        Targets.from_probs(golden["in.teacher_patch_probs"].to(dtype)),
        masked=golden["in.masks"].sum(1),
    )
    expected = golden[f"ibot.masked_autoweight.{name}"]
    torch.testing.assert_close(value, expected, rtol=0, atol=tolerance)
