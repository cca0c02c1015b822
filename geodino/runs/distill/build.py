"""From a prepared distillation to the networks that learn."""

from geodino.data.views import MultiCrop
from geodino.models.build import build_backbone
from geodino.models.heads import ProjectionHead
from geodino.models.sizes import RopeConfig
from geodino.pretrain.course import Course, PhaseSteps
from geodino.pretrain.distill.features import FeatureObjective, Headless, Imitator
from geodino.pretrain.distill.module import DistillModule, Lesson, Student
from geodino.pretrain.distill.plan import DistillPlanner
from geodino.pretrain.objective import Network, Objective
from geodino.pretrain.phases import PhaseConfig
from geodino.runs.build import build_planner
from geodino.runs.distill.prepare import PreparedDistillation
from geodino.runs.distill.students import scales
from geodino.runs.networks import seeded_generator, uses_ibot


def build_distill_module(prepared: PreparedDistillation, course: Course) -> DistillModule:
    """Build everything a step needs, on the CPU."""
    config = prepared.config
    phases = [phase for _, phase in config.phases.active()]
    return DistillModule(
        build_teacher(prepared),
        {name: build_student(prepared, name) for name in config.students},
        {name: build_student(prepared, name) for name in config.students},
        scales=scales(config),
        course=course,
        views=[MultiCrop(phase.views, prepared.contract) for phase in phases],
        lessons=[_lesson(prepared, phase) for phase in phases],
        optim=config.optim,
    )


def build_teacher(prepared: PreparedDistillation) -> Network | Headless:
    """Return the teacher's networks: with its heads where they give the targets."""
    loaded = prepared.teacher.loaded
    if prepared.config.distill.targets == "features":
        return Headless(loaded.backbone)
    return Network(loaded.backbone, loaded.heads["dino"], loaded.heads.get("ibot"))


def build_student(prepared: PreparedDistillation, name: str) -> Student:
    """Build a student with fresh weights; they depend on ``train.seed`` and its name alone."""
    config = prepared.config
    seed = config.train.seed
    backbone = build_backbone(
        config.students[name],
        prepared.contract,
        generator=seeded_generator(seed, f"student {name}: backbone"),
    )
    # Its input is never masked: no gradient reaches the token.
    if backbone.mask_token is not None:
        backbone.mask_token.requires_grad_(False)
    if config.distill.targets == "features":
        imitator = Imitator(backbone, teacher_dim=config.model.width)
        imitator.init_weights(seeded_generator(seed, f"student {name}: projections"))
        return imitator
    heads = []
    for kind in ("dino", "ibot") if uses_ibot(config) else ("dino",):
        head = ProjectionHead(backbone.dim, getattr(config.heads, kind))
        head.init_weights(seeded_generator(seed, f"student {name}: {kind}"))
        heads.append(head)
    return Network(backbone, heads[0], heads[1] if len(heads) > 1 else None)


def build_distill_planner(prepared: PreparedDistillation, steps: PhaseSteps) -> DistillPlanner:
    """Build what draws each step's random numbers in a phase."""
    config = prepared.config
    still = RopeConfig(base=config.model.rope.base, shift=0.0, jitter=1.0, rescale=1.0)
    model = config.model.model_copy(update={"drop_path": 0.0, "rope": still})
    shared = build_planner(config.model_copy(update={"model": model}), prepared.contract, steps)
    return DistillPlanner(
        shared=shared, students=config.students, masks=steps.config.objective.ibot > 0
    )


def _lesson(prepared: PreparedDistillation, phase: PhaseConfig) -> Lesson:
    config = prepared.config
    group = config.train.group
    if config.distill.targets == "features":
        return FeatureObjective(config.distill.features, phase.objective, group=group)
    return Objective(phase.objective, group=group, masks_input=False)
