"""From a configuration to objects: the one place that knows everything."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from geodino import seeds
from geodino.data.batch import Batch
from geodino.data.cuts import shapes_of
from geodino.data.dates import Companions, companions
from geodino.data.fit import FittedReader
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.mixture import Mixture, mixture_of
from geodino.data.order import Order, OrderConfig
from geodino.data.parallel import thread_count
from geodino.data.tiles import TileIndex, TileReader
from geodino.data.views import MultiCrop
from geodino.errors import RecipeError
from geodino.geo.bands import rgb_indices
from geodino.geo.contract import InputContract
from geodino.io.raster import HandlePool
from geodino.models.backbone import Backbone
from geodino.pretrain.course import Course, PhaseSteps, choices_of, same_memory_batch
from geodino.pretrain.health import DenseHealth
from geodino.pretrain.module import PretrainModule
from geodino.pretrain.objective import Network, Objective
from geodino.pretrain.phases import PhaseConfig, SizesConfig
from geodino.pretrain.plan import Planner
from geodino.pretrain.watch import Watch
from geodino.runs.gram_teacher import assemble_gram_teacher, build_gram_teacher
from geodino.runs.networks import assemble_network, build_network, sharding_of
from geodino.runs.recipe import RunConfig, TrainingConfig


def build_module(
    config: RunConfig,
    contract: InputContract,
    course: Course,
    *,
    shard_on: torch.device | None = None,
    begin: Callable[[Network], None] | None = None,
) -> PretrainModule:
    """Build everything a step needs.

    Args:
        config: of the run.
        contract: bands and statistics.
        course: the phases.
        shard_on: kind of device whose processes share the networks, which take no memory until
            Lightning has started them; None builds them whole, on the CPU.
        begin: gives the student other weights than those of ``train.seed``; the teachers follow.
    """
    phases = [phase for _, phase in config.phases.active()]
    if shard_on is not None:
        student, teacher = (assemble_network(config, contract) for _ in range(2))
        gram_teacher, given = assemble_gram_teacher(config, contract)
    else:
        student, teacher = (build_network(config, contract) for _ in range(2))
        if begin is not None:
            begin(student)
        gram_teacher, given = build_gram_teacher(config, contract)
    return PretrainModule(
        student,
        teacher,
        gram_teacher,
        course=course,
        views=[MultiCrop(phase.views, contract) for phase in phases],
        objectives=[
            Objective(phase.objective, group=config.train.group, gram=phase.gram)
            for phase in phases
        ],
        optim=config.optim,
        gram_weights_given=given,
        sharding=None if shard_on is None else sharding_of(config, contract, shard_on, begin),
    )


def compile_blocks(module: nn.Module) -> None:
    """Compile each transformer block of all networks on its first call; names stay the same."""
    for backbone in module.modules():
        if isinstance(backbone, Backbone):
            for block in getattr(backbone.trunk, "blocks", ()):
                block.compile(dynamic=False)


def build_course(config: TrainingConfig, ends: Sequence[int] = ()) -> Course:
    """Build what says which phase, crop sizes and samples every step has.

    Args:
        config: with a resolved batch.
        ends: where the phases end, where that is known from a checkpoint.
    """
    phases = config.phases.active()
    return Course(
        phases=tuple(phases),
        choices=tuple(
            choices_of(
                phase, stride=config.model.stride, batch_of=batches_of(config, phase, devices=1)
            )
            for _, phase in phases
        ),
        seed=config.train.seed,
        ends=list(ends),
    )


def batches_of(config: TrainingConfig, phase: PhaseConfig, *, devices: int) -> list[int]:
    """Return the samples of a global batch for each choice of crop sizes of a phase.

    What is left to us has as many pixels as a batch of the first phase, in groups for all devices.
    """
    first = config.phases.first
    like, batch = first.choices[0], whole_batch(config)
    return [
        sizes.batch
        if sizes.batch != "auto"
        else batch
        if _same_crops((phase, sizes), (first, like))
        else same_memory_batch(
            (sizes, phase.views.local_count),
            like=(like, first.views.local_count),
            batch=batch,
            unit=config.train.group * devices,
        )
        for sizes in phase.choices
    ]


def _same_crops(a: tuple[PhaseConfig, SizesConfig], b: tuple[PhaseConfig, SizesConfig]) -> bool:
    sides = [
        (sizes.global_size, sizes.local_size, phase.views.local_count) for phase, sizes in (a, b)
    ]
    return sides[0] == sides[1]


def whole_batch(config: TrainingConfig) -> int:
    """Return the resolved global batch."""
    if config.train.batch == "auto":
        raise RecipeError("train.batch: auto is resolved on a GPU only; give a number.")
    return config.train.batch


def build_planner(config: TrainingConfig, contract: InputContract, steps: PhaseSteps) -> Planner:
    """Build what draws each step's random numbers in a phase."""
    return Planner(
        seed=config.train.seed,
        steps=steps,
        group=config.train.group,
        model=config.model,
        rgb=rgb_indices(contract.bands) is not None,
        bands=len(contract.bands),
        dates=config.data.dates,
    )


def build_order(
    config: TrainingConfig,
    index: TileIndex,
    *,
    seed: int,
    batch: int,
    chip: int,
    steps: PhaseSteps | None = None,
) -> Order | Mixture:
    """Build the order of samples over the tiles, or over the sources of a mix.

    Args:
        config: of the run.
        index: the tiles.
        seed: of the order.
        batch: samples of a global batch, where ``steps`` says nothing else.
        chip: edge of a chip, pixels.
        steps: of the phase that takes the samples; a mix counts them from its start on.
    """
    data = config.data
    of = OrderConfig(
        seed=seed,
        batch=batch,
        chip=chip,
        super_window=data.super_window,
        chips_per_window=data.chips_per_super_window,
        budget_bytes=data.memory_mb * 2**20 // data.dates,
    )
    if not index.members:
        return Order(shapes_of(index, chip=chip), of)
    return (
        mixture_of(index, of)
        if steps is None
        else mixture_of(index, of, span=steps.span, origin=(steps.start, steps.first_sample))
    )


