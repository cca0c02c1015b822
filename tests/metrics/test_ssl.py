"""Health of assignments, on assignments whose entropy is known."""

import math

import pytest
import torch

from geodino.losses.sinkhorn import Targets, sinkhorn
from geodino.metrics import ssl
from geodino.metrics.ssl import effective_prototypes, favoured_prototypes, target_entropy


def test_uniform_targets_have_the_entropy_of_all_prototypes():
    targets = Targets.from_probs(torch.full((3, 8), 1 / 8))
    assert float(target_entropy(targets)) == pytest.approx(math.log(8))
    assert float(effective_prototypes(targets)) == pytest.approx(8)


def test_one_hot_targets_on_two_prototypes_use_two():
    # Three samples on prototype 0 and one on prototype 2: usage (3/4, 1/4).
    targets = Targets.from_probs(torch.eye(5)[[0, 0, 2, 0]])
    assert float(target_entropy(targets)) == 0
    assert int(favoured_prototypes(targets)) == 2
    expected = math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    assert float(effective_prototypes(targets)) == pytest.approx(expected)


def test_blocks_and_scalings_give_what_the_dense_assignment_gives(monkeypatch):
    logits = torch.randn(13, 40, generator=torch.Generator().manual_seed(0))
    targets = sinkhorn(logits, temp=0.1)
    monkeypatch.setattr(ssl, "_BLOCK", 100)
    probs = targets.dense()
    entropy = -(probs * probs.clamp_min(1e-38).log()).sum(1).mean()
    torch.testing.assert_close(target_entropy(targets), entropy)
    assert int(favoured_prototypes(targets)) == len(probs.argmax(1).unique())
    usage = probs.mean(0)
    expected = torch.exp(-(usage * usage.log()).sum())
    torch.testing.assert_close(effective_prototypes(targets), expected)
