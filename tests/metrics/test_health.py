import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.metrics.health import (
    cls_patch_cosine,
    effective_rank,
    gram_distance,
    health,
    outlier_share,
    patch_patch_cosine,
)


def random(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_class_token_meets_its_own_patches():
    # Image 0: cosines 1 and 0; image 1: -1 and 0.6. Mean (1 + 0 - 1 + 0.6) / 4 = 0.15.
    cls = torch.tensor([[2.0, 0.0], [0.0, 5.0]])
    patches = torch.tensor([[[3.0, 0.0], [0.0, 1.0]], [[0.0, -1.0], [8.0, 6.0]]])
    torch.testing.assert_close(cls_patch_cosine(cls, patches), torch.tensor(0.15))


def test_patches_meet_each_other_but_not_themselves():
    # Directions 0, 90 and 180 degrees: cosines 0, -1 and 0 of the three pairs.
    patches = torch.tensor([[[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]]])
    torch.testing.assert_close(patch_patch_cosine(patches), torch.tensor(-1 / 3))
    torch.testing.assert_close(patch_patch_cosine(torch.ones(2, 5, 4)), torch.tensor(1.0))
    assert patch_patch_cosine(patches[:, :1]).isnan()


def test_the_mean_cosine_of_pairs_is_the_slow_one():
    patches = random(3, 7, 4)
    pairs = [
        torch.nn.functional.cosine_similarity(image[i], image[j], dim=0)
        for image in patches for i in range(7) for j in range(7) if i != j
    ]  # fmt: skip
    torch.testing.assert_close(patch_patch_cosine(patches), torch.stack(pairs).mean())


def test_the_effective_rank_by_hand():
    # Equal singular values: the rank. One direction: 1. Values 3 and 1: p = 3/4, 1/4.
    assert effective_rank(4 * torch.eye(5)) == pytest.approx(5, rel=1e-5)
    assert effective_rank(torch.ones(6, 3)) == pytest.approx(1, abs=1e-4)
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(math.exp(entropy))
    assert effective_rank(torch.zeros(3, 2)) == 0


def test_centring_takes_the_mean_row_off():
    rows = torch.tensor([[1.0, 10.0], [-1.0, 10.0]])
    assert effective_rank(rows, centre=True) == pytest.approx(1)
    assert effective_rank(rows) > 1.2


@given(n=st.integers(1, 12), d=st.integers(1, 12), scale=st.floats(1e-3, 1e3))
@settings(max_examples=30)
def test_the_effective_rank_lies_between_1_and_the_rank_and_ignores_scale(n, d, scale):
    tokens = random(n, d, seed=n * 13 + d)
    rank = effective_rank(tokens)
    assert 1 - 1e-9 <= rank <= min(n, d) + 1e-9
    torch.testing.assert_close(effective_rank(tokens * scale), rank)


def test_outliers_are_counted_against_the_median():
    # Norms 1, 1, 1, 2, 10: the median is 1; above 3 there is one in five, above 1.5 two.
    tokens = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, 2.0], [6.0, 8.0]])
    torch.testing.assert_close(outlier_share(tokens), torch.tensor(0.2))
    torch.testing.assert_close(outlier_share(tokens, factor=1.5), torch.tensor(0.4))


def test_the_gram_distance_by_hand():
    # Two patches at 0 against 180 degrees: the matrices differ by 2 off the diagonal: 4 * 2 / 4.
    same = torch.tensor([[[1.0, 0.0], [5.0, 0.0]]])
    opposite = torch.tensor([[[1.0, 0.0, 0.0], [-2.0, 0.0, 0.0]]])
    torch.testing.assert_close(gram_distance(same, opposite), torch.tensor(2.0))
    assert gram_distance(same, same) == 0


def test_the_gram_distance_ignores_rotations_and_lengths():
    patches = random(2, 9, 6)
    rotation = torch.linalg.qr(random(6, 6, seed=1)).Q
    lengths = random(2, 9, 1, seed=2).abs() + 0.1
    assert gram_distance(patches, patches @ rotation * lengths) == pytest.approx(0, abs=1e-12)


def test_collapsed_features_look_ill_and_varied_ones_well():
    varied = health(random(4, 16), random(4, 20, 16, seed=1))
    direction = random(1, 16, seed=2)
    noise = 1e-3 * random(4, 20, 16, seed=3)
    collapsed = health(direction.expand(4, 16), direction + noise)
    assert collapsed.cls_patch_cosine > 0.999 > 0.5 > varied.cls_patch_cosine
    assert collapsed.patch_patch_cosine > 0.999 > 0.5 > varied.patch_patch_cosine
    assert collapsed.cls_rank == pytest.approx(1, abs=1e-6)
    assert collapsed.patch_rank < 2 < 14 < varied.patch_rank
    assert varied.outlier_share == collapsed.outlier_share == 0.0


def test_half_precision_tokens_are_measured_in_float32():
    patches = random(1, 50, 8).float()
    low = health(patches[:, 0].bfloat16(), patches.bfloat16())
    high = health(patches[:, 0], patches)
    assert low.patch_rank == pytest.approx(high.patch_rank, rel=1e-2)
