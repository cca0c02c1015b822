"""How many processes a run has, and how they share its networks."""

import os
from dataclasses import dataclass
from typing import Literal

import torch

from geodino.errors import RunError
from geodino.geo.contract import InputContract
from geodino.models.build import assemble
from geodino.runs.recipe import TrainingConfig

Wanted = Literal["auto", "ddp", "fsdp"]
Strategy = Literal["single", "ddp", "fsdp"]

_MOST_FOR_DDP = 500e6
"""Parameters of a backbone that every process still holds whole, twice, with its moments: above
ViT-L (303 M) and ViT-L+ (404 M), below ViT-H+ (841 M)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Processes:
    """One process a device, on one machine or several."""

    device: torch.device
    """Kind of device; with an index where there is one process."""

    devices: int
    """Processes on each machine."""

    nodes: int = 1
    """Machines."""

    wanted: Wanted = "auto"
    """What the user asked for."""

    @property
    def world(self) -> int:
        """Processes in all."""
        return self.devices * self.nodes

    def strategy(self, config: TrainingConfig, contract: InputContract) -> tuple[Strategy, str]:
        """Return how the networks are shared, and why."""
        if self.wanted != "auto":
            return self.wanted, "as asked"
        if self.world == 1:
            return "single", "one device"
        backbone = assemble(config.model, mean=contract.mean, std=contract.std)
        parameters = sum(p.numel() for p in backbone.parameters())
        size = f"{parameters / 1e6:,.0f} M parameters in the backbone"
        if parameters > _MOST_FOR_DDP:
            return "fsdp", f"{size}, more than {_MOST_FOR_DDP / 1e6:.0f} M"
        return "ddp", f"{size}, at most {_MOST_FOR_DDP / 1e6:.0f} M"


def parse_wanted(strategy: str) -> Wanted:
    """Return a strategy's name.

    Raises:
        RunError: it is none.
    """
    if strategy == "auto":
        return "auto"
    if strategy == "ddp":
        return "ddp"
    if strategy == "fsdp":
        return "fsdp"
    raise RunError(f"--strategy {strategy}: expected auto, ddp or fsdp.")


def this_rank(devices: int) -> int:
    """Return this process's number before the processes know each other; 0 in a single one.

    Set by torchrun or SLURM; else by Lightning, which starts the processes of one machine.

    Args:
        devices: processes on each machine.
    """
    for name in ("RANK", "SLURM_PROCID"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    node, local = (int(os.environ.get(name) or 0) for name in ("NODE_RANK", "LOCAL_RANK"))
    return node * devices + local
