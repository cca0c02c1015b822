"""What the later phases cost: steps of Gram anchoring and of mixed resolutions beside plain ones.

All three are steps of one module on the same chips: views, teachers, student, losses, backward,
AdamW, moving average. A Gram step has one more forward pass of a teacher, on global crops of twice
the side, and its own crops. Mixed resolutions are steps of two sizes whose batches hold as many
pixels as a plain one. `prediction` is the ratio of the floating-point operations, counted; a ratio of
CPU-seconds within 15 % of it means that nothing beside the networks costs much.
"""

import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _harness import interleave, main, ratio, table

from geodino.data.batch import Batch
from geodino.data.generated.worlds import write_world
from geodino.pretrain.module import PretrainModule
from geodino.pretrain.optim import build_optimizer, clip_per_module, set_rates, step_if_finite
from geodino.pretrain.phases import rates
from geodino.runs.build import build_course, build_module, build_planner
from geodino.runs.card import flops_per_image
from geodino.runs.prepare import Prepared, prepare

FULL = ("vit_small_patch16_dinov3", 16, 64, 32, 8)
SMALL = ("vit_nano", 8, 32, 16, 2)
"""Model, patch, sides of the global and the local crops, samples of a plain step."""


def settings(model: str, patch: int, large: int, local: int, batch: int) -> list[str]:
    """A run of three phases on crops of one side, and of one and a half times it and twice it."""
    sizes = ", ".join(
        f"{{global_size: {side}, local_size: {local}, gram_size: {2 * large}, batch: {samples}}}"
        for side, samples in ((3 * large // 2, max(batch // 2, 1)), (2 * large, max(batch // 4, 1)))
    )
    views = f"phases.pretrain.views={{global_size: {large}, local_size: {local}, local_count: 4}}"
    return [
        f"model.name={model}",
        f"model.patch_size={patch}",
        *([] if model == "vit_nano" else ["model.depth=null"]),
        f"train.batch={batch}",
        "train.group=1",
        "model.drop_path=0.0",
        views,
        f"phases.highres.sizes=[{sizes}]",
    ]


class Phases:
    """One module and a batch of every kind of step."""

    def __init__(self, prepared: Prepared) -> None:
        self.config, contract = prepared.config, prepared.contract
        self.course = build_course(self.config)
        self.module: PretrainModule = build_module(self.config, contract, self.course).train()
        student = self.module.student
        backbone, *heads = student.parts()
        self.optimizer = build_optimizer(
            self.config.optim, [(backbone, student.backbone.depth), *((h, None) for h in heads)]
        )
        self.bands = len(contract.bands)
        self.contract = contract

    def batch(self, phase: int, choice: int) -> Batch:
        """A batch of the first step of a phase that has this choice of sizes."""
        steps = self.course.phase(phase)
        step = next(
            s for s in range(steps.start, steps.start + 1000)
            if steps.choice(s) is steps.choices[choice]
        )  # fmt: skip
        first, count = steps.span(step)
        side = 2 * steps.choices[choice].sizes.globals
        valid = np.ones((count, side, side), dtype=np.bool_)
        plan = build_planner(self.config, self.contract, steps)(step, first, valid)
        pixels = torch.randint(0, 256, (count, self.bands, side, side)).to(torch.uint8)
        return Batch(
            step=step, first=first, pixels=pixels, valid=torch.from_numpy(valid), plan=plan
        )

    def step(self, phase: int, batch: Batch) -> float:
        """One whole step of a phase."""
        module = self.module
        module.steps = self.course.phase(phase)
        now = rates(module.steps.config, 1, batch=len(batch.pixels))
        losses = module.losses(batch, now)
        losses["total"].backward()
        set_rates(self.optimizer, lr=1e-5, weight_decay=0.04, last_layer_lr=1e-5)
        norms = clip_per_module(module.student.parts(), max_norm=3.0)
        skipped = step_if_finite(self.optimizer, self.optimizer, norms)
        module._ema(now.momentum, skipped)
        self.optimizer.zero_grad()
        return float(losses["total"].detach())


def predicted(phases: Phases, number: int, choice: int) -> float:
    """Floating-point operations of a step."""
    made = phases.course.choices[number][choice]
    _, phase = phases.course.phases[number]
    return made.batch * flops_per_image(phases.config, phases.contract, phase, made.sizes)


def run(rounds: int = 3, small: bool = False) -> dict:
    shape = SMALL if small else FULL
    with TemporaryDirectory() as folder:
        prepared = prepare(
            str(write_world("demo", Path(folder))), "debug-three-phases", settings(*shape)
        )
    phases = Phases(prepared)
    kinds = {"plain": (0, 0), "gram": (1, 0), "x1.5": (2, 0), "x2": (2, 1)}
    batches = {name: phases.batch(*kind) for name, kind in kinds.items()}
    assert phases.step(1, batches["gram"]) > 0
    without = replace(batches["gram"], plan=replace(batches["gram"].plan, phase=0))
    plain = phases.module.losses(without, rates(phases.config.phases.pretrain, 1, batch=1))
    assert "gram" not in plain, "a plain step must not pay for a Gram teacher"
    timings = interleave(
        {name: lambda n=name: phases.step(kinds[n][0], batches[n]) for name in kinds}, rounds
    )
    flops = {name: predicted(phases, *kind) for name, kind in kinds.items()}
    figures = {}
    for name in list(kinds)[1:]:
        figures[f"{name} over plain"] = ratio(timings, name, "plain")
        figures[f"{name}, prediction"] = flops[name] / flops["plain"]
    model, _, large, _, batch = shape
    text = table(
        f"steps of {model}, {batch} samples of {large} px",
        timings,
        work=1,
        unit="steps",
        ours="gram",
    )
    lines = [f"{name}: {value:.3f}" for name, value in figures.items()]
    return {"tables": [text, "\n".join(lines)], **figures}


if __name__ == "__main__":
    main(run)
