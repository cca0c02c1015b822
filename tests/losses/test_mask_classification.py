from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.losses.mask_classification import (
    QueryWeights,
    at_pixels,
    match,
    matching_cost,
    query_losses,
    true_masks,
)

WEIGHTS = QueryWeights()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def losses(class_logits, mask_logits, target, valid, *, points=10_000, seed=0):
    return query_losses(
        class_logits, mask_logits, true_masks(target, valid), points=points, weights=WEIGHTS,
        generator=generator(seed),
    )  # fmt: skip


def drawn(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


@settings(max_examples=60)
@given(queries=st.integers(1, 5), masks=st.integers(0, 5), seed=st.integers(0, 2**31))
def test_the_matching_is_the_cheapest_of_all(queries, masks, seed):
    masks = min(masks, queries)
    cost = torch.rand(queries, masks, generator=generator(seed))
    found = match(cost)
    assert len(set(found.tolist())) == masks
    best = min(
        sum(float(cost[q, m]) for m, q in enumerate(chosen))
        for chosen in permutations(range(queries), masks)
    )
    assert sum(float(cost[q, m]) for m, q in enumerate(found.tolist())) == pytest.approx(best)


def test_more_masks_than_queries_are_refused_and_a_cost_that_is_no_number_is_avoided():
    with pytest.raises(ValueError, match="1 queries for 2 masks"):
        match(torch.zeros(1, 2))
    cost = torch.tensor([[float("nan"), 5.0], [9.0, float("inf")], [float("nan")] * 2])
    assert match(cost).tolist() == [1, 0]


def slow_cost(class_logits, masks, wanted, truth, w):
    """The definition, one pair at a time."""
    cost = torch.zeros(len(masks), len(wanted))
    for q in range(len(masks)):
        for m in range(len(wanted)):
            p, t = masks[q].sigmoid(), truth[m]
            ce = F.binary_cross_entropy_with_logits(masks[q], t)
            dice = 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1)
            share = class_logits[q].softmax(0)[wanted[m]]
            cost[q, m] = w.mask * ce + w.dice * dice - w.classes * share
    return cost


def test_the_cost_of_a_pair_is_its_definition():
    class_logits, masks = drawn(4, 4), 3 * drawn(4, 9, seed=1)
    truth = (drawn(2, 9, seed=2) > 0).float()
    wanted = torch.tensor([0, 2])
    found = matching_cost(class_logits, masks, wanted, truth, WEIGHTS)
    torch.testing.assert_close(found, slow_cost(class_logits, masks, wanted, truth, WEIGHTS))


def test_the_losses_of_one_image_can_be_done_by_hand():
    # Two pixels of classes 0 and 1; query 0 is sure of class 1 on the right pixel, query 1 says
    # "half" everywhere. Query 0 must get class 1, query 1 class 0, query 2 nothing.
    masks = torch.tensor([[[-20.0, 20.0]], [[0.0, 0.0]], [[-20.0, -20.0]]])[None]
    classes = torch.tensor([[0.0, 30.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])[None]
    found = losses(classes, masks, torch.tensor([[[0, 1]]]), torch.ones(1, 1, 2, dtype=torch.bool))
    third, half = torch.tensor(3.0).log(), torch.tensor(2.0).log()
    # Cross-entropies 0 and ln 3, and ln 3 with weight 0.1, over the weights 1 + 1 + 0.1.
    torch.testing.assert_close(found["class"], 1.1 * third / 2.1)
    # 0 for the sure mask, ln 2 for the other one.
    torch.testing.assert_close(found["mask"], half / 2)
    # The other one: 1 - (2 * 0.5 + 1) / (1 + 1 + 1) = 1/3.
    torch.testing.assert_close(found["dice"], torch.tensor(1 / 6))


def test_a_map_at_pixels_is_its_bilinear_enlargement():
    maps = drawn(2, 3, 4, 5)
    large = F.interpolate(maps, scale_factor=4, mode="bilinear", align_corners=False)
    pixels = torch.arange(16 * 20).expand(2, -1)
    found = at_pixels(maps, pixels, size=(16, 20))
    torch.testing.assert_close(found.unflatten(2, (16, 20)), large, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("points", [20, 10_000])
def test_what_is_stored_at_pixels_that_do_not_count_changes_no_bit(points):
    classes, masks = drawn(3, 6, 4), drawn(3, 6, 4, 4, seed=1)
    target = torch.randint(0, 3, (3, 16, 16), generator=generator(2))
    valid = torch.rand(3, 16, 16, generator=generator(3)) > 0.4
    valid[1] = False
    grads = []
    for fill in (255, 0, -7):
        leaves = classes.clone().requires_grad_(), masks.clone().requires_grad_()
        found = losses(*leaves, target.where(valid, torch.tensor(fill)), valid, points=points)
        sum(found.values()).backward()
        grads.append([*(leaf.grad for leaf in leaves), *found.values()])
    for other in grads[1:]:
        assert all(torch.equal(a, b) for a, b in zip(grads[0], other, strict=True))
    of_classes, of_masks = grads[0][:2]
    assert of_classes[1].abs().sum() == of_masks[1].abs().sum() == 0
    assert of_classes[0].abs().sum() > 0
    # A cell of the masks none of whose pixels counts, nor any beside it, learns nothing.
    still = torch.zeros(1, 16, 16, dtype=torch.bool)
    still[:, :, :8] = True
    leaf = drawn(1, 6, 4, 4).requires_grad_()
    losses(classes[:1], leaf, target[:1], still, points=points)["mask"].backward()
    assert leaf.grad[..., 3].abs().sum() == 0
    assert leaf.grad[..., 0].abs().sum() > 0


def test_a_batch_without_labels_costs_nothing_and_moves_nothing():
    classes, masks = drawn(1, 4, 3).requires_grad_(), drawn(1, 4, 2, 2).requires_grad_()
    target, none = torch.zeros(1, 8, 8, dtype=torch.int64), torch.zeros(1, 8, 8, dtype=torch.bool)
    total = sum(losses(classes, masks, target, none).values())
    total.backward()
    assert total == 0
    assert classes.grad.abs().sum() == masks.grad.abs().sum() == 0


def test_drawn_pixels_follow_the_key_and_prefer_where_a_mask_is_unsure():
    classes, masks = drawn(1, 2, 3), torch.full((1, 2, 16, 16), 9.0)
    # Only a corner is unsure, and there the mask is wrong.
    masks[..., :4, :4] = -0.1
    target, valid = torch.zeros(1, 64, 64, dtype=torch.int64), torch.ones(1, 64, 64).bool()
    some = losses(classes, masks, target, valid, points=128)["mask"]
    assert torch.equal(some, losses(classes, masks, target, valid, points=128)["mask"])
    assert not torch.equal(some, losses(classes, masks, target, valid, points=128, seed=1)["mask"])
    every = losses(classes, masks, target, valid)["mask"]
    # 1/16 of the pixels are unsure; among those drawn it is more than twice that.
    assert some > 2 * every
