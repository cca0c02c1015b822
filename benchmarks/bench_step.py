"""The whole training step on the CPU against the matrix rate measured in the same run.

Ours: crops, teacher, student, losses, backward, clipping, optimiser, teacher update, in float32.
Peer: the same networks and crops the plain way: one pass of timm's own forward per crop set, all
logits held, dense Sinkhorn, log-softmax losses. Limit: a large matrix product with as many
floating-point operations as the step. Also: the share of time that training waits for data.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from _harness import interleave, main, ratio, table

import geodino  # noqa: F401  (lets timm import beside a CPU-only torch)
from geodino.data.generated.worlds import write_world
from geodino.losses.dino import dino_cross_entropy
from geodino.losses.ibot import ibot_cross_entropy, ibot_weights
from geodino.losses.koleo import koleo
from geodino.pretrain.module import PretrainModule
from geodino.pretrain.optim import build_optimizer, clip_per_module, set_rates, step_if_finite
from geodino.pretrain.phases import Rates, rates
from geodino.runs.build import (
    Feed,
    build_course,
    build_module,
    build_order,
    build_planner,
    loader_config,
    resolved_chip,
)
from geodino.runs.card import flops_per_image
from geodino.runs.prepare import Prepared, prepare

FULL = ("sat-vits16", "train.batch=4", "train.group=4", "model.drop_path=0.0", "data.chip=512")
SMALL = ("debug", "model.drop_path=0.0")


class Trainer:
    """A step without Lightning, so that the plain peer can share all of it but the losses."""

    def __init__(self, prepared: Prepared) -> None:
        self.module: PretrainModule = build_module(
            prepared.config, prepared.contract, build_course(prepared.config)
        )
        self.module.train()
        heads = [(head, None) for head in self.module.student.parts()[1:]]
        backbone = self.module.student.backbone
        self.optimizer = build_optimizer(
            prepared.config.optim, [(backbone, backbone.depth), *heads]
        )
        self.now = rates(prepared.config.phases.first, 100, batch=int(prepared.config.train.batch))

    def step(self, batch, losses) -> float:
        total = losses(self.module, batch, self.now)
        total.backward()
        set_rates(self.optimizer, lr=1e-5, weight_decay=0.04, last_layer_lr=1e-5)
        norms = clip_per_module(self.module.student.parts(), max_norm=3.0)
        skipped = step_if_finite(self.optimizer, self.optimizer, norms)
        self.module._ema(self.now.momentum, skipped)
        self.optimizer.zero_grad()
        return float(total.detach())


def ours(module: PretrainModule, batch, now: Rates):
    return module.losses(batch, now)["total"]


def plain(module: PretrainModule, batch, now: Rates):
    """The objective as its equations read: two passes, every matrix held."""
    with torch.no_grad():
        views = module.views[0](batch.pixels, batch.valid, batch.plan.views)
        teacher_cls, teacher_patches = timm_tokens(module.teacher, views.globals, None)
        targets = dense_sinkhorn(module.teacher.dino_head(teacher_cls), now.teacher_temp)
        masks = batch.plan.masks
        chosen = teacher_patches.flatten(0, 1)[masks.index]
        patch_targets = dense_sinkhorn(module.teacher.ibot_head(chosen), now.teacher_temp)
    student = module.student
    cls, patches = timm_tokens(student, views.globals, masks.masks)
    local_cls, _ = timm_tokens(student, views.locals, None)
    samples = len(cls) // 2
    probs = targets.unflatten(0, (2, samples))
    global_logits = student.dino_head(cls).unflatten(0, (2, samples))
    local_logits = student.dino_head(local_cls).unflatten(0, (-1, samples))
    near = dino_cross_entropy(global_logits, probs, student_temp=0.1, skip_same_view=True)
    far = dino_cross_entropy(local_logits, probs, student_temp=0.1, skip_same_view=False)
    crops = len(local_logits)
    dino = (2 * near + 2 * crops * far) / (2 + 2 * crops)
    ibot = ibot_cross_entropy(
        student.ibot_head(patches.flatten(0, 1)[masks.index]),
        patch_targets,
        ibot_weights(masks.counts, tokens=len(masks.index)),
        student_temp=0.1,
    )
    objective = module.objectives[0]
    spread = sum(koleo(crop, group=objective.group) for crop in cls.unflatten(0, (2, -1)))
    weights = objective.config
    return weights.dino * dino + weights.ibot * ibot + weights.koleo * spread


def timm_tokens(network, crops, masks):
    """One crop set through timm's own blocks, with the mask token put in between."""
    trunk = network.backbone.trunk
    x = trunk.patch_embed(crops)
    if masks is not None:
        x = torch.where(masks.view(*x.shape[:3], 1), network.backbone.mask_token, x)
    x, rope = trunk._pos_embed(x)
    for block in trunk.blocks:
        x = type(block).__mro__[1].forward(block, x, rope=rope)
    x = trunk.norm(x)
    return x[:, 0], x[:, trunk.num_prefix_tokens :]