def resolved_chip(config: TrainingConfig, phase: PhaseConfig | None = None) -> int:
    """Return the edge of a phase's chips in pixels, which a recorded recipe always holds.

    Args:
        config: of the run.
        phase: None for the first one.
    """
    of = config.phases.first if phase is None else phase
    chip = config.data.chip if of.chip == "auto" else of.chip
    if chip == "auto":
        raise RecipeError("data.chip: auto has not been resolved against a source.")
    return chip


class Feed:
    """The batches of one rank, and the threads and files behind them; close it when done."""

    def __init__(
        self,
        config: TrainingConfig,
        contract: InputContract,
        index: TileIndex,
        *,
        order: Order | Mixture,
        loader: LoaderConfig,
        rank: int = 0,
        world: int = 1,
        plan_of: Callable[..., Any] | None = None,
        span: Callable[[int], tuple[int, int]] | None = None,
        companions: Companions | None = None,
        on_bad: Callable[[int, str], None] | None = None,
    ) -> None:
        self._pool = HandlePool(config.data.max_open)
        reader = TileReader(index, self._pool, valid=config.data.valid, fill=contract.mean)
        self.loader = Loader(
            order,
            FittedReader(index, reader, order.config.chip),
            loader,
            rank=rank,
            world=world,
            plan_of=plan_of,
            span=span,
            companions=companions,
            on_bad=on_bad,
        )

    def batches(self, step: int, stop: int | None = None) -> Iterator[Batch]:
        """Yield batches from ``step`` on, up to before ``stop``."""
        return self.loader.batches(step, stop)

    def wait_s(self) -> float:
        """Return the seconds training waited for batches so far."""
        return self.loader.counts.wait_s

    def close(self) -> None:
        """Stop the threads and close the files."""
        self.loader.close()
        self._pool.close()


def build_companions(config: TrainingConfig, index: TileIndex) -> Companions | None:
    """Build what chooses the other dates of a sample; None where a sample has one date."""
    if config.data.dates == 1:
        return None
    chosen, _ = companions(index, config.data.dates, config.train.seed)
    return chosen


def loader_config(
    config: TrainingConfig, *, far: bool = False, pin_memory: bool = False
) -> LoaderConfig:
    """Return how batches are made; ``far``: of tiles behind a network."""
    data = config.data
    return LoaderConfig(
        min_valid=data.min_valid,
        threads=thread_count(data.threads, far=far),
        prefetch=data.prefetch,
        strict=data.strict,
        pin_memory=pin_memory,
    )


def build_health(
    config: TrainingConfig,
    contract: InputContract,
    index: TileIndex,
    *,
    sides: Mapping[str, int],
) -> dict[str, DenseHealth]:
    """Read the fixed probe chips and build what measures dense features on them.

    Args:
        config: how many chips.
        contract: how they are normalised.
        index: where they come from.
        sides: for each backbone that is watched, the side of its crops, pixels.
    """
    seed = seeds.integer(config.train.seed, "probe tiles") >> 1
    order = build_order(
        config, index, seed=seed, batch=config.health.tiles, chip=resolved_chip(config)
    )
    loader = loader_config(config, far=index.is_far)
    feed = Feed(config, contract, index, order=order, loader=loader)
    try:
        batch = next(feed.batches(0))
    finally:
        feed.close()
    return {
        name: DenseHealth.from_chips(
            batch.pixels, batch.valid, mean=contract.mean, std=contract.std, size=side
        )
        for name, side in sides.items()
    }


def build_watch(config: TrainingConfig) -> Watch:
    """Build what judges the health of dense features."""
    health, after = config.health, config.health.after
    if after == "auto":
        begins_trained = isinstance(config, RunConfig) and config.init is not None
        after = 0 if begins_trained else config.phases.first.steps // 10
    return Watch(
        figure=health.watch,
        tolerance=health.tolerance,
        patience=health.patience,
        after=after,
    )


def check_sizes(config: TrainingConfig) -> None:
    """Check what concerns two owners at once.

    Raises:
        RecipeError: crops that do not divide into patches, crops for a Gram teacher that is not
            there, or Gram anchoring of masked patches where nothing is masked.
    """
    stride = config.model.stride
    for phase_name, phase in config.phases.active():
        where = f"phases.{phase_name}.{'sizes' if phase.sizes else 'views'}"
        for sizes in phase.choices:
            if sizes.gram_size is not None and phase.gram is None:
                raise RecipeError(
                    f"{where}.gram_size: {sizes.gram_size} pixels are for a Gram teacher, and "
                    f"phases.{phase_name}.gram is not there; leave gram_size out, or add gram."
                )
            for name in ("global_size", "local_size", "gram_size"):
                size = getattr(sizes, name) or stride
                if size % stride:
                    nearest = max(round(size / stride), 1) * stride
                    raise RecipeError(
                        f"{where}.{name}: {size} pixels do not divide into patches of "
                        f"{stride} (model.patch_size); the nearest size is {nearest}."
                    )
        if phase.gram and phase.gram.patches != "all" and phase.objective.ibot == 0:
            raise RecipeError(
                f"phases.{phase_name}.gram.patches: nothing is masked while objective.ibot is 0; "
                "set it to all, or give iBOT a weight."
            )
