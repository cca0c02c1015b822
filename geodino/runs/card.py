"""The run card: what will happen, how long it takes and what it needs, before it happens."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from geodino.data.views_config import CropSizes
from geodino.geo.contract import InputContract
from geodino.models.build import assemble
from geodino.models.heads import HeadConfig
from geodino.models.sizes import ModelConfig
from geodino.pretrain.course import Course
from geodino.pretrain.phases import GramPhaseConfig, PhaseConfig
from geodino.runs.build import (
    build_course,
    build_order,
    resolved_chip,
    whole_batch,
)
from geodino.runs.memory import memory_plan
from geodino.runs.networks import uses_ibot
from geodino.runs.prepare import Prepared, PreparedTraining
from geodino.runs.processes import Processes
from geodino.runs.recipe import TrainingConfig

_EFFICIENCY = (0.25, 0.6)
"""Share of the measured matrix rate that a step reaches: small models and large ones."""


@dataclass(frozen=True, slots=True)
class RunCard:
    """The card as text for people and as facts for programs."""

    text: str
    facts: dict[str, Any]

    @classmethod
    def of(
        cls, lines: Mapping[str, str], *, notes: Sequence[str], facts: Mapping[str, Any]
    ) -> "RunCard":
        """Write lines under each other with their names in one column, then the notes."""
        width = max(map(len, lines))
        text = [f"  {name:<{width}}  {value}" for name, value in lines.items()]
        text += [f"  * {note}" for note in notes]
        return cls("\n".join(text), {**lines, **facts, "notes": list(notes)})


def run_card(prepared: Prepared, *, processes: Processes, out: Path) -> RunCard:
    """Describe a run of pretraining before it starts."""
    config, contract = prepared.config, prepared.contract
    course = build_course(config)
    parameters = parameters_of(config, config.model, contract)
    strategy, why = processes.strategy(config, contract)
    memory = memory_plan(
        config,
        contract,
        course,
        world=processes.world,
        strategy=strategy,
        bfloat16=config.train.precision != "float32",  # what runs of this size compute in
    )
    name = f"{config.model.name}, patch {config.model.stride}"
    return card_of(
        prepared,
        course,
        learns={"model": f"{name}, {parameters / 1e6:.1f} M parameters with heads"},
        shared={} if strategy == "single" else {"strategy": f"{strategy}: {why}"},
        flops_per_image=flops_per_image(config, contract, config.phases.first),
        work=sum(phase_flops(config, contract, course, n) for n in range(len(course.names))),
        memory=memory.lines(),
        facts={"parameters": parameters, "memory_bytes": memory.facts()},
        processes=processes,
        out=out,
    )


def card_of(
    prepared: PreparedTraining,
    course: Course,
    *,
    learns: Mapping[str, str],
    shared: Mapping[str, str],
    flops_per_image: float,
    work: float,
    memory: Mapping[str, str],
    facts: Mapping[str, Any],
    processes: Processes,
    out: Path,
) -> RunCard:
    """Lay out the card of a run.

    Args:
        prepared: the run.
        course: its phases.
        learns: lines about the networks.
        shared: lines about how processes share them.
        flops_per_image: floating-point operations of a step for one sample of the first phase.
        work: those of the whole run.
        memory: lines about what a device must hold.
        facts: what else programs are told.
        processes: where it computes.
        out: the run folder.
    """
    device, devices = processes.device, processes.world
    config, index, contract = prepared.config, prepared.index, prepared.contract
    batch = whole_batch(config)
    order = build_order(
        config, index, seed=config.train.seed, batch=batch, chip=resolved_chip(config)
    )
    fast, slow = duration_s(work / devices, device)
    share = contract.statistics.get("valid_all")
    gsd = "unknown GSD" if index.gsd_m is None else f"{_range(index.gsd_m)} m"
    samples = sum(_samples(course, number) for number in range(len(course.names)))
    sides = _range([side for t in index.tiles for side in (t.height, t.width)])
    lines = {
        "recipe": config.description,
        "tiles": f"{len(index.tiles)} of {sides} px, {index.dtype}, {gsd}, "
        f"{len([crs for crs in index.crs if crs]) or 'no'} CRS"
        + (f"; {order.too_small} smaller than a chip left out" if order.too_small else "")
        + (f"; {len(index.bad)} UNUSABLE" if index.bad else ""),
        "bands": ", ".join(band.name for band in index.bands),
        "valid": "all pixels" if share in (None, 1.0) else f"{100 * share:.1f} % of the pixels",
        **learns,
        **_phase_lines(config, course),
        "passes": f"{samples / order.samples_per_epoch:.1f} over {order.samples_per_epoch} chips",
        "device": _devices(processes),
        **shared,
        "time": f"about {_to(clock(fast), clock(slow))} "
        f"({flops_per_image / 1e9:.1f} GFLOP an image)",
        **memory,
        "out": str(out),
    }
    notes = [*index.rule.reasons, *index.notes]
    notes += [f"{key} = {d['value']}: {d['reason']}" for key, d in prepared.derived.items()]
    if order.samples_per_epoch < batch:
        notes.append(
            f"a pass has {order.samples_per_epoch} chips, fewer than a batch of {batch}: chips of one "
            "batch repeat each other, and nothing much can be learnt (name more ground)"
        )
    notes += [f"unusable: {reason}" for _, reason in index.bad[:5]]
    said = {
        "flops_per_image": flops_per_image,
        **facts,
        "tiles_unusable": len(index.bad),
        "recipe": config.model_dump(mode="json"),
    }
    return RunCard.of(lines, notes=notes, facts=said)


def _phase_lines(config: TrainingConfig, course: Course) -> dict[str, str]:
    """One line a phase: its steps, its crops and how many samples a step has."""
    lines = {}
    for (name, phase), choices in zip(course.phases, course.choices, strict=True):
        total = sum(choice.share for choice in choices)
        crops = []
        for choice in choices:
            sizes, count = choice.sizes, phase.views.local_count
            text = f"2 x {sizes.globals} px" + (f" + {count} x {sizes.locals} px" if count else "")
            text += f", Gram {sizes.gram} px" if sizes.gram else ""
            share = f" ({100 * choice.share / total:.0f} %)" if len(choices) > 1 else ""
            crops.append(f"{choice.batch} of {text}{share}")
        ends = " at most" if _may_end_early(config, name) else ""
        chip = resolved_chip(config, phase)
        lines[name] = f"{phase.steps} steps{ends}, {'; '.join(crops)}; chips of {chip} px"
    return lines


def _may_end_early(config: TrainingConfig, name: str) -> bool:
    phases = dict(config.phases.all())
    gram = phases.get("gram")
    waits = isinstance(gram, GramPhaseConfig) and gram.steps > 0 and gram.start == "auto"
    return name == "pretrain" and waits


def _samples(course: Course, number: int) -> float:
    """Samples of a phase, on average over the draws of its crop sizes."""
    choices = course.choices[number]
    shares = sum(choice.share for choice in choices)
    mean = sum(choice.batch * choice.share for choice in choices) / shares
    return mean * course.phases[number][1].steps


def phase_flops(
    config: TrainingConfig, contract: InputContract, course: Course, number: int
) -> float:
    """Return the floating-point operations of a phase, on average over its crop sizes."""
    _, phase = course.phases[number]
    choices = course.choices[number]
    shares = sum(choice.share for choice in choices)
    step = sum(
        choice.share * choice.batch * flops_per_image(config, contract, phase, choice.sizes)
        for choice in choices
    )
    return phase.steps * step / shares


def flops_per_image(
    config: TrainingConfig,
    contract: InputContract,
    phase: PhaseConfig,
    sizes: CropSizes | None = None,
) -> float:
    """Return the floating-point operations of one step for one sample, counted on the meta device.

    Student forward and backward (three times its forward, less what drop path leaves out), teacher
    forward, heads on CLS tokens and masked patches, the Gram teacher's forward.

    Args:
        config: model and heads.
        contract: bands.
        phase: losses and number of crops.
        sizes: sides of the crops; None takes those of the phase's views.
    """
    sizes = sizes or phase.views.sizes
    both = 2 * forward_flops(config.model, contract, sizes.globals)
    local = phase.views.local_count
    local_flops = local * forward_flops(config.model, contract, sizes.locals) if local else 0.0
    student = 3 * (1 - config.model.drop_path) * (both + local_flops)
    masks = phase.objective.masks
    patches = (sizes.globals // config.model.stride) ** 2
    masked = 2 * patches * masks.probability * sum(masks.ratio) / 2
    width = config.model.width
    # Each CLS token passes the student's head (3x) once; those of global crops the teacher's too.
    dino = (3 * (2 + phase.views.local_count) + 2) * head_flops(config.heads.dino, width)
    ibot = 4 * masked * head_flops(config.heads.ibot, width) if phase.objective.ibot > 0 else 0.0
    gram = 2 * forward_flops(config.model, contract, sizes.gram) if sizes.gram else 0.0
    return student + both + dino + ibot + gram


def forward_flops(model: ModelConfig, contract: InputContract, size: int) -> float:
    """Return the floating-point operations of one image through a backbone."""
    return _forward_flops(model, len(contract.bands), size)


@lru_cache(maxsize=256)
def _forward_flops(model: ModelConfig, bands: int, size: int) -> float:
    if model.family == "vit" and model.blocks > 2:
        # All blocks of a ViT cost the same: two are counted, however many there are.
        one, two = (
            _forward_flops(model.model_copy(update={"depth": n}), bands, size) for n in (1, 2)
        )
        return one + (model.blocks - 1) * (two - one)
    backbone = assemble(model, mean=(0.0,) * bands, std=(1.0,) * bands).eval()
    crop = torch.empty(1, bands, size, size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.trunk(crop)
    return float(counter.get_total_flops())


def head_flops(head: HeadConfig, width: int) -> float:
    """Return the floating-point operations of one token through a head."""
    inner = max(head.layers - 2, 0) * head.hidden**2
    return float(
        2
        * (
            width * head.hidden
            + inner
            + head.hidden * head.bottleneck
            + head.bottleneck * head.prototypes
        )
    )


def parameters_of(config: TrainingConfig, model: ModelConfig, contract: InputContract) -> int:
    """Return the number of weights of a backbone with the heads of the recipe."""
    backbone = assemble(model, mean=contract.mean, std=contract.std)
    heads = [config.heads.dino]
    if uses_ibot(config):
        heads.append(config.heads.ibot)
    trunk = sum(p.numel() for p in backbone.parameters())
    return trunk + sum(round(head_flops(head, backbone.dim) / 2) for head in heads)


def duration_s(flops: float, device: torch.device) -> tuple[float, float]:
    """Return the time at the high and the low end of what steps reach of the matrix rate."""
    rate = _matrix_rate(device)
    return flops / (rate * _EFFICIENCY[1]), flops / (rate * _EFFICIENCY[0])


def _matrix_rate(device: torch.device) -> float:
    """Measure floating-point operations a second of a matrix product; takes a fraction of a second."""
    cuda = device.type == "cuda"
    n, dtype = (8192, torch.bfloat16) if cuda else (1024, torch.float32)
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    best = 0.0
    for _ in range(4):
        began = time.perf_counter()
        product = a @ a
        float(product[0, 0])  # waits for the device
        best = max(best, 2 * n**3 / (time.perf_counter() - began))
    return best


def clock(seconds: float) -> str:
    """Return a length of time in the unit that suits it."""
    minutes = seconds / 60
    if minutes < 90:
        return f"{max(minutes, 1):.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 60 * 72 else f"{minutes / 1440:.0f} days"


def _range(values: Sequence[float | int]) -> str:
    low, high = float(min(values)), float(max(values))
    return _to(_number(low), _number(high))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _to(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _devices(processes: Processes) -> str:
    device = processes.device
    threads = "" if device.type == "cuda" else f", {torch.get_num_threads()} threads"
    machines = f" on each of {processes.nodes} machines" if processes.nodes > 1 else ""
    return f"{processes.devices} x {device}{machines}{threads}"
