"""The fused cross-entropy: its definition, its gradients, its dtypes."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.losses import cross_entropy
from geodino.losses.cross_entropy import prototype_cross_entropy
from geodino.losses.sinkhorn import Targets, sinkhorn


def slow_cross_entropy(features, prototypes, probs, rows, weights, temp):
    """The definition, one pair at a time."""
    total = features.new_zeros(())
    for n in range(len(features)):
        log_p = torch.log_softmax(prototypes @ features[n] / temp, dim=0)
        for m in range(rows.shape[1]):
            total = total - weights[n, m] * (probs[rows[n, m]] * log_p).sum()
    return total


def problem(seed, *, n=7, k=11, d=5, t=4, m=2, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(n, d, generator=g, dtype=torch.float64), dim=1).to(dtype)
    prototypes = torch.randn(k, d, generator=g, dtype=torch.float64).to(dtype)
    logits = torch.randn(t, k, generator=g, dtype=torch.float64).to(dtype)
    rows = torch.randint(t, (n, m), generator=g)
    weights = torch.rand(n, m, generator=g, dtype=torch.float64).to(dtype)
    features.requires_grad_()
    prototypes.requires_grad_()
    return features, prototypes, sinkhorn(logits, temp=0.07), rows, weights


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request, monkeypatch):
    """Both with everything in one block and with blocks of two and three rows."""
    if request.param == "many blocks":
        monkeypatch.setattr(cross_entropy, "cache_rows", lambda *_, **__: 2)
        monkeypatch.setattr(cross_entropy, "matmul_rows", lambda *_, **__: 3)


def test_one_row_and_two_prototypes_by_hand():
    # Logits [ln 3, 0] give p = [3/4, 1/4]; the target [1/2, 1/2] costs (ln 4/3 + ln 4) / 2.
    features = torch.tensor([[1.0]])
    prototypes = torch.tensor([[3.0], [1.0]]).log()
    value = prototype_cross_entropy(
        features,
        prototypes,
        Targets.from_probs(torch.tensor([[0.5, 0.5]])),
        target_rows=None,
        row_weights=torch.tensor([1.0]),
        student_temp=1.0,
    )
    torch.testing.assert_close(value, 0.5 * torch.tensor(16 / 3).log())


@pytest.mark.usefixtures("blocks")
@settings(max_examples=25)
@given(
    seed=st.integers(0, 999),
    n=st.integers(1, 9),
    k=st.integers(1, 12),
    m=st.integers(1, 3),
)
def test_value_and_gradients_are_those_of_the_definition(seed, n, k, m):
    features, prototypes, targets, rows, weights = problem(seed, n=n, k=k, m=m)
    weights[0, 0] = 0.0
    got = prototype_cross_entropy(
        features, prototypes, targets, target_rows=rows, row_weights=weights, student_temp=0.1
    )
    want = slow_cross_entropy(features, prototypes, targets.dense(), rows, weights, 0.1)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
    mine = torch.autograd.grad(3 * got, (features, prototypes))
    theirs = torch.autograd.grad(3 * want, (features, prototypes))
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.usefixtures("blocks")
@pytest.mark.parametrize("m", [1, 2])
def test_gradients_pass_gradcheck(m):
    features, prototypes, targets, rows, weights = problem(3, m=m)

    def loss(x, p):
        return prototype_cross_entropy(
            x, p, targets, target_rows=rows, row_weights=weights, student_temp=0.2
        )

    assert torch.autograd.gradcheck(loss, (features, prototypes))


@pytest.mark.usefixtures("blocks")
def test_rows_pair_with_targets_of_the_same_number_by_default():
    features, prototypes, targets, _, _ = problem(4, n=6, t=6)
    weights = torch.rand(6, dtype=torch.float64)
    common = {"row_weights": weights, "student_temp": 0.1}
    got = prototype_cross_entropy(features, prototypes, targets, target_rows=None, **common)
    same = torch.arange(6)[:, None]
    want = prototype_cross_entropy(features, prototypes, targets, target_rows=same, **common)
    torch.testing.assert_close(got, want)
    common["row_weights"] = weights[:5]
    with pytest.raises(ValueError, match="target_rows"):
        prototype_cross_entropy(features[:5], prototypes, targets, target_rows=None, **common)


def test_a_weight_per_row_is_the_weight_of_each_of_its_pairs():
    features, prototypes, targets, rows, _ = problem(5)
    weights = torch.rand(7, dtype=torch.float64)
    each, both = (
        prototype_cross_entropy(
            features, prototypes, targets, target_rows=rows, row_weights=w, student_temp=0.1
        )
        for w in (weights, weights[:, None].expand(7, 2).contiguous())
    )
    torch.testing.assert_close(each, both)


def test_a_row_of_weight_zero_costs_nothing_and_gets_no_gradient():
    features, prototypes, targets, rows, weights = problem(6)
    weights[2] = 0.0  # Both pairs.
    prototype_cross_entropy(
        features, prototypes, targets, target_rows=rows, row_weights=weights, student_temp=0.1
    ).backward()
    assert torch.equal(features.grad[2], torch.zeros(5, dtype=torch.float64))
    assert features.grad.isfinite().all()


def test_no_rows_cost_nothing():
    features, prototypes, targets, rows, weights = problem(7)
    value = prototype_cross_entropy(
        features[:0],
        prototypes,
        targets,
        target_rows=rows[:0],
        row_weights=weights[:0],
        student_temp=0.1,
    )
    value.backward()
    assert float(value.detach()) == 0
    assert not prototypes.grad.any()


def test_scores_of_ten_thousand_stay_finite():
    features, prototypes, targets, rows, weights = problem(8, dtype=torch.float32)
    large = (prototypes.detach() * 1e4).requires_grad_()
    value = prototype_cross_entropy(
        features, large, targets, target_rows=rows, row_weights=weights, student_temp=0.1
    )
    value.backward()
    assert value.isfinite()
    assert features.grad.isfinite().all()
    assert large.grad.isfinite().all()


def test_only_the_wanted_gradients_are_computed(monkeypatch):
    features, prototypes, targets, rows, weights = problem(9)
    wanted = []
    inner = cross_entropy._value_and_gradients

    def spy(*args):
        wanted.append(args[3])
        return inner(*args)

    monkeypatch.setattr(cross_entropy, "_value_and_gradients", spy)
    given = {"target_rows": rows, "row_weights": weights, "student_temp": 0.1}
    prototype_cross_entropy(features, prototypes, targets, **given)
    frozen = prototype_cross_entropy(features, prototypes.detach(), targets, **given)
    with torch.no_grad():
        value = prototype_cross_entropy(features, prototypes, targets, **given)
    assert wanted == [(True, True), (True, False), (False, False)]
    torch.testing.assert_close(value, frozen.detach())
    frozen.backward()
    assert features.grad is not None


def test_float32_is_within_a_millionth_of_float64():
    exact, prototypes, targets, rows, weights = problem(10, n=40, k=3000, d=16, t=30)
    short = Targets.from_probs(targets.dense().float())
    x, p = (v.detach().float().requires_grad_() for v in (exact, prototypes))
    given = {"target_rows": rows, "student_temp": 0.1}
    want = prototype_cross_entropy(exact, prototypes, targets, row_weights=weights, **given)
    got = prototype_cross_entropy(x, p, short, row_weights=weights.float(), **given)
    torch.testing.assert_close(got.double(), want, rtol=1e-6, atol=0)
    want.backward()
    got.backward()
    for mine, theirs in ((x, exact), (p, prototypes)):
        error = (mine.grad - theirs.grad).norm() / theirs.grad.norm()
        assert error < 2e-6


@pytest.mark.usefixtures("blocks")
def test_under_autocast_products_are_bfloat16_and_the_rest_float32():
    features, prototypes, targets, rows, weights = problem(11, n=20, dtype=torch.float32)
    given = {"target_rows": rows, "row_weights": weights, "student_temp": 0.1}
    want = prototype_cross_entropy(features, prototypes, targets, **given)
    expected = torch.autograd.grad(want, (features, prototypes))
    with torch.autocast("cpu", torch.bfloat16):
        got = prototype_cross_entropy(features, prototypes, targets, **given)
    assert got.dtype == torch.float32
    assert got != want
    torch.testing.assert_close(got, want, rtol=2e-2, atol=0)
    gradients = torch.autograd.grad(got, (features, prototypes))
    for mine, theirs in zip(gradients, expected, strict=True):
        assert mine.dtype == torch.float32
        assert (mine - theirs).norm() < 0.03 * theirs.norm()


def test_bfloat16_operands_get_bfloat16_gradients():
    features, prototypes, targets, rows, weights = problem(12, dtype=torch.float32)
    x, p = (v.detach().bfloat16().requires_grad_() for v in (features, prototypes))
    value = prototype_cross_entropy(
        x, p, targets, target_rows=rows, row_weights=weights, student_temp=0.1
    )
    value.backward()
    assert value.dtype == torch.float32
    assert x.grad.dtype == p.grad.dtype == torch.bfloat16


def test_backward_can_run_twice_when_the_graph_is_kept():
    features, prototypes, targets, rows, weights = problem(13)
    value = prototype_cross_entropy(
        features, prototypes, targets, target_rows=rows, row_weights=weights, student_temp=0.1
    )
    first = torch.autograd.grad(value, features, retain_graph=True)[0]
    torch.testing.assert_close(torch.autograd.grad(2 * value, features)[0], 2 * first)
