"""Gram anchoring: arithmetic by hand, the definition, two ways to one sum, and the reference."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from geodino.losses.gram import gram_loss, to_grid

GOLDEN = Path(__file__).resolve().parents[2].parent / "shared" / "golden" / "losses.safetensors"
needs_golden = pytest.mark.skipif(not GOLDEN.exists(), reason="reference numbers are not here")


def slow_gram(student, teacher, *, per="image", normalise=True, clip="none", keep=None):
    """The definition, one pair of patches at a time."""
    n, p, _ = student.shape
    if normalise:
        student, teacher = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    places = [(i, j) for i in range(n) for j in range(p) if keep is None or keep[i, j]]
    total, count = student.new_zeros(()), 0
    for a in places:
        for b in places:
            if per == "image" and a[0] != b[0]:
                continue
            s, t = student[a] @ student[b], teacher[a] @ teacher[b]
            if (clip == "both" and s < 0) or (clip == "where_teacher_negative" and t < 0 and s < 0):
                s = s * 0.0
            if clip != "none" and t < 0:
                t = t * 0.0
            total, count = total + (s - t) ** 2, count + 1
    return total / count


def tokens(seed, n=2, p=5, d=3):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, p, d, generator=g, dtype=torch.float64)


def test_two_opposite_patches_by_hand():
    # At 180 degrees for the student, 120 for the teacher: similarities -1 and -0.5. The plain loss
    # is the mean of [0, .25, .25, 0]; with both negative nothing is left where they are clipped,
    # and 1 squared twice where only the teacher's is.
    student = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]])
    teacher = torch.tensor([[[1.0, 0.0], [-0.5, 0.75**0.5]]])
    wanted = {"none": 0.125, "both": 0.0, "where_teacher_negative": 0.0, "teacher": 0.5}
    for clip, value in wanted.items():
        torch.testing.assert_close(gram_loss(student, teacher, clip=clip), torch.tensor(value))


@pytest.mark.parametrize("per", ["image", "batch"])
@pytest.mark.parametrize("clip", ["none", "both", "where_teacher_negative", "teacher"])
@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("some", [False, True])
def test_the_loss_and_its_gradient_are_those_of_the_definition(per, clip, normalise, some):
    student, teacher = tokens(0).requires_grad_(), tokens(1)
    keep = None
    if some:
        keep = torch.tensor([[True, False, True, True, False], [False, True, True, False, False]])
    settings_ = {"per": per, "normalise": normalise, "clip": clip, "keep": keep}
    want, got = slow_gram(student, teacher, **settings_), gram_loss(student, teacher, **settings_)
    torch.testing.assert_close(got, want, rtol=1e-12, atol=0)
    mine, theirs = (torch.autograd.grad(v, student)[0] for v in (got, want))
    torch.testing.assert_close(mine, theirs)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 1000),
    p=st.integers(1, 30),
    d=st.integers(1, 12),
    apart=st.floats(1e-4, 1.0),
)
def test_many_patches_and_few_give_one_sum(seed, p, d, apart):
    """Whichever matrices are smaller, and however close the student is to the teacher."""
    student = tokens(seed, n=3, p=p, d=d)
    teacher = student + apart * tokens(seed + 1, n=3, p=p, d=d)
    x, y = F.normalize(student, dim=-1), F.normalize(teacher, dim=-1)
    want = (x @ x.mT - y @ y.mT).square().mean()
    torch.testing.assert_close(gram_loss(student, teacher), want, rtol=1e-9, atol=1e-18)
    near = gram_loss(student.float(), teacher.float()).double()
    torch.testing.assert_close(near, want, rtol=2e-2 if apart < 1e-2 else 1e-3, atol=1e-9)


def test_a_turned_feature_space_costs_nothing():
    student = tokens(3, d=4)
    turn, _ = torch.linalg.qr(tokens(4, n=1, p=4, d=4)[0])
    assert float(gram_loss(student, student @ turn)) < 1e-28


def test_a_grid_of_any_aspect_is_resized_as_an_image():
    plane = torch.arange(6.0).repeat_interleave(2)[None, None, None, :].expand(1, 1, 8, 12)
    small = to_grid(plane, (4, 6))
    # A plane that rises along the columns stays one, away from its border.
    torch.testing.assert_close(small.view(4, 6)[:, 1:-1], torch.arange(1.0, 5.0).expand(4, 4))
    same = torch.randn(1, 3, 2, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(to_grid(same, (2, 5)), same.flatten(2).mT, rtol=0, atol=0)


@needs_golden
@pytest.mark.parametrize("norm", [0, 1])
@pytest.mark.parametrize("image", [0, 1])
@pytest.mark.parametrize(
    ("flags", "clip"), [("neg0.tneg0", "none"), ("neg1.tneg0", "both"), ("neg0.tneg1", "teacher")]
)
def test_the_reference_numbers(norm, image, flags, clip):
    golden = load_file(GOLDEN)
    for kind, tolerance in (("f64", 1e-10), ("f32", 1e-5)):
        dtype = torch.float64 if kind == "f64" else torch.float32
        student = golden["in.gram_student"].to(dtype).requires_grad_()
        teacher = golden["in.gram_teacher"].to(dtype)
        loss = gram_loss(
            student,
            teacher,
            per="image" if image else "batch",
            normalise=bool(norm),
            clip=clip,
        )
        name = f"gram.norm{norm}.img{image}.{flags}.{kind}"
        torch.testing.assert_close(loss, golden[name].to(dtype), rtol=tolerance, atol=tolerance)
        (grad,) = torch.autograd.grad(loss, student)
        torch.testing.assert_close(
            grad, golden[f"{name}.grad"].to(dtype), rtol=tolerance, atol=tolerance
        )


@needs_golden
@pytest.mark.parametrize("antialias", [False, True])
def test_the_reference_resizing(antialias):
    golden = load_file(GOLDEN)
    tall = golden["in.gram_hires"].mT.unflatten(2, (8, 8))
    want = golden[f"gram_resize.bicubic.aa{int(antialias)}"]
    torch.testing.assert_close(
        to_grid(tall, (4, 4), antialias=antialias), want, rtol=1e-5, atol=1e-6
    )


@needs_golden
def test_the_reference_number_for_masked_patches_only():
    golden = load_file(GOLDEN)
    student = golden["in.gram_student"].double().requires_grad_()
    loss = gram_loss(
        student,
        golden["in.gram_teacher"].double(),
        per="batch",
        keep=golden["in.masks"][:3].bool(),
    )
    torch.testing.assert_close(loss, golden["gram.masked_tokens_only.f64"], rtol=1e-10, atol=0)
    (grad,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(
        grad, golden["gram.masked_tokens_only.f64.grad"], rtol=1e-10, atol=1e-12
    )
