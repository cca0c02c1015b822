"""The objective against its equations, written out pair by pair in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from written_out import written_out

from geodino.data.views import Views
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.pretrain.objective import GLOBALS, Objective
from geodino.pretrain.plan import mask_plan
from geodino.runs.build import build_course, build_planner
from geodino.runs.networks import build_network
from geodino.runs.recipe import load_recipe

SAMPLES, GROUP, TEMP = 4, 2, 0.05
SMALL = ("train.batch=4", "train.group=2", "data.chip=64")


def contract() -> InputContract:
    return InputContract(
        bands=tuple(Band(name=name) for name in ("red", "green", "blue")),
        dtype="uint8", mean=(90.0,) * 3, std=(40.0,) * 3, low=(0.0,) * 3, high=(255.0,) * 3,
    )  # fmt: skip


def setting(*overrides: str, local_crops: int = 2):
    """Student, teacher, crops, plan and objective of a small run, all in float64."""
    config = load_recipe(
        "debug", [*SMALL, f"phases.pretrain.views.local_count={local_crops}", *overrides]
    )
    torch.manual_seed(3)
    student, teacher = (build_network(config, contract()).double() for _ in range(2))
    with torch.no_grad():
        for parameter in [*student.parameters(), *teacher.parameters()]:
            parameter.normal_(0, parameter.shape[-1] ** -0.5)
    views = Views(
        globals=torch.randn(GLOBALS * SAMPLES, 3, 32, 32, dtype=torch.float64),
        locals=torch.randn(local_crops * SAMPLES, 3, 16, 16, dtype=torch.float64),
    )
    masks = torch.zeros(GLOBALS * SAMPLES, 16, dtype=torch.bool)
    for image, count in ((0, 3), (2, 7), (3, 1), (6, 9)):  # the others stay unmasked
        masks[image, torch.randperm(16)[:count]] = True
    plan = build_planner(config, contract(), build_course(config).phase(0))(
        0, 0, np.ones((SAMPLES, 64, 64), dtype=np.bool_)
    )
    if plan.masks is not None:
        plan = replace(plan, masks=mask_plan(masks.numpy()))
    return student, teacher, views, plan, Objective(config.phases.pretrain.objective, group=GROUP)


def losses_of(student, teacher, views, plan, objective):
    targets = objective.targets(teacher, views, plan, teacher_temp=TEMP)
    return objective(student, views, plan, targets)


@pytest.mark.parametrize("local_crops", [0, 1, 3])
def test_every_term_is_its_equation(local_crops):
    parts = setting(local_crops=local_crops)
    found, expected = losses_of(*parts), written_out(*parts[:4], group=GROUP, temp=TEMP)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=1e-6, msg=name)


def test_the_total_weighs_the_terms():
    prefix = "phases.pretrain.objective"
    parts = setting(f"{prefix}.dino=0.5", f"{prefix}.ibot=2.0", f"{prefix}.koleo=0.3")
    found = losses_of(*parts)
    total = 0.5 * found["dino"] + 2.0 * found["ibot"] + 0.3 * found["koleo"]
    torch.testing.assert_close(found["total"], total)


def test_without_ibot_nothing_is_masked_and_there_is_no_such_head():
    student, teacher, views, plan, objective = setting("phases.pretrain.objective.ibot=0.0")
    assert student.ibot_head is None
    found = losses_of(student, teacher, views, plan, objective)
    assert set(found) == {"total", "dino", "koleo", "target_entropy"}
    expected = written_out(student, teacher, views, plan, group=GROUP, temp=TEMP)["dino"]
    torch.testing.assert_close(found["dino"], expected, atol=1e-6, rtol=1e-6)


def test_gradients_are_those_of_the_equations_and_reach_the_student_alone():
    student, teacher, views, plan, objective = setting()
    found = losses_of(student, teacher, views, plan, objective)
    weights = objective.config
    names = {"dino": weights.dino, "ibot": weights.ibot, "koleo": weights.koleo}
    parameters = dict(student.named_parameters())
    found["total"].backward()
    expected = written_out(student, teacher, views, plan, group=GROUP, temp=TEMP)
    total = sum(weight * expected[name] for name, weight in names.items())
    theirs = torch.autograd.grad(total, list(parameters.values()))
    for (name, parameter), plain in zip(parameters.items(), theirs, strict=True):
        torch.testing.assert_close(parameter.grad, plain, atol=1e-6, rtol=1e-5, msg=name)
    assert all(p.grad is None for p in teacher.parameters())


def test_the_teacher_sees_the_whole_crops():
    _, teacher, views, plan, objective = setting()
    before = objective.targets(teacher, views, plan, teacher_temp=TEMP)
    other = replace(plan, masks=mask_plan(~plan.masks.masks.numpy()))
    after = objective.targets(teacher, views, other, teacher_temp=TEMP)
    assert torch.equal(before.cls.kernel, after.cls.kernel)
    assert len(before.patches.kernel) == plan.masks.masks.sum()
