"""A step of distillation against its equations, written out pair by pair and student by student."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from geodino.data.batch import Batch
from geodino.data.views import MultiCrop, Views, ViewsConfig, draw_views
from geodino.data.views_config import GLOBALS, CropSizes
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.build import build_backbone
from geodino.models.heads import HeadConfig, ProjectionHead
from geodino.models.sizes import ModelConfig
from geodino.pretrain.distill.config import FeaturesConfig
from geodino.pretrain.distill.features import FeatureObjective, Headless, Imitator
from geodino.pretrain.distill.module import DistillModule, Follower
from geodino.pretrain.objective import Network, Objective
from geodino.pretrain.objective_config import ObjectiveConfig
from geodino.runs.build import build_course, build_planner
from geodino.runs.distill.students import scales
from geodino.runs.recipe import DistillConfig, load_distill_recipe

SAMPLES, GROUP, TEMP = 4, 2, 0.07
TEACHER = ModelConfig(name="vit_nano", patch_size=8, depth=1, layer_scale=0.1)
STUDENTS = {
    "vit": ModelConfig(name="vit_nano", patch_size=8, depth=2, layer_scale=0.1, drop_path=0.2),
    "cnn": ModelConfig(name="convnext_atto"),
    "resnet": ModelConfig(name="resnet10t"),
}
HEAD = HeadConfig(prototypes=32, hidden=16, bottleneck=8, init="unit")


def contract() -> InputContract:
    return InputContract(
        bands=tuple(Band(name=name) for name in ("red", "green", "blue")),
        dtype="uint8", mean=(90.0,) * 3, std=(40.0,) * 3, low=(0.0,) * 3, high=(255.0,) * 3,
    )  # fmt: skip


def backbone(config: ModelConfig, seed: int):
    return build_backbone(config, contract(), generator=torch.Generator().manual_seed(seed))


def network(config: ModelConfig, seed: int) -> Network:
    trunk = backbone(config, seed)
    heads = [ProjectionHead(trunk.dim, HEAD) for _ in range(2)]
    for number, head in enumerate(heads):
        head.init_weights(torch.Generator().manual_seed(seed + number + 1))
    if trunk.mask_token is not None:
        trunk.mask_token.requires_grad_(False)
    return Network(trunk, *heads)


def config_of(students: dict[str, ModelConfig], *overrides: str) -> DistillConfig:
    config = load_distill_recipe(
        "debug-distill",
        ["train.batch=4", "train.group=2", "phases.cooldown=null", "data.chip=96", *overrides],
    )
    return DistillConfig.parse(
        {
            **config.model_dump(),
            "model": TEACHER.model_dump(),
            "heads": {"dino": HEAD.model_dump(), "ibot": HEAD.model_dump()},
            "students": {name: model.model_dump() for name, model in students.items()},
        },
        source="test",
    )


def planner_of(config: DistillConfig):
    from geodino.pretrain.distill.plan import DistillPlanner

    steps = build_course(config).phase(0)
    return DistillPlanner(
        shared=build_planner(config, contract(), steps), students=config.students, masks=True
    )


def batch_of(config: DistillConfig, step: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(step)
    pixels = torch.randint(0, 255, (SAMPLES, 3, 96, 96), generator=generator, dtype=torch.uint8)
    valid = torch.ones(SAMPLES, 96, 96, dtype=torch.bool)
    plan = planner_of(config)(step, step * SAMPLES, valid.numpy())
    return Batch(step=step, first=step * SAMPLES, pixels=pixels, valid=valid, plan=plan)


class Alone(DistillModule):
    """A module whose optimisers are its own, so that steps can be done without a trainer."""

    def optimizers(self):  # what Lightning would hand out
        if not hasattr(self, "_made"):
            self._made = self.configure_optimizers()
        return self._made if len(self._made) > 1 else self._made[0]

    def manual_backward(self, loss):
        loss.backward()


def module_of(config: DistillConfig, kind: type = Alone) -> DistillModule:
    phase = config.phases.distill
    made = kind(
        network(TEACHER, 1),
        {name: network(model, 7) for name, model in config.students.items()},
        {name: network(model, 7) for name, model in config.students.items()},
        scales=scales(config),
        course=build_course(config),
        views=[MultiCrop(phase.views, contract())],
        lessons=[Objective(phase.objective, group=GROUP, masks_input=False)],
        optim=config.optim,
    )
    made.train()
    return made


def balanced(logits, iterations=3):
    q = torch.exp(logits / TEMP).T
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / q.shape[0]
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def pair_entropy(target, logits):
    return -(target * F.log_softmax(logits / 0.1, dim=-1)).sum()


def written_out(teacher, student, seen: Views, shown: Views, plan):
    """DINO over pairs of crops, iBOT over chosen patches, of a student that sees everything."""
    (asked,) = teacher.backbone([seen.globals])
    tokens = student.backbone(shown.sets, draws=plan.encode)
    target = balanced(teacher.dino_head(asked.cls))
    crops = torch.cat([student.dino_head(of_set.cls) for of_set in tokens]).split(SAMPLES)
    pairs = [
        pair_entropy(target[t * SAMPLES + i], crop[i])
        for number, crop in enumerate(crops)
        for t in range(GLOBALS)
        if number != t
        for i in range(SAMPLES)
    ]
    masks = plan.masks.masks
    wanted = balanced(teacher.ibot_head(asked.patches[masks]))
    logits = student.ibot_head(tokens[0].patches[masks])
    shares = torch.cat([torch.full((n,), 1 / n) for n in masks.sum(1).tolist() if n])
    each = [s * pair_entropy(w, x) for s, w, x in zip(shares, wanted, logits, strict=True)]
    spread = 0.0
    for group in F.normalize(tokens[0].cls, dim=-1).split(GROUP):
        distance = torch.cdist(group, group) + 10 * torch.eye(GROUP)
        spread -= torch.log(distance.amin(1) + 1e-8).mean() / (SAMPLES // GROUP)
    return {
        "dino": torch.stack(pairs).mean(),
        "ibot": torch.stack(each).sum() / len(masks),
        "koleo": spread,
    }


def test_the_losses_of_a_step_are_their_equations_for_every_stride():
    config = config_of(STUDENTS)
    module, batch = module_of(config), batch_of(config)
    fresh = module_of(config)  # what the students are before the step
    module.training_step(batch, 0)
    (row,) = module.measurements.take(lambda table: table)
    views_of, plan = module.views[0], batch.plan
    seen = views_of(batch.pixels, batch.valid, plan.views)
    with torch.no_grad():
        for name, scale in {"vit": 1.0, "cnn": 4.0, "resnet": 4.0}.items():
            own = plan.of(name, scale=scale)
            shown = views_of(batch.pixels, batch.valid, own.views)
            assert shown.globals.shape[-1] == 32 * scale
            assert shown.locals.shape[-1] == 16 * scale
            wanted = written_out(module.teacher, fresh.students[name], seen, shown, own)
            for term, value in wanted.items():
                assert row[f"loss/{name}/{term}"] == pytest.approx(float(value), abs=2e-5), term
    total = np.mean([row[f"loss/{name}/total"] for name in STUDENTS])
    assert row["loss/total"] == pytest.approx(total, rel=1e-6)


def test_the_teacher_runs_once_a_step_for_all_students():
    config = config_of(STUDENTS)
    module = module_of(config)
    calls = []
    module.teacher.backbone.register_forward_hook(lambda *_: calls.append("teacher"))
    for name, student in module.students.items():
        student.backbone.register_forward_hook(lambda *_, name=name: calls.append(name))
    for step in range(2):
        module.training_step(batch_of(config, step), step)
    assert calls == ["teacher", "vit", "cnn", "resnet"] * 2


def test_a_student_learns_the_same_alone_and_beside_others():
    together, alone = config_of(STUDENTS), config_of({"cnn": STUDENTS["cnn"]})
    modules = []
    for config in (together, alone):
        module = module_of(config)
        for step in range(2):
            module.training_step(batch_of(config, step), step)
        modules.append(module)
    for a, b in zip(
        modules[0].students["cnn"].parameters(),
        modules[1].students["cnn"].parameters(),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_averages_follow_their_students_and_the_teacher_stays_and_is_not_saved():
    config = config_of(STUDENTS, "phases.distill.momentum={peak: 0.75}",
                       "phases.distill.lr={peak: 0.01, warmup: 0}")  # fmt: skip
    module = module_of(config)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    taught = {k: v.clone() for k, v in module.teacher.state_dict().items()}
    module.training_step(batch_of(config), 0)
    after = module.state_dict()
    assert not any(key.startswith("teacher") for key in after)
    assert all(torch.equal(v, taught[k]) for k, v in module.teacher.state_dict().items())
    moved = 0
    for key, value in after.items():
        if not key.startswith("averages.") or not value.is_floating_point():
            continue
        student = after[f"students.{key.removeprefix('averages.')}"]
        torch.testing.assert_close(value, 0.75 * before[key] + 0.25 * student, atol=1e-6, rtol=1e-5)
        moved += int(not torch.equal(value, before[key]))
    assert moved > 100
    assert any("running_mean" in key for key in after)


def test_a_step_without_finite_gradients_leaves_weights_averages_and_statistics_alone():
    config = config_of({"resnet": STUDENTS["resnet"]})
    module = module_of(config)
    before = {k: v.clone() for k, v in module.state_dict().items()}
    batch = batch_of(config)
    module.views[0].mean.fill_(float("nan"))
    module.views[0]._to_mean.fill_(float("nan"))
    module.training_step(batch, 0)
    (row,) = module.measurements.take(lambda table: table)
    assert row["skipped/resnet"] == 1.0
    for key, value in module.state_dict().items():
        counts = "num_batches_tracked" in key or key.startswith("skipped")
        assert counts or torch.equal(value, before[key]), key


def test_the_teacher_moves_with_the_module():
    module = module_of(config_of({"vit": STUDENTS["vit"]}))
    module.double()
    assert {p.dtype for p in module.teacher.parameters()} == {torch.float64}


def test_student_and_teacher_look_at_the_same_ground_token_by_token():
    # A picture that knows where it is: one band holds the row of each pixel, the other its column.
    rows, columns = np.mgrid[0:256, 0:256].astype(np.float32)
    pixels = torch.from_numpy(np.stack([rows, columns]))[None].repeat(3, 1, 1, 1)
    valid = torch.ones(3, 256, 256, dtype=torch.bool)
    maps = InputContract(
        bands=(Band(name="row"), Band(name="column")), dtype="float32", mean=(0.0,) * 2,
        std=(1.0,) * 2, low=(0.0,) * 2, high=(256.0,) * 2,
    )  # fmt: skip
    views = ViewsConfig(global_size=64, local_size=32, local_count=2, turns=True,
                        flip_horizontal=0.5, interpolation="bilinear", blur="none")  # fmt: skip
    plan = draw_views(views, seed=1, first=0, valid=valid.numpy(), rgb=False, bands=2)
    crop = MultiCrop(views, maps)
    teacher = crop(pixels, valid, plan, with_locals=False)
    student = crop(pixels, valid, replace(plan, sizes=plan.sizes.scaled(2.0)))
    assert teacher.locals.shape[0] == 0
    assert student.globals.shape[-2:] == (128, 128)
    # Patches of 16 and of 32 pixels: four by four tokens each, centred on the same ground.
    a, b = F.avg_pool2d(teacher.globals, 16), F.avg_pool2d(student.globals, 32)
    assert a.shape == b.shape == (6, 2, 4, 4)
    assert float((a - b).abs().max()) < 0.5  # pixels of the source; a token covers 8 at least
    assert float((a - a.roll(1, 3)).abs().amax(1).min()) > 4  # a shift by one token would show


def test_a_larger_crop_shows_the_same_picture_distortions_included():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(4, 3, 12, 12, generator=generator) * 255
    pixels = F.interpolate(coarse, size=(192, 192), mode="bicubic").clamp(0, 255).to(torch.uint8)
    valid = torch.ones(4, 192, 192, dtype=torch.bool)
    views = ViewsConfig(global_size=48, local_size=16, local_count=0, turns=True, blur_sigma=(1, 2))
    plan = draw_views(views, seed=3, first=0, valid=valid.numpy(), rgb=True)
    crop = MultiCrop(views, contract())
    small = crop(pixels, valid, plan).globals
    large = crop(pixels, valid, replace(plan, sizes=plan.sizes.scaled(2.0))).globals
    unscaled = crop(pixels, valid, replace(plan, sizes=CropSizes(globals=96, locals=16))).globals

    def apart(other):
        """Of the crops that are not solarised, whose edges differ by what resizing blurs."""
        shrunk = F.interpolate(other, size=(48, 48), mode="bilinear", antialias=True)
        kept = ~plan.solarised[:2].flatten()
        return float((shrunk - small)[kept].abs().mean())

    assert apart(large) < 0.03  # standard deviations
    assert apart(large) < 0.8 * apart(unscaled)  # whose blur is half as wide on the ground


def test_features_are_compared_as_their_definition_reads():
    teacher = Headless(backbone(TEACHER, 1)).eval()
    student = Imitator(backbone(STUDENTS["vit"], 7), teacher_dim=TEACHER.width)
    student.init_weights(torch.Generator().manual_seed(1))
    views = Views(globals=torch.randn(8, 3, 32, 32), locals=torch.empty(0, 3, 16, 16))
    config = config_of({"vit": STUDENTS["vit"]}, "phases.distill.views.local_count=0")
    plan = batch_of(config).plan.of("vit")
    lesson = FeatureObjective(FeaturesConfig(), ObjectiveConfig(), group=GROUP)
    targets = lesson.targets(teacher, views, plan, teacher_temp=0.07)
    found = lesson(student, views, plan, targets)
    (mine,) = student.backbone([views.globals], draws=plan.encode)
    (theirs,) = teacher.backbone([views.globals])

    def normal(x):
        return (x - x.mean(-1, keepdim=True)) / (
            x.var(-1, keepdim=True, correction=0) + 1e-5
        ) ** 0.5

    def cosines(x, y):
        return (x * y).sum(-1) / (x.norm(dim=-1) * y.norm(dim=-1))

    cls = (1 - cosines(student.cls_projection(mine.cls), normal(theirs.cls))).mean()
    ours, wanted = student.patch_projection(mine.patches), normal(theirs.patches)
    gap = (ours - wanted).abs()
    direct = torch.where(gap < 1, 0.5 * gap**2, gap - 0.5).mean()
    patches = 0.9 * (1 - cosines(ours, wanted)).mean() + 0.1 * direct
    torch.testing.assert_close(found["cls"], cls)
    torch.testing.assert_close(found["patches"], patches)
    total = cls + patches + 0.1 * found["koleo"]
    torch.testing.assert_close(found["total"], total)


def test_a_follower_keeps_batch_statistics_of_its_own_pace():
    student, average = torch.nn.BatchNorm2d(1), torch.nn.BatchNorm2d(1)
    follower = Follower(student, average)
    follower.remember()
    student(torch.full((2, 1, 2, 2), 10.0))  # running mean 0 -> 1
    follower(0.75, torch.zeros(()))
    assert float(student.running_mean) == 1.0
    assert float(average.running_mean) == 0.25
