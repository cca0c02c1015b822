"""The DINO loss: pairs, scales, and agreement with the plain definition and the reference."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from geodino.losses.cross_entropy import prototype_cross_entropy
from geodino.losses.dino import dino_cross_entropy, dino_loss, dino_rows
from geodino.losses.sinkhorn import Targets


def slow_dino(student_logits, teacher_probs, temp, skip_same_view):
    """The definition, one pair at a time; slow and obviously right."""
    total, count = 0.0, 0
    for s in range(student_logits.shape[0]):
        for t in range(teacher_probs.shape[0]):
            if skip_same_view and s == t:
                continue
            for b in range(student_logits.shape[1]):
                log_q = torch.log_softmax(student_logits[s, b] / temp, dim=-1)
                total += float(-(teacher_probs[t, b] * log_q).sum())
                count += 1
    return total / count


def crops(seed, *, n_global=2, n_local=3, samples=4, k=9, d=5):
    g = torch.Generator().manual_seed(seed)
    features = torch.randn((n_global + n_local) * samples, d, generator=g, dtype=torch.float64)
    prototypes = torch.randn(k, d, generator=g, dtype=torch.float64, requires_grad=True)
    probs = torch.rand(n_global, samples, k, generator=g, dtype=torch.float64)
    features = F.normalize(features, dim=1).requires_grad_()
    return features, prototypes, probs / probs.sum(-1, keepdim=True)


@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(("s", "t"), [(2, 2), (5, 2), (2, 1)])
def test_the_plain_definition_is_the_mean_over_pairs(s, t, skip):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(s, 3, 7, generator=g, dtype=torch.float64)
    probs = torch.rand(t, 3, 7, generator=g, dtype=torch.float64).softmax(-1)
    got = dino_cross_entropy(logits, probs, student_temp=0.1, skip_same_view=skip)
    assert float(got) == pytest.approx(slow_dino(logits, probs, 0.1, skip), rel=1e-12)


@pytest.mark.parametrize("local_weight", [1.0, 0.3])
@pytest.mark.parametrize("skip", [True, False])
@pytest.mark.parametrize(("n_global", "n_local"), [(2, 3), (2, 0), (3, 2), (1, 4)])
def test_global_and_local_terms_are_scaled_as_in_the_reference(
    n_global, n_local, skip, local_weight
):
    samples = 4
    features, prototypes, probs = crops(1, n_global=n_global, n_local=n_local, samples=samples)
    rows = dino_rows(
        samples=samples, global_crops=n_global, local_crops=n_local, ignore_diagonal=skip
    )
    got = dino_loss(
        features,
        prototypes,
        Targets.from_probs(probs.flatten(0, 1)),
        rows,
        local_weight=local_weight,
    )
    logits = (features @ prototypes.T).unflatten(0, (-1, samples))
    g = n_global * (n_global - 1) if skip else n_global**2
    local_pairs = n_global * n_local
    want = torch.zeros((), dtype=torch.float64)
    if g:
        value = dino_cross_entropy(logits[:n_global], probs, student_temp=0.1, skip_same_view=skip)
        want = want + g / (g + local_pairs) * value
    if n_local:
        value = dino_cross_entropy(logits[n_global:], probs, student_temp=0.1, skip_same_view=False)
        want = want + local_pairs / (g + local_pairs) * local_weight * value
    # The weights are kept in float32.
    torch.testing.assert_close(got, want, rtol=1e-7, atol=0)
    mine, theirs = (torch.autograd.grad(v, (features, prototypes)) for v in (got, want))
    torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


def test_two_global_and_eight_local_crops_share_two_to_sixteen():
    rows = dino_rows(samples=4)
    assert rows.target_rows.shape == (40, 2)
    assert float(rows.global_weights.sum()) == pytest.approx(2 / 18)
    assert float(rows.local_weights.sum()) == pytest.approx(16 / 18)
    # Sample 1 of the first global crop is compared with sample 1 of the second, not with itself.
    assert rows.target_rows[1].tolist() == [1, 5]
    assert rows.global_weights[1].tolist() == pytest.approx([0.0, 1 / (18 * 4)])
    assert rows.local_weights[9].tolist() == pytest.approx([1 / (18 * 4)] * 2)


def test_no_pair_of_views_is_refused():
    with pytest.raises(ValueError, match="no pair"):
        dino_rows(samples=4, global_crops=1, local_crops=0)


@pytest.mark.parametrize("name", ["f32", "f64"])
@pytest.mark.parametrize("case", ["global_with_diagonal", "global_ignore_diagonal", "local"])
def test_values_and_gradients_agree_with_the_reference(shared_golden, case, name):
    golden = load_file(shared_golden / "losses.safetensors")
    dtype, tolerance = {"f32": (torch.float32, 1e-5), "f64": (torch.float64, 1e-10)}[name]
    source = "in.student_local" if case == "local" else "in.student_global"
    logits = golden[source].to(dtype).requires_grad_()
    probs = golden["in.teacher_probs"].to(dtype)
    skip = case == "global_ignore_diagonal"
    plain = dino_cross_entropy(logits, probs, student_temp=0.1, skip_same_view=skip)

    # The fused form: the student's logits are the features, the prototypes the unit matrix.
    views, samples, k = logits.shape
    rows = dino_rows(
        samples=samples,
        local_crops=views if case == "local" else 0,
        ignore_diagonal=skip or case == "local",
    )
    keep = slice(-views * samples, None)
    weights = rows.local_weights if case == "local" else rows.global_weights
    weights = weights[keep].to(dtype)
    fused = prototype_cross_entropy(
        logits.flatten(0, 1),
        torch.eye(k, dtype=dtype),
        Targets.from_probs(probs.flatten(0, 1)),
        target_rows=rows.target_rows[keep],
        row_weights=weights / weights.sum(),
        student_temp=0.1,
    )
    # The reference's probabilities are float32: their sums are 1 to 1e-7, which the fused form
    # takes to be exact.
    for value, close in ((plain, tolerance), (fused, max(tolerance, 1e-6))):
        expected = golden[f"dino.{case}.{name}"]
        torch.testing.assert_close(value.detach(), expected, rtol=0, atol=close)
        (gradient,) = torch.autograd.grad(value, logits)
        expected = golden[f"dino.{case}.{name}.grad"]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=close)
