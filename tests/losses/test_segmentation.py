"""Losses of a class per pixel, by hand."""

import math

import pytest
import torch

from geodino.losses.segmentation import dice_loss, focal_loss, pixel_cross_entropy


def of_probabilities(p):
    """Two pixels side by side with these probabilities of three classes."""
    return torch.tensor(p).log().T[None, :, None, :]


TWO = of_probabilities([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
TARGET = torch.tensor([[[0, 2]]])
BOTH = torch.ones(1, 1, 2, dtype=torch.bool)


def test_cross_entropy_is_the_mean_of_minus_log_p_of_the_truth():
    expected = -(math.log(0.5) + math.log(0.1)) / 2
    torch.testing.assert_close(pixel_cross_entropy(TWO, TARGET, BOTH), torch.tensor(expected))


def test_weights_of_classes_weigh_their_pixels_and_the_mean():
    expected = -(1.0 * math.log(0.5) + 3.0 * math.log(0.1)) / 4.0
    found = pixel_cross_entropy(TWO, TARGET, BOTH, weights=[1.0, 9.0, 3.0])
    torch.testing.assert_close(found, torch.tensor(expected))


def test_focal_loss_counts_a_sure_pixel_less():
    # (1 - .5)^2 = .25 and (1 - .1)^2 = .81.
    expected = -(0.25 * math.log(0.5) + 0.81 * math.log(0.1)) / 2
    torch.testing.assert_close(focal_loss(TWO, TARGET, BOTH), torch.tensor(expected))
    torch.testing.assert_close(
        focal_loss(TWO, TARGET, BOTH, gamma=0.0), pixel_cross_entropy(TWO, TARGET, BOTH)
    )


def test_dice_is_over_the_classes_that_are_there():
    # Class 0: 2 * .5 / (.5 + .1 + 1) = .625; class 2: 2 * .1 / (.25 + .1 + 1) = .148; class 1 is
    # nowhere.
    expected = 1 - (2 * 0.5 / 1.6 + 2 * 0.1 / 1.35) / 2
    found = dice_loss(TWO, TARGET, BOTH, smooth=0.0)
    torch.testing.assert_close(found, torch.tensor(expected))


@pytest.mark.parametrize("loss", [pixel_cross_entropy, focal_loss, dice_loss])
def test_pixels_that_do_not_count_change_no_bit_whatever_they_hold(loss):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 3, 4, 4, generator=generator)
    target = torch.randint(0, 3, (2, 4, 4), generator=generator)
    valid = torch.rand(2, 4, 4, generator=generator) > 0.4
    plain = logits.clone().requires_grad_()
    loss(plain, target, valid).backward()
    spoilt = torch.where(valid[:, None], logits, torch.nan).requires_grad_()
    found = loss(spoilt, torch.where(valid, target, 255), valid)
    found.backward()
    assert torch.equal(found, loss(plain, target, valid))
    assert torch.equal(spoilt.grad, plain.grad)


@pytest.mark.parametrize("loss", [pixel_cross_entropy, focal_loss, dice_loss])
def test_a_batch_without_a_valid_pixel_costs_nothing_and_moves_nothing(loss):
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    found = loss(logits, torch.full((1, 2, 2), 255), torch.zeros(1, 2, 2, dtype=torch.bool))
    found.backward()
    assert found == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


def test_a_sure_and_right_pixel_has_a_finite_gradient_under_the_focal_loss():
    logits = torch.tensor([[[[60.0]], [[0.0]]]], requires_grad=True)
    focal_loss(
        logits, torch.zeros(1, 1, 1, dtype=torch.int64), torch.ones(1, 1, 1, dtype=torch.bool),
        gamma=0.5,
    ).backward()  # fmt: skip
    assert torch.isfinite(logits.grad).all()
