"""What a run needs of each device's memory, computed from shapes: nothing is allocated."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, fields

from torch import nn

from geodino.data.views_config import CropSizes
from geodino.geo.contract import InputContract
from geodino.pretrain.course import Course
from geodino.pretrain.phases import PhaseConfig
from geodino.pretrain.sharding import blocks_of
from geodino.runs.gram_teacher import needs_gram_teacher
from geodino.runs.networks import assemble_network
from geodino.runs.processes import Strategy
from geodino.runs.recipe import RunConfig

KEPT_BY_A_BLOCK = {4: 68, 2: 34}
"""Bytes per token and width that the backward pass keeps of a block, by the bytes of a number
(Korthikanti et al. 2022, "Reducing activation recomputation", equation 2 without the scores)."""

_FLOAT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class MemoryPlan:
    """Bytes on the device that holds most."""

    weights: int
    """Of the student."""
    gradients: int
    moments: int
    """Two of AdamW."""
    teacher: int
    gram_teacher: int
    gathered: int
    """What is whole for a moment where networks are spread: heads, what is outside the blocks, two
    blocks, a block's gradients."""
    activations: int
    """Of the student, for the backward pass."""
    scores: int
    """The teacher's assignments to the prototypes, and the gradients of the prototypes."""
    pixels: int
    """Chips and crops."""

    @property
    def total(self) -> int:
        """Bytes in all; the teacher's update needs room for the weights once more, between steps."""
        kept = self.weights + self.gradients + self.moments + self.teacher + self.gram_teacher
        step = self.gathered + self.activations + self.scores + self.pixels
        return kept + max(step, self.weights)

    def facts(self) -> dict[str, int]:
        """Return every part by name, and the total, in bytes."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"total": self.total}

    def lines(self) -> dict[str, str]:
        """Return lines for the run card."""
        kept = ("weights", "gradients", "moments", "teacher", "gram_teacher")
        step = ("gathered", "activations", "scores", "pixels")
        return {
            "memory": f"about {in_words(self.total)} a device",
            "memory kept": self._listed(kept),
            "memory of a step": self._listed(step),
        }

    def _listed(self, names: Iterable[str]) -> str:
        parts = [(name, getattr(self, name)) for name in names]
        return ", ".join(f"{name.replace('_', ' ')} {in_words(n)}" for name, n in parts if n)


def in_words(count: int) -> str:
    """Return bytes with three digits and a unit."""
    unit, size = ("GiB", 2**30) if count >= 2**30 / 10 else ("MiB", 2**20)
    value = count / size
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.1f} {unit}"


def memory_plan(
    config: RunConfig,
    contract: InputContract,
    course: Course,
    *,
    world: int,
    strategy: Strategy,
    bfloat16: bool,
) -> MemoryPlan:
    """Plan the memory of the device that holds most, at the step that needs most.

    Args:
        config: of the run.
        contract: bands.
        course: crop sizes and samples of every phase.
        world: devices.
        strategy: whether each holds everything or a part.
        bfloat16: whether matrices are multiplied in bfloat16.
    """
    network = assemble_network(config, contract)
    ways = world if strategy == "fsdp" else 1
    weights = _FLOAT * held(network, ways)
    number = 2 if bfloat16 else _FLOAT
    backbone = _FLOAT * held(network.backbone, ways) if needs_gram_teacher(config) else 0
    steps = [
        (phase, choice.sizes, max(choice.batch // world, 1))
        for (_, phase), choices in zip(course.phases, course.choices, strict=True)
        for choice in choices
    ]
    residual = number if strategy == "fsdp" else _FLOAT
    return MemoryPlan(
        weights=weights,
        gradients=weights,
        moments=2 * weights,
        teacher=weights,
        gram_teacher=backbone,
        gathered=_gathered(network.parts(), number) if strategy == "fsdp" else 0,
        activations=max(_activations(config, *step, number, residual) for step in steps),
        scores=max(_scores(config, *step) for step in steps),
        pixels=max(_pixels(contract, *step) for step in steps),
    )


def held(module: nn.Module, ways: int) -> int:
    """Return how many numbers of a module's parameters the first of ``ways`` processes holds.

    A parameter is cut along its first axis; the first process has the largest part.
    """
    return sum(
        math.ceil(p.shape[0] / ways) * math.prod(p.shape[1:]) if ways > 1 else p.numel()
        for p in module.parameters()
    )


def _gathered(parts: Iterable[nn.Module], number: int) -> int:
    outside, largest = 0, 0
    for part in parts:
        blocks = [held(block, 1) for block in blocks_of(part)]
        outside += held(part, 1) - sum(blocks)
        largest = max([largest, *blocks])
    # Two blocks, so that one is on its way while another computes; gradients, also in float32.
    return number * (outside + 3 * largest) + _FLOAT * largest


def _activations(
    config: RunConfig,
    phase: PhaseConfig,
    sizes: CropSizes,
    samples: int,
    number: int,
    residual: int,
) -> int:
    model, views = config.model, phase.views
    tokens = samples * sum(
        count * ((size // model.stride) ** 2 + 5)
        for count, size in ((2, sizes.globals), (views.local_count, sizes.locals))
    )
    block = KEPT_BY_A_BLOCK[number]
    if model.activation_checkpointing:
        return tokens * model.width * (model.blocks * residual + block)
    return tokens * model.width * model.blocks * block


def _scores(config: RunConfig, phase: PhaseConfig, sizes: CropSizes, samples: int) -> int:
    heads, masks = config.heads, phase.objective.masks
    numbers = 2 * samples * heads.dino.prototypes + heads.dino.prototypes * heads.dino.bottleneck
    if phase.objective.ibot > 0:
        patches = (sizes.globals // config.model.stride) ** 2
        masked = math.ceil(2 * samples * patches * masks.probability * sum(masks.ratio) / 2)
        numbers += masked * heads.ibot.prototypes + heads.ibot.prototypes * heads.ibot.bottleneck
    return _FLOAT * numbers


def _pixels(contract: InputContract, phase: PhaseConfig, sizes: CropSizes, samples: int) -> int:
    crops = 2 * sizes.globals**2 + phase.views.local_count * sizes.locals**2
    crops += 2 * (sizes.gram or 0) ** 2
    return samples * len(contract.bands) * crops * _FLOAT
