"""Lightning's trainer, set up as a plain loop: geodino does its own saving, logging and talking."""

import logging
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.strategies import DDPStrategy

from geodino.errors import RunError
from geodino.runs.checkpoints import FileOrFolder
from geodino.runs.finetune.config import FinetuneConfig
from geodino.runs.networks import computes_in_bfloat16
from geodino.runs.processes import Processes, Strategy
from geodino.runs.recipe import TrainingConfig
from geodino.runs.sharded import ShardedStrategy

_NOT_FOR_USERS = (
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # lightning 2.6 with torch 2.13
    r".*module\(s\) in eval mode at the start of training.*",  # the teacher, on purpose
    r".*You have overridden `transfer_batch_to_device`.*",  # the module's is meant
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*returned a view tensor\. An in-place op on this view.*",  # nothing is changed in place
)


def build_trainer(
    config: TrainingConfig | FinetuneConfig,
    processes: Processes,
    strategy: Strategy,
    *,
    steps: int,
    callbacks: list[L.Callback],
    ddp: Callable[[], DDPStrategy],
) -> L.Trainer:
    """Return a trainer of ``steps`` steps for this process, one of ``processes``.

    Args:
        config: precision.
        processes: how many, on which devices.
        strategy: how they share the networks.
        steps: steps of the run.
        callbacks: what happens around the steps.
        ddp: makes what trains replicas together.

    Raises:
        RunError: SLURM started another number of tasks.
    """
    device, cuda = processes.device, processes.device.type == "cuda"
    one = processes.world == 1 and cuda and device.index is not None
    return L.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=[device.index] if one else processes.devices,
        num_nodes=processes.nodes,
        strategy=_strategy(strategy, processes, ddp),
        plugins=_plugins(strategy, processes),
        precision="bf16-mixed" if computes_in_bfloat16(config, device) else "32-true",
        max_steps=steps,
        max_epochs=-1,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )


def _strategy(strategy: Strategy, processes: Processes, ddp: Callable[[], DDPStrategy]) -> Any:
    if strategy == "fsdp":
        return ShardedStrategy(processes.world)
    if strategy == "ddp":
        return ddp()
    return "auto"


def _plugins(strategy: Strategy, processes: Processes) -> list[Any]:
    plugins: list[Any] = [] if strategy == "fsdp" else [FileOrFolder()]
    if SLURMEnvironment.detect():
        tasks = os.environ.get("SLURM_NTASKS", "1")
        if tasks != str(processes.world):
            raise RunError(
                f"SLURM started {tasks} task(s), but --devices {processes.devices} --nodes "
                f"{processes.nodes} ask for {processes.world}: give `srun` as many with "
                "--ntasks-per-node and --nodes."
            )
        # Signals are ours: Lightning's handler would save under another name and requeue the job.
        plugins.append(SLURMEnvironment(auto_requeue=False))
    return plugins


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Keep Lightning's hints and advertisements from the terminal while it works for us."""
    names = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero")
    before = {name: logging.getLogger(name).level for name in names}
    with warnings.catch_warnings():
        for message in _NOT_FOR_USERS:
            warnings.filterwarnings("ignore", message=message)
        try:
            for name in names:
                logging.getLogger(name).setLevel(logging.ERROR)
            yield
        finally:
            for name, level in before.items():
                logging.getLogger(name).setLevel(level)
