"""Three whole steps against a plain loop: losses, clipping, AdamW and moving average by hand."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from written_out import written_out

from geodino.data.batch import Batch
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.param_groups import multipliers
from geodino.pretrain.module import PhasedModule
from geodino.pretrain.phases import rates
from geodino.runs.build import build_course, build_module, build_planner
from geodino.runs.recipe import load_recipe

SAMPLES, GROUP, STEPS = 4, 2, 3
SMALL = ("train.batch=4", "train.group=2", "data.chip=64", "phases.pretrain.steps=0",
         "phases.highres=null", "phases.gram.chip=64", "phases.gram.lr.peak=0.01",
         "phases.gram.gram.weight.peak=2.0", "phases.gram.gram.weight.end=null",
         "phases.gram.gram.refresh_every=2", "optim.clip=0.05")  # fmt: skip


def contract():
    return InputContract(
        bands=tuple(Band(name=name) for name in ("red", "green", "blue")),
        dtype="uint8", mean=(90.0,) * 3, std=(40.0,) * 3, low=(0.0,) * 3, high=(255.0,) * 3,
    )  # fmt: skip


def batches(config):
    steps = build_course(config).phase(0)
    planner = build_planner(config, contract(), steps)
    generator = torch.Generator().manual_seed(5)
    for step in range(STEPS):
        valid = np.ones((SAMPLES, 64, 64), dtype=np.bool_)
        pixels = torch.randint(0, 256, (SAMPLES, 3, 64, 64), generator=generator).to(torch.uint8)
        plan = planner(step, steps.span(step)[0], valid)
        yield Batch(
            step=step, first=4 * step, pixels=pixels, valid=torch.from_numpy(valid), plan=plan
        )


def module_of(config):
    module = build_module(config, contract(), build_course(config)).double().train()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.student.parameters():
            drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(drawn * parameter.shape[-1] ** -0.5)
        for other, source in (
            (module.teacher, module.student), (module.gram_teacher, module.student.backbone),
        ):  # fmt: skip
            other.load_state_dict(source.state_dict())
    return module


class PlainLoop:
    """Student, teacher and Gram teacher moved by the equations, parameter by parameter."""

    def __init__(self, module, config):
        self.module, self.config = module, config
        self.phase = config.phases.gram
        self.moments = {}

    def step(self, batch):
        module, step = self.module, batch.step
        now = rates(self.phase, step, batch=SAMPLES)
        if step == 2:  # refresh_every
            module.gram_teacher.load_state_dict(module.teacher.backbone.state_dict())
        views = module.views[0](batch.pixels, batch.valid, batch.plan.views)
        with torch.no_grad():
            module.teacher.eval()
        terms = written_out(
            module.student, module.teacher, views, batch.plan,
            group=GROUP, temp=now.teacher_temp, gram_teacher=module.gram_teacher,
            local_weight=now.local_weight,
        )  # fmt: skip
        objective = self.phase.objective
        total = objective.dino * terms["dino"] + objective.ibot * terms["ibot"]
        total = total + objective.koleo * terms["koleo"] + now.gram_weight * terms["gram"]
        named = dict(module.student.named_parameters())
        gradients = dict(zip(named, torch.autograd.grad(total, named.values()), strict=True))
        with torch.no_grad():
            for part in ("backbone.", "dino_head.", "ibot_head."):
                self._move(part, gradients, now, step)
            for mine, theirs in zip(
                module.teacher.parameters(), module.student.parameters(), strict=True
            ):
                mine.copy_(now.momentum * mine + (1 - now.momentum) * theirs)
        return float(total.detach())

    def _move(self, part, gradients, now, step):
        optim, named = self.config.optim, dict(self.module.student.named_parameters())
        names = [name for name in named if name.startswith(part)]
        norm = torch.stack([gradients[name].square().sum() for name in names]).sum().sqrt()
        shrink = min(1.0, optim.clip / (float(norm) + 1e-6))
        for name in names:
            g, p = gradients[name] * shrink, named[name]
            m, v = self.moments.get(name, (torch.zeros_like(p), torch.zeros_like(p)))
            (b1, b2), t = optim.betas, step + 1
            m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
            self.moments[name] = m, v
            depth = self.module.student.backbone.depth if part == "backbone." else None
            by = multipliers(
                name.removeprefix(part), depth=depth,
                layer_decay=optim.layer_decay, patch_embed_lr=optim.patch_embed_lr,
            )  # fmt: skip
            lr = (now.last_layer_lr if by.last_layer else now.lr) * by.lr
            p.mul_(1 - lr * now.weight_decay * by.weight_decay)
            p.sub_(lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + optim.eps))


@pytest.mark.parametrize("gram", [True, False])
def test_three_steps_are_those_of_a_plain_loop(gram):
    weight = () if gram else ("phases.gram.gram.weight.peak=0.0",)
    config = load_recipe("debug-three-phases", [*SMALL, *weight])
    ours, plain = module_of(config), PlainLoop(module_of(config), config)
    inner = ours.configure_optimizers()
    ours.optimizers = lambda: SimpleNamespace(optimizer=inner, step=inner.step)
    ours.manual_backward = lambda loss: loss.backward()
    for batch in batches(config):
        expected = plain.step(batch)
        ours.training_step(batch, 0)
        (row,) = ours.measurements.take(lambda table: table)
        assert row["loss/total"] == pytest.approx(expected, rel=1e-6)
        assert row["grad_norm/backbone"] > 0.05  # so that clipping has its effect
        assert "loss/gram" in row
        assert row["gram_weight"] == (2.0 if gram else 0.0)
    for name in ("student", "teacher", "gram_teacher"):
        mine, theirs = (dict(getattr(m, name).named_parameters()) for m in (ours, plain.module))
        for key, value in mine.items():
            torch.testing.assert_close(value, theirs[key], atol=1e-6, rtol=1e-4)


def test_a_module_that_does_not_say_what_is_watched_cannot_be_made():
    class Half(PhasedModule):
        """Learns nothing, and does not say which backbones to look at."""

    with pytest.raises(TypeError, match=r"abstract .*watched"):
        Half()
