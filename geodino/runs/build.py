"""From a configuration to objects: the one place that knows everything."""

from collections.abc import Callable, Iterator

import torch

from geodino import seeds
from geodino.data.batch import Batch
from geodino.data.cuts import shapes_of
from geodino.data.dates import Companions, companions
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.data.parallel import thread_count
from geodino.data.tiles import TileIndex, TileReader
from geodino.data.views import MultiCrop
from geodino.errors import RecipeError
from geodino.geo.bands import rgb_indices
from geodino.geo.contract import InputContract
from geodino.io.raster import HandlePool
from geodino.models.build import build_backbone
from geodino.models.heads import HeadConfig, ProjectionHead
from geodino.pretrain.health import DenseHealth
from geodino.pretrain.module import PretrainModule
from geodino.pretrain.objective import Network, Objective
from geodino.pretrain.plan import Planner
from geodino.runs.recipe import RunConfig


def build_network(config: RunConfig, contract: InputContract, *, device: str = "cpu") -> Network:
    """Build backbone and heads with fresh weights; they depend on ``train.seed`` alone."""
    seed = config.train.seed
    backbone = build_backbone(
        config.model, contract, generator=seeded_generator(seed, "backbone"), device=device
    )

    def head(name: str, settings: HeadConfig) -> ProjectionHead:
        built = ProjectionHead(backbone.dim, settings)
        built.init_weights(seeded_generator(seed, name))
        return built.to(device)

    ibot = config.phases.pretrain.objective.ibot > 0
    if not ibot and backbone.mask_token is not None:
        backbone.mask_token.requires_grad_(False)
    return Network(
        backbone,
        head("dino_head", config.heads.dino),
        head("ibot_head", config.heads.ibot) if ibot else None,
    )


def build_module(config: RunConfig, contract: InputContract) -> PretrainModule:
    """Build everything a step needs, on the CPU."""
    phase = config.phases.pretrain
    return PretrainModule(
        build_network(config, contract),
        build_network(config, contract),
        views=MultiCrop(phase.views, contract),
        objective=Objective(phase.objective, group=config.train.group),
        phase=phase,
        optim=config.optim,
        batch=whole_batch(config),
    )


def compile_blocks(module: PretrainModule) -> None:
    """Compile each transformer block of both networks on its first call; names stay the same."""
    for network in (module.student, module.teacher):
        for block in getattr(network.backbone.trunk, "blocks", ()):
            block.compile(dynamic=False)


def whole_batch(config: RunConfig) -> int:
    """Return the resolved global batch."""
    if config.train.batch == "auto":
        raise RecipeError("train.batch: auto is resolved on a GPU only; give a number.")
    return config.train.batch


def build_planner(config: RunConfig, contract: InputContract) -> Planner:
    """Build what draws each step's random numbers."""
    phase = config.phases.pretrain
    patches = phase.views.global_size // config.model.stride
    return Planner(
        seed=config.train.seed,
        batch=whole_batch(config),
        group=config.train.group,
        views=phase.views,
        masks=phase.objective.masks if phase.objective.ibot > 0 else None,
        model=config.model,
        grid=(patches, patches),
        rgb=rgb_indices(contract.bands) is not None,
        bands=len(contract.bands),
        dates=config.data.dates,
    )


def build_order(config: RunConfig, index: TileIndex, *, seed: int, batch: int) -> Order:
    """Build the order of samples over the tiles."""
    data = config.data
    return Order(
        shapes_of(index),
        OrderConfig(
            seed=seed,
            batch=batch,
            chip=resolved_chip(config),
            super_window=data.super_window,
            chips_per_window=data.chips_per_super_window,
            budget_bytes=data.memory_mb * 2**20 // data.dates,
        ),
    )


def resolved_chip(config: RunConfig) -> int:
    """Return the chip's edge in pixels, which a recorded recipe always holds."""
    if config.data.chip == "auto":
        raise RecipeError("data.chip: auto has not been resolved against a source.")
    return config.data.chip


class Feed:
    """The batches of one rank, and the threads and files behind them; close it when done."""

    def __init__(
        self,
        config: RunConfig,
        contract: InputContract,
        index: TileIndex,
        *,
        order: Order,
        loader: LoaderConfig,
        rank: int = 0,
        world: int = 1,
        plan_of: Planner | None = None,
        companions: Companions | None = None,
        on_bad: Callable[[int, str], None] | None = None,
    ) -> None:
        self._pool = HandlePool(config.data.max_open)
        reader = TileReader(index, self._pool, valid=config.data.valid, fill=contract.mean)
        self.loader = Loader(
            order,
            reader,
            loader,
            rank=rank,
            world=world,
            plan_of=plan_of,
            companions=companions,
            on_bad=on_bad,
        )

    def batches_from(self, step: int) -> Iterator[Batch]:
        """Yield batches from ``step`` on."""
        return self.loader.batches(step)

    def wait_s(self) -> float:
        """Return the seconds training waited for batches so far."""
        return self.loader.counts.wait_s

    def close(self) -> None:
        """Stop the threads and close the files."""
        self.loader.close()
        self._pool.close()


def build_companions(config: RunConfig, index: TileIndex) -> Companions | None:
    """Build what chooses the other dates of a sample; None where a sample has one date."""
    if config.data.dates == 1:
        return None
    chosen, _ = companions(index, config.data.dates, config.train.seed)
    return chosen


def loader_config(
    config: RunConfig, *, far: bool = False, pin_memory: bool = False
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


def build_health(config: RunConfig, contract: InputContract, index: TileIndex) -> DenseHealth:
    """Read the fixed probe chips and build what measures dense features on them."""
    seed = seeds.integer(config.train.seed, "probe tiles") >> 1
    order = build_order(config, index, seed=seed, batch=config.health.tiles)
    loader = loader_config(config, far=index.is_far)
    feed = Feed(config, contract, index, order=order, loader=loader)
    try:
        batch = next(feed.batches_from(0))
    finally:
        feed.close()
    size = config.phases.pretrain.views.global_size
    return DenseHealth.from_chips(
        batch.pixels, batch.valid, mean=contract.mean, std=contract.std, size=size
    )


def check_sizes(config: RunConfig) -> None:
    """Check what concerns two owners at once.

    Raises:
        RecipeError: crops that do not divide into patches, or groups that masks cannot share.
    """
    phase = config.phases.pretrain
    stride = config.model.stride
    for name in ("global_size", "local_size"):
        size = getattr(phase.views, name)
        if size % stride:
            nearest = max(round(size / stride), 1) * stride
            raise RecipeError(
                f"phases.pretrain.views.{name}: {size} pixels do not divide into patches of "
                f"{stride} (model.patch_size); the nearest size is {nearest}."
            )


def seeded_generator(seed: int, name: str) -> torch.Generator:
    """Return a generator for initial weights that belongs to the key (seed, name)."""
    return torch.Generator().manual_seed(seeds.integer(seed, name) >> 1)