def dense_sinkhorn(logits, temp: float, iterations: int = 3):
    q = torch.exp((logits - logits.max()) / temp).t()
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(dim=1, keepdim=True) / q.shape[0]
        q = q / q.sum(dim=0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).t()


def matrix_product(flops: float):
    """As many operations as ``flops``, in products of 2048 x 2048."""
    n = 2048 if flops > 1e10 else 256
    a = torch.randn(n, n)

    def run():
        for _ in range(max(1, round(flops / (2 * n**3)))):
            a @ a

    return run, max(1, round(flops / (2 * n**3))) * 2 * n**3


def run(rounds: int = 3, small: bool = False) -> dict:
    recipe, *overrides = SMALL if small else FULL
    with TemporaryDirectory() as folder:
        # Without RoPE's and drop path's draws, which timm's forward knows nothing of.
        overrides += ["model.rope.rescale=1.0"]
        prepared = prepare(str(write_world("demo", Path(folder))), recipe, overrides)
        config = prepared.config
        feed = Feed(
            config,
            prepared.contract,
            prepared.index,
            order=build_order(
                config,
                prepared.index,
                seed=0,
                batch=config.train.batch,
                chip=resolved_chip(config),
            ),
            loader=loader_config(config),
            plan_of=build_planner(config, prepared.contract, build_course(config).phase(0)),
        )
        batches = feed.batches(0)
        batch = next(batches)
        trainer = Trainer(prepared)
        difference = abs(
            float(ours(trainer.module, batch, trainer.now).detach())
            - float(plain(trainer.module, batch, trainer.now).detach())
        )
        assert difference < 1e-3, f"the plain step differs by {difference}"
        flops = flops_per_image(config, prepared.contract, config.phases.first) * config.train.batch
        product, done = matrix_product(flops)
        timings = interleave(
            {
                "geodino": lambda: trainer.step(batch, ours),
                "plain": lambda: trainer.step(batch, plain),
                "limit": product,
            },
            rounds,
        )
        waited, elapsed = data_wait(trainer, batches, feed, steps=3 if small else 6)
        feed.close()
    share = flops / done / ratio(timings, "geodino", "limit")
    text = table(
        f"step of {config.model.name}, {config.train.batch} samples, {flops / 1e9:.1f} GFLOP",
        timings,
        work=config.train.batch,
        unit="images",
        ours="geodino",
    )
    figures = {
        "speed-up over plain": ratio(timings, "plain", "geodino"),
        "share of the matrix rate": share,
        "data wait share": waited / elapsed,
        "difference of the loss": difference,
    }
    lines = [f"{name}: {value:.4g}" for name, value in figures.items()]
    return {"tables": [text, "\n".join(lines)], **figures}


def data_wait(trainer: Trainer, batches, feed: Feed, *, steps: int) -> tuple[float, float]:
    """Seconds waited for data and in all, over ``steps`` steps of real loading."""
    began, before = time.perf_counter(), feed.wait_s()
    for _ in range(steps):
        trainer.step(next(batches), ours)
    return feed.wait_s() - before, time.perf_counter() - began


if __name__ == "__main__":
    main(run)
