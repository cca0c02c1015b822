"""Three students in one run against three runs: the teacher is paid once.

Ours: crops, one pass of the teacher, then each student's forward, backward and step, in float32.
Peer: the same students one run each, so that the crops and the teacher are computed three times.
Expected: the ratio of floating-point operations, which know nothing of crops and of the optimiser.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from _harness import interleave, main, ratio, table

import geodino  # noqa: F401  (lets timm import beside a CPU-only torch)
from geodino.data.generated.worlds import write_world
from geodino.pretrain.distill.module import DistillModule
from geodino.runs.build import Feed, build_course, build_order, loader_config, resolved_chip
from geodino.runs.distill.build import build_distill_module, build_distill_planner
from geodino.runs.distill.card import flops_per_image
from geodino.runs.distill.prepare import PreparedDistillation, prepare
from geodino.runs.pretrain import PretrainJob, pretrain

# Half the teacher's width, a third of its depth, and a network of another kind.
FULL = {
    "teacher": ("vit_small_patch16_dinov3", "model={patch_size: 16, depth: 12, layer_scale: null}"),
    "students": ("vit_tiny", "vit_nano", "convnext_atto"),
    "settings": ("phases.distill.views.global_size=128", "phases.distill.views.local_size=64",
                 "phases.distill.views.local_count=4", "train.batch=4", "train.group=4",
                 "data.chip=256"),
}  # fmt: skip
SMALL = {
    "teacher": ("vit_nano", "model={patch_size: 16, depth: 2}"),
    "students": ("vit_nano", "convnext_atto"),
    "settings": ("train.batch=4", "train.group=4", "data.chip=96"),
}
OTHERS = ("phases.cooldown=null", "students={}", "distill.targets=heads")


class Stepper:
    """Steps without Lightning: the module's own, with optimisers of its own."""

    def __init__(self, prepared: PreparedDistillation, world: Path) -> None:
        config = prepared.config
        course = build_course(config)
        self.module: DistillModule = build_distill_module(prepared, course)
        self.module.train()
        made = self.module.configure_optimizers()
        self.module.optimizers = lambda: made if len(made) > 1 else made[0]
        self.module.manual_backward = lambda loss: loss.backward()
        feed = Feed(
            config,
            prepared.contract,
            prepared.index,
            order=build_order(
                config, prepared.index, seed=0, batch=config.train.batch, chip=resolved_chip(config)
            ),
            loader=loader_config(config),
            plan_of=build_distill_planner(prepared, course.phase(0)),
        )
        self.batch = next(feed.batches(0))
        feed.close()

    def step(self) -> dict[str, float]:
        self.module.training_step(self.batch, 0)
        (row,) = self.module.measurements.take(lambda table: table)
        return row


def run(rounds: int = 3, small: bool = False) -> dict:
    case = SMALL if small else FULL
    with TemporaryDirectory() as folder:
        world = write_world("demo", Path(folder) / "world")
        teacher = Path(folder) / "teacher"
        name, shape = case["teacher"]
        few = (shape, f"model.name={name}", "phases.pretrain.steps=1", "health.tiles=2")
        pretrain(PretrainJob(tiles=str(world), out=teacher, recipe="debug", overrides=few,
                             device="cpu", quiet=True))  # fmt: skip

        def prepared(*students: str) -> PreparedDistillation:
            settings = (*OTHERS, *case["settings"])
            return prepare(str(world), str(teacher), students, "debug-distill", settings)

        together = prepared(*case["students"])
        alone = {name: prepared(name) for name in case["students"]}
        steppers = {name: Stepper(of, world) for name, of in alone.items()}
        all_at_once = Stepper(together, world)
        first = all_at_once.step()
        for name, stepper in steppers.items():
            difference = abs(first[f"loss/{name}/total"] - stepper.step()[f"loss/{name}/total"])
            assert difference < 1e-5, f"{name} learns otherwise beside others: {difference}"
        timings = interleave(
            {
                "one run": all_at_once.step,
                "three runs": lambda: [stepper.step() for stepper in steppers.values()],
            },
            rounds,
        )
        phase = together.config.phases.distill
        flops = flops_per_image(together, phase)
        expected = sum(flops_per_image(of, phase) for of in alone.values()) / flops
        batch = int(together.config.train.batch)
    gain = ratio(timings, "three runs", "one run")
    text = table(
        f"step of {', '.join(case['students'])}, {batch} samples, {flops * batch / 1e9:.1f} GFLOP",
        timings,
        work=batch,
        unit="images",
        ours="one run",
    )
    figures = {"gain": gain, "gain by FLOP": expected, "gain over prediction": gain / expected}
    lines = [f"{name}: {value:.4g}" for name, value in figures.items()]
    return {"tables": [text, "\n".join(lines)], **figures}


if __name__ == "__main__":
    torch.manual_seed(0)
    main(run)
