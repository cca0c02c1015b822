"""Sinkhorn-Knopp: equal to the plain loop, and to the reference; safe for any logits."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from hypothesis import given, settings
from hypothesis import strategies as st
from process_support import serve
from safetensors.torch import load_file

from geodino.losses.sinkhorn import Targets, sinkhorn

laws = settings(max_examples=40)


def slow_sinkhorn(logits, temp, iterations):
    """The listing of the paper in float64, with the maximum taken off so that it can run."""
    q = ((logits.double() - logits.double().max()) / temp).exp().T
    prototypes, samples = q.shape
    q /= q.sum()
    for _ in range(iterations):
        q /= q.sum(dim=1, keepdim=True)
        q /= prototypes
        q /= q.sum(dim=0, keepdim=True)
        q /= samples
    return (q * samples).T


def logits_of(seed, n, k, std=1.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, k, generator=generator, dtype=torch.float64).mul(std).to(dtype)


def test_two_samples_and_two_prototypes_by_hand():
    # exp = [[2, 1], [1, 1]]. Prototype sums 3 and 2 give [[2/3, 1/2], [1/3, 1/2]]; the samples
    # then sum to 7/6 and 5/6: [[4/7, 3/7], [2/5, 3/5]].
    logits = torch.tensor([[2.0, 1.0], [1.0, 1.0]], dtype=torch.float64).log()
    expected = torch.tensor([[4 / 7, 3 / 7], [2 / 5, 3 / 5]], dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(logits, temp=1.0, iterations=1).dense(), expected)


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
@pytest.mark.parametrize(("n", "k"), [(1, 7), (9, 1), (12, 300), (300, 12), (3000, 40)])
def test_the_scaling_vectors_give_the_plain_loop(n, k, iterations):
    logits = logits_of(1, n, k)
    expected = slow_sinkhorn(logits, 0.07, iterations)
    exact = sinkhorn(logits.double(), temp=0.07, iterations=iterations).dense()
    torch.testing.assert_close(exact, expected, rtol=1e-9, atol=1e-11)
    got = sinkhorn(logits, temp=0.07, iterations=iterations).dense()
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("temp", [0.04, 0.07])
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize(("name", "tolerance"), [("f32", 1e-5), ("f64", 1e-10)])
def test_cls_assignments_agree_with_the_reference(shared_golden, temp, iterations, name, tolerance):
    golden = load_file(shared_golden / "losses.safetensors")
    dtype = {"f32": torch.float32, "f64": torch.float64}[name]
    targets = sinkhorn(golden["in.teacher_logits"].to(dtype), temp=temp, iterations=iterations)
    expected = golden[f"sinkhorn_cls.temp{temp}.iter{iterations}.{name}"]
    torch.testing.assert_close(targets.dense(), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "case", ["teacher_logits_big:cls_big.temp0.07.iter3", "teacher_patch:patch.temp0.07"]
)
@pytest.mark.parametrize(("name", "tolerance"), [("f32", 1e-5), ("f64", 1e-10)])
def test_big_logits_and_patches_agree_with_the_reference(shared_golden, case, name, tolerance):
    golden = load_file(shared_golden / "losses.safetensors")
    source, result = case.split(":")
    logits = golden[f"in.{source}"].to({"f32": torch.float32, "f64": torch.float64}[name])
    expected = golden[f"sinkhorn_{result}.{name}"]
    got = sinkhorn(logits, temp=0.07).dense()
    torch.testing.assert_close(got, expected, rtol=0, atol=tolerance)


@laws
@given(seed=st.integers(0, 999), n=st.integers(1, 40), k=st.integers(1, 40))
def test_every_sample_sums_to_one_however_extreme_the_logits(seed, n, k):
    logits = logits_of(seed, n, k).sign() * 1e4 + logits_of(seed + 1, n, k)
    for iterations in (1, 3, 6):
        probs = sinkhorn(logits.clone(), temp=0.04, iterations=iterations).dense()
        assert probs.isfinite().all()
        torch.testing.assert_close(probs.sum(1), torch.ones(n), rtol=0, atol=1e-5)


@laws
@given(seed=st.integers(0, 999), shift=st.floats(-100, 100))
def test_a_constant_added_to_all_logits_changes_nothing(seed, shift):
    logits = logits_of(seed, 8, 20, dtype=torch.float64)
    moved = sinkhorn(logits + shift, temp=0.07).dense()
    torch.testing.assert_close(moved, sinkhorn(logits, temp=0.07).dense(), rtol=1e-8, atol=1e-10)


@laws
@given(seed=st.integers(0, 999), n=st.integers(1, 30), k=st.integers(1, 30))
def test_permuted_samples_and_prototypes_give_permuted_assignments(seed, n, k):
    logits = logits_of(seed, n, k, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    rows, columns = (torch.randperm(size, generator=generator) for size in (n, k))
    permuted = sinkhorn(logits[rows][:, columns].contiguous(), temp=0.1).dense()
    torch.testing.assert_close(permuted, sinkhorn(logits, temp=0.1).dense()[rows][:, columns])


def test_many_iterations_use_all_prototypes_equally():
    probs = sinkhorn(logits_of(3, 60, 12, 0.1, torch.float64), temp=0.1, iterations=6).dense()
    torch.testing.assert_close(probs.sum(0), torch.full((12,), 5.0).double(), rtol=1e-3, atol=0)


def test_one_sample_far_below_all_others_still_gets_a_distribution():
    # The quotient to the other samples is e^-400: 0 in float32, not yet in float64.
    logits = logits_of(5, 4, 6)
    logits[3] -= 16.0
    expected = slow_sinkhorn(logits, 0.04, 3)
    got = sinkhorn(logits, temp=0.04).dense()
    torch.testing.assert_close(got.double(), expected, rtol=0, atol=1e-4)


def test_float32_logits_are_consumed_and_bfloat16_logits_are_left_alone():
    logits = logits_of(0, 5, 9)
    assert sinkhorn(logits, temp=0.1).kernel.data_ptr() == logits.data_ptr()
    short = logits_of(0, 5, 9, dtype=torch.bfloat16)
    before = short.clone()
    targets = sinkhorn(short, temp=0.1)
    assert torch.equal(short, before)
    assert targets.kernel.dtype == torch.float32
    exact = sinkhorn(before.double(), temp=0.1).dense()
    torch.testing.assert_close(targets.dense().double(), exact, rtol=0, atol=1e-5)


def test_rows_are_rows_of_the_dense_assignment_and_probabilities_can_be_wrapped():
    targets = sinkhorn(logits_of(0, 6, 10), temp=0.1)
    index = torch.tensor([4, 0, 4])
    torch.testing.assert_close(targets.rows(index), targets.dense()[index])
    wrapped = Targets.from_probs(targets.dense())
    torch.testing.assert_close(wrapped.rows(index), targets.dense()[index])


def test_a_rank_without_samples_is_allowed():
    assert sinkhorn(torch.zeros(0, 5), temp=0.1).dense().shape == (0, 5)


def test_logits_with_a_gradient_and_senseless_settings_are_refused():
    with pytest.raises(ValueError, match="no_grad"):
        sinkhorn(torch.zeros(2, 3, requires_grad=True), temp=0.1)
    for temp, iterations in ((0.0, 3), (0.1, 0), (0.1, 7)):
        with pytest.raises(ValueError, match="iterations"):
            sinkhorn(torch.zeros(2, 3), temp=temp, iterations=iterations)


def _one_rank(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    parts = logits_of(7, 11, 30).split([4, 7])
    for name, dtype in (("f32", torch.float32), ("f64", torch.float64)):
        got = sinkhorn(parts[rank].to(dtype, copy=True), temp=0.07).dense()
        torch.save(got, Path(folder) / f"{name}.{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_equal_one_joint_batch(tmp_path):
    serve()
    mp.start_processes(_one_rank, args=(str(tmp_path),), nprocs=2, start_method="forkserver")
    for name, dtype in (("f32", torch.float32), ("f64", torch.float64)):
        joint = sinkhorn(logits_of(7, 11, 30).to(dtype), temp=0.07).dense()
        ranks = torch.cat([torch.load(tmp_path / f"{name}.{rank}.pt") for rank in (0, 1)])
        torch.testing.assert_close(ranks, joint, rtol=0, atol=1e-6)
