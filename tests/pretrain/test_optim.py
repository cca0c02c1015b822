import math

import pytest
import torch
from torch import nn

from geodino.pretrain.optim import (
    OptimConfig,
    build_optimizer,
    clip_per_module,
    set_rates,
    step_if_finite,
)
from geodino.pretrain.teacher import EmaUpdate, move_on_a_device, move_on_the_host


def linear(values: list[float]) -> nn.Linear:
    module = nn.Linear(len(values), 1, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([values]))
    return module


def test_each_module_is_clipped_to_the_norm_on_its_own():
    a, b = linear([0.0, 0.0]), linear([0.0])
    a.weight.grad = torch.tensor([[3.0, 4.0]])  # norm 5
    b.weight.grad = torch.tensor([[0.5]])  # norm 0.5
    norms = clip_per_module([a, b], max_norm=1.0)
    torch.testing.assert_close(norms, torch.tensor([5.0, 0.5]))
    torch.testing.assert_close(a.weight.grad, torch.tensor([[0.6, 0.8]]), atol=1e-6, rtol=0)
    torch.testing.assert_close(b.weight.grad, torch.tensor([[0.5]]))


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_and_the_next_one_works(poison):
    module = linear([1.0, 2.0])
    optimizer = build_optimizer(OptimConfig(), [(module, None)])
    set_rates(optimizer, lr=0.1, weight_decay=0.0, last_layer_lr=0.1)

    def step(gradient: float) -> float:
        module.weight.grad = torch.full((1, 2), gradient)
        norms = clip_per_module([module], max_norm=1.0)
        return float(step_if_finite(optimizer, optimizer, norms))

    assert step(1.0) == 0.0
    after_one = module.weight.detach().clone()
    state = {k: v.clone() for k, v in optimizer.state[module.weight].items()}
    assert step(poison) == 1.0
    torch.testing.assert_close(module.weight, after_one, rtol=0, atol=0)
    for name, value in optimizer.state[module.weight].items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)
    assert step(1.0) == 0.0
    assert not torch.equal(module.weight, after_one)


def test_frozen_prototypes_get_a_rate_of_zero_and_decay_is_by_group():
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mlp = nn.Linear(2, 2)
            self.last_layer = nn.Linear(2, 3, bias=False)

    optimizer = build_optimizer(OptimConfig(), [(Head(), None)])
    set_rates(optimizer, lr=0.1, weight_decay=0.04, last_layer_lr=0.0)
    rows = {(g["last_layer"], g["wd_multiplier"]): (g["lr"], g["weight_decay"])
            for g in optimizer.param_groups}  # fmt: skip
    assert rows == {(True, 1.0): (0.0, 0.04), (False, 1.0): (0.1, 0.04), (False, 0.0): (0.1, 0.0)}


def test_the_teacher_moves_by_one_minus_momentum_and_stays_when_the_step_was_skipped():
    student, teacher = linear([1.0, 10.0]), linear([0.0, 0.0])
    update = EmaUpdate(student, teacher)
    update(0.9, torch.tensor(0.0))
    torch.testing.assert_close(teacher.weight, torch.tensor([[0.1, 1.0]]))
    update(0.9, torch.tensor(1.0))
    torch.testing.assert_close(teacher.weight, torch.tensor([[0.1, 1.0]]), rtol=0, atol=0)


def test_networks_that_differ_cannot_be_averaged():
    with pytest.raises(ValueError, match="differ in their parameters"):
        EmaUpdate(nn.Linear(2, 2), nn.Linear(2, 2, bias=False))


@pytest.mark.parametrize("move", [move_on_the_host, move_on_a_device])
@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_both_forms_of_the_average_are_its_definition(move, share):
    generator = torch.Generator().manual_seed(0)
    source, before = (
        [torch.randn(size, generator=generator) for size in ((3, 5), (7,))] for _ in range(2)
    )
    target = [t.clone() for t in before]
    move(target, source, torch.tensor(share))
    for after, old, new in zip(target, before, source, strict=True):
        torch.testing.assert_close(after, (1 - share) * old + share * new)
