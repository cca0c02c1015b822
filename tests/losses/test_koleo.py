"""KoLeo: the definition, groups, ranks, duplicates, and the reference."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from process_support import serve
from safetensors.torch import load_file

from geodino.losses.koleo import koleo, koleo_distributed


def slow_koleo(features, top_k=1):
    """The definition, one feature at a time."""
    x = F.normalize(features, dim=1)
    total = 0.0
    for i in range(len(x)):
        products = [float(x[i].detach() @ x[j].detach()) if i != j else -1.0 for j in range(len(x))]
        nearest = sorted(range(len(x)), key=lambda j: -products[j])[:top_k]
        total -= sum(torch.log((x[i] - x[j] + 1e-8).norm() + 1e-8) for j in nearest) / top_k
    return total / len(x)


def features_of(seed, n=12, d=6):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64)


def test_a_right_angle_and_its_two_neighbours_by_hand():
    # Directions at 0, 60 and 90 degrees: the neighbours are 60, 30 and 30 degrees away, and the
    # chord of an angle a is 2 sin(a/2).
    angles = torch.deg2rad(torch.tensor([0.0, 60.0, 90.0], dtype=torch.float64))
    chords = 2 * torch.sin(torch.deg2rad(torch.tensor([30.0, 15.0, 15.0], dtype=torch.float64)))
    features = 5 * torch.stack([angles.cos(), angles.sin()], dim=1)
    torch.testing.assert_close(koleo(features, group=3), -chords.log().mean())


@pytest.mark.parametrize("group", [1, 3, 4, 12])
def test_groups_are_independent_batches(group):
    features = features_of(0).requires_grad_()
    want = torch.stack([slow_koleo(part) for part in features.split(group)]).mean()
    got = koleo(features, group=group)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=0)
    mine, theirs = (torch.autograd.grad(v, features)[0] for v in (got, want))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize(("group", "top_k"), [(None, 1), (12, 3), (6, 2), (3, 1)])
def test_the_distributed_form_on_one_process_searches_groups_for_several_neighbours(group, top_k):
    features = features_of(1)
    parts = features.split(group or 12)
    want = torch.stack([slow_koleo(part, top_k) for part in parts]).mean()
    got = koleo_distributed(features, group=group, top_k=top_k)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=0)


def test_duplicates_and_a_batch_of_one_are_finite():
    twice = features_of(2, n=3).repeat(2, 1).requires_grad_()
    alone = features_of(3, n=1).requires_grad_()
    for features in (twice, alone):
        value = koleo(features, group=len(features))
        value.backward()
        assert float(value.detach()) > 15
        assert features.grad.isfinite().all()


def test_a_zero_vector_is_finite():
    features = torch.cat([features_of(2, n=3), torch.zeros(1, 6)]).float().requires_grad_()
    value = koleo(features, group=4)
    value.backward()
    assert value.isfinite()
    assert features.grad.isfinite().all()


def test_it_is_float32_under_autocast():
    features = features_of(4).float()
    with torch.autocast("cpu", torch.bfloat16):
        inside = koleo(features.bfloat16(), group=12)
    assert inside.dtype == torch.float32
    torch.testing.assert_close(inside, koleo(features.bfloat16(), group=12), rtol=0, atol=0)


def test_groups_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="divide"):
        koleo(features_of(0), group=5)
    with pytest.raises(ValueError, match="fit"):
        koleo_distributed(features_of(0), group=5)


@pytest.mark.parametrize(("name", "tolerance"), [("f32", 1e-5), ("f64", 1e-10)])
@pytest.mark.parametrize("case", ["plain", "dist_w1_top1", "dist_w1_top3"])
def test_values_and_gradients_agree_with_the_reference(shared_golden, case, name, tolerance):
    golden = load_file(shared_golden / "losses.safetensors")
    x = golden["in.koleo_x"].to({"f32": torch.float32, "f64": torch.float64}[name]).requires_grad_()
    plain = case == "plain"
    value = koleo(x, group=len(x)) if plain else koleo_distributed(x, top_k=int(case[-1]))
    value.backward()
    torch.testing.assert_close(
        value.detach(), golden[f"koleo.{case}.{name}"], rtol=0, atol=tolerance
    )
    expected = golden[f"koleo.{case}.{name}.grad"]
    torch.testing.assert_close(x.grad, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("name", "tolerance"), [("f32", 1e-4), ("f64", 1e-10)])
def test_duplicates_and_a_batch_of_one_agree_with_the_reference(shared_golden, name, tolerance):
    golden = load_file(shared_golden / "losses.safetensors")
    dtype = {"f32": torch.float32, "f64": torch.float64}[name]
    for source, result in (("in.koleo_dup", "with_duplicate_rows"), ("in.koleo_x", "batch_of_one")):
        x = golden[source].to(dtype)
        x = x[:1] if result == "batch_of_one" else x
        value = koleo(x, group=len(x))
        torch.testing.assert_close(value, golden[f"koleo.{result}.{name}"], rtol=0, atol=tolerance)


def _one_rank(rank: int, folder: str) -> None:
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    torch.set_num_threads(1)
    for name, group, top_k in (("all", None, 2), ("inside", 3, 1)):
        x = features_of(9)[6 * rank : 6 * rank + 6].clone().requires_grad_()
        value = koleo_distributed(x, group=group, top_k=top_k)
        # Averaging over ranks, as DDP does.
        (value / 2).backward()
        torch.save((value.detach(), x.grad), Path(folder) / f"{name}.{rank}.pt")
    dist.destroy_process_group()


def test_two_ranks_equal_one_joint_batch(tmp_path):
    serve()
    mp.start_processes(_one_rank, args=(str(tmp_path),), nprocs=2, start_method="forkserver")
    for name, group, top_k in (("all", None, 2), ("inside", 3, 1)):
        x = features_of(9).requires_grad_()
        joint = koleo_distributed(x, group=group, top_k=top_k)
        joint.backward()
        values, gradients = zip(
            *(torch.load(tmp_path / f"{name}.{rank}.pt") for rank in (0, 1)), strict=True
        )
        torch.testing.assert_close(sum(values) / 2, joint.detach())
        torch.testing.assert_close(torch.cat(gradients), x.grad)
