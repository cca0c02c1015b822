"""The run card of a distillation."""

from pathlib import Path

from geodino.models.sizes import ModelConfig
from geodino.pretrain.phases import PhaseConfig
from geodino.runs.build import build_course, whole_batch
from geodino.runs.card import (
    RunCard,
    card_of,
    forward_flops,
    head_flops,
    parameters_of,
)
from geodino.runs.distill.prepare import PreparedDistillation
from geodino.runs.distill.students import scales
from geodino.runs.memory import KEPT_BY_A_BLOCK, in_words
from geodino.runs.networks import uses_ibot
from geodino.runs.processes import Processes
from geodino.runs.recipe import DistillConfig


def distill_card(prepared: PreparedDistillation, *, processes: Processes, out: Path) -> RunCard:
    """Describe a distillation before it starts."""
    config, contract = prepared.config, prepared.contract
    course = build_course(config)
    sizes = {
        name: parameters_of(config, model, contract) for name, model in config.students.items()
    }
    teacher_size = sum(p.numel() for p in prepared.teacher.loaded.backbone.parameters())
    flops = flops_per_image(prepared, config.phases.first)
    teacher = teacher_flops(prepared, config.phases.first)
    first = config.phases.first
    lines = {
        "teacher": f"{prepared.teacher.settings.name} ({config.model.name}, patch "
        f"{config.model.stride}, {teacher_size / 1e6:.1f} M parameters), targets: "
        f"{config.distill.targets}; {100 * teacher / flops:.0f} % of the work",
    }
    for name, model in config.students.items():
        side = round(first.views.global_size * scales(config)[name])
        lines[f"student {name}"] = (
            f"{model.name}, patch {model.stride}, crops of {side} px, {sizes[name] / 1e6:.1f} M "
            "parameters with heads"
        )
    memory = round(_memory_bytes(config, sizes, teacher_size, processes.world))
    work = sum(
        phase.steps * whole_batch(config) * flops_per_image(prepared, phase)
        for _, phase in config.phases.active()
    )
    return card_of(
        prepared,
        course,
        learns=lines,
        flops_per_image=flops,
        work=work,
        shared={} if processes.world == 1 else {"strategy": "replicas: each holds all students"},
        memory={"memory": f"about {in_words(memory)} a device"},
        facts={"parameters": sum(sizes.values()), "memory_bytes": {"total": memory}},
        processes=processes,
        out=out,
    )


def flops_per_image(prepared: PreparedDistillation, phase: PhaseConfig) -> float:
    """Return the floating-point operations of one step for one sample: teacher and all students."""
    students = (student_flops(prepared, name, phase) for name in prepared.config.students)
    return teacher_flops(prepared, phase) + sum(students)


def teacher_flops(prepared: PreparedDistillation, phase: PhaseConfig) -> float:
    """Return what the teacher's part of a step costs for one sample: two global crops."""
    config = prepared.config
    both = 2 * forward_flops(config.model, prepared.contract, phase.views.global_size)
    if config.distill.targets == "features":
        return both
    width = config.model.width
    dino = 2 * head_flops(config.heads.dino, width)
    ibot = _masked(config, phase) * head_flops(config.heads.ibot, width)
    return both + dino + ibot


def student_flops(prepared: PreparedDistillation, name: str, phase: PhaseConfig) -> float:
    """Return what one student's part of a step costs for one sample, forward and backward."""
    config = prepared.config
    model = config.students[name]
    by, views = scales(config)[name], phase.views
    trunk = 2 * _forward(prepared, model, views.global_size * by)
    if views.local_count:
        trunk += views.local_count * _forward(prepared, model, views.local_size * by)
    trunk *= 1 - model.drop_path
    if config.distill.targets == "features":
        tokens = 2 * (1 + (views.global_size // config.model.stride) ** 2)
        return 3 * (trunk + tokens * 2 * model.width * config.model.width)
    dino = (2 + views.local_count) * head_flops(config.heads.dino, model.width)
    ibot = _masked(config, phase) * head_flops(config.heads.ibot, model.width)
    return 3 * (trunk + dino + ibot)


def _forward(prepared: PreparedDistillation, model: ModelConfig, side: float) -> float:
    return forward_flops(model, prepared.contract, round(side))


def _masked(config: DistillConfig, phase: PhaseConfig) -> float:
    """Masked patches of a sample, on average; 0 without iBOT."""
    if not uses_ibot(config) or phase.objective.ibot == 0:
        return 0.0
    masks = phase.objective.masks
    patches = (phase.views.global_size // config.model.stride) ** 2
    return 2 * patches * masks.probability * sum(masks.ratio) / 2


def _memory_bytes(
    config: DistillConfig, sizes: dict[str, int], teacher: int, devices: int
) -> float:
    """Teacher; every student, its average and moments; gradients and activations of the largest."""
    views = config.phases.first.views
    stride = config.model.stride
    samples = whole_batch(config) // devices
    tokens = samples * sum(
        count * ((size // stride) ** 2 + 5)
        for count, size in ((2, views.global_size), (views.local_count, views.local_size))
    )
    kind = 4 if config.train.precision == "float32" else 2
    largest = max(
        tokens
        * model.width
        * (1 if model.activation_checkpointing else max(model.blocks, 12))
        * KEPT_BY_A_BLOCK[kind]
        for model in config.students.values()
    )
    logits = 0.0
    if config.distill.targets == "heads":
        logits = 4.0 * samples * 2 * config.heads.dino.prototypes
    weights = teacher + 4 * sum(sizes.values()) + max(sizes.values())
    return 4.0 * weights + largest + logits
