"""Lightning's trainer, set up as a plain loop: geodino does its own saving, logging and talking."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import lightning as L
import torch

from geodino.runs.recipe import TrainingConfig

_NOT_FOR_USERS = (
    r".*`isinstance\(treespec, LeafSpec\)` is deprecated.*",  # lightning 2.6 with torch 2.13
    r".*module\(s\) in eval mode at the start of training.*",  # the teacher, on purpose
    r".*You have overridden `transfer_batch_to_device`.*",  # the module's is meant
    r".*Checkpoint directory .* exists and is not empty.*",
)


def build_trainer(
    config: TrainingConfig,
    device: torch.device,
    devices: int,
    *,
    steps: int,
    callbacks: list[L.Callback],
    strategy: Any = None,
) -> L.Trainer:
    """Return a trainer of ``steps`` steps on ``devices`` devices of the kind of ``device``.

    Args:
        config: precision.
        device: the kind of device.
        devices: how many.
        steps: steps of the run.
        callbacks: what happens around the steps.
        strategy: how several devices train together; None wraps the module in DDP.
    """
    cuda = device.type == "cuda"
    bf16 = config.train.precision == "bfloat16" or (config.train.precision == "auto" and cuda)
    if devices == 1:
        strategy = "auto"
    elif strategy is None:
        from lightning.pytorch.strategies import DDPStrategy

        # Buffers are constants here: broadcasting them every step would only cost time.
        strategy = DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)
    chosen: Any = [device.index] if cuda and devices == 1 and device.index is not None else devices
    return L.Trainer(
        accelerator="gpu" if cuda else "cpu",
        devices=chosen,
        strategy=strategy,
        precision="bf16-mixed" if bf16 else "32-true",
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
