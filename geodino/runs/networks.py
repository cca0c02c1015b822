"""The networks of a run: whole in one process, or spread over many; the same weights either way."""

from collections.abc import Callable

import torch

from geodino import seeds
from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.build import assemble
from geodino.models.heads import ProjectionHead
from geodino.models.init import initialise
from geodino.models.shards import take
from geodino.pretrain.objective import Network
from geodino.pretrain.sharding import Sharding
from geodino.runs.device import compute_type
from geodino.runs.finetune.config import FinetuneConfig
from geodino.runs.gram_teacher import checked_gram_teacher, gram_model
from geodino.runs.recipe import RunConfig, TrainingConfig


def build_network(config: RunConfig, contract: InputContract, *, device: str = "cpu") -> Network:
    """Build backbone and heads with fresh weights; they depend on ``train.seed`` alone."""
    network = assemble_network(config, contract).to_empty(device=device)
    initialise_network(network, config)
    return network


def assemble_network(config: RunConfig, contract: InputContract) -> Network:
    """Build backbone and heads on the meta device: names and shapes, no memory."""
    backbone = assemble(config.model, mean=contract.mean, std=contract.std)
    ibot = uses_ibot(config)
    if not ibot and backbone.mask_token is not None:
        backbone.mask_token.requires_grad_(False)
    return Network(
        backbone,
        ProjectionHead(backbone.dim, config.heads.dino, device="meta"),
        ProjectionHead(backbone.dim, config.heads.ibot, device="meta") if ibot else None,
    )


def initialise_network(network: Network, config: RunConfig) -> None:
    """Give a network the weights of ``train.seed``, however many processes it is spread over."""
    seed = config.train.seed
    initialise(network.backbone, generator=seeded_generator(seed, "backbone"))
    network.dino_head.init_weights(seeded_generator(seed, "dino_head"))
    if network.ibot_head is not None:
        network.ibot_head.init_weights(seeded_generator(seed, "ibot_head"))


def uses_ibot(config: TrainingConfig) -> bool:
    """Whether any phase has an iBOT term, so that its head is built."""
    return any(phase.objective.ibot > 0 for _, phase in config.phases.active())


def sharding_of(
    config: RunConfig,
    contract: InputContract,
    device: torch.device,
    begin: Callable[[Network], None] | None,
) -> Sharding:
    """Return how the networks are spread over processes, and how they get their weights."""

    def first_values(student: Network, gram_teacher: Backbone | None) -> None:
        initialise_network(student, config)
        if begin is not None:
            begin(student)
        named = gram_model(config)
        if gram_teacher is not None and named is not None:
            take(gram_teacher, checked_gram_teacher(config, contract, named).backbone.state_dict())

    return Sharding(bfloat16=computes_in_bfloat16(config, device), initialise=first_values)


def computes_in_bfloat16(config: TrainingConfig | FinetuneConfig, device: torch.device) -> bool:
    """Whether matrices are multiplied in bfloat16 on ``device``."""
    return compute_type(config.train.precision, device) == torch.bfloat16


def seeded_generator(seed: int, name: str) -> torch.Generator:
    """Return a generator for initial weights that belongs to the key (seed, name)."""
    return torch.Generator().manual_seed(seeds.integer(seed, name) >> 1)
